"""``s3mount-agent check``: whether a job may start here, for health checks, prologs and jobs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable

from s3mount_agent.console.parser import Given
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.states import NodeState
from s3mount_agent.core.text import epoch
from s3mount_agent.decide.job_readiness import Readiness, readiness
from s3mount_agent.decide.mount_status import MountStatus, NodeStatus
from s3mount_agent.filesystem import mountinfo
from s3mount_agent.reconcile import glance

# The daemon writes down what it sees at least every five minutes: it has missed two of them, and
# the watchdog has not brought it back.
_OLD_SECONDS = 660.0


def main(given: Given) -> int:
    """0 where a job may start; 3 where it may, and should know of something; 1 where its data are
    not there. Raises ``mount-unknown`` for a path that is on no mount of this node."""
    found = _find(given.words, strict=given.has("--strict"))
    _say(found)
    return found.state.exit_code


def _find(paths: tuple[str, ...], *, strict: bool) -> Readiness:
    try:
        seen = glance.take() or _look()
    except AgentError as error:  # no configuration yet, or one that cannot be read
        return readiness((), named=bool(paths), silent=error.message, strict=strict)
    mounts = _chosen(seen, paths) if paths else seen.mounts
    return readiness(mounts, named=bool(paths), silent=_silence(seen), strict=strict)


def _look() -> NodeStatus:
    from s3mount_agent.reconcile import observe  # which takes twice as long

    return observe.take()


def _chosen(seen: NodeStatus, paths: Iterable[str]) -> tuple[MountStatus, ...]:
    """The mounts that the paths are on, each once."""
    by_directory = {mount.path: mount for mount in seen.mounts}
    chosen = {}
    for path in paths:
        directory = mountinfo.first_on_the_way(path, by_directory)
        if directory is None:
            known = ", ".join(by_directory)
            raise AgentError(
                Problem.MOUNT_UNKNOWN,
                f"{path} is not on a mount of this node",
                hint=f"its mounts are on {known}" if known else "it has no mounts",
            )
        chosen[directory] = by_directory[directory]
    return tuple(chosen.values())


def _silence(seen: NodeStatus) -> str | None:
    """Why the daemon's word is none, if so."""
    if not seen.service_up:
        return "the agent's service is down"
    if time.time() - epoch(seen.at) > _OLD_SECONDS:
        return f"the agent's service has said nothing since {seen.at}"
    return None


def _say(found: Readiness) -> None:
    """One line; on stderr where there is something to know, which batch systems keep."""
    if found.state is NodeState.OK and not found.doubtful:
        print(f"ok: {found.sentence}")
    elif sys.stderr is not None:
        word = "warning" if found.doubtful else found.state.value
        line = f"s3mount-agent: {word} on {os.uname().nodename}: {found.sentence}\n"
        sys.stderr.write(line.encode(errors="backslashreplace").decode())
