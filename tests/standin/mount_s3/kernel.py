"""The FUSE protocol, as linux/fuse.h defines it: requests from the kernel, answers to it.

Upstream also takes only the mount from libfuse2 and speaks this protocol itself, with up to 16
threads: one slow request to S3 delays nothing else.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from contextlib import suppress
from struct import Struct
from typing import Callable, NamedTuple

from .cli import MINIMAL_TTL
from .filesystem import FileSystem
from .logs import Log
from .nodes import Node
from .s3 import S3Error

VERSION = (7, 31)
MAX_WRITE = 1 << 20
MAX_PAGES = MAX_WRITE // 4096
MAX_BACKGROUND, CONGESTION_THRESHOLD = 64, 48
BLOCKS = (2**64 - 1) // 1024
BLOCK_SIZE, NAME_MAX = 512, 255

# Capabilities of FUSE_INIT.
ASYNC_READ, ATOMIC_O_TRUNC, BIG_WRITES, AUTO_INVAL_DATA = 1 << 0, 1 << 3, 1 << 5, 1 << 12
DO_READDIRPLUS, PARALLEL_DIROPS, MAX_PAGES_FLAG = 1 << 13, 1 << 18, 1 << 22
WANTED = (
    ASYNC_READ | BIG_WRITES | AUTO_INVAL_DATA | DO_READDIRPLUS | PARALLEL_DIROPS | MAX_PAGES_FLAG
)

# Fields of FUSE_SETATTR that are set, and a flag of FUSE_OPEN's answer.
SET_SIZE, SET_MTIME = 1 << 3, 1 << 5
DIRECT_IO = 1 << 0

IN_HEADER = Struct("=IIQQIIIHH")
OUT_HEADER = Struct("=IiQ")
INIT_IN = Struct("=IIII")
INIT_OUT = Struct("=IIIIHHIIHH32x")
ATTR = Struct("=QQQQQQIIIIIIIIII")
ATTR_OUT = Struct("=QII")
ENTRY_OUT = Struct("=QQQQII")
SETATTR_IN = Struct("=IIQQQQQQIIIIIIII")
OPEN_IN = Struct("=II")
OPEN_OUT = Struct("=QII")
READ_IN = WRITE_IN = Struct("=QQIIQII")
HANDLE_IN = Struct("=Q")
WRITE_OUT = Struct("=II")
STATFS_OUT = Struct("=QQQQQIII28x")
DIRENT = Struct("=QQII")


class Request(NamedTuple):
    """One request, with its arguments still packed."""

    opcode: int
    unique: int
    ino: int
    uid: int
    pid: int
    body: bytes

    def name(self, after: int = 0) -> str:
        raw = self.body[after:].rstrip(b"\0")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise OSError(errno.EINVAL, "invalid file name") from None

    def handle(self) -> int:
        return int(HANDLE_IN.unpack_from(self.body)[0])


Operation = Callable[[Request], bytes]


class Session:
    """Serves one mount until it is gone."""

    def __init__(
        self, descriptor: int, files: FileSystem, allowed: frozenset[int] | None, log: Log
    ) -> None:
        self._descriptor = descriptor
        self._files = files
        self._allowed = allowed
        self._log = log
        self._operations = self._table()

    def start(self, threads: int, when_over: Callable[[], None]) -> None:
        workers = [
            threading.Thread(target=self._serve, name=f"fuse-worker-{n}", daemon=True)
            for n in range(threads)
        ]
        for worker in workers:
            worker.start()

        def wait() -> None:
            for worker in workers:
                worker.join()
            when_over()

        threading.Thread(target=wait, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                raw = os.read(self._descriptor, MAX_WRITE + 4096)
            except OSError as error:
                # ENOENT: the request was interrupted before we got it. ENODEV: unmounted.
                if error.errno in (errno.ENOENT, errno.EAGAIN):
                    continue
                return
            _, opcode, unique, ino, uid, _, pid, _, _ = IN_HEADER.unpack_from(raw)
            request = Request(opcode, unique, ino, uid, pid, raw[IN_HEADER.size :])
            if opcode not in UNANSWERED:
                self._answer(request)

    def _answer(self, request: Request) -> None:
        status, body = 0, b""
        operation = self._operations.get(request.opcode, _unsupported)
        try:
            self._check_user(request)
            body = operation(request)
        except S3Error as error:
            # 412: another client replaced the object while it was being read.
            status = errno.ESTALE if error.status == 412 else errno.EIO
            self._log.warning("mountpoint_s3_fs::fuse", f"{': '.join(error.chain)}")
        except KeyError:
            status = errno.EBADF
        except OSError as error:
            status = error.errno or errno.EIO
            if status not in (errno.ENOENT, errno.ENOSYS):
                name = getattr(operation, "__name__", "").strip("_")
                what = f"{name} failed with errno {status}: {error.strerror}"
                self._log.warning("mountpoint_s3_fs::fuse", what)
        header = OUT_HEADER.pack(OUT_HEADER.size + len(body), -status, request.unique)
        with suppress(OSError):  # whoever asked was interrupted, or the mount is gone
            os.writev(self._descriptor, [header, body])

    def _check_user(self, request: Request) -> None:
        # Requests on open handles may come from the kernel's own threads.
        everybody = self._allowed is None or request.opcode in ON_HANDLES
        if not everybody and request.uid not in (self._allowed or ()):
            raise OSError(errno.EACCES, "not one of the users of this mount")

    def _table(self) -> dict[int, Operation]:
        refuse = _refuse_link
        return {
            1: self._lookup,
            3: self._getattr,
            4: self._setattr,
            6: refuse,
            8: self._mknod,
            9: self._mkdir,
            10: self._unlink,
            11: self._rmdir,
            13: refuse,
            14: self._open,
            15: self._read,
            16: self._write,
            17: self._statfs,
            18: self._release,
            20: self._fsync,
            25: self._flush,
            26: self._init,
            27: self._opendir,
            29: self._releasedir,
            38: lambda _: b"",
            44: self._readdirplus,
        }

    def _init(self, request: Request) -> bytes:
        _, _, readahead, offered = INIT_IN.unpack_from(request.body)
        # Without ATOMIC_O_TRUNC the kernel truncates first, and that is refused: no overwriting.
        wanted = WANTED | (ATOMIC_O_TRUNC if self._files.allow_overwrite else 0)
        return INIT_OUT.pack(
            *VERSION,
            readahead,
            offered & wanted,
            MAX_BACKGROUND,
            CONGESTION_THRESHOLD,
            MAX_WRITE,
            1,
            MAX_PAGES,
            0,
        )

    def _lookup(self, request: Request) -> bytes:
        try:
            return self._entry(self._files.lookup(request.ino, request.name()))
        except FileNotFoundError:
            if self._files.negative_ttl == MINIMAL_TTL:
                raise
            # Inode 0 means: it does not exist, and you may remember that.
            seconds = int(self._files.negative_ttl)
            return ENTRY_OUT.pack(0, 0, seconds, 0, 0, 0) + bytes(ATTR.size)

    def _getattr(self, request: Request) -> bytes:
        return self._attr_out(self._files.getattr(request.ino))

    def _setattr(self, request: Request) -> bytes:
        fields = SETATTR_IN.unpack_from(request.body)
        valid, size, mtime, mtime_ns = fields[0], fields[3], fields[6], fields[9]
        node = self._files.setattr(
            request.ino,
            mtime + mtime_ns / 1e9 if valid & SET_MTIME else None,
            size if valid & SET_SIZE else None,
        )
        return self._attr_out(node)

    def _mknod(self, request: Request) -> bytes:
        mode = int.from_bytes(request.body[:4], "little")
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "only regular files are supported")
        return self._entry(self._files.make(request.ino, request.name(16), is_dir=False))

    def _mkdir(self, request: Request) -> bytes:
        return self._entry(self._files.make(request.ino, request.name(8), is_dir=True))

    def _unlink(self, request: Request) -> bytes:
        self._files.unlink(request.ino, request.name())
        return b""

    def _rmdir(self, request: Request) -> bytes:
        self._files.rmdir(request.ino, request.name())
        return b""

    def _open(self, request: Request) -> bytes:
        flags, _ = OPEN_IN.unpack_from(request.body)
        handle = self._files.open(request.ino, flags, request.pid)
        return OPEN_OUT.pack(handle, DIRECT_IO if flags & os.O_DIRECT else 0, 0)

    def _read(self, request: Request) -> bytes:
        handle, offset, size, *_ = READ_IN.unpack_from(request.body)
        return self._files.read(handle, offset, size)

    def _write(self, request: Request) -> bytes:
        handle, offset, *_ = WRITE_IN.unpack_from(request.body)
        return WRITE_OUT.pack(self._files.write(handle, offset, request.body[WRITE_IN.size :]), 0)

    def _statfs(self, _: Request) -> bytes:
        sizes = (BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCKS)
        return STATFS_OUT.pack(*sizes, BLOCK_SIZE, NAME_MAX, BLOCK_SIZE)

    def _flush(self, request: Request) -> bytes:
        self._files.flush(request.handle(), request.pid)
        return b""

    def _fsync(self, request: Request) -> bytes:
        self._files.fsync(request.handle())
        return b""

    def _release(self, request: Request) -> bytes:
        self._files.release(request.handle())
        return b""

    def _opendir(self, request: Request) -> bytes:
        return OPEN_OUT.pack(self._files.opendir(request.ino), 0, 0)

    def _readdirplus(self, request: Request) -> bytes:
        handle, offset, size, *_ = READ_IN.unpack_from(request.body)
        answer = bytearray()
        for entry in self._files.readdir(request.ino, handle, offset):
            offset += 1
            name = entry.name.encode()
            kind = stat.S_IFDIR if entry.node.is_dir else stat.S_IFREG
            packed = self._entry(entry.node)
            packed += DIRENT.pack(entry.node.ino, offset, len(name), kind >> 12) + name
            packed += bytes(-len(packed) % 8)
            if len(answer) + len(packed) > size:
                break
            answer += packed
        return bytes(answer)

    def _releasedir(self, request: Request) -> bytes:
        self._files.releasedir(request.handle())
        return b""

    def _entry(self, node: Node) -> bytes:
        whole, nanoseconds = _split(self._files.ttl(node))
        head = ENTRY_OUT.pack(node.ino, 0, whole, whole, nanoseconds, nanoseconds)
        return head + self._attr(node)

    def _attr_out(self, node: Node) -> bytes:
        return ATTR_OUT.pack(*_split(self._files.ttl(node)), 0) + self._attr(node)

    def _attr(self, node: Node) -> bytes:
        owner = self._files.owner
        mode = stat.S_IFDIR | owner.dir_mode if node.is_dir else stat.S_IFREG | owner.file_mode
        seconds, nanoseconds = _split(node.mtime)
        return ATTR.pack(
            node.ino,
            node.size,
            -(-node.size // 512),
            *(seconds, seconds, seconds),
            *(nanoseconds, nanoseconds, nanoseconds),
            mode,
            2 if node.is_dir else 1,
            owner.uid,
            owner.gid,
            0,
            4096,
            0,
        )


def _split(seconds: float) -> tuple[int, int]:
    return int(seconds), int(seconds % 1 * 1e9)


def _unsupported(request: Request) -> bytes:
    """Rename, xattr, locks, fallocate …; and create, so that the kernel uses mknod and open."""
    raise OSError(errno.ENOSYS, f"operation {request.opcode} is not supported")


def _refuse_link(_: Request) -> bytes:
    """ "Userspace expects EPERM for link/symlink if unsupported" (upstream fuse.rs)."""
    raise OSError(errno.EPERM, "links are not supported")


ON_HANDLES = {15, 16, 18, 20, 26, 29, 38, 44}
"""READ, WRITE, RELEASE, FSYNC, RELEASEDIR and READDIRPLUS; INIT and DESTROY."""

UNANSWERED = {2, 36, 42}
"""FORGET and BATCH_FORGET (nodes.py keeps every node), and INTERRUPT: a request takes its time."""
