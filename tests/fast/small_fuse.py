"""A file system that is real and small, whose process can be stopped, continued and killed: what a
hung, a slow and a dead mount-s3 look like. It is one empty directory.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MAY_MOUNT = os.geteuid() == 0 and Path("/dev/fuse").exists()

# <linux/fuse.h>, as far as statvfs(2) and the listing of an empty directory need it.
_FORGET, _GETATTR, _STATFS, _INIT, _OPENDIR, _READDIR, _RELEASEDIR = 2, 3, 17, 26, 27, 28, 29
_INTERRUPT, _BATCH_FORGET = 36, 42
_ATTRIBUTES = struct.pack("<QII6Q10I", 0, 0, 0, *([1, *[0] * 5]), *[0] * 3, 0o40755, 2, *[0] * 5)
_ANSWERS = {
    _INIT: struct.pack("<4I2H2I2H8I", 7, 31, 1 << 17, 0, 12, 9, 1 << 17, 1, 32, *[0] * 9),
    _STATFS: bytes(80),
    _GETATTR: _ATTRIBUTES,
    _OPENDIR: bytes(16),
    _READDIR: b"",
    _RELEASEDIR: b"",
}
_NO_SUCH_CALL = 38


class SmallFuse:
    """A mounted one and its process; ``pid`` is what an agent would know of it."""

    def __init__(self, directory: Path, *, listable: bool = True) -> None:
        """Mounts it; without ``listable`` whoever lists it waits for ever."""
        directory.mkdir(exist_ok=True)
        self.directory = str(directory)
        words = [self.directory, *([] if listable else ["unlistable"])]
        self._process = subprocess.Popen(
            [sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "mounted\n"

    def hang(self) -> None:
        """From now on it answers nothing."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def go_on(self) -> None:
        """It answers again, also what it was asked meanwhile."""
        self._process.send_signal(signal.SIGCONT)

    def die(self) -> None:
        """Its process is gone, its mount stays."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Sets free whoever waits for it, and unmounts."""
        self.die()
        subprocess.run(["umount", "--lazy", self.directory], check=True)
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextlib.contextmanager
def small_fuse(directory: Path, *, listable: bool = True) -> Iterator[SmallFuse]:
    """One that is gone afterwards."""
    mounted = SmallFuse(directory, listable=listable)
    try:
        yield mounted
    finally:
        mounted.close()


def _serve(directory: str, *, listable: bool) -> None:
    import ctypes

    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"mountpoint-s3", directory.encode(), b"fuse", 6, options.encode()):
        raise OSError(ctypes.get_errno(), "mount")
    print("mounted", flush=True)
    while True:
        request = os.read(device, (1 << 17) + 4096)
        _, call, number = struct.unpack_from("<IIQ", request)
        if call in (_FORGET, _BATCH_FORGET, _INTERRUPT) or (call == _OPENDIR and not listable):
            continue
        answer = _ANSWERS.get(call)
        error = 0 if answer is not None else -_NO_SUCH_CALL
        os.write(
            device, struct.pack("<IiQ", 16 + len(answer or b""), error, number) + (answer or b"")
        )


if __name__ == "__main__":
    _serve(sys.argv[1], listable="unlistable" not in sys.argv)
