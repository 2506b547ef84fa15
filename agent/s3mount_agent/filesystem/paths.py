"""The agent's own installation, as s3mount-bootstrap unpacks it."""

from __future__ import annotations

import os
from pathlib import Path

from s3mount_agent.filesystem import files

ROOT = Path("/opt/s3mount-agent")
COMMAND = str(ROOT / "current/bin/s3mount-agent")
LINK = Path("/usr/local/bin/s3mount-agent")
STATE = Path("/var/lib/s3mount-agent")
RUN = Path("/run/s3mount-agent")
# Where units are, in systemd's own order of precedence.
UNITS = (Path("/etc/systemd/system"), Path("/run/systemd/system"))
# Held by the daemon as long as it lives: there is never more than one.
DAEMON_LOCK = RUN / "daemon.lock"
CONFIGURATION = Path("/etc/s3mount-agent")
CONFIG = CONFIGURATION / "config.yaml"
AGENT_UNIT = "s3mount-agent.service"
# Where this very build lies; another one may be in force by now.
HOME = Path(__file__).parents[3]
_TEMPLATES = Path(__file__).parent.parent / "systemd"


def build() -> str:
    """What tells this installation from any other: the digest of what was unpacked."""
    return (files.read(HOME / "payload.sha256") or "none").strip()


def broken_command() -> str | None:
    """Why the command that hooks and services run cannot start as it was installed, or None if it
    can: its Python may have been removed since. Then another runs it, if there is one."""
    command = Path(COMMAND)
    try:
        with command.open(encoding="utf-8", errors="replace") as stream:
            python = stream.read(1000).partition("[ -x '")[2].partition("'")[0]
    except OSError as error:
        return f"{command} cannot be read: {error.strerror}"
    if python and os.access(python, os.X_OK):
        return None
    return f"{command} is to be run by {python}, which is not there any more"


def template(name: str) -> str:
    """The text of a file in ``systemd/``."""
    path = _TEMPLATES / name
    with files.told_plainly(f"read {path}"):
        return path.read_text(encoding="utf-8")
