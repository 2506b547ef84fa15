"""``s3mount-agent bootstrap``: what ParallelCluster calls once a node is configured."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

from s3mount_agent.commands.output import tell
from s3mount_agent.config import environment
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.core.roles import Mode, OnFailure, Role
from s3mount_agent.system import journal, node

if TYPE_CHECKING:
    from s3mount_agent.reconcile.context import Context
    from s3mount_agent.reconcile.execute import Failures

HELP = """\
usage: s3mount-agent bootstrap [OPTIONS] BUCKET DIRECTORY MOUNT_OPTIONS [...]
       s3mount-agent bootstrap [OPTIONS] --config URL

Installs mount-s3 if it is missing, writes the configuration, mounts everything and starts the
service that keeps it so. Run again, it changes nothing that is as it should be.

  BUCKET         a bucket, an access point (alias or ARN), or s3://bucket/prefix/
  DIRECTORY      where to mount it, for example /mnt/s3
  MOUNT_OPTIONS  mount-s3's options in one word, for example "--allow-delete --allow-other"

  URL            a configuration file: s3://bucket/key, https://…, ssm:/parameter/name or a path;
                 the node follows it: a new version is in force within minutes

options, before the first BUCKET:
  --role head|compute|login|standalone   what this node is (default: ParallelCluster's files)
  --mode systemd|direct                  who starts mount-s3 (default: direct on compute nodes)
  --on-failure fail|continue             what a mount that fails means for the exit code
                                         (default: continue on head and login nodes)
  --check                                check the arguments and this node, and change nothing"""

_CHOICES: dict[str, type[Enum]] = {"role": Role, "mode": Mode, "on_failure": OnFailure}


def main(arguments: list[str]) -> int:
    """Runs the bootstrap; a mount that fails is an exit code of 1 unless the node continues."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(HELP)
        return Exit.OK
    options, mounts = _split(arguments)
    overrides = {
        name: value
        for name, kind in _CHOICES.items()
        if (value := _choice(kind, f"--{name.replace('_', '-')}", options))
    }
    if "--config" in options and mounts:
        raise AgentError(
            Problem.USAGE,
            "give either --config or mounts, not both",
            hint="put all mounts into the configuration file",
        )
    node.require_root()
    environment.load()

    from s3mount_agent.config import desired
    from s3mount_agent.reconcile import bootstrap

    if "--config" in options:
        wanted = desired.from_source(options["--config"], overrides)
    else:
        wanted = desired.from_arguments(mounts, overrides)
    context = bootstrap.check(wanted.configuration)
    if "--check" in options:
        return Exit.OK
    return outcome(bootstrap.bootstrap(wanted), context)


def outcome(failures: Failures, context: Context) -> int:
    """Tells what is wrong with mounts, and whether that is a failure on this node."""
    fatal = []
    for mount_id, error in failures.items():
        if _is_fatal(mount_id, error, context):
            fatal.append(error)
        else:
            for line in error.lines():
                journal.say(line)
    if not fatal:
        if failures:
            journal.say("the agent keeps trying: `s3mount-agent status` tells how it goes")
        return Exit.OK
    tell(fatal)
    return Exit.FAILED


def _is_fatal(mount_id: str, error: AgentError, context: Context) -> bool:
    if error.problem is Problem.MOUNT_BUSY and error.patience > 0:
        return False  # the mount is up; its change waits
    directories = {mount.id: mount.directory for mount in context.mounts}
    return context.may_fail(directories.get(mount_id, "")) is OnFailure.FAIL


def _split(arguments: Sequence[str]) -> tuple[dict[str, str], Sequence[str]]:
    """Takes our own options off the front; mount options may look just like them."""
    options: dict[str, str] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("--"):
        name, equals, value = rest.pop(0).partition("=")
        if name not in ("--config", "--role", "--mode", "--on-failure", "--check"):
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


def _choice(kind: type[Enum], name: str, options: dict[str, str]) -> str | None:
    known = [str(each.value) for each in kind]
    value = options.get(name)
    if value is not None and value not in known:
        raise AgentError(Problem.USAGE, f"{name} takes one of {', '.join(known)}, not {value!r}")
    return value
