"""A bundle: an origin that has all that a node without internet needs, made by `make bundle`.

It has what AWS's release bucket has, and beside it the FUSE packages with what proves them, and a
manifest of what is there. Only that is believed of the manifest: mount-s3 is proven by AWS's
signature, and the rest by the distribution's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.text import parse_json
from s3mount_agent.filesystem import disk, files, json_codec
from s3mount_agent.mountpoint import origin

MANIFEST = "manifest.json"
SCHEMA = 1
_LARGEST_MANIFEST_BYTES = 1 << 20
# What FUSE takes is a tenth of it; most is the index of the distribution's repository.
_LARGEST_BYTES = 200 << 20
# A path that stays below where it begins, and is no word of anybody's syntax.
_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~^%-]*(/[A-Za-z0-9][A-Za-z0-9._+~^%-]*)*")
# It is shown as a part of a command.
_TARGET = re.compile(r"[a-z0-9]+:(x86_64|arm64)")


class Piece(NamedTuple):
    """A file of a bundle: its size in bytes and its SHA-256, for people and tools that copy it."""

    size: int
    sha256: str


class Manifest(NamedTuple):
    """What a bundle has: its files by path, and what it is for, as ``debian12:x86_64``."""

    systems: tuple[str, ...]
    files: Mapping[str, Piece]

    def text(self) -> str:
        """As it is written."""
        pieces = {name: piece._asdict() for name, piece in sorted(self.files.items())}
        return json.dumps({"schema": SCHEMA, "systems": self.systems, "files": pieces}, indent=1)


class Bundle(NamedTuple):
    """A bundle, and the origin that it is."""

    origin: str
    manifest: Manifest

    def require(self, name: str, target: str) -> None:
        """Raises ``bundle-incomplete`` unless it has a file; ``target`` is who needs it."""
        if name not in self.manifest.files:
            raise self._lacks(name, target)

    def fetch_fuse(self, target: str, wanted: Sequence[str], into: Path) -> None:
        """Brings the FUSE packages for ``target`` into an empty folder, with what proves them.

        ``wanted`` are those that the node lacks. Raises ``bundle-incomplete``, and what
        :func:`origin.fetch` raises.
        """
        folder = f"{fuse_folder(target)}/"
        names = [name for name in self.manifest.files if name.startswith(folder)]
        if not names:
            raise self._lacks(f"{' and '.join(wanted)} for it", target)
        left = _LARGEST_BYTES
        for name in names:
            file = into / name[len(folder) :]
            disk.make_directory(file.parent)
            limit = min(left, self.manifest.files[name].size)
            try:
                origin.fetch(self.origin, name, file, limit=limit)
            except origin.MissingError as error:
                raise AgentError(
                    Problem.BUNDLE_INCOMPLETE,
                    f"{self.origin} lacks the file {name}, which its manifest lists",
                    cause=error.cause,
                    hint=f"copy the bundle there whole, or make it anew with `{self._command()}`",
                ) from None
            left -= limit

    def refused(self, error: AgentError) -> AgentError:
        """Why a package manager has not taken what is from here."""
        if error.problem not in (Problem.PACKAGES_FAILED, Problem.SIGNATURE_BAD):
            return error
        return AgentError(
            Problem.BUNDLE_REFUSED,
            f"the FUSE packages of the bundle {self.origin} were not installed: {error.message}",
            cause=error.cause,
            hint=f"make it with `{self._command()}` and copy it there whole: nothing is taken from "
            "it that the distribution has not signed",
        )

    def _lacks(self, what: str, target: str) -> AgentError:
        return AgentError(
            Problem.BUNDLE_INCOMPLETE,
            f"this node is a {target}, and the bundle {self.origin} has no {what}: "
            f"it was made for {', '.join(self.manifest.systems) or 'nothing'}",
            hint=f"make it with `{self._command(target)}`, and copy it there",
        )

    def _command(self, *more: str) -> str:
        return f"make bundle SYSTEMS={','.join(dict.fromkeys([*self.manifest.systems, *more]))}"


def find(place: str, scratch: Path) -> Bundle | None:
    """The bundle that an origin is; None where it is a mere mirror, without a manifest.

    Raises ``bundle-incomplete`` for a manifest that cannot be one, and what :func:`origin.fetch`
    raises for other reasons than that there is none.
    """
    file = scratch / MANIFEST
    try:
        origin.fetch(place, MANIFEST, file, limit=_LARGEST_MANIFEST_BYTES)
    except (origin.MissingError, origin.DeniedError):
        return None
    try:
        return Bundle(place, _manifest(parse_json(files.read(file) or "")))
    except json_codec.WRONG as error:
        raise AgentError(
            Problem.BUNDLE_INCOMPLETE,
            f"{place}/{MANIFEST} is not the manifest of a bundle that this agent can read",
            cause=f"{type(error).__name__}: {error}",
            hint="make the bundle with the `make bundle` of this agent's version",
        ) from None


def fuse_folder(target: str) -> str:
    """Where a bundle has the FUSE packages for a system and an architecture."""
    return f"fuse/{target.replace(':', '/')}"


def _manifest(document: Any) -> Manifest:
    if document["schema"] != SCHEMA:
        raise ValueError(f"its schema is {document['schema']!r}, not {SCHEMA}")
    targets = json_codec.texts(document["systems"])
    for form, words in ((_PATH, document["files"]), (_TARGET, targets)):
        for word in words:
            if not form.fullmatch(word):
                raise ValueError(f"{word!r} is nothing that `make bundle` writes")
    return Manifest(
        targets,
        {
            name: Piece(
                json_codec.field(piece, "size", int), json_codec.field(piece, "sha256", str)
            )
            for name, piece in document["files"].items()
        },
    )
