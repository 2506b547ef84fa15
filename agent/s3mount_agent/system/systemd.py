"""Systemd: systemctl by argument list, and its notification socket."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from s3mount_agent.filesystem import files, paths
from s3mount_agent.system import process

ETC, RUN = paths.UNITS
_PROPERTIES = (
    "Id,LoadState,ActiveState,MainPID,UnitFileState,NeedDaemonReload,InvocationID,Job,Result,"
    "ExecMainCode,ExecMainStatus"
)
# Of waitid(2): CLD_KILLED and CLD_DUMPED, with which the status is a signal's number.
_KILLED = ("2", "3")
_QUICK_SECONDS = 30.0


@dataclass(frozen=True)
class UnitFacts:
    """What systemd knows of a unit; ``result`` is that of systemd.exec(5)'s $SERVICE_RESULT, and
    ``killed_by`` the signal that ended the main process, 0 if none did: the result may be that of
    a hook."""

    active_state: str = "inactive"
    main_pid: int = 0
    file_state: str = ""
    needs_reload: bool = False
    invocation: str = ""
    has_job: bool = False
    result: str = "success"
    killed_by: int = 0
    loaded: bool = False

    def is_settled(self, *, enabled: bool) -> bool:
        """Whether systemd knows the unit as it is on disk, as one that is started at boot or not:
        then it need not read all units anew, which takes as long as some mounts."""
        return not self.is_stale() and enabled == (self.file_state == "enabled")

    def is_stale(self) -> bool:
        """Whether systemd does not know the unit as it is on disk."""
        return self.needs_reload or not self.loaded


def runs() -> bool:
    """Whether systemd is PID 1 here: sd_booted(3)."""
    return RUN.is_dir()


def show(units: Sequence[str]) -> dict[str, UnitFacts]:
    """The facts of some units in one call; a unit that systemd does not know is inactive."""
    if not units:
        return {}
    answer = process.run(
        ["systemctl", "show", f"--property={_PROPERTIES}", "--", *units], timeout=_QUICK_SECONDS
    )
    facts: dict[str, UnitFacts] = {}
    for block in answer.stdout.split("\n\n"):
        fields = dict(line.partition("=")[::2] for line in block.splitlines())
        if "Id" in fields:
            facts[fields["Id"]] = UnitFacts(
                active_state=fields["ActiveState"],
                main_pid=int(fields.get("MainPID") or 0),
                file_state=fields.get("UnitFileState", ""),
                needs_reload=fields.get("NeedDaemonReload") == "yes",
                invocation=fields.get("InvocationID", ""),
                has_job=bool(int(fields.get("Job") or 0)),
                result=fields.get("Result", "success"),
                killed_by=_signal(fields),
                loaded=fields.get("LoadState") == "loaded",
            )
    return {unit: facts.get(unit, UnitFacts()) for unit in units}


def has_failed_to_mount(directory: str) -> bool:
    """Whether a file system could not be mounted there by its unit, as fstab's have one."""
    argv = ["systemctl", "show", "--property=ActiveState", "--", directory]
    answer = process.run(argv, timeout=_QUICK_SECONDS, check=False)
    return answer.stdout.strip() == "ActiveState=failed"


def _signal(fields: dict[str, str]) -> int:
    killed = fields.get("ExecMainCode") in _KILLED
    return int(fields.get("ExecMainStatus") or 0) if killed else 0


def is_stopping() -> bool:
    """Whether the node is shutting down."""
    answer = process.run(["systemctl", "is-system-running"], timeout=_QUICK_SECONDS, check=False)
    return answer.stdout.strip() == "stopping"


def reload() -> None:
    """Makes systemd read its unit files again."""
    process.run(["systemctl", "daemon-reload"], timeout=90)


def enable(units: Iterable[str]) -> None:
    """Has units of ours in /etc started at every boot: what `systemctl enable` does with
    WantedBy=multi-user.target, but that it also has systemd read all units anew."""
    wants = wanted_at_boot()
    with files.told_plainly(f"write to {wants}"):
        wants.mkdir(exist_ok=True)
        for unit in units:
            with contextlib.suppress(FileExistsError):
                (wants / unit).symlink_to(ETC / unit)


def wanted_at_boot() -> Path:
    """Where the links lie that :func:`enable` makes."""
    return ETC / "multi-user.target.wants"


def disable(units: Iterable[str]) -> None:
    """Has units no longer started at boot."""
    process.run(["systemctl", "disable", "--quiet", "--", *units], timeout=90)


def join(unit: str, *, timeout: float) -> bool:
    """Waits until a unit that is being started is up (True) or has failed."""
    return process.run(["systemctl", "start", "--", unit], timeout=timeout, check=False).code == 0


def start_later(unit: str, *, yielding: bool = False) -> None:
    """Has a unit started, without waiting for it. ``yielding``: not where somebody has just asked
    for the opposite, of it or of what it wants, which would be cancelled; that is an error then."""
    mode = ["--job-mode=fail"] if yielding else []
    process.run(["systemctl", "start", "--no-block", *mode, "--", unit], timeout=_QUICK_SECONDS)


def restart_later(unit: str) -> None:
    """Has a unit started anew, without waiting for it."""
    process.run(["systemctl", "restart", "--no-block", "--", unit], timeout=_QUICK_SECONDS)


def stop(unit: str, *, timeout: float = 120.0) -> None:
    """Stops a unit and waits until it is down; a unit that is down, or unknown, stays so."""
    process.run(["systemctl", "stop", "--", unit], timeout=timeout, check=False)


def kill(unit: str) -> None:
    """Kills the main process of a unit; a hook that cleans up behind it lives on."""
    process.run(
        ["systemctl", "kill", "--signal=KILL", "--kill-who=main", "--", unit],
        timeout=_QUICK_SECONDS,
        check=False,
    )


def reset_failed(unit: str) -> None:
    """Lets systemd forget that a unit failed."""
    process.run(["systemctl", "reset-failed", "--", unit], timeout=_QUICK_SECONDS, check=False)


def outside(arguments: Sequence[str], *, timeout: float) -> process.Completed:
    """Runs a program where the whole node sees what it mounts and unmounts.

    The daemon's unit has a mount namespace, in which an unmount would be seen by nobody else: from
    there it is a unit of its own. A command needs none, nor the bus that systemd-run asks for one.
    """
    ours, nodes = (os.readlink(f"/proc/{pid}/ns/mnt") for pid in ("self", 1))  # noqa: PTH115
    if ours == nodes:
        return process.run(arguments, timeout=timeout, check=False)
    runner = ["systemd-run", "--quiet", "--collect", "--wait", "--pipe", "--service-type=exec"]
    return process.run([*runner, "--", *arguments], timeout=timeout, check=False)


def outside_later(unit: str, arguments: Sequence[str]) -> None:
    """Has a program run as a unit of a name, without waiting; one that runs already is enough."""
    runner = ["systemd-run", "--quiet", "--collect", "--no-block", f"--unit={unit}"]
    process.run([*runner, "--", *arguments], timeout=_QUICK_SECONDS, check=False)


def notify(*assignments: str) -> None:
    """Tells the service manager how we are, if there is one that listens: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.connect("\0" + address[1:] if address.startswith("@") else address)
        channel.sendall("\n".join(assignments).encode())


def watchdog() -> float:
    """Within how many seconds the service manager wants to hear of us: sd_watchdog_enabled(3)."""
    return int(os.environ.get("WATCHDOG_USEC") or 0) / 1e6 or math.inf
