"""``s3mount-agent validate``: checks a configuration file, on any computer and without AWS."""

from __future__ import annotations

import sys
from pathlib import Path

from s3mount_agent.commands.parser import Given
from s3mount_agent.config import config_file
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.core.roles import Role
from s3mount_agent.system import files


def main(given: Given) -> int:
    """0 if all files are good, 2 if not."""
    for name in given.words:
        _validate(name)
    return Exit.OK


def _validate(name: str) -> None:
    text = sys.stdin.read() if name == "-" else files.read(Path(name))
    if text is None:
        raise AgentError(Problem.USAGE, f"there is no file {name}")
    configuration = config_file.parse(text, name)
    queues = {queue for entry in configuration.entries for queue in entry.queues}
    print(f"{name} is good.")
    for role in (Role.HEAD, Role.COMPUTE, Role.LOGIN):
        for queue in sorted(queues) if queues and role is not Role.HEAD else [""]:
            where = f"{role.value} {queue}".strip()
            for mount in configuration.mounts(role, queue):
                access = "ro" if mount.read_only else "rw"
                print(f"  {where}: {mount.directory} <- s3://{mount.bucket}  {access}")
