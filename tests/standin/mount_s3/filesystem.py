"""The file system: what each operation does and what it refuses (upstream SEMANTICS.md, fs.rs)."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from typing import NamedTuple, Union

from .cli import MINIMAL_TTL, Arguments
from .files import Reader, Writer
from .memory import Memory
from .nodes import Node, Nodes
from .s3 import S3, S3Error

PAGE = 1000
MINIMAL_FILE_TTL, MINIMAL_DIR_TTL = 0.1, 1.0
"""Upstream's own defaults: "Linux filesystems behave badly when the TTL is zero"."""
CACHED_TTL = 60.0

OVERWRITE_REFUSED = (
    "file overwrite is disabled by default, you need to remount with --allow-overwrite flag "
    "and open the file in truncate mode (O_TRUNC) to overwrite it"
)


class Owner(NamedTuple):
    """Who everything belongs to, and its permissions."""

    uid: int
    gid: int
    dir_mode: int
    file_mode: int


class Entry(NamedTuple):
    """One line of a directory listing."""

    name: str
    node: Node


Handle = Union[Reader, Writer]


class FileSystem:
    """Serves one bucket. Its methods may run at the same time, and raise OSError to refuse."""

    def __init__(self, arguments: Arguments, s3: S3, prefix: str, memory: Memory) -> None:
        self.owner = Owner(
            arguments.get("--uid", os.geteuid()),
            arguments.get("--gid", os.getegid()),
            arguments.get("--dir-mode", 0o755),
            arguments.get("--file-mode", 0o644),
        )
        self.allow_overwrite = bool(arguments.get("--allow-overwrite"))
        self._allow_delete = bool(arguments.get("--allow-delete"))
        cached = arguments.get("--cache") or arguments.get("--cache-xz")
        self._ttl: float = arguments.get("--metadata-ttl", CACHED_TTL if cached else MINIMAL_TTL)
        self.negative_ttl: float = arguments.get("--negative-metadata-ttl", self._ttl)
        self._s3 = s3
        self._memory = memory
        self._nodes = Nodes(prefix)
        self._handles: dict[int, Handle] = {}
        self._slots: set[int] = set()
        """The handles that are open for writing."""
        self._listings: dict[int, list[Entry]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def ttl(self, node: Node) -> float:
        """How long the kernel may believe what it is told of this node."""
        if self._ttl != MINIMAL_TTL:
            return self._ttl
        return MINIMAL_DIR_TTL if node.is_dir else MINIMAL_FILE_TTL

    # Names

    def lookup(self, parent_ino: int, name: str) -> Node:
        parent = self._directory(parent_ino)
        for is_dir in (True, False):
            ours = self._nodes.at(parent, name, is_dir=is_dir)
            if ours is not None and ours.is_ours:
                return ours
        # A directory hides a file of the same name.
        if self._exists(f"{parent.key}{name}/"):
            return self._nodes.put(parent, name, is_dir=True)
        found = self._s3.head(f"{parent.key}{name}")
        if found is None:
            raise OSError(errno.ENOENT, f"file {name!r} does not exist")
        return self._remote_file(parent, name, found.size, found.modified, found.etag)

    def getattr(self, ino: int) -> Node:
        node = self._nodes[ino]
        if node.is_ours:
            return node
        current = self.lookup(node.parent.ino, node.name)
        if current is not node:
            raise OSError(errno.ESTALE, "the file became a directory, or the other way round")
        return node

    def setattr(self, ino: int, mtime: float | None, size: int | None) -> Node:
        """Times of a file being written. Its mode and owner are ignored; all else is refused."""
        node = self._nodes[ino]
        if not (node.local or node.writer):
            raise OSError(errno.EPERM, OVERWRITE_REFUSED if size == 0 else "a remote inode")
        if mtime is not None:
            node.mtime = mtime
        return node

    def make(self, parent_ino: int, name: str, *, is_dir: bool) -> Node:
        """A new file or directory; S3 learns of it when a file is closed."""
        parent = self._directory(parent_ino)
        try:
            self.lookup(parent_ino, name)
        except FileNotFoundError:
            node = self._nodes.put(parent, name, is_dir=is_dir)
            node.local, node.size, node.etag = True, 0, ""
            return node
        raise OSError(errno.EEXIST, "file already exists")

    def unlink(self, parent_ino: int, name: str) -> None:
        if not self._allow_delete:
            raise OSError(
                errno.EPERM, "Deletes are disabled. Use '--allow-delete' mount option to enable it."
            )
        node = self.lookup(parent_ino, name)
        if node.is_ours:
            raise OSError(errno.EPERM, "cannot be unlinked while being written")
        self._s3.delete(node.key)
        self._nodes.remove(node)

    def rmdir(self, parent_ino: int, name: str) -> None:
        node = self.lookup(parent_ino, name)
        if not node.local:
            raise OSError(errno.EPERM, "remote directory cannot be removed")
        if self._nodes.local_children(node):
            raise OSError(errno.ENOTEMPTY, "non-empty directory cannot be removed")
        self._nodes.remove(node)

    # Files

    def open(self, ino: int, flags: int, pid: int) -> int:
        if flags & (os.O_SYNC | os.O_DSYNC):
            raise OSError(errno.EINVAL, "O_SYNC and O_DSYNC are not supported")
        node = self._nodes[ino]
        with node.lock:
            if node.writer is not None and node.writer.flushed:
                self._complete(node.writer)
            writes = self._is_for_writing(node, flags)
            number = next(self._numbers)
            if writes:
                self._take_slot(number)
            try:
                if node.writer is not None:
                    raise OSError(errno.EPERM, "the file is being written")
                if writes:
                    truncate = bool(flags & os.O_TRUNC)
                    self._handles[number] = self._writer(node, pid, truncate=truncate)
                else:
                    self._handles[number] = self._reader(node, number)
            except OSError:
                self._slots.discard(number)
                raise
            return number

    def read(self, handle: int, offset: int, length: int) -> bytes:
        reader = self._handles[handle]
        if not isinstance(reader, Reader):
            raise OSError(errno.EBADF, "file handle is not open for reads")
        if reader.flushed:
            with reader.node.lock:
                if reader.node.writer is not None:
                    raise OSError(errno.EBADF, "invalidated by a newer handle opened")
                reader.node.readers.add(handle)
                reader.flushed = False
        return reader.read(offset, length)

    def write(self, handle: int, offset: int, data: bytes) -> int:
        writer = self._handles[handle]
        if not isinstance(writer, Writer):
            raise OSError(errno.EBADF, "file handle is not open for writes")
        return writer.write(offset, data)

    def flush(self, handle: int, pid: int) -> None:
        opened = self._handles[handle]
        with opened.node.lock:
            if isinstance(opened, Reader):
                opened.flushed = True
                opened.node.readers.discard(handle)
            else:
                self._complete(opened, closed_by=pid)

    def fsync(self, handle: int) -> None:
        opened = self._handles[handle]
        if isinstance(opened, Writer):
            with opened.node.lock:
                self._complete(opened)

    def release(self, handle: int) -> None:
        opened = self._handles.pop(handle)
        with opened.node.lock:
            if isinstance(opened, Reader):
                opened.node.readers.discard(handle)
                opened.close()
                return
            try:
                self._complete(opened)
            finally:
                self._slots.discard(handle)

    # Directories

    def opendir(self, ino: int) -> int:
        self._directory(ino)
        number = next(self._numbers)
        self._listings[number] = []
        return number

    def readdir(self, ino: int, handle: int, offset: int) -> list[Entry]:
        """Everything from that offset on. Offset 0 asks S3, every time."""
        if offset == 0:
            self._listings[handle] = self._list(self._nodes[ino])
        return self._listings[handle][offset:]

    def releasedir(self, handle: int) -> None:
        del self._listings[handle]

    # Below: what the operations share

    def _directory(self, ino: int) -> Node:
        node = self._nodes[ino]
        if not node.is_dir:
            raise OSError(errno.ENOTDIR, "not a directory")
        return node

    def _exists(self, prefix: str) -> bool:
        page = self._s3.list(prefix, delimiter="/", limit=1)
        return bool(page.objects or page.prefixes)

    def _remote_file(self, parent: Node, name: str, size: int, mtime: float, etag: str) -> Node:
        node = self._nodes.put(parent, name, is_dir=False)
        if not node.is_ours:
            node.size, node.mtime, node.etag = size, mtime, etag
        return node

    def _list(self, directory: Node) -> list[Entry]:
        """Remote directories hide local files and directories, and those hide remote files."""
        start = len(directory.key)
        files: dict[str, Node] = {}
        directories: dict[str, Node] = {}
        token = ""
        while True:
            page = self._s3.list(directory.key, delimiter="/", limit=PAGE, token=token)
            for found in page.objects:
                name = found.key[start:]
                if _is_valid(name):
                    files[name] = self._remote_file(directory, name, *found[1:])
            for prefix in page.prefixes:
                name = prefix[start:-1]
                if _is_valid(name):
                    directories[name] = self._nodes.put(directory, name, is_dir=True)
                    directories[name].local = False
            token = page.next_token
            if not token:
                break
        ours = {node.name: node for node in self._nodes.local_children(directory)}
        names = {**files, **ours, **directories}
        dots = [Entry(".", directory), Entry("..", directory.parent)]
        return dots + [Entry(name, names[name]) for name in sorted(names)]

    def _is_for_writing(self, node: Node, flags: int) -> bool:
        access = flags & os.O_ACCMODE
        if access == os.O_RDONLY:
            if node.local:
                raise OSError(errno.EPERM, "not readable while being written")
            return False
        if node.local or (self.allow_overwrite and flags & os.O_TRUNC):
            return True
        if access == os.O_WRONLY or flags & os.O_TRUNC:
            raise OSError(errno.EPERM, "the file is not writable")
        return False

    def _take_slot(self, number: int) -> None:
        """Refused before anything else is looked at, so that it can simply be tried again."""
        most = self._memory.most_writers
        with self._lock:
            if most is not None and len(self._slots) >= most:
                raise OSError(errno.ENOMEM, f"write handle limit reached (max {most})")
            self._slots.add(number)

    def _writer(self, node: Node, pid: int, *, truncate: bool) -> Writer:
        if node.readers:
            raise OSError(errno.EPERM, "not writable while being read")
        if truncate:
            node.size = 0
        node.writer = Writer(self._s3, node, pid)
        return node.writer

    def _reader(self, node: Node, number: int) -> Reader:
        """Opening asks S3 once more, so that a reader always starts with the newest object."""
        found = self._s3.head(node.key)
        if found is None:
            raise OSError(errno.ENOENT, "the object is gone")
        node.size, node.mtime, node.etag = found.size, found.modified, found.etag
        node.readers.add(number)
        return Reader(self._s3, node, self._memory)

    def _complete(self, writer: Writer, *, closed_by: int | None = None) -> None:
        try:
            if closed_by is None:
                writer.complete()
            else:
                writer.flush(closed_by)
        except S3Error:
            if writer.node.local:
                self._nodes.remove(writer.node)
            raise


def _is_valid(name: str) -> bool:
    """Keys that end in a slash, or would be named like these, cannot be reached."""
    return name not in ("", ".", "..") and "\0" not in name
