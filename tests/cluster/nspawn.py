"""Booting one systemd machine with systemd-nspawn, where neither systemd nor machined runs."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from cluster.cgroup import Cgroup
from cluster.image import VISITORS

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.network import Link

BOOT_DEADLINE = 300.0  # seconds; a node may wait for its mounts for two minutes, when all is slow
POWER_OFF_DEADLINE = 120.0  # seconds; a unit that ignores SIGTERM is given 90 by systemd

# $0 is our control group, "$@" the nspawn command line, both seen from a mount namespace that ends
# with it. The node shall see a pure cgroup v2 tree, as every current distribution has it, also
# where this machine has a hybrid one. nspawn's notes in /run/systemd would outlive a SIGKILL.
IN_OWN_NAMESPACE = """
set -e
echo $$ > "$0/cgroup.procs"
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/systemd
mount -t tmpfs tmpfs /run/systemd
exec "$@"
"""


class BootError(Exception):
    """A machine did not come up; the message ends with the last lines of its console."""


class StillbornError(BootError):
    """systemd-nspawn itself ended before the machine was up."""


class Machine:
    """One boot of a machine, from power on to power off.

    leader: the host's id of its PID 1. group: the control group that holds all of it. payload: the
    one in there that the machine itself sees as the root of its tree.
    """

    def __init__(self, root: Path, hostname: str, link: Link, group: Cgroup, folder: Path) -> None:
        """Boot the system in `root` and wait until it is up.

        `folder` gets the console's output (console.log, of all boots). Raises BootError when the
        machine is not up after BOOT_DEADLINE seconds or goes down before; nothing of it is left
        then, nor after any other exception.
        """
        self.group = group
        self.payload = group.path / "payload"  # nspawn's name for it
        self._console = folder / "console.log"
        address = folder / "notify"
        address.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
            notifications.bind(str(address))
            self._process = self._start(root, hostname, link, address)
            try:
                self.leader = self._wait_until_up(notifications)
            except BaseException:
                self.kill()
                raise

    def _start(self, root: Path, hostname: str, link: Link, notify: Path) -> subprocess.Popen[str]:
        isolated = ("unshare", "--mount", "--propagation=slave", "--")
        nspawn = (
            "systemd-nspawn",
            f"--directory={root}",
            f"--machine={link.name}",
            f"--hostname={hostname}",
            f"--network-namespace-path={link.namespace}",
            "--boot",
            "--notify-ready=yes",
            "--bind=/dev/fuse",
            "--capability=all",
            "--register=no",
            "--keep-unit",
            "--link-journal=no",
            "--resolv-conf=off",
            "--timezone=off",
        )
        with self._console.open("a", encoding="utf-8") as console:
            return subprocess.Popen(
                (*isolated, "sh", "-c", IN_OWN_NAMESPACE, str(self.group.path), *nspawn),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "NOTIFY_SOCKET": str(notify)},
                start_new_session=True,  # no controlling terminal, and no Ctrl-C of ours
            )

    def _wait_until_up(self, notifications: socket.socket) -> int:
        """Return the leader's id once nspawn has said that the machine's own systemd is ready."""
        notifications.settimeout(0.1)
        leader = 0
        deadline = time.monotonic() + BOOT_DEADLINE
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise StillbornError(f"the machine went down at boot: {self._last_words()}")
            try:
                lines = notifications.recv(65536).decode().splitlines()
            except socket.timeout:  # no TimeoutError before Python 3.10
                continue
            for line in lines:
                name, _, value = line.partition("=")
                if name == "X_NSPAWN_LEADER_PID":
                    leader = int(value)
                elif line == "READY=1":
                    return leader
        raise BootError(f"the machine is not up after {BOOT_DEADLINE} s: {self._last_words()}")

    def _last_words(self) -> str:
        return self._console.read_text(encoding="utf-8", errors="backslashreplace")[-3000:]

    def visitors(self) -> Cgroup:
        """Return the control group of image.VISITORS, for commands that come from outside."""
        return Cgroup(self.payload / "system.slice" / VISITORS)

    def is_up(self) -> bool:
        """Return False once it has gone down, by itself or by us."""
        return self._process.poll() is None

    def wait_until_off(self) -> None:
        """Wait for the end of a clean shutdown; raises TimeoutError after POWER_OFF_DEADLINE."""
        try:
            self._process.wait(POWER_OFF_DEADLINE)
        except subprocess.TimeoutExpired:
            words = self._last_words()
            raise TimeoutError(
                f"still on {POWER_OFF_DEADLINE} s after power off: {words}"
            ) from None
        self.kill()  # nothing runs any more: this removes its control group

    def kill(self) -> None:
        """Pull the plug: every process in it ends at the same moment. Twice is once."""
        self.group.kill()
        self._process.kill()  # in case it was still on its way into the group
        self._process.wait()
        self.group.remove()
