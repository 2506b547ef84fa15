"""``s3mount-agent validate``: checks a configuration file, on any computer and without AWS."""

from __future__ import annotations

from pathlib import Path

from s3mount_agent.commands.parser import Parser
from s3mount_agent.config import config_file
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.core.roles import Role
from s3mount_agent.system import files


def main(arguments: list[str]) -> int:
    """0 if the file is good, 2 if not."""
    parser = Parser(
        prog="s3mount-agent validate",
        description="Checks a configuration file and says what each kind of node will mount. "
        "Needs no AWS and no network.",
    )
    parser.add_argument("file", help="the configuration file")
    options = parser.parse_args(arguments)
    text = files.read(Path(options.file))
    if text is None:
        raise AgentError(Problem.USAGE, f"there is no file {options.file}")
    configuration = config_file.parse(text, options.file)
    queues = {queue for entry in configuration.entries for queue in entry.queues}
    print(f"{options.file} is good.")
    for role in (Role.HEAD, Role.COMPUTE, Role.LOGIN):
        for queue in sorted(queues) if queues and role is not Role.HEAD else [""]:
            where = f"{role.value} {queue}".strip()
            for mount in configuration.mounts(role, queue):
                access = "ro" if mount.read_only else "rw"
                print(f"  {where}: {mount.directory} <- s3://{mount.bucket}  {access}")
    return Exit.OK
