"""A piece of a Debian or Ubuntu repository: a few packages, and what apt needs to prove them.

The piece has the repository's own layout and the very bytes of its signed InRelease and of the
indexes of its components, so that apt trusts on a node what it trusts anyway, and nothing else.
https://wiki.debian.org/DebianRepository/Format
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from s3mount_agent.core.errors import AgentError, Problem

# Those that may have FUSE, the first before the second: Debian has only one of them.
_COMPONENTS = ("main", "universe")
# How Debian names the processors that AWS calls x86_64 and arm64.
_MACHINES = {"x86_64": "amd64", "arm64": "arm64"}
_COMPRESSED = {"xz": lzma.decompress, "gz": gzip.decompress}
Fetch = Callable[[str, Path], None]
"""Puts what has a name in a repository into a file."""


class _Package(NamedTuple):
    name: str
    component: str
    fields: dict[str, str]


def of_this_machine(distribution: str, suite: str) -> str | None:
    """The repository of a distribution (``debian``) that this machine's own apt asks, as a URL:
    that of a suite (``bookworm``), or else of another one, since they lie side by side. None where
    this machine is of another distribution."""
    form = ["--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)", "Created-By: Packages"]
    try:
        answer = subprocess.run(
            ["apt-get", "indextargets", *form], stdout=subprocess.PIPE, check=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    rows = [line.split(" ", 2) for line in answer.stdout.splitlines()]
    # Updates for a suite may lie elsewhere.
    urls = {name: url for origin, name, url in rows if origin.lower() == distribution}
    others = (url for name, url in urls.items() if "-" not in name)
    return urls.get(suite) or next(others, None)


def copy(fetch: Fetch, suite: str, architecture: str, wanted: Iterable[str], folder: Path) -> None:
    """Copies packages into a folder, with those that they need and that the smallest system of the
    suite may lack. ``architecture`` is x86_64 or arm64. Raises what ``fetch`` does,
    ``package-broken``, or ``packages-failed`` for one that is not there."""
    release = folder / f"dists/{suite}/InRelease"
    fetch(f"dists/{suite}/InRelease", release)
    signed = dict(_signed_files(release.read_text(encoding="utf-8")))
    known: dict[str, _Package] = {}
    indexes: dict[str, Path] = {}
    for component in _COMPONENTS:
        for ending, decompress in _COMPRESSED.items():
            name = f"{component}/binary-{_MACHINES[architecture]}/Packages.{ending}"
            if name in signed and component not in indexes:
                indexes[component] = release.parent / name
                fetch(f"dists/{suite}/{name}", indexes[component])
                _require(indexes[component], signed[name])
                text = decompress(indexes[component].read_bytes()).decode()
                for package in _packages(text, component):
                    known.setdefault(package.name, package)
    needs = _Needs(known)
    taken = needs.of(wanted) - needs.of(needs.smallest())
    for package in map(known.__getitem__, sorted(taken)):
        file = folder / package.fields["Filename"]
        fetch(package.fields["Filename"], file)
        _require(file, package.fields["SHA256"])
    for component in indexes.keys() - {known[name].component for name in taken}:
        indexes[component].unlink()


def _signed_files(release: str) -> Iterator[tuple[str, str]]:
    """Each file that an InRelease speaks for, and its SHA-256."""
    _, _, rows = release.partition("\nSHA256:\n")
    for row in rows.splitlines():
        if not row.startswith(" "):
            return
        digest, _, name = row.split()
        yield name, digest


def _packages(index: str, component: str) -> Iterator[_Package]:
    for stanza in index.split("\n\n"):
        # Lines that go on with one before are of no use here.
        rows = (line.partition(": ") for line in stanza.splitlines() if not line.startswith(" "))
        fields = {name: value for name, _, value in rows}
        if "Package" in fields:
            yield _Package(fields["Package"], component, fields)


class _Needs:
    """What packages need, by an index: the first that there is of those that would do."""

    def __init__(self, known: dict[str, _Package]) -> None:
        self._known = known
        self._providing: dict[str, str] = {}
        for package in known.values():
            for names in _relations(package.fields.get("Provides", "")):
                self._providing.setdefault(names[0], package.name)

    def smallest(self) -> Iterator[str]:
        """What is on each system that apt has made."""
        yield "apt"
        for package in self._known.values():
            essential = package.fields.get("Essential") == "yes"
            if essential or package.fields.get("Priority") == "required":
                yield package.name

    def of(self, names: Iterable[str]) -> frozenset[str]:
        """Packages with all that they need; raises ``packages-failed`` where one is missing."""
        found: set[str] = set()
        open_ = list(names)
        while open_:
            name = open_.pop()
            if name not in self._known:
                raise AgentError(
                    Problem.PACKAGES_FAILED,
                    f"the repository has no package {name}",
                    hint="name the repository of that very system",
                )
            if name not in found:
                found.add(name)
                fields = self._known[name].fields
                wanted = (fields.get(field, "") for field in ("Pre-Depends", "Depends"))
                open_ += (self._one(any_of) for each in wanted for any_of in _relations(each))
        return frozenset(found)

    def _one(self, any_of: list[str]) -> str:
        for name in any_of:
            if name in self._known:
                return name
        return next(
            (self._providing[each] for each in any_of if each in self._providing), any_of[0]
        )


def _relations(field: str) -> Iterator[list[str]]:
    """``a (>= 1) | b, c:any`` as the names [a, b] and [c]."""
    for any_of in filter(None, field.split(", ")):
        yield [each.split(" ")[0].partition(":")[0] for each in any_of.split(" | ")]


def _require(file: Path, digest: str) -> None:
    if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
        raise AgentError(
            Problem.PACKAGE_BROKEN,
            f"{file.name} is not the file that the repository's index speaks of",
            hint="the repository may be changing just now: try again, or name another copy of it",
        )
