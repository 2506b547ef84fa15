"""Taking the agent off a node, which is left as it was found: mounts, service, what was changed for
neighbours, packages, own files. What was made is written down in state/inventory.py."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from s3mount_agent.config import config_file, desired
from s3mount_agent.config.configuration import Configuration
from s3mount_agent.config.desired import Desired
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.states import Presence
from s3mount_agent.decide.plan import Observed
from s3mount_agent.filesystem import disk, files, holders, metrics_file, paths, safe_path
from s3mount_agent.filesystem.mountinfo import Table
from s3mount_agent.mountpoint import install
from s3mount_agent.reconcile import directories
from s3mount_agent.reconcile.session import node_session
from s3mount_agent.reconcile.unmount import covered, require_changeable, take_down
from s3mount_agent.state import inventory
from s3mount_agent.supervisor import agent_service, crawlers, fuse_connections, needrestart
from s3mount_agent.system import journal, systemd

_LOCK_SECONDS = 120.0


def uninstall(*, dry_run: bool = False) -> list[AgentError]:
    """Takes everything back that the agent made on this node; ``dry_run`` only says what that is.

    Every mount is looked at before the first is touched: returns those that are in use, and then
    nothing has been done. Stopped halfway, it says what is left; run again, it goes on.
    """
    with node_session("uninstall", _readable, timeout=_LOCK_SECONDS) as session:
        observed = session.observed
        require_changeable(session.context, also=(paths.CONFIGURATION, paths.ROOT, systemd.ETC))
        going, stay = install.packages_to_take_back()
        busy = _busy(observed)
        if dry_run or busy:
            _tell(observed, going if dry_run else None, stay, [each.message for each in busy])
            return busy
        with _step(0):
            failures = take_down(frozenset(observed.placed), session)
            if not failures:
                # What is left of others: units that somebody has deleted, directories to store in.
                session.context.supervisor.remove(())
                directories.tidy(())
        if failures:
            left = [observed.placed[each].definition.directory for each in failures]
            journal.say(
                f"stopped: {', '.join(left)} could not be unmounted, and the agent stays; "
                "`s3mount-agent uninstall` goes on, `s3mount-agent apply` mounts all again"
            )
            return list(failures.values())
        metrics = session.context.configuration.metrics.prometheus
        rest: tuple[Callable[[], str], ...] = (
            partial(_end_service, metrics),
            install.take_back_allow_other,
            install.take_back_packages,
            # The lock goes with them: who waits for it sees that it is another one by then.
            _remove_own_files,
        )
        for number, do in enumerate(rest, start=1):
            with _step(number):
                journal.say(do())
    journal.say("nothing of the agent is left on this node")
    return []


# What is done, in this order.
_STEPS = (
    "mounts (`s3mount-agent status` tells which)",
    "the agent's service",
    "/etc/fuse.conf",
    "the packages",
    "the agent itself",
)


@contextlib.contextmanager
def _step(number: int) -> Iterator[None]:
    """One of the steps; an end in its middle leaves a sentence about what is left."""
    try:
        yield
    except (AgentError, KeyboardInterrupt):
        down = "all mounts are down, " if number else ""
        left = ", ".join(_STEPS[number:])
        journal.say(f"stopped: {down}still here: {left}; run it again to go on")
        raise


def _busy(observed: Observed) -> list[AgentError]:
    """The mounts that programs use now."""
    found = []
    table = Table.read()
    for placed in observed.placed.values():
        directory = placed.definition.directory
        running = placed.serves or placed.starting
        own = fuse_connections.ours(
            table, directory, fuse_connections.load(directory), running=running
        )
        users = holders.of(own) if own and running else ""
        if observed.on(directory) is Presence.COVERED:
            found.append(covered(directory, observed))
        elif users:
            found.append(AgentError(Problem.MOUNT_BUSY, f"{directory} is in use", cause=users))
    return found


def _tell(
    observed: Observed, going: list[str] | None, stay: dict[str, str], busy: list[str]
) -> None:
    if going is None:
        journal.say("nothing was changed: " + "; ".join(busy))
        return
    journal.say("uninstall would")
    for placed in observed.placed.values():
        journal.say(f"  unmount {placed.definition.directory} (s3://{placed.definition.bucket})")
    for word in busy:
        journal.say(f"  be refused: {word}")
    journal.say(f"  remove the packages {', '.join(going)}" if going else "  remove no package")
    for name, why in stay.items():
        journal.say(f"  not remove the package {name}: {name} stays: {why}")
    made = inventory.load()
    if made.fuse_conf_before is not None:
        journal.say("  give /etc/fuse.conf its text back, unless it was changed since")
    for directory in made.directories:
        journal.say(f"  remove the directory {directory}, if it is empty")
    own = (config_file.PATH, config_file.damaged(), paths.RUN, paths.STATE, paths.ROOT)
    there = [str(path) for path in own if disk.exists(path)]
    there += [str(paths.LINK)] if _asked_of_link(disk.is_link) else []
    journal.say(f"  remove its service, its units, {', '.join(there)}")


def _end_service(metrics: str | None) -> str:
    agent_service.take_down()
    each: tuple[Callable[[], object], ...] = (
        partial(crawlers.keep_out, ()),
        needrestart.take_back,
    )
    for take_back in each:
        try:
            take_back()
        except AgentError as error:
            # A few lines that stay in a file which cannot be written are no reason to stay.
            journal.say(f"{error.message}: {error.cause}")
    metrics_file.take_back(metrics)
    return f"took back {_STEPS[1]}"


def _readable() -> Desired:
    """The configuration as far as it can be read: a broken one must not keep the agent here."""
    try:
        return desired.in_force()
    except AgentError:
        return Desired(Configuration(), "")


def _remove_own_files() -> str:
    """The last step: this program's own code goes too, so that nothing is imported after it.

    /etc/s3mount-agent/environment stays: the agent reads it, but did not make it.
    """
    files.remove(config_file.PATH)
    files.remove(config_file.damaged())
    disk.remove_if_empty(config_file.PATH.parent)
    # /usr/local may be read-only, or lead to nowhere.
    if _asked_of_link(disk.is_link):
        _asked_of_link(files.remove)
    for path in (paths.RUN, paths.STATE, paths.ROOT):
        disk.remove_tree(path)
    return f"took back {_STEPS[4]}"


def _asked_of_link(function: Callable[[Path], object]) -> object:
    """What a function finds or does at the command's link; None where it cannot. /usr/local may be
    the head node's, and never answer."""
    with contextlib.suppress(AgentError, OSError):
        return safe_path.asked(lambda path: function(Path(path)), str(paths.LINK))
    return None
