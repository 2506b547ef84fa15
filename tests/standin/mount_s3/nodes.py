"""What the file system knows of its directories and files between two requests."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .files import Writer

ROOT = 1


class Node:
    """One directory or file, found in S3 or made here."""

    def __init__(self, ino: int, parent: Node | None, key: str, name: str) -> None:
        self.ino = ino
        self.parent = parent or self
        self.key = key
        self.name = name
        self.size = 0
        self.mtime = time.time()
        self.etag = ""
        self.local = False
        """Made here, and not yet in S3."""
        self.writer: Writer | None = None
        self.readers: set[int] = set()
        self.lock = threading.Lock()
        """Held while a handle is opened, or completed."""

    @property
    def is_dir(self) -> bool:
        return self.ino == ROOT or self.key.endswith("/")

    @property
    def is_ours(self) -> bool:
        """Whether this process, and not S3, knows best."""
        return self.ino == ROOT or self.local or self.writer is not None


class Nodes:
    """All nodes, by number and by key. It only grows: a stand-in lives for minutes."""

    def __init__(self, prefix: str) -> None:
        self._lock = threading.Lock()
        root = Node(ROOT, None, prefix, "")
        self._by_ino = {ROOT: root}
        self._by_key: dict[str, Node] = {}
        self._numbers = itertools.count(ROOT + 1)

    def __getitem__(self, ino: int) -> Node:
        return self._by_ino[ino]

    def at(self, parent: Node, name: str, *, is_dir: bool) -> Node | None:
        return self._by_key.get(_key(parent, name, is_dir=is_dir))

    def put(self, parent: Node, name: str, *, is_dir: bool) -> Node:
        """Find the node of that name and kind, or make it."""
        key = _key(parent, name, is_dir=is_dir)
        with self._lock:
            node = self._by_key.get(key)
            if node is None:
                node = Node(next(self._numbers), parent, key, name)
                self._by_ino[node.ino] = self._by_key[key] = node
            return node

    def remove(self, node: Node) -> None:
        """Forget the name. The number stays: somebody may still hold it."""
        with self._lock:
            self._by_key.pop(node.key, None)

    def local_children(self, parent: Node) -> list[Node]:
        with self._lock:
            return [n for n in self._by_key.values() if n.local and n.parent is parent]


def _key(parent: Node, name: str, *, is_dir: bool) -> str:
    return f"{parent.key}{name}/" if is_dir else f"{parent.key}{name}"
