"""/etc/s3mount-agent/environment: AWS settings and proxies for the agent and mount-s3.

systemd reads it for the units (EnvironmentFile= in systemd.exec(5)); this reads it the same way for
what is run by hand.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from s3mount_agent.system import files

PATH = Path("/etc/s3mount-agent/environment")


def parse(text: str) -> dict[str, str]:
    """Reads ``NAME=value`` lines; values may be quoted, ``#`` and ``;`` begin comments."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if not equals or name[:1] in "#;":
            continue
        values[name.strip()] = _unquoted(value.strip())
    return values


def _unquoted(value: str) -> str:
    """Quotes count only around the whole value, and a backslash takes the next character as is."""
    if value[:1] == "'" == value[-1:] and len(value) > 1:
        return value[1:-1]
    if value[:1] == '"' == value[-1:] and len(value) > 1:
        return re.sub(r'\\(["\\`$])', r"\1", value[1:-1])
    return re.sub(r"\\(.)", r"\1", value)


def load(path: Path = PATH) -> None:
    """Puts the file's settings into this process's environment."""
    os.environ.update(parse(files.read(path) or ""))
