"""A piece of a Debian or Ubuntu repository: a few packages, and what apt needs to prove them.

The piece has the repository's own layout and the very bytes of its signed InRelease and of the
indexes of its components, so that apt trusts on a node what it trusts anyway, and nothing else.
https://wiki.debian.org/DebianRepository/Format
"""

from __future__ import annotations

import gzip
import lzma
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from repository import Fetch, closure, require_digest, require_known
from s3mount_agent.packages.systems import System

# Those that may have FUSE, the first before the second: Debian has only one of them.
_COMPONENTS = ("main", "universe")
# How Debian names the processors that AWS calls x86_64 and arm64.
_MACHINES = {"x86_64": "amd64", "arm64": "arm64"}
_COMPRESSED = {"xz": lzma.decompress, "gz": gzip.decompress}


class _Package(NamedTuple):
    name: str
    component: str
    fields: dict[str, str]


def of_this_machine(system: System) -> str | None:
    """The repository of a system's distribution that this machine's own apt asks, as a URL: that of
    the very suite, or else of another one, since they lie side by side. None where this machine is
    of another distribution."""
    form = ["--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)", "Created-By: Packages"]
    try:
        answer = subprocess.run(
            ["apt-get", "indextargets", *form], stdout=subprocess.PIPE, check=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    rows = [line.split(" ", 2) for line in answer.stdout.splitlines()]
    # Updates for a suite may lie elsewhere.
    urls = {suite: url for origin, suite, url in rows if origin.lower() == system.id}
    others = (url for suite, url in urls.items() if "-" not in suite)
    return urls.get(system.suite) or next(others, None)


def named(system: System) -> str:
    """What is to be named for a system, for people."""
    return f"a repository with dists/{system.suite}/, or make the bundle on such a machine"


def copy(fetch: Fetch, system: System, architecture: str, folder: Path) -> None:
    """Copies the FUSE packages of a system into a folder, with those that they need and that the
    smallest such system may lack. ``architecture`` is x86_64 or arm64. Raises what ``fetch`` does,
    ``package-broken``, or ``packages-failed`` for one that is not there."""
    wanted = (system.fuse, *system.libraries)
    dists = f"dists/{system.suite}"
    fetch(f"{dists}/InRelease", folder / dists / "InRelease")
    release = (folder / dists / "InRelease").read_text(encoding="utf-8")
    signed = dict(_signed_files(release))
    known: dict[str, _Package] = {}
    indexes: dict[str, Path] = {}
    for component in _COMPONENTS:
        for ending, decompress in _COMPRESSED.items():
            name = f"{component}/binary-{_MACHINES[architecture]}/Packages.{ending}"
            if name in signed and component not in indexes:
                index = indexes[component] = folder / dists / name
                fetch(f"{dists}/{name}", index)
                require_digest(index, "sha256", signed[name])
                for package in _packages(decompress(index.read_bytes()).decode(), component):
                    known.setdefault(package.name, package)
    require_known(wanted, known)
    needs = _Needs(known)
    taken = closure(wanted, needs) - closure(_smallest(known.values()), needs)
    for package in map(known.__getitem__, sorted(taken.union(wanted))):
        file = folder / package.fields["Filename"]
        fetch(package.fields["Filename"], file)
        require_digest(file, "sha256", package.fields["SHA256"])
    for component in indexes.keys() - {known[name].component for name in taken.union(wanted)}:
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


def _smallest(packages: Iterable[_Package]) -> Iterator[str]:
    """What is on each system that apt has made."""
    yield "apt"
    for package in packages:
        essential = package.fields.get("Essential") == "yes"
        if essential or package.fields.get("Priority") == "required":
            yield package.name


class _Needs:
    """What a package needs, by an index: of those that would do the first that there is."""

    def __init__(self, known: dict[str, _Package]) -> None:
        self._known = known
        self._providing: dict[str, str] = {}
        for package in known.values():
            for names in _relations(package.fields.get("Provides", "")):
                self._providing.setdefault(names[0], package.name)

    def __call__(self, name: str) -> Iterator[str]:
        fields = self._known[name].fields
        for field in ("Pre-Depends", "Depends"):
            for any_of in _relations(fields.get(field, "")):
                # What nobody has is apt's to judge, on the node.
                yield from filter(None, [self._one(any_of)])

    def _one(self, any_of: list[str]) -> str | None:
        there = (name for name in any_of if name in self._known)
        provided = (self._providing[name] for name in any_of if name in self._providing)
        return next(there, None) or next(provided, None)


def _relations(field: str) -> Iterator[list[str]]:
    """``a (>= 1) | b, c:any`` as the names [a, b] and [c]."""
    for any_of in filter(None, field.split(", ")):
        yield [each.split(" ")[0].partition(":")[0] for each in any_of.split(" | ")]
