"""``s3mount-agent bootstrap``: what ParallelCluster calls once a node is configured."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from s3mount_agent.commands import bootstrap_check
from s3mount_agent.config import environment
from s3mount_agent.config.arguments import parse_arguments
from s3mount_agent.console.output import tell
from s3mount_agent.console.parser import Given
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.core.node_roles import OnFailure
from s3mount_agent.decide.journal_events import Event
from s3mount_agent.decide.retry_policy import is_lasting, pace_of
from s3mount_agent.system import journal, node

if TYPE_CHECKING:
    from s3mount_agent.reconcile.context import Context
    from s3mount_agent.reconcile.execute import Failures

_OVERRIDES = {
    "--role": "role",
    "--mode": "mode",
    "--on-failure": "on_failure",
    "--assume-family": "family",
}


def main(given: Given) -> int:
    """Runs the bootstrap; a mount that fails is an exit code of 1 unless the node continues."""
    if given.has("--check") and not node.is_root():
        bootstrap_check.as_user(given, _overrides(given))
        return Exit.OK
    try:
        return _run(given)
    except AgentError as error:
        if not given.has("--check"):
            write_down(error)
        raise


def write_down(error: AgentError) -> None:
    """Has the journal know why a bootstrap fails: ParallelCluster keeps little of what it says."""
    journal.event(
        Event.BOOTSTRAP_FAILED,
        error.message,
        error_code=error.problem.code,
        cause=error.cause or "",
    )


def _run(given: Given) -> int:
    if given.has("--config") and given.words:
        raise AgentError(
            Problem.USAGE,
            "give either --config or mounts, not both",
            hint="put all mounts into the configuration file",
        )
    if not given.has("--config"):
        parse_arguments(given.words)  # nobody need be root to learn that they are wrong
    node.require_root()
    environment.require_understood()
    only_checks = given.has("--check") or given.has("--precheck")
    url = given.value("--config")
    if not only_checks:
        environment.keep_given()
    environment.load()

    from s3mount_agent.config import desired
    from s3mount_agent.reconcile import bootstrap, preview

    if only_checks:
        wanted = (
            desired.from_source(url, _overrides(given))
            if url is not None
            else desired.from_arguments(given.words, _overrides(given))
        )
        context = preview.check(wanted.configuration)
        if given.has("--check"):
            bootstrap_check.on_node(given, context)
        return Exit.OK
    if url is not None:
        source = desired.Following(url, _overrides(given))
        return outcome(*bootstrap.bootstrap(source.read, again=source.ask))
    read = partial(desired.from_arguments, given.words, _overrides(given))
    return outcome(*bootstrap.bootstrap(read))


def _overrides(given: Given) -> dict[str, str]:
    return {to: given.options[name] for name, to in _OVERRIDES.items() if given.has(name)}


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
        if any(pace_of(error).slow is not None for error in failures.values()):
            journal.say("the agent keeps trying: `s3mount-agent status` tells how it goes")
        return Exit.OK
    for error in fatal:
        write_down(error)
    tell(fatal)
    return Exit.FAILED


def _is_fatal(mount_id: str, error: AgentError, context: Context) -> bool:
    if error.problem is Problem.MOUNT_BUSY and not is_lasting(error):
        return False  # the mount is up; its change waits
    directories = {mount.id: mount.directory for mount in context.mounts}
    return context.failure_policy(directories.get(mount_id, "")) is OnFailure.FAIL
