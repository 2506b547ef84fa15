"""``s3mount-agent apply``: the configuration, put into force again."""

from __future__ import annotations

from s3mount_agent.doors import config_file, environment
from s3mount_agent.faces.telling import tell
from s3mount_agent.model.errors import AgentError, Exit, Problem

HELP = """\
usage: s3mount-agent apply

Brings the node to what /etc/s3mount-agent/config.yaml says, and mounts again what was taken down
by `s3mount-agent unmount`. Changes nothing that is as it should be."""


def main(arguments: list[str]) -> int:
    """0 if every mount is up, 1 if one is not."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(HELP)
        return Exit.OK
    if arguments:
        raise AgentError(Problem.USAGE, "apply takes no arguments")
    environment.load()
    configuration = config_file.load()

    from s3mount_agent.work import bootstrap

    bootstrap.check(configuration)
    errors = bootstrap.bootstrap(configuration)
    tell(errors)
    return Exit.FAILED if errors else Exit.OK
