"""Open files: read from S3 in ranges, or written from beginning to end (SEMANTICS.md)."""

from __future__ import annotations

import errno
import os
import threading
import time

from .memory import Memory
from .nodes import Node
from .s3 import S3

FIRST_WINDOW = 1 << 20
LARGEST_WINDOW = 8 << 20
EMPTY_SECONDS = 0.2


class Reader:
    """Reads ahead of a sequential reader, in windows that double up to a part of 8 MiB."""

    def __init__(self, s3: S3, node: Node, memory: Memory) -> None:
        self.node = node
        self.flushed = False
        self._s3 = s3
        self._memory = memory
        self._sequence = 0
        self._key, self._etag, self._size = node.key, node.etag, node.size
        self._window = FIRST_WINDOW
        self._start = 0
        self._held = b""
        self._lock = threading.Lock()

    def read(self, offset: int, length: int) -> bytes:
        with self._lock:
            end = min(offset + length, self._size)
            if offset >= end:
                return b""
            if not self._start <= offset <= end <= self._start + len(self._held):
                self._fetch(offset, end)
            return self._held[offset - self._start : end - self._start]

    def _fetch(self, offset: int, end: int) -> None:
        sequential = self._start < offset <= self._start + len(self._held)
        if sequential:
            self._memory.reading(self, offset - self._sequence, self._size - offset)
        else:
            self._memory.done(self)
            self._sequence = offset
        self._window = min(self._window * 2, LARGEST_WINDOW) if sequential else FIRST_WINDOW
        length = min(max(end - offset, self._window), self._size - offset)
        # If-Match, so that nobody reads half of an old and half of a new object.
        self._held = self._s3.get(self._key, offset, length, self._etag)
        self._start = offset

    def close(self) -> None:
        self._memory.done(self)


class Writer:
    """Collects what is written; close or fsync uploads it, once."""

    def __init__(self, s3: S3, node: Node, pid: int) -> None:
        self.node = node
        self.pid = pid
        self.flushed = False
        self._s3 = s3
        self._written = 0
        self._completed = False
        self._file = open(os.memfd_create("upload"), "w+b")  # noqa: SIM115, PTH123  closed below
        self._lock = threading.Lock()

    def write(self, offset: int, data: bytes) -> int:
        with self._lock:
            if self._completed:
                raise OSError(errno.EIO, "upload already terminated")
            if offset != self._written:
                raise OSError(
                    errno.EINVAL, f"out of order write: expected {self._written}, got {offset}"
                )
            self.flushed = False
            self._file.write(data)
            self._written += len(data)
            self.node.size = self._written
            return len(data)

    def flush(self, pid: int) -> None:
        """Upload at close, but not for a copy of the descriptor that a shell or dd closes early."""
        if self._written and pid == self.pid:
            self.complete()
        else:
            self.flushed = True

    def complete(self) -> None:
        with self._lock:
            if self._completed:
                return
            self._completed = True
            node = self.node
            if not self._written:
                # By then close has returned, and S3 is farther away than a test's.
                time.sleep(EMPTY_SECONDS)
            try:
                with self._file:
                    node.etag = self._s3.put(node.key, self._file, self._written)
            finally:
                node.writer = None
            node.mtime = time.time()
            # With a file in them the directories above exist for everybody.
            while node.local:
                node.local = False
                node = node.parent
