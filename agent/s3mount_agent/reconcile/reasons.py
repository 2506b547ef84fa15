"""Why a mount that is up cannot be used: the same words, whoever has looked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.mounts import Mount
from s3mount_agent.core.states import Failure, State
from s3mount_agent.decide.plan import Observed, Placed
from s3mount_agent.filesystem import lock
from s3mount_agent.mountpoint import messages
from s3mount_agent.state import status_file
from s3mount_agent.system import journal
from s3mount_agent.system.probe import Answer, Finding

_LOCK_SECONDS = 10.0
ANOTHER = Finding(Answer.SILENT, "its mount-s3 ended and was started anew meanwhile")
"""Of a mount that is no longer the one that was to be listed."""


LastWords = Callable[[str, int], str]


def why(placed: Placed, finding: Finding, last_words: LastWords | None = None) -> Failure:
    """The reason why S3 cannot be used."""
    words = finding.error or f"no answer within {finding.seconds:.0f} seconds"
    unknown = AgentError(Problem.S3_ERRORS, f"S3 answers with errors: {words}")
    return complaint(placed, last_words) or passing(unknown)


def complaint(placed: Placed, last_words: LastWords | None = None) -> Failure | None:
    """What mount-s3 has just said of S3 in the journal, if that can be understood."""
    definition = placed.definition
    words = (last_words or journal.last_words)("mount-s3", placed.pid or 0)
    # The newest line first: older ones may be of another fault.
    for line in reversed(words.splitlines()):
        read = messages.explain(line, bucket=definition.bucket, directory=definition.directory)
        if read.problem not in (Problem.MOUNT_FAILED, Problem.WRITE_LIMIT):
            return passing(read)
    return None


def passing(error: AgentError) -> Failure:
    """An error of S3's as it is remembered: it heals by itself."""
    return Failure(error.problem.code, error.message, error.hint, permanent=False)


def not_ours(directory: str, observed: Observed) -> AgentError:
    """Why what lies on a directory is not the mount that was there."""
    stranger = observed.strangers.get(directory)
    if stranger is not None:
        message = f"something else is mounted on {stranger.directory}: {stranger.words}"
        return AgentError(Problem.DIRECTORY_IN_USE, message, hint=stranger.mend)
    return AgentError(Problem.MOUNT_ENDED, f"{directory} was mounted, but is not any more")


def remember(refused: Mapping[str, tuple[int, Failure]]) -> None:
    """Adds to what is known of mounts that cannot be listed, by id: the process, and why."""
    # The service writes there, too, under its lock; where it is long at work, it sees by itself.
    with contextlib.suppress(AgentError), lock.hold("verify", timeout=_LOCK_SECONDS):
        known = status_file.load()
        if known is None:
            return
        mounts = []
        for mount in known.mounts:
            if mount.id in refused:
                pid, reason = refused[mount.id]
                since = mount.since if mount.state is State.DEGRADED else status_file.now()
                mount = mount._replace(asked=pid, s3=reason, state=State.DEGRADED, since=since)
            mounts.append(mount)
        status_file.save(known.node, mounts)


def unanswered(
    mounts: Iterable[Mount],
    observed: Observed,
    findings: Mapping[str, Finding],
    waits: Mapping[str, AgentError],
) -> tuple[dict[str, AgentError], dict[str, tuple[int, Failure]]]:
    """Why mounts could not be listed, by id; and of those that run all the same, their processes
    and reasons, in the service's words. The changes of those in ``waits`` may be made at any
    moment: why they waited is all that is known of one that has gone by then."""
    failures: dict[str, AgentError] = {}
    refused = {}
    for mount in mounts:
        finding = findings[mount.id]
        here = observed.placed.get(mount.id)
        if mount.id in waits and (finding is ANOTHER or not observed.is_ours(mount.directory)):
            failures[mount.id] = waits[mount.id]
        elif not observed.is_ours(mount.directory):
            failures[mount.id] = not_ours(mount.directory, observed)
        elif finding.answer is not Answer.ANSWERS:
            silent = f"{mount.directory} is mounted but cannot be listed"
            error = AgentError(Problem.MOUNT_SILENT, silent)
            if here is not None and here.pid:
                spoke = finding.answer is Answer.ERROR
                reason = why(here, finding) if spoke else complaint(here) or passing(error)
                refused[mount.id] = here.pid, reason
                error = status_file.error_of(reason)
            words = finding.error or f"no answer within {finding.seconds:.0f} seconds"
            failures[mount.id] = error.caused_by(words)
    return failures, refused
