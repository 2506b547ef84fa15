"""``s3mount-agent bootstrap``: what ParallelCluster calls once a node is configured."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TypeVar

from s3mount_agent.doors import environment, journal
from s3mount_agent.faces.telling import tell
from s3mount_agent.model.configuration import Configuration
from s3mount_agent.model.errors import AgentError, Exit, Problem
from s3mount_agent.model.mounts import parse_arguments
from s3mount_agent.model.roles import Mode, OnFailure, Role

HELP = """\
usage: s3mount-agent bootstrap [OPTIONS] BUCKET DIRECTORY MOUNT_OPTIONS [...]

Installs mount-s3 if it is missing, writes the configuration, mounts everything and starts the
service that keeps it so. Run again, it changes nothing that is as it should be.

  BUCKET         a bucket, an access point (alias or ARN), or s3://bucket/prefix/
  DIRECTORY      where to mount it, for example /mnt/s3
  MOUNT_OPTIONS  mount-s3's options in one word, for example "--allow-delete --allow-other"

options, before the first BUCKET:
  --role head|compute|login|standalone   what this node is (default: ParallelCluster's files)
  --mode systemd|direct                  who starts mount-s3 (default: direct on compute nodes)
  --on-failure fail|continue             what a mount that fails means for the exit code
                                         (default: continue on head and login nodes)
  --check                                check the arguments and this node, and change nothing"""

_Choice = TypeVar("_Choice", bound=Enum)


def main(arguments: list[str]) -> int:
    """Runs the bootstrap; a mount that fails is an exit code of 1 unless the node continues."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(HELP)
        return Exit.OK
    options, mounts = _split(arguments)
    configuration = Configuration(
        mounts=parse_arguments(mounts),
        role=_choice(Role, "--role", options),
        mode=_choice(Mode, "--mode", options),
        on_failure=_choice(OnFailure, "--on-failure", options),
    )
    environment.load()

    from s3mount_agent.work import bootstrap

    context = bootstrap.check(configuration)
    if "--check" in options:
        return Exit.OK
    errors = bootstrap.bootstrap(configuration)
    if not errors:
        return Exit.OK
    if context.conduct.on_failure is OnFailure.CONTINUE:
        for error in errors:
            for line in error.lines():
                journal.say(line)
        journal.say("the agent keeps trying: `s3mount-agent status` tells how it goes")
        return Exit.OK
    tell(errors)
    return Exit.FAILED


def _split(arguments: Sequence[str]) -> tuple[dict[str, str], Sequence[str]]:
    """Takes our own options off the front; mount options may look just like them."""
    options: dict[str, str] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("--"):
        name, equals, value = rest.pop(0).partition("=")
        if name not in ("--role", "--mode", "--on-failure", "--check"):
            raise AgentError(
                Problem.USAGE,
                f"bootstrap has no option {name!r}",
                hint="see `s3mount-agent bootstrap --help`; mount-s3's options are the third "
                "argument of each mount",
            )
        if name != "--check" and not equals:
            if not rest:
                raise AgentError(Problem.USAGE, f"the option {name} needs a value")
            value = rest.pop(0)
        options[name] = value
    return options, rest


def _choice(kind: type[_Choice], name: str, options: dict[str, str]) -> _Choice | None:
    if name not in options:
        return None
    try:
        return kind(options[name])
    except ValueError:
        known = ", ".join(str(each.value) for each in kind)
        raise AgentError(
            Problem.USAGE, f"{name} takes one of {known}, not {options[name]!r}"
        ) from None
