"""The door to /etc/s3mount-agent/environment: AWS settings and proxies for the agent and mount-s3.

systemd reads it for the units (EnvironmentFile= in systemd.exec(5)); this reads it the same way for
what is run by hand.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from s3mount_agent.doors import files

PATH = Path("/etc/s3mount-agent/environment")


def parse(text: str) -> dict[str, str]:
    """Reads ``NAME=value`` lines; values may be quoted, ``#`` and ``;`` begin comments."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if not equals or name[:1] in "#;":
            continue
        try:
            words = shlex.split(value)
        except ValueError:
            continue  # systemd ignores what it cannot read, too
        values[name.strip()] = " ".join(words)
    return values


def load(path: Path = PATH) -> None:
    """Puts the file's settings into this process's environment."""
    os.environ.update(parse(files.read(path) or ""))
