"""What would change on a node, found out without changing it."""

from __future__ import annotations

import dataclasses

from s3mount_agent.config import desired
from s3mount_agent.core.plan import Plan, plan
from s3mount_agent.mountpoint import install, program
from s3mount_agent.mountpoint.program import Installed
from s3mount_agent.reconcile import execute
from s3mount_agent.reconcile.context import gather
from s3mount_agent.reconcile.observe import observe

_PROGRAM = "/usr/bin/mount-s3"


def preview(url: str | None = None) -> Plan:
    """The plan for the configuration in force, or for the one behind ``url``.

    Raises what is wrong with the configuration or with a mount on this node.
    """
    configuration = (desired.from_source(url, {}) if url else desired.on_disk()).configuration
    context = gather(configuration)
    to_be = Installed(_PROGRAM, install.version_to_be(configuration.install))
    observed = observe(context.supervisor)
    wanted, failures = execute.want(context, program.find() or to_be, observed)
    for error in failures.values():
        raise error
    todo = plan(wanted, observed)
    # What is in the way of a mount is shown with all the rest.
    execute.require_possible(context, observed, but=todo.foreign)
    files = ((each.definition.directory, each.definition.options.write_files) for each in wanted)
    return dataclasses.replace(
        todo,
        write_files=tuple((directory, number) for directory, number in files if number is not None),
        warnings=execute.warnings(wanted),
    )
