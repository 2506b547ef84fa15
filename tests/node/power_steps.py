"""Runs s3mount-agent on a node and stops for ever before the N-th step that changes the node.

It is copied to a node: ``python3 -I power_steps.py N apply --now`` prints "before N: WHAT" and
waits for the power to go; with an N that is too large it only counts, and ends as the agent does.

Steps are found with an audit hook (PEP 578), so that none can be forgotten, whatever the agent's
code looks like: every file that is opened for writing, renamed, removed or made, every unmount, and
every systemctl that changes something. What is in /run/s3mount-agent is left out, because nothing
of it is there after a boot; so is to make what is there already, and to remove what is not.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import resource
import sys
import threading
from typing import Any

VOLATILE = ("/run/s3mount-agent", "/dev/", "/proc/")
LOOKING = {"show", "is-enabled", "is-active", "--version", "list-units"}
LOOKERS = {"mount-s3", "journalctl"}


class Power:
    """Counts steps, those of children too; at the one where the power goes, nothing more happens in
    any thread of any of them."""

    def __init__(self, last: int) -> None:
        self._last = last
        self._steps = mmap.mmap(-1, 4)  # shared by all children
        # Higher than what a child closes that is to keep nothing of its parent's.
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
        self._told = fcntl.fcntl(1, fcntl.F_DUPFD, 2000)
        self._turn = fcntl.fcntl(os.memfd_create("turn"), fcntl.F_DUPFD, 2000)
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        # Another thread may have held it when the child was made.
        self._lock = threading.Lock()

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """sys.addaudithook's."""
        what = step(event, arguments)
        if what is None:
            return
        with self._lock:  # held for ever at the end
            fcntl.lockf(self._turn, fcntl.LOCK_EX)
            steps = self._count() + 1
            self._steps[:] = steps.to_bytes(4, "little")
            if steps >= self._last:
                os.write(self._told, f"before {steps}: {what}\n".encode())
                while True:
                    threading.Event().wait()
            fcntl.lockf(self._turn, fcntl.LOCK_UN)

    def _count(self) -> int:
        return int.from_bytes(self._steps[:], "little")

    def report(self) -> None:
        """How many steps there were."""
        os.write(1, f"steps: {self._count()}\n".encode())


def step(event: str, arguments: tuple[Any, ...]) -> str | None:
    """What an audit event changes on the node; None if it changes nothing there."""
    if event == "open":
        path, _, flags = arguments
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return _of_path("write", path) if writes else None
    if event in ("os.rename", "os.link", "os.symlink"):
        return _of_path(event, arguments[1])
    if event in ("os.remove", "os.rmdir"):
        return _of_path(event, _joined(*arguments), there=True)
    if event in ("os.chmod", "os.chown", "os.truncate"):
        return _of_path(event, arguments[0], there=True)
    if event == "os.mkdir":
        path, _, directory = arguments
        return _of_path(event, _joined(path, directory), there=False)
    if event == "ctypes.dlsym" and "umount" in str(arguments[1]):
        return str(arguments[1])
    if event == "subprocess.Popen":
        return _of_program([os.fsdecode(word) for word in arguments[1]])
    return None


def _joined(path: Any, directory: int) -> str:
    """A path as it is from the root, where it is one from an open directory."""
    home = os.readlink(f"/proc/self/fd/{directory}") if directory >= 0 else ""  # noqa: PTH115
    return os.path.join(home, os.fsdecode(path))  # noqa: PTH118


def _of_path(what: str, path: Any, *, there: bool | None = None) -> str | None:
    if isinstance(path, int):  # open already: the step was to open it
        return None
    text = os.fsdecode(path)
    idle = there is not None and there != os.path.lexists(text)
    return None if idle or text.startswith(VOLATILE) else f"{what} {text}"


def _of_program(words: list[str]) -> str | None:
    name = os.path.basename(words[0])  # noqa: PTH119
    looks = name in LOOKERS or name.startswith("python") or words[1] in LOOKING
    return None if looks else " ".join([name, *words[1:]])


def main() -> int:
    """Runs the agent with the arguments after the number."""
    sys.path.insert(0, "/opt/s3mount-agent/current/lib")
    sys.dont_write_bytecode = True
    from s3mount_agent.cli import main as agent

    power = Power(int(sys.argv[1]))
    sys.addaudithook(power.hook)
    code = agent(sys.argv[2:])
    power.report()
    return code


if __name__ == "__main__":
    sys.exit(main())
