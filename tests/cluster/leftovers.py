"""Taking down clusters whose process was killed before it could do so itself."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from pathlib import Path
from typing import TextIO

from cluster.cgroup import Cgroup, hierarchy
from cluster.host import run

PREFIX = "s3mount-cluster-"


class Claim:
    """A cluster's folder, which is known to be in use for as long as this process lives.

    folder: a new directory. A file in it, `owner`, is locked by us and names the network.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        unlocked = self.folder / "unlocked"
        self._owner = unlocked.open("w", encoding="ascii")
        fcntl.flock(self._owner, fcntl.LOCK_EX)
        unlocked.rename(self.folder / "owner")  # so that nobody finds it before it is locked

    def name_network(self, bridge: str) -> None:
        """Write down the network whose name all that is outside of the folder begins with."""
        self._owner.write(bridge)
        self._owner.flush()

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder)
        self._owner.close()


def sweep() -> None:
    """Take down every cluster on this machine whose process has ended."""
    for owner in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/owner"):
        with contextlib.suppress(FileNotFoundError), owner.open(encoding="ascii") as claim:
            if _is_abandoned(claim):
                _take_down(owner.parent, claim.read())


def _is_abandoned(claim: TextIO) -> bool:
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _take_down(folder: Path, bridge: str) -> None:
    if bridge:  # else its process was killed before it had a network
        for path in hierarchy().glob(f"{bridge}-*"):
            Cgroup(path).kill()
            Cgroup(path).remove()
        for namespace in Path("/run/netns").glob(f"{bridge}-*"):
            run("ip", "netns", "delete", namespace.name)
        if Path("/sys/class/net", bridge).exists():
            run("ip", "link", "delete", bridge)
    # The last one first: it may need what was mounted before it.
    for line in reversed(Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()):
        directory = line.split(" ")[1]
        if directory.startswith(f"{folder}/"):
            run("umount", directory)
    shutil.rmtree(folder)
