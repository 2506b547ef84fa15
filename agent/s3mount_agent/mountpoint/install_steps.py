"""The steps in which a bootstrap, or the build of an image, brings mount-s3: a line for each."""

from __future__ import annotations

from s3mount_agent.core.errors import AgentError
from s3mount_agent.core.versions import FuseConf, Install
from s3mount_agent.filesystem import fuse
from s3mount_agent.mountpoint import install, program
from s3mount_agent.mountpoint.program import Installed
from s3mount_agent.state.timeline import (
    LEAVES,
    Downloading,
    Timeline,
    Waiting,
    clock_after,
    waiting_for,
)
from s3mount_agent.system import journal


def bring_mount_s3(
    source: Install, timeline: Timeline, *, budget: float, mounts: bool = True, leaves: str = LEAVES
) -> Installed:
    """The node's mount-s3, which is installed if it is missing; tries ``budget`` seconds.

    ``mounts`` says whether this very machine is to mount something, ``leaves`` what Ctrl-C does.
    Raises why there is none.
    """
    with timeline.step("install") as step:
        if mounts:
            fuse.require_device()
        before = program.find()
        what, longest = "mount-s3: it is downloaded and installed", source.spread + budget
        with waiting_for(what, longest, leaves=leaves):
            installed, new = install.ensure_mount_s3(
                source,
                budget=budget,
                on_retry=Waiting("mount-s3", longest, leaves=leaves),
                on_lock=lambda holder, seconds: _tell_lock(holder, seconds, leaves),
                on_progress=Downloading(longest, leaves=leaves),
            )
        step.result = f"mount-s3 {installed}" + ("" if new else ", already there")
        if new and before and before != installed:
            step.result += f" in the place of {before}, which goes on with what is mounted"
        timeline.changed |= new
    return installed


def _tell_lock(holder: str, seconds: float, leaves: str) -> None:
    until = f"until {clock_after(seconds)} at most; {leaves}"
    journal.say(f"[ wait ] packages: {holder} installs something ({until})")


def allow_other(source: Install, timeline: Timeline) -> None:
    """A courtesy to users who mount something themselves: root's mounts need nothing in fuse.conf,
    so that one which cannot be written is no reason to fail."""
    with timeline.step("fuse.conf") as step:
        if source.fuse_conf is FuseConf.LEAVE:
            step.skip("left as it is, as install.fuse_conf says")
            return
        try:
            new = install.ensure_allow_other()
        except AgentError as error:
            step.warn(f"left as it is: {error.message} ({error.cause}); no mount needs it")
            return
        step.result = "user_allow_other " + ("added" if new else "already there")
        timeline.changed |= new
