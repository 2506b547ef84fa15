"""A piece of a repository of rpms: a few packages, each with the distribution's signature inside.

The index is made anew: nobody trusts it, since dnf looks at each package's own signature, and the
whole one may be a hundred times as large as the packages.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from repository import Fetch, closure, require_digest, require_known
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.packages.systems import System

# How the distributions name the processors that AWS calls x86_64 and arm64.
_MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}
_NAMESPACE = "http://linux.duke.edu/metadata"
_REPO, _COMMON, _RPM = (f"{{{_NAMESPACE}/{name}}}" for name in ("repo", "common", "rpm"))
_REPOMD = "repodata/repomd.xml"
# What the agent installs with is on each node, and what that needs.
_SMALLEST = ("dnf",)
# Today's createrepo_c packs with zstd, which Python reads from 3.14 on only.
_MAKE_INDEX = "createrepo_c --general-compress-type=gz FOLDER"
_UNPACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".xz": lzma.decompress,
    ".bz2": bz2.decompress,
    ".xml": bytes,
}


class _Package(NamedTuple):
    name: str
    machine: str
    built: int
    href: str
    digest: tuple[str, str]
    requires: tuple[str, ...]
    provides: tuple[str, ...]


def of_this_machine(system: System) -> str | None:
    """None: where dnf has its packages from may take a subscription, or change by the release."""
    return None


def named(system: System) -> str:
    """What is to be named for a system, for people."""
    packages = " ".join((system.fuse, *system.libraries))
    return (
        "a repository with repodata/, or a folder that `dnf download --resolve --destdir=FOLDER "
        f"{packages}` and `{_MAKE_INDEX}` have filled on such a machine"
    )


def copy(fetch: Fetch, system: System, architecture: str, folder: Path) -> None:
    """Copies the FUSE packages of a system, with those that they need and that dnf does not, into a
    folder. ``architecture`` is x86_64 or arm64. Raises what ``fetch`` does, ``package-broken``, or
    ``packages-failed`` for one that is not there."""
    wanted = (system.fuse, *system.libraries)
    index = _index(fetch, folder)
    known: dict[str, _Package] = {}
    for package in map(_package, _elements(index)):
        if package.machine in ("noarch", _MACHINES[architecture]) and (
            package.name not in known or known[package.name].built < package.built
        ):
            known[package.name] = package
    require_known(wanted, known)
    provider = {each: package.name for package in known.values() for each in package.provides}

    def needs(name: str) -> Iterator[str]:
        """What nobody provides here is in another repository, and on each node."""
        return (provider[each] for each in known[name].requires if each in provider)

    taken = closure(wanted, needs) - closure(known.keys() & set(_SMALLEST), needs)
    hrefs = {}
    for package in map(known.__getitem__, sorted(taken.union(wanted))):
        file = folder / Path(package.href).name
        fetch(package.href, file)
        require_digest(file, *package.digest)
        hrefs[package.digest] = file.name
    _write_index(folder, index, hrefs)


def _index(fetch: Fetch, folder: Path) -> bytes:
    """The repository's list of packages."""
    repomd = folder / _REPOMD
    fetch(_REPOMD, repomd)
    try:
        rows = list(ET.fromstring(repomd.read_bytes()))  # noqa: S314 expat knows such bombs
    except ET.ParseError as error:
        raise AgentError(Problem.PACKAGE_BROKEN, f"{_REPOMD} cannot be read: {error}") from None
    for data in rows:
        if data.get("type") == "primary":
            href = _attribute(data, f"{_REPO}location", "href")
            file = repomd.parent / "whole"
            fetch(href, file)
            require_digest(file, *_digest(data, _REPO))
            packed = file.read_bytes()
            file.unlink()
            return _unpacked(href, packed)
    raise AgentError(Problem.PACKAGES_FAILED, f"{_REPOMD} names no list of packages")


def _unpacked(name: str, packed: bytes) -> bytes:
    ending = Path(name).suffix
    if ending not in _UNPACK:
        raise AgentError(
            Problem.PACKAGES_FAILED,
            f"{name} is compressed in a way that this Python cannot read",
            hint=f"have the index made anew: `{_MAKE_INDEX}`",
        )
    try:
        return _UNPACK[ending](packed)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise AgentError(Problem.PACKAGE_BROKEN, f"{name} is no {ending}: {error}") from None


def _elements(index: bytes) -> Iterator[ET.Element]:
    """Each package; it is gone when the next one is asked for."""
    events = ET.iterparse(io.BytesIO(index), ("start", "end"))  # noqa: S314 as above
    _, root = next(events)
    for event, element in events:
        if event == "end" and element.tag == f"{_COMMON}package":
            yield element
            root.clear()


def _package(element: ET.Element) -> _Package:
    entries = {
        what: [each.get("name", "") for each in element.iterfind(f".//{_RPM}{what}/{_RPM}entry")]
        for what in ("requires", "provides")
    }
    files = [each.text or "" for each in element.iter(f"{_COMMON}file")]
    return _Package(
        element.findtext(f"{_COMMON}name") or "",
        element.findtext(f"{_COMMON}arch") or "",
        int(_attribute(element, f"{_COMMON}time", "build")),
        _attribute(element, f"{_COMMON}location", "href"),
        _digest(element, _COMMON),
        tuple(entries["requires"]),
        (*entries["provides"], *files),
    )


def _attribute(element: ET.Element, tag: str, name: str) -> str:
    found = element.find(tag)
    return "" if found is None else found.get(name, "")


def _digest(element: ET.Element, namespace: str) -> tuple[str, str]:
    tag = f"{namespace}checksum"
    return _attribute(element, tag, "type"), element.findtext(tag) or ""


def _write_index(folder: Path, index: bytes, hrefs: dict[tuple[str, str], str]) -> None:
    """Writes the index of a few packages, by their digests: what the whole one said of them, and
    where they are now. dnf reads a list of files, too, and finds there that none is of interest."""
    for prefix, name in (("", "common"), ("rpm", "rpm")):
        ET.register_namespace(prefix, f"{_NAMESPACE}/{name}")
    packages, files = "", ""
    for element in _elements(index):
        digest = _digest(element, _COMMON)
        location, version = element.find(f"{_COMMON}location"), element.find(f"{_COMMON}version")
        if digest in hrefs and location is not None and version is not None:
            location.attrib = {"href": hrefs[digest]}
            packages += ET.tostring(element, encoding="unicode")
            named = {each: element.findtext(f"{_COMMON}{each}") or "" for each in ("name", "arch")}
            entry = ET.Element("package", {"pkgid": digest[1], **named})
            ET.SubElement(entry, "version", version.attrib)
            files += ET.tostring(entry, encoding="unicode")
    count = f'packages="{len(hrefs)}"'
    lists = {
        "primary": f'<metadata xmlns="{_NAMESPACE}/common" {count}>{packages}</metadata>',
        "filelists": f'<filelists xmlns="{_NAMESPACE}/filelists" {count}>{files}</filelists>',
    }
    rows = "".join(_row(folder, name, text) for name, text in lists.items())
    text = f'<repomd xmlns="{_NAMESPACE}/repo"><revision>0</revision>{rows}</repomd>'
    (folder / _REPOMD).write_text(text, encoding="utf-8")


def _row(folder: Path, name: str, text: str) -> str:
    """Writes a list, and returns what repomd.xml says of it."""
    file = f"repodata/{name}.xml.gz"
    data = gzip.compress(text.encode(), mtime=0)  # the same packages give the same bytes
    (folder / file).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    return (
        f'<data type="{name}"><checksum type="sha256">{digest}</checksum>'
        f'<location href="{file}"/><timestamp>0</timestamp></data>'
    )
