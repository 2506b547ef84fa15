"""The agent's own service: in place, enabled and running the code that is installed."""

from __future__ import annotations

import time

from s3mount_agent.filesystem import disk, files, lock, paths
from s3mount_agent.supervisor import target
from s3mount_agent.system import process, systemd
from s3mount_agent.system.systemd import UnitFacts

_UNIT = paths.AGENT_UNIT
_UP = ("active", "activating", "reloading")
LOCK = paths.DAEMON_LOCK
_END_SECONDS = 30.0
_START_SECONDS = 10.0
_POLL_SECONDS = 0.05


def is_up() -> bool:
    """Whether the service runs, or is about to."""
    if lock.holder(LOCK) is not None:
        return True
    return systemd.runs() and systemd.show([_UNIT])[_UNIT].active_state in _UP


def comes_up() -> bool:
    """Whether the service that was just started runs, which takes it a moment."""
    deadline = time.monotonic() + _START_SECONDS
    while not (up := is_up()) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return up


def how_to_start() -> str:
    """The command that starts it where it is down; without systemd every apply does."""
    return f"systemctl start {_UNIT.partition('.')[0]}" if systemd.runs() else "s3mount-agent apply"


def put_in_place() -> bool:
    """Has the service's unit on disk, to be started at every boot; returns whether that is new.

    systemd is told in ensure_running(), or when the mounts' units are new as well.
    """
    if not systemd.runs():
        return False
    text = paths.template(_UNIT).replace("@BUILD@", paths.build())
    new = files.write(systemd.ETC / _UNIT, text)
    target.write()
    systemd.enable([_UNIT])
    return new


def ensure_running(*, new: bool) -> bool:
    """Has the daemon run now; returns whether it did not already.

    ``new`` if the unit was: a daemon of an older build is replaced; the mounts do not notice.
    """
    if not systemd.runs():
        return _spawn()
    shown = systemd.show([_UNIT, *target.UNITS])
    facts = shown.pop(_UNIT)
    if not facts.is_settled(enabled=True) or any(map(UnitFacts.is_stale, shown.values())):
        systemd.reload()
    if facts.active_state in _UP and not new and not _is_of_another_build():
        return False
    # Not waited for: it tells systemd that it is up once its mounts are.
    systemd.restart_later(_UNIT)
    return True


def name() -> str:
    """How the daemon calls itself as the holder of LOCK: by the build that it is of."""
    return f"daemon {paths.build()[:12]}"


def _is_of_another_build() -> bool:
    """Whether a daemon runs that a bootstrap, ended before its time, has not replaced."""
    text = files.read(LOCK) or ""
    return lock.holder(LOCK) is not None and text.startswith("daemon ") and name() not in text


def install_later() -> None:
    """Has mount-s3 installed outside of the daemon's sandbox, which installs nothing."""
    _outside_later("install-mount-s3")


def keep_crawlers_out_later() -> None:
    """Has updatedb be told of the mounts, outside of the daemon's sandbox, which has no /etc."""
    _outside_later("keep-crawlers-out")


def _outside_later(command: str) -> None:
    if systemd.runs():
        systemd.outside_later(f"s3mount-agent-{command}.service", [paths.COMMAND, command])
    else:
        process.start([paths.COMMAND, command])


def wake() -> None:
    """Has the daemon look at once. One that is not up yet looks anyway; systemd would reload it
    only once it is, and it may be waiting for mounts until then."""
    if pid := lock.holder(LOCK):
        process.send(pid, "SIGHUP")


def take_down() -> None:
    """Stops the daemon and removes its unit."""
    if not systemd.runs():
        _end_spawned()
        return
    systemd.stop(_UNIT)
    if disk.exists(systemd.ETC / _UNIT):
        systemd.disable([_UNIT])
    gone = target.remove()
    if files.remove(systemd.ETC / _UNIT) or gone:
        systemd.reload()
    systemd.reset_failed(_UNIT)


def _spawn() -> bool:
    """Without systemd: a process of its own session that keeps nothing of ours open."""
    if lock.holder(LOCK) is not None:
        return False
    process.start([paths.COMMAND, "daemon"])
    return True


def _end_spawned() -> None:
    pid = lock.holder(LOCK)
    if pid:
        process.send(pid, "SIGTERM")
        with lock.hold("uninstall", timeout=_END_SECONDS, path=LOCK):
            pass
