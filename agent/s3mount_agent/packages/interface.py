"""What a package manager does for the agent; apt.py and dnf.py are modules that do it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

from s3mount_agent.core.errors import AgentError

# Other programs hold a package manager's lock while a node boots (unattended-upgrades, the SSM
# agent).
LOCK_SECONDS = 300.0
# mount-s3, FUSE 2's library and what they need take less than half of it.
SPACE_BYTES = 200 * 2**20


class PackageManager(Protocol):
    """A package manager. Everything that runs it raises ``packages-failed`` or ``no-space``, and
    what brings packages ``repository-unchecked`` where nobody would look at their signatures.

    ``only`` is a folder with a piece of the distribution's repository, as `make bundle` makes it:
    nothing else is asked, and nothing is taken from it that the distribution has not signed.
    """

    def lock_holder(self) -> str | None:
        """The program, with its pid, that installs or removes packages now; None if none does."""

    def require_space(self) -> None:
        """Raises ``no-space`` if mount-s3 and what it needs would not fit."""

    def refresh(self, only: Path | None = None) -> AgentError | None:
        """Reads the repositories' lists anew; returns what went wrong: one broken repository of
        many says nothing about the package that is wanted."""

    def can_have_any(self, names: Sequence[str]) -> bool:
        """Whether one of some packages is installed or can be, as far as is known without asking
        the network."""

    def version_offered(self, name: str) -> str | None:
        """The version of a package in the repositories, as far as is known without asking the
        network; None where they have none."""

    def present(self, names: Collection[str]) -> frozenset[str]:
        """Those of some packages that are installed, wholly or half."""

    def half_installed(self, names: Collection[str]) -> frozenset[str]:
        """Those of some packages at which an installation has been interrupted, or has failed."""

    def chosen_by_hand(self, names: Collection[str]) -> frozenset[str]:
        """Those of some packages that somebody asked for by name."""

    def would_install(
        self,
        names: Sequence[str],
        *,
        again: bool = False,
        older: bool = False,
        only: Path | None = None,
    ) -> frozenset[str]:
        """The packages that install() would newly bring onto the node: not those of which it would
        bring another version."""

    def install(
        self,
        names: Sequence[str],
        *,
        again: bool = False,
        older: bool = False,
        only: Path | None = None,
    ) -> None:
        """Installs packages (names, or paths of files) in one transaction that removes nothing;
        ``again`` after one that was interrupted. A file takes the place of the package's earlier
        version, and only where ``older`` of a later one."""

    def repair(self) -> None:
        """Ends what an interrupted installation left half-done; does nothing otherwise."""

    def would_remove(self, names: Sequence[str]) -> frozenset[str]:
        """All packages that would go with these, and they themselves."""

    def remove(self, names: Sequence[str]) -> None:
        """Removes packages and their configuration; see would_remove() for what goes with them."""

    def version_of(self, package: Path) -> tuple[str, str]:
        """The name and the version that a package's file says it has; raises ``package-broken``."""
