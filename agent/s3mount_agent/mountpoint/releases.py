"""AWS's releases of mount-s3: which one is meant, and how they are laid out where they lie.

https://github.com/awslabs/mountpoint-s3/blob/main/doc/INSTALL.md
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.versions import (
    LATEST,
    OFFICIAL,
    PINNED,
    PRESENT,
    SOURCE_PATTERN,
    VERSION_PATTERN,
    Install,
    Version,
    version_of,
)
from s3mount_agent.filesystem import disk, files
from s3mount_agent.mountpoint import origin, trust
from s3mount_agent.system.threads import together

OFFICIAL_URL = "https://s3.amazonaws.com/mountpoint-s3-release"
# AWS's signing keys: the one in use since 1.22.2 (March 2026), and the one before it.
DEFAULT_FINGERPRINTS = (
    "8AEFE705EBE329C0948C75A66F1C3B3AEF4B030B",
    "673FE4061506BB469A0EF857BE397A52B086DA5A",
)
_LARGEST_BYTES = 200 << 20
# Of a signature, and of a file of public keys: AWS's have 1 and 6 KB.
_LARGEST_TEXT_BYTES = 1 << 20
_PAGE_BYTES = 100
KEYS = "public_keys/KEYS"
_VERSION, _URL = "S3MOUNT_RELEASE_VERSION", "S3MOUNT_RELEASE_URL"


@dataclass(frozen=True)
class Release:
    """A release, and the folder of releases that it comes from (origin.py has which there can be);
    ``fingerprints`` are the keys it may be signed with."""

    origin: str = OFFICIAL_URL
    version: str = PINNED
    fingerprints: tuple[str, ...] = DEFAULT_FINGERPRINTS

    @staticmethod
    def chosen(source: Install) -> Release:
        """Where it comes from may be named in the configuration or, for this node alone, in the
        agent's environment file; the keys that packages may be signed with only there: whoever
        writes the configuration must not be able to install anything as root."""
        named = os.environ.get("S3MOUNT_RELEASE_FINGERPRINTS", "")
        fingerprints = tuple(re.sub(r"[\s:]", "", f).upper() for f in named.split(",") if f)
        folder = _own(_URL, SOURCE_PATTERN, "a place", OFFICIAL_URL) or source.source or OFFICIAL
        version = asked(source)
        return Release(
            OFFICIAL_URL if folder == OFFICIAL else folder.rstrip("/"),
            PINNED if version in (None, PRESENT) else version,
            fingerprints or DEFAULT_FINGERPRINTS,
        )

    def package(self, architecture: str, extension: str) -> str:
        """The name of a package in the folder: ``architecture`` x86_64 or arm64, ``extension`` deb
        or rpm."""
        if self.version == LATEST:
            return f"latest/{architecture}/mount-s3.{extension}"
        name = f"mount-s3-{self.version}-{architecture}.{extension}"
        return f"{self.version}/{architecture}/{name}"


def asked(source: Install) -> str | None:
    """The version that a node is to have, by its own environment file or the configuration: a
    number, "latest" or "present"; None where nobody says. Raises ``environment-invalid``."""
    return _own(_VERSION, VERSION_PATTERN, "a version", PINNED) or source.version


def _own(variable: str, pattern: str, what: str, example: str) -> str | None:
    """What the node's own environment file says, if it does; raises ``environment-invalid``."""
    own = os.environ.get(variable)
    if own and not re.fullmatch(pattern, own, re.ASCII):
        raise AgentError(
            Problem.ENVIRONMENT_INVALID,
            f"{variable} is not {what} such as {example}",
            hint=f"correct it in /etc/s3mount-agent/environment, or where {variable} is set",
        )
    return own


def is_elsewhere(source: Install) -> bool:
    """Whether another folder of releases is named than AWS's own."""
    return Release.chosen(source).origin != OFFICIAL_URL


def to_install(source: Install, here: Version | None) -> Release | None:
    """What a node gets whose mount-s3 is of the version ``here`` (None: it has none); None where
    that stays.

    Only a version that is named replaces another one. Whether there is a later one than what is
    here is not asked: not at each boot, and not behind the back of who tests what he runs. Raises
    ``mount-s3-missing``.
    """
    version = asked(source)
    if here is None and version == PRESENT:
        raise AgentError(
            Problem.MOUNT_S3_MISSING,
            "this node has no mount-s3, and is to install none: install.version is present",
        )
    if here is None:
        return Release.chosen(source)
    if version in (None, PRESENT) or here == version_of(version):
        return None
    if version == LATEST and here >= version_of(PINNED):
        return None
    return Release.chosen(source)


def fetch(
    release: Release,
    architecture: str,
    extension: str,
    directory: Path,
    *,
    seconds: float = origin.WHOLE_SECONDS,
    tell: origin.Tell = origin.nobody,
) -> Path:
    """Brings a package, its signature and the public keys, and returns the package once proven;
    ``tell`` is told how far that is, which takes ``seconds`` at most.

    Raises what :func:`origin.fetch` and :func:`trust.verify` raise, and ``package-broken`` where a
    web page came; then no package stays in ``directory`` but one that is called ….refused.
    """
    name = release.package(architecture, extension)
    package = directory / name.rpartition("/")[2]
    unproven = package.with_name(f"{package.name}.refused")
    signature = directory / f"{package.name}.asc"
    keys = directory / "KEYS"
    files.remove(package)
    bring = partial(_bring, release.origin, seconds=seconds)
    wanted = (
        partial(bring, name, unproven, limit=_LARGEST_BYTES, tell=tell),
        partial(bring, f"{name}.asc", signature, limit=_LARGEST_TEXT_BYTES),
        partial(bring, KEYS, keys, limit=_LARGEST_TEXT_BYTES),
    )
    together(wanted, at_once=len(wanted))
    trust.verify(unproven, signature, keys, release.fingerprints)
    disk.move(unproven, package)
    return package


def _bring(folder: str, name: str, target: Path, **how: Any) -> None:
    origin.fetch(folder, name, target, **how)
    # Neither a package, nor a signature, nor a key begins like this; what a proxy or a portal says
    # in their place does.
    if disk.head(target, _PAGE_BYTES).lstrip().startswith(b"<"):
        raise AgentError(
            Problem.PACKAGE_BROKEN,
            f"{folder}/{name} is a web page (HTML or XML) instead of what it should be",
            hint="a proxy or a portal may answer in its place: see what `curl -L` gets there",
        )
