"""A node: a real systemd machine in a container, to be booted, cut off, killed and rebooted."""

from __future__ import annotations

import contextlib
import itertools
import posixpath
import shutil
import subprocess
import uuid
import warnings
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from cluster.cgroup import Cgroup
from cluster.command import Command, CommandError, joining
from cluster.host import run
from cluster.nspawn import BootError, Machine, StillbornError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cluster.image import Image
    from cluster.network import Link
    from cluster.systems import System

# What cloud-init and the SSM agent give to root's commands: a PATH and hardly anything else.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "AWS_EC2_METADATA_DISABLED": "true",
}
WRITE = """
set -e
mkdir -p -- "$(dirname -- "$1")"
temporary=$(mktemp -- "$1.XXXXXX")
cat > "$temporary"
chmod -- "$2" "$temporary"
mv -f -- "$temporary" "$1"
"""


class Node:
    """A machine with a root file system, a network address and, while it is on, a systemd.

    name: its host name. system: what it is like. address: its IPv4 address. root: its root file
    system as this machine sees it, without what the running node mounts on top of it (/run, /tmp,
    S3).
    """

    def __init__(
        self,
        name: str,
        system: System,
        image: Image,
        link: Link,
        folder: Path,
        disk: str | None = None,
        of: Node | None = None,
    ) -> None:
        """Make a powered-off node; it owns `link` and the new directory `folder` from now on.

        `disk` is how much may be written to its root file system, as mount(8) takes it ("256m", all
        of it in memory); without it, as much as this machine has. `of` is a node that stays off
        from now on: what is on its disk is the image.
        """
        self.name = name
        self.system = system
        self.address = link.address
        self.root = folder / "root"
        self._link = link
        self._folder = folder
        self._machine: Machine | None = None
        self._numbers = itertools.count(1)
        with contextlib.ExitStack() as undo:
            undo.callback(link.close)
            folder.mkdir()
            undo.callback(shutil.rmtree, folder)
            if disk is not None:
                written = self._disk
                written.mkdir()
                run("mount", "-t", "tmpfs", "-o", f"size={disk}", "tmpfs", str(written))
                undo.callback(run, "umount", str(written))
            self._layers = of.layers if of else (image.root,)
            self._mount()
            undo.callback(run, "umount", str(self.root))
            self._group = Cgroup.create(link.name)
            undo.callback(self._group.remove)
            undo.callback(self.kill)
            self._give_identity()
            self._undo = undo.pop_all()

    @property
    def _disk(self) -> Path:
        return self._folder / "written"

    @property
    def written(self) -> Path:
        """All that was ever written to its root file system: the overlay's upper layer."""
        return self._disk / "upper"

    @property
    def layers(self) -> tuple[Path, ...]:
        """What its root file system is made of, the newest first."""
        return (self.written, *self._layers)

    def _mount(self) -> None:
        upper, work = self.written, self._disk / "work"
        for directory in (upper, work, self.root):
            directory.mkdir(parents=True)
        below = ":".join(map(str, self._layers))
        layers = f"lowerdir={below},upperdir={upper},workdir={work}"
        run("mount", "-t", "overlay", "-o", layers, "overlay", str(self.root))

    def _give_identity(self) -> None:
        """Write what makes it this machine; without a machine id, each boot had another journal."""
        etc = self.root / "etc"
        (etc / "machine-id").write_text(f"{uuid.uuid4().hex}\n", encoding="ascii")
        (etc / "hostname").write_text(f"{self.name}\n", encoding="ascii")
        hosts = f"127.0.0.1 localhost\n{self.address} {self.name}\n"
        (etc / "hosts").write_text(hosts, encoding="ascii")

    @property
    def is_on(self) -> bool:
        """Whether the machine runs; False also after it has gone down by itself."""
        return self._machine is not None and self._machine.is_up()

    @property
    def leader_pid(self) -> int:
        """The host's id of the node's PID 1; raises RuntimeError while the node is off."""
        return self._running().leader

    def _running(self) -> Machine:
        if self._machine is None or not self._machine.is_up():
            raise RuntimeError(f"{self.name} is off")
        return self._machine

    def boot(self) -> None:
        """Power on, and return when systemd has started everything (or given up on some of it).

        Raises cluster.nspawn.BootError when that takes more than BOOT_DEADLINE seconds.
        """
        if self.is_on:
            raise RuntimeError(f"{self.name} is on already")
        self.kill()  # it may have gone down by itself
        try:
            self._machine = self._power_on()
        except StillbornError as error:  # nspawn's trouble with this machine, not the node's
            warnings.warn(f"{self.name} is powered on again: {error}", stacklevel=2)
            self._machine = self._power_on()
        state = self.run(["systemctl", "is-system-running", "--wait"], check=False).stdout.strip()
        if state not in {"running", "degraded"}:
            raise BootError(f"systemd on {self.name} is {state!r}")

    def _power_on(self) -> Machine:
        group = self._group.child(f"boot-{next(self._numbers)}")
        return Machine(self.root, self.name, self._link, group, self._folder)

    def power_off(self) -> None:
        """Shut down cleanly; raises TimeoutError when it takes longer than POWER_OFF_DEADLINE."""
        machine = self._running()
        # The command may be ended by the shutdown that it has started: no exit code to check.
        self.run(["systemctl", "poweroff"], check=False)
        machine.wait_until_off()
        self._machine = None

    def kill(self) -> None:
        """Lose power, if it is on: every process is gone; what was written stays."""
        if self._machine is not None:
            self._machine.kill()
            self._machine = None

    def reboot(self) -> None:
        """Shut down cleanly and boot again."""
        self.power_off()
        self.boot()

    def cut(self) -> None:
        """Cut it off the network: packets vanish without an answer."""
        self._link.cut()

    def reconnect(self) -> None:
        """Undo cut()."""
        self._link.reconnect()

    def close(self) -> None:
        """Kill the node and remove all of it; twice is once."""
        self._undo.close()

    def popen(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        stdin: int = subprocess.DEVNULL,
    ) -> Command:
        """Start `argv` in the node and return at once; on a powered-off one, in a mere chroot.

        It runs as root without HOME, or as `user` with the user's groups and HOME; `env` is added
        to ENVIRONMENT. What it leaves running belongs to the unit image.VISITORS.
        """
        environment = dict(ENVIRONMENT)
        become: tuple[str, ...] = ()
        if user is not None:
            uid, gid, environment["HOME"] = self._account(user)
            become = ("setpriv", f"--reuid={uid}", f"--regid={gid}", "--init-groups", "--")
        environment.update(env or {})
        settings = ("--ignore-environment", f"--chdir={cwd}")
        variables = (f"{name}={value}" for name, value in environment.items())
        program = ("/usr/bin/env", *settings, *variables, *become, *argv)
        name = f"command-{next(self._numbers)}"
        if self._machine is not None and self._machine.is_up():
            group = self._machine.visitors().child(name)
            # It joins its group once it is inside: nsenter stays outside, and is there to reap it.
            inside = PurePosixPath("/sys/fs/cgroup") / group.path.relative_to(self._machine.payload)
            enter = ("nsenter", f"--target={self._machine.leader}", "--all", "--")
            line = (*enter, *joining(inside), *program)
        else:
            group = self._group.child(name)
            line = (*joining(group.path), "chroot", str(self.root), *program)
        command = Command(line, group, stdin=stdin)
        command.args = list(argv)  # what subprocess shows in its messages
        return command

    def _account(self, user: str) -> tuple[str, str, str]:
        """Return uid, gid and home directory; raises KeyError for a user that the node lacks."""
        for line in (self.root / "etc/passwd").read_text(encoding="utf-8").splitlines():
            name, _, uid, gid, _, home, _ = line.split(":")
            if name == user:
                return uid, gid, home
        raise KeyError(f"no user {user} on {self.name}")

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        check: bool = True,
        timeout: float = 60.0,
        input: str | None = None,  # the name that subprocess.run gave it
    ) -> subprocess.CompletedProcess[str]:
        """Run `argv` in the node as popen() does and return what it said.

        Raises CommandError where `check` is set and it exits non-zero. After `timeout` seconds it
        is killed, with all that it has started, and subprocess.TimeoutExpired is raised.
        """
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        with self.popen(argv, user=user, env=env, cwd=cwd, stdin=stdin) as command:
            try:
                stdout, stderr = command.communicate(input, timeout)
            except BaseException:
                command.kill()
                raise
        command.group.remove_if_empty()
        if check and command.returncode != 0:
            raise CommandError(command.returncode, list(argv), stdout, stderr)
        return subprocess.CompletedProcess(list(argv), command.returncode, stdout, stderr)

    def read(self, path: str) -> str:
        """Return a file's text; raises FileNotFoundError, and CommandError for other troubles."""
        if not self.exists(path):
            raise FileNotFoundError(f"{self.name}:{path}")
        return self.run(["cat", "--", path]).stdout

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file whole, as root and with exactly `mode`, and make its directories."""
        target = posixpath.normpath(path)
        self.run(["sh", "-c", WRITE, "sh", target, f"{mode:o}"], input=text)

    def exists(self, path: str) -> bool:
        """Return whether there is something at `path`; a dangling link is nothing."""
        return self.run(["test", "-e", path], check=False).returncode == 0
