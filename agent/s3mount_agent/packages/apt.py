"""The distribution's packages: apt, on Debian and Ubuntu.

What packages are called on which system is in systems.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.text import last_lines
from s3mount_agent.filesystem import disk, files
from s3mount_agent.packages import lock_holder as holder
from s3mount_agent.packages.interface import LOCK_SECONDS, SPACE_BYTES
from s3mount_agent.system import process

_INSTALL_SECONDS = 900.0
_LOCK = Path("/var/lib/dpkg/lock-frontend")
# One repository that does not answer must not take the time of all the others.
_REFRESH_SECONDS = 240.0
_ANSWER_SECONDS = 20
_LOOK_SECONDS = 60.0
# A /tmp that is full, as jobs leave it, need not matter: without space in /var nothing can be
# installed anyway.
_ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "NEEDRESTART_MODE": "l",
    "TMPDIR": "/var/tmp",  # noqa: S108  for programs that know how to use it
}
_OPTIONS = (
    f"--option=DPkg::Lock::Timeout={LOCK_SECONDS:.0f}",
    "--option=Acquire::Retries=3",
    f"--option=Acquire::http::Timeout={_ANSWER_SECONDS}",
    f"--option=Acquire::https::Timeout={_ANSWER_SECONDS}",
    "--option=Dpkg::Options::=--force-confold",
    "--quiet=2",
    "--yes",
)
# Where apt keeps what it knows of a piece of a repository.
_KNOWN = "apt"
_NOTHING_ELSE = "--option=APT::Get::AutomaticRemove=false"
# dpkg's words for a package of which there is nothing to remove.
_GONE = ("not-installed", "config-files", "")
_WHOLE = "installed"
# What apt-get says that it would do, a line each: Inst NAME [INSTALLED] (NEW ...), Remv, Purg.
_STEP = re.compile(r"^(?P<what>Inst|Remv|Purg) (?P<name>\S+)(?P<installed> \[)?", re.MULTILINE)


def lock_holder() -> str | None:
    """The program, with its pid, that installs or removes packages now; None if none does."""
    return holder.of_file(_LOCK)


def require_space() -> None:
    """Raises ``no-space`` if the packages would not fit."""
    disk.require_free((Path("/usr"), Path("/var/cache/apt")), SPACE_BYTES, "the packages")


def refresh(only: Path | None = None) -> AgentError | None:
    """Reads the repositories' lists anew; without that a fresh image may not know libfuse2.

    Returns what went wrong: one broken repository of many says nothing about the package that is
    wanted, so that whether it can be had decides.
    """
    retries = "--option=Acquire::Retries=1"
    if only is not None:
        _know_only(only)
    try:
        _apt("update", retries, *_knowing(only), timeout=_REFRESH_SECONDS)
    except AgentError as error:
        return error
    return None


def can_have_any(names: Sequence[str]) -> bool:
    """Whether one of some packages is installed, or the lists of the repositories have it."""
    return any(map(version_offered, names))


def version_offered(name: str) -> str | None:
    """The version of a package that is installed or would be, by the lists of the repositories."""
    answer = process.run(["apt-cache", "policy", "--", name], timeout=_LOOK_SECONDS, check=False)
    found = re.search(r"^ *Candidate: (\S+)$", answer.stdout, re.MULTILINE)
    return found[1] if found and found[1] != "(none)" else None


def present(names: Collection[str]) -> frozenset[str]:
    """Those of some packages that are installed, wholly or half."""
    return frozenset(name for name, status in _statuses(names) if status not in _GONE)


def half_installed(names: Collection[str]) -> frozenset[str]:
    """Those of some packages at which an installation has been interrupted, or has failed."""
    whole = (*_GONE, _WHOLE)
    return frozenset(name for name, status in _statuses(names) if status not in whole)


def _statuses(names: Collection[str]) -> list[tuple[str, str]]:
    """The names and dpkg's words for the status of those of some packages that it knows."""
    if not names:
        return []
    rows = process.run(
        ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\n", "--", *names],
        timeout=_LOOK_SECONDS,
        check=False,  # some are unknown
    ).stdout.splitlines()
    return [(name, status) for status, _, name in (row.partition(" ") for row in rows)]


def chosen_by_hand(names: Collection[str]) -> frozenset[str]:
    """Those of some packages that somebody asked for by name: apt-mark(8)."""
    if not names:
        return frozenset()
    answer = process.run(["apt-mark", "showmanual", "--", *names], timeout=_LOOK_SECONDS)
    return frozenset(answer.stdout.split())


def would_install(
    names: Sequence[str], *, again: bool = False, older: bool = False, only: Path | None = None
) -> frozenset[str]:
    """The packages that install() would newly bring onto the node; raises as install() does."""
    given = _installing(names, again=again, older=older)
    steps = _STEP.finditer(_apt("install", "--simulate", *_knowing(only), *given))
    return frozenset(
        _plain(step["name"]) for step in steps if step["what"] == "Inst" and not step["installed"]
    )


def install(
    names: Sequence[str], *, again: bool = False, older: bool = False, only: Path | None = None
) -> None:
    """Installs packages (names, or paths of .deb files) in one transaction.

    ``again`` after an installation that was interrupted: what dpkg was unpacking then, it can only
    unpack anew. ``older``: also where a later version is installed. ``only`` is a piece of the
    distribution's own repository, which is asked instead of all that the node knows: apt takes from
    it what a key of the node's has signed, and the refresh() before has to be of it, too.

    Removes nothing: on Ubuntu the package ``fuse`` would otherwise push out fuse3 and all that
    needs it. Raises ``packages-failed`` or ``no-space``.
    """
    _apt("install", *_knowing(only), *_installing(names, again=again, older=older))


def repair() -> None:
    """Ends what an interrupted installation left half-done; does nothing otherwise."""
    process.run(
        ["dpkg", "--configure", "-a", "--force-confold"],
        timeout=_INSTALL_SECONDS,
        extra_environment=_ENVIRONMENT,
        check=False,
    )


def would_remove(names: Sequence[str]) -> frozenset[str]:
    """All packages that would go with these, and they themselves."""
    steps = _STEP.finditer(_apt("purge", _NOTHING_ELSE, "--simulate", "--", *names))
    return frozenset(_plain(step["name"]) for step in steps if step["what"] != "Inst")


def remove(names: Sequence[str]) -> None:
    """Removes packages and their configuration; see would_remove() for what goes with them."""
    _apt("purge", _NOTHING_ELSE, "--", *names)


def version_of(package: Path) -> tuple[str, str]:
    """The name and the version that a .deb file says it has; raises ``package-broken``."""
    answer = process.run(
        ["dpkg-deb", "--show", "--showformat=${Package} ${Version}", str(package)],
        timeout=_LOOK_SECONDS,
        extra_environment=_ENVIRONMENT,  # it unpacks a part of the package
        check=False,
    )
    name, _, version = answer.stdout.strip().partition(" ")
    if answer.code or not version:
        raise AgentError(
            Problem.PACKAGE_BROKEN,
            f"{package.name} is no Debian package",
            cause=answer.last_words() or None,
        )
    return name, version


def _know_only(folder: Path) -> None:
    """Writes the list of sources for apt to know a piece of a repository, as it lies there."""
    disk.empty_directory(folder / _KNOWN)
    disk.empty_directory(folder / _KNOWN / "lists")
    sources = [
        f"deb [by-hash=no lang=none target=Packages] file:{folder} {suite.name} "
        + " ".join(each.parent.name for each in disk.matching(suite, "*/binary-*"))
        for suite in disk.matching(folder / "dists", "*")
    ]
    files.write(folder / _KNOWN / "sources.list", "\n".join([*sources, ""]))


def _knowing(only: Path | None) -> list[str]:
    """The options by which apt knows nothing but a piece of a repository, where there is one.

    Whoever filled it is not trusted, also on a node whose own repositories need no signature.
    """
    if only is None:
        return []
    known = only / _KNOWN
    options = {
        "Dir::Etc::SourceList": known / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": known / "lists",
        "Dir::Cache": known,
        "Acquire::Check-Valid-Until": "false",  # it is as old as it is on purpose
        "Acquire::AllowInsecureRepositories": "false",
        "Acquire::AllowWeakRepositories": "false",
        "APT::Get::AllowUnauthenticated": "false",
    }
    return [f"--option={name}={value}" for name, value in options.items()]


def _installing(names: Sequence[str], *, again: bool, older: bool) -> list[str]:
    options = ["--no-install-recommends", "--no-remove"]
    options += ["--reinstall"] * again + ["--allow-downgrades"] * older
    return [*options, "--", *names]


def _plain(name: str) -> str:
    """A package's name without the architecture."""
    return name.partition(":")[0]


def _apt(*arguments: str, timeout: float = _INSTALL_SECONDS) -> str:
    answer = process.run(
        ["apt-get", *_OPTIONS, *arguments],
        timeout=timeout,
        extra_environment=_ENVIRONMENT,
        check=False,
    )
    if answer.code == 0:
        return answer.stdout
    # What it says in indented lines are the hashes of a file that is another one.
    told = [line for line in answer.stderr.splitlines() if not line.startswith("  ")]
    words = last_lines("\n".join(told)) or answer.last_words()
    full = "No space left" in words or "enough free space" in words
    raise AgentError(
        Problem.NO_SPACE if full else Problem.PACKAGES_FAILED,
        f"`apt-get {arguments[0]}` ended with {answer.code}",
        cause=words or None,
        retry_for=0 if full else math.inf,
    )
