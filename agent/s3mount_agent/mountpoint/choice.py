"""Which mount-s3 a node is to have, by its configuration, by what it has, and by its system."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from s3mount_agent.core.errors import AgentError
from s3mount_agent.core.versions import LATEST, Install, Version, version_of
from s3mount_agent.mountpoint import program, releases
from s3mount_agent.mountpoint.releases import Release

if TYPE_CHECKING:
    from s3mount_agent.packages.systems import System


def planned(source: Install) -> Release | None:
    """What is to be installed on this node; None where what is there stays. Raises
    ``mount-s3-missing``."""
    found = program.find()
    return releases.to_install(source, found.version if found else None)


def version_to_be(source: Install) -> Version:
    """The version of mount-s3 that this node has once it is installed as ``source`` says."""
    found = program.find()
    if found is not None and planned(source) is None:
        return found.version
    from s3mount_agent.packages import systems  # which nobody needs who has a mount-s3

    offered = None
    with contextlib.suppress(AgentError):  # what it is about is told by the installation
        offered = own(systems.of_this_node(source.family), source)
    return version_of(offered or Release.chosen(source).version)


def own(system: System, source: Install) -> str | None:
    """The version of mount-s3 in the system's own repositories, if it is the one to install: no
    other one is asked for, by its version or by where it comes from."""
    version = releases.asked(source)
    if not system.own or version == LATEST or releases.is_elsewhere(source):
        return None
    offered = system.manager.version_offered("mount-s3")
    if offered and (version is None or version_of(version) == version_of(offered)):
        return offered
    return None
