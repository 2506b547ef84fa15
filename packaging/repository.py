"""What a piece of a distribution's repository is made of, whatever the distribution."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from s3mount_agent.core.errors import AgentError, Problem

Fetch = Callable[[str, Path], None]
"""Puts what has a name in a repository into a file."""


def closure(names: Iterable[str], needs: Callable[[str], Iterable[str]]) -> frozenset[str]:
    """Packages, with all that they need, and that needs in turn."""
    found, left = set[str](), list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += needs(name)
    return frozenset(found)


def require_known(names: Iterable[str], known: Iterable[str]) -> None:
    """Raises ``packages-failed`` where a repository has not all of some packages."""
    missing = sorted(set(names).difference(known))
    if missing:
        raise AgentError(
            Problem.PACKAGES_FAILED,
            f"the repository has no package {' and no '.join(missing)}",
            hint="name the repository of that very system",
        )


def require_digest(file: Path, kind: str, digest: str) -> None:
    """Raises ``package-broken`` unless a file has the digest (``sha256``) that an index says."""
    if hashlib.new(kind, file.read_bytes()).hexdigest() != digest:
        raise AgentError(
            Problem.PACKAGE_BROKEN,
            f"{file.name} is not the file that the repository's index speaks of",
            hint="the repository may be changing just now: try again, or name another copy of it",
        )
