"""``s3mount-agent install``, for an image: what a bootstrap brings, and nothing of this machine."""

from __future__ import annotations

import re
from functools import partial

from s3mount_agent.config import environment
from s3mount_agent.console.parser import Given
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.core.versions import Install
from s3mount_agent.system import journal, node, systemd

# Nobody waits for an image's build but who builds it.
_INSTALL_SECONDS = 900.0
_LOCK_SECONDS = 300.0
_LEAVES = "Ctrl-C ends it"


def main(given: Given) -> int:
    """0 if all is there now that a bootstrap would have to install."""
    node.require_root("only root may install anything")
    environment.require_understood()
    environment.load()
    source = _source(given)
    _require_bare()
    if given.has("--precheck"):
        _require_possible(source)
        return Exit.OK

    from s3mount_agent.filesystem import lock
    from s3mount_agent.reconcile.session import tell_wait

    with lock.hold("install", timeout=_LOCK_SECONDS, on_wait=partial(tell_wait, _LOCK_SECONDS)):
        _require_bare()
        _install(source)
    return Exit.OK


def _source(given: Given) -> Install:
    from s3mount_agent.config.keys import SOURCE

    place = given.value("--source")
    if place is not None and not re.fullmatch(SOURCE.pattern, place, re.ASCII):
        raise AgentError(Problem.USAGE, f"--source takes {SOURCE.form}, not {place!r}")
    return Install(place, given.value("--version"), family=given.value("--assume-family"))


def _require_bare() -> None:
    """Refuses a machine that has mounts: an image of it would bring them to others."""
    from s3mount_agent.filesystem import disk, paths
    from s3mount_agent.state import in_force

    for path in (paths.CONFIG, in_force.PATH):
        if disk.exists(path):
            raise AgentError(
                Problem.ALREADY_CONFIGURED,
                f"this machine has mounts of its own ({path}), which its images would have as well",
            )


def _require_possible(source: Install) -> None:
    from s3mount_agent.mountpoint import program
    from s3mount_agent.packages import systems

    if program.find() is None:
        systems.of_this_node(source.family)


def _install(source: Install) -> None:
    from s3mount_agent.filesystem import disk, leftovers, paths
    from s3mount_agent.mountpoint.install_steps import allow_other, bring_mount_s3
    from s3mount_agent.packages import systems
    from s3mount_agent.state import inventory
    from s3mount_agent.state.timeline import Timeline
    from s3mount_agent.supervisor import agent_service, needrestart, selinux

    timeline, family = Timeline(), systems.family_of_this_node()
    with disk.kept_as_found(family.caches if family else ()):
        installed = bring_mount_s3(
            source, timeline, budget=_INSTALL_SECONDS, mounts=False, leaves=_LEAVES
        )
    allow_other(source, timeline)
    with timeline.step("service") as step:
        agent_service.put_in_place()
        needrestart.leave_mounts_alone()
        selinux.restore_all()
        step.result = "in place, with nothing configured"
        if not systemd.runs():
            step.skip("systemd does not run here: a bootstrap puts it in place")
    leftovers.sweep_builds()
    # An earlier attempt at a bootstrap has written down things of this machine. What was installed
    # stays known, so that `uninstall` takes it back on every machine of the image.
    disk.empty_but(paths.STATE, inventory.PATH)
    # In a chroot that is on the image's disk. Who waits for the lock sees that it is another one.
    disk.remove_tree(paths.RUN)
    journal.say(f"this machine can become an image: mount-s3 {installed}, and nothing to install")
