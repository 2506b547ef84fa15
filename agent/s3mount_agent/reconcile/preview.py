"""What would change on a node, found out without changing it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from s3mount_agent.config import desired
from s3mount_agent.config.configuration import Configuration
from s3mount_agent.core.errors import together
from s3mount_agent.core.versions import LATEST
from s3mount_agent.decide.plan import Kind, Observed, Plan, plan
from s3mount_agent.mountpoint import choice, program
from s3mount_agent.mountpoint.flag_check import require_known_to
from s3mount_agent.mountpoint.program import Installed
from s3mount_agent.mountpoint.releases import Release
from s3mount_agent.reconcile import execute
from s3mount_agent.reconcile.context import Context, gather
from s3mount_agent.reconcile.observe import observe
from s3mount_agent.state import held_down
from s3mount_agent.system import journal, node

_PROGRAM = "/usr/bin/mount-s3"


def preview(url: str | None = None, say: Callable[[str], None] = journal.say) -> Plan:
    """The plan for the configuration in force, or for the one behind ``url``; ``say`` is told of
    what is waited for.

    Raises what is wrong with the configuration or with a mount on this node.
    """
    configuration = (desired.from_source(url, {}, say) if url else desired.on_disk()).configuration
    context = gather(configuration)
    source, here = configuration.install, program.find()
    release = choice.planned(source)
    to_be = Installed(here.program if here else _PROGRAM, choice.version_to_be(source))
    directories = [mount.directory for mount in context.mounts]
    observed = observe(context.supervisor, also=directories)
    wanted, failures = execute.want(context, to_be, observed)
    todo = _with_hands(plan(wanted, observed, keep=failures))
    # What is in the way of a mount is shown with all the rest.
    impossible = [*failures.values(), *execute.impossible(context, observed, ignoring=todo.foreign)]
    if impossible:
        raise together(impossible)
    files = ((each.definition.directory, each.definition.options.write_files) for each in wanted)
    return dataclasses.replace(
        todo,
        write_files=tuple((directory, number) for directory, number in files if number is not None),
        warnings=execute.warnings(wanted),
        installs=(_shown(release, to_be), str(here or "")) if release else None,
    )


def _shown(release: Release, to_be: Installed) -> str:
    """Which one that is, as far as is known before: the system's own may be another release."""
    return LATEST if release.version == LATEST else str(to_be)


def check(configuration: Configuration) -> Context:
    """Refuses what cannot be done on this node."""
    node.require_root()
    context = gather(configuration)
    require_doable(context, observe(context.supervisor))
    return context


def require_doable(context: Context, observed: Observed) -> None:
    """Refuses what :func:`execute.require_possible` does, and options that the mount-s3 which will
    be installed does not know."""
    execute.require_possible(context, observed)
    version = choice.version_to_be(context.configuration.install)
    for mount in context.mounts:
        require_known_to(version, mount.options)


def _with_hands(todo: Plan) -> Plan:
    """What an administrator unmounted is neither new nor broken: it is told as what it is."""
    down = held_down.load()
    because = "it was unmounted by hand, and apply mounts it again"
    actions = tuple(
        dataclasses.replace(action, because=because)
        if action.kind is Kind.START and action.id in down
        else action
        for action in todo.actions
    )
    return dataclasses.replace(todo, actions=actions)
