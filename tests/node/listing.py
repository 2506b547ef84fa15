"""What is on a node's disk and what runs on it, in a form in which two moments can be compared."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.node import Node

# Logs, what a reboot empties, and what systemd keeps for itself (/var/tmp, /var/lib/systemd).
VOLATILE = tuple("/tmp /run /proc /sys /dev /var/log /var/tmp /var/lib/systemd".split())


class Entry(NamedTuple):
    """One file, directory, link or device; ``content`` is a digest, or a link's target."""

    kind: str
    mode: int
    owner: tuple[int, int]
    content: str
    modified: int


Listing = dict[str, Entry]


def written(node: Node, *, ignoring: tuple[str, ...] = ()) -> Listing:
    """All that was ever written to a node's disk since its image: the overlay's upper layer."""
    return _list(node.written, (*VOLATILE, *ignoring))


def whole(node: Node, *, ignoring: tuple[str, ...] = ()) -> Listing:
    """The whole root file system, image included; times are left out, as packages come and go."""
    return {
        path: entry._replace(modified=0)
        for path, entry in _list(node.root, (*VOLATILE, *ignoring)).items()
    }


def difference(before: Listing, after: Listing) -> dict[str, tuple[Entry | None, Entry | None]]:
    """What differs, by path: the entry before and after, None where there is none."""
    return {
        path: (before.get(path), after.get(path))
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    }


def processes(node: Node) -> set[str]:
    """The command line of each process, kernel threads and ourselves left out."""
    lines = node.run(["ps", "-e", "-o", "args="]).stdout.splitlines()
    return {line for line in lines if not line.startswith(("ps ", "["))}


def _list(root: Path, ignoring: tuple[str, ...]) -> Listing:
    return {path: _entry(file) for path, file in _walk(root, root, ignoring)}


def _walk(root: Path, directory: Path, ignoring: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    with os.scandir(directory) as found:
        entries = list(found)
    for each in entries:
        path = f"/{Path(each.path).relative_to(root)}"
        if path in ignoring or each.name == "__pycache__":
            continue
        yield path, Path(each.path)
        if each.is_dir(follow_symlinks=False):
            yield from _walk(root, Path(each.path), ignoring)


def _entry(file: Path) -> Entry:
    found = file.lstat()
    kind = stat.filemode(found.st_mode)[0]
    content = ""
    if kind == "-":
        content = hashlib.sha256(file.read_bytes()).hexdigest()
    elif kind == "l":
        content = str(file.readlink())
    # A directory's own time changes with its names, and those are listed themselves.
    modified = 0 if kind == "d" else found.st_mtime_ns
    mode = stat.S_IMODE(found.st_mode)
    return Entry(kind, mode, (found.st_uid, found.st_gid), content, modified)
