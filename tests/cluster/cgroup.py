"""Control groups: the one sure way to end everything that a node or a command has started."""

from __future__ import annotations

import time
from pathlib import Path

KILL_DEADLINE = 10.0  # seconds


def hierarchy() -> Path:
    """Return where this machine mounts cgroup v2 (on a hybrid one, beside the v1 controllers)."""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, directory, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            return Path(directory)
    raise FileNotFoundError("this machine mounts no cgroup v2 file system")


class Cgroup:
    """One control group, with whatever groups the processes in it make below it.

    path: its directory. A process joins by writing its id into `path / "cgroup.procs"`.
    """

    def __init__(self, path: Path) -> None:
        """Name a group that exists."""
        self.path = path

    @classmethod
    def create(cls, name: str) -> Cgroup:
        """Make the top-level group `name`; raises FileExistsError where there is one already."""
        return cls(hierarchy()).child(name)

    def child(self, name: str) -> Cgroup:
        """Make the group `name` inside this one; raises FileExistsError as create() does."""
        (self.path / name).mkdir()
        return Cgroup(self.path / name)

    def pids(self) -> list[int]:
        """Return the ids of all processes in the group and below it."""
        found: list[int] = []
        for procs in self.path.rglob("cgroup.procs"):
            try:
                found += map(int, procs.read_text(encoding="ascii").split())
            except OSError:  # this group below us has just been removed
                continue
        return found

    def kill(self) -> None:
        """Kill every process in the group at once and wait until the last one is gone.

        Raises TimeoutError when one is still there after KILL_DEADLINE seconds.
        """
        try:
            (self.path / "cgroup.kill").write_text("1", encoding="ascii")
        except FileNotFoundError:  # removed: nothing can be in it
            return
        deadline = time.monotonic() + KILL_DEADLINE
        while self._populated():
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes {self.pids()} in {self.path} outlive SIGKILL")
            time.sleep(0.01)

    def remove(self) -> None:
        """Remove the group and all groups below it; there must be no process left in them."""
        if not self.path.exists():
            return
        below = (path for path in self.path.rglob("*") if path.is_dir())
        for group in sorted(below, key=lambda path: len(path.parts), reverse=True):
            group.rmdir()
        self.path.rmdir()

    def remove_if_empty(self) -> None:
        """Remove the group unless a process is left in it, as a daemon that was started there."""
        if not self._populated():
            self.remove()

    def _populated(self) -> bool:
        try:
            events = (self.path / "cgroup.events").read_text(encoding="ascii")
        except OSError:  # removed
            return False
        return "populated 1" in events
