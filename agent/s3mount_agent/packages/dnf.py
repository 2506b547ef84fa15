"""The distribution's packages: dnf 4 and rpm, on Amazon Linux 2023, Red Hat 8 and 9, and Rocky.

What is there is asked of rpm, whose database is read without a lock; what would come is read from
the table that dnf shows before it asks whether to go on. dnf waits for its own locks without end,
and fails at once on rpm's, unless it has a terminal: both are waited for here, with a deadline.
"""

from __future__ import annotations

import configparser
import math
import re
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.filesystem import disk, files
from s3mount_agent.packages import lock_holder as holder
from s3mount_agent.packages.interface import LOCK_SECONDS, SPACE_BYTES
from s3mount_agent.system import process

_INSTALL_SECONDS = 900.0
_LOOK_SECONDS = 60.0
# One repository that does not answer must not take the time of all the others.
_REFRESH_SECONDS = 240.0
_POLL_SECONDS = 1.0
_OPTIONS = (
    "--setopt=exit_on_lock=True",
    "--setopt=timeout=20",
    "--setopt=retries=2",
    "--setopt=install_weak_deps=False",
    "--setopt=*.skip_if_unavailable=True",
    # What is known is asked as it is: refresh() is who asks the network.
    "--setopt=*.metadata_expire=never",
)
# What is given as a file has been proven, or is asked for its signature like all that is installed
# from a repository; AWS's has none inside.
_PROVEN = "--setopt=localpkg_gpgcheck=False"
_NO_REPOSITORY = "--disablerepo=*"
# The id of a piece of a repository that is asked instead of all that the node knows.
_ONLY = "s3mount-agent"
# What dnf remembers a transaction of ours by.
_OURS = "s3mount-agent"
_FILES = "@commandline"
_RPM_LOCKS = (Path("/var/lib/rpm/.rpm.lock"), Path("/usr/lib/sysimage/rpm/.rpm.lock"))
_DNF_LOCKS = (
    Path("/var/lib/dnf/rpmdb_lock.pid"),
    Path("/var/cache/dnf/metadata_lock.pid"),
    Path("/var/cache/dnf/download_lock.pid"),
)
_LOCKED = re.compile(r"can't create transaction lock|already locked by|obtain the transaction lock")
_UNSIGNED = re.compile(r"GPG check FAILED|is not signed|public key .*not installed", re.I)
_FULL = re.compile(r"No space left|more space needed|needs .* more space|Insufficient space", re.I)
_CONF = Path("/etc/dnf/dnf.conf")
_REPOSITORIES = (Path("/etc/yum.repos.d"), Path("/etc/distro.repos.d"), Path("/etc/yum/repos.d"))
_TRUE = ("1", "yes", "true", "on")
# The sections of dnf's table that are about packages, and whether they bring new ones. Others are
# about modules and groups; and before the table Amazon Linux tells of its new releases.
_SECTIONS = {
    "Installing:": True,
    "Installing group/module packages:": True,
    "Installing dependencies:": True,
    "Installing weak dependencies:": True,
    "Upgrading:": False,
    "Downgrading:": False,
    "Reinstalling:": False,
    "Removing:": False,
    "Removing dependent packages:": False,
    "Removing unused dependencies:": False,
}
_TABLE = "Dependencies resolved.\n"
_SUMMARY = "\nTransaction Summary\n"
_NEEDED = re.compile(r" is needed by \(installed\) (\S+)$", re.MULTILINE)
_IGNORED = "Ignoring repositories: "


class _Step(NamedTuple):
    """A row of dnf's table: what becomes of a package, and where that is from."""

    section: str
    name: str
    repository: str

    @property
    def is_new(self) -> bool:
        """Whether it brings a package that is not there."""
        return _SECTIONS[self.section]


def lock_holder() -> str | None:
    """The program, with its pid, that installs or removes packages now; None if none does."""
    locked = filter(None, map(holder.of_file, _RPM_LOCKS))
    return next(locked, None) or holder.of_pid_files(_DNF_LOCKS)


def require_space() -> None:
    """Raises ``no-space`` if the packages would not fit."""
    disk.require_free((Path("/usr"), Path("/var/cache/dnf")), SPACE_BYTES, "the packages")


def refresh(only: Path | None = None) -> AgentError | None:
    """Reads what is in the repositories anew; returns what went wrong with some of them."""
    try:
        answer = _dnf("--refresh", *_knowing(only), "makecache", timeout=_REFRESH_SECONDS)
    except AgentError as error:
        return error
    if _IGNORED not in answer.stderr:
        return None
    return _failure("makecache", answer)


def can_have_any(names: Sequence[str]) -> bool:
    """Whether one of some packages is installed or, as was known last, in a repository."""
    return bool(present(names) or _known(names))


def version_offered(name: str) -> str | None:
    """The newest version of a package that a repository had when they were asked last."""
    return next(iter(_known([name])), None)


def _known(names: Sequence[str]) -> list[str]:
    """The versions of some packages that the repositories had when they were asked last."""
    asked = ("repoquery", "--latest-limit=1", "--queryformat=%{version}", *names)
    answer = process.run(
        ["dnf", "--quiet", "--cacheonly", *_OPTIONS, *asked], timeout=_LOOK_SECONDS, check=False
    )
    return answer.stdout.split() if answer.code == 0 else []


def present(names: Collection[str]) -> frozenset[str]:
    """Those of some packages that are installed."""
    return frozenset(_installed(names))


def half_installed(names: Collection[str]) -> frozenset[str]:
    """Those of some packages that are in our last transaction, if that has not come to its end.

    rpm knows a package once all its files are there; before, there are files that nobody owns.
    """
    return frozenset(names).intersection(_interrupted())


def chosen_by_hand(names: Collection[str]) -> frozenset[str]:
    """Those of some packages that somebody asked for by name: dnf-mark in dnf(8)."""
    if not names:
        return frozenset()
    answer = _dnf(_NO_REPOSITORY, "--quiet", "repoquery", "--userinstalled", "--qf=%{name}")
    return frozenset(names).intersection(answer.stdout.split())


def would_install(
    names: Sequence[str], *, again: bool = False, older: bool = False, only: Path | None = None
) -> frozenset[str]:
    """The packages that install() would newly bring onto the node.

    Raises as install() does, and ``repository-unchecked`` where one would come from a repository
    whose packages' signatures are not looked at.
    """
    steps = _steps(*_knowing(only), "install", *names)
    others = sorted(step.name for step in steps if step.section.startswith("Removing"))
    if others:
        raise AgentError(Problem.PACKAGES_FAILED, f"dnf would remove {', '.join(others)} for it")
    later = sorted(step.name for step in steps if step.section == "Downgrading:")
    if later and not older:
        raise AgentError(Problem.PACKAGES_FAILED, f"a later {', '.join(later)} is installed")
    if only is None:
        _require_checks({step.repository for step in steps} - {_FILES})
    return frozenset(step.name for step in steps if step.is_new)


def install(
    names: Sequence[str], *, again: bool = False, older: bool = False, only: Path | None = None
) -> None:
    """Installs packages (names, or paths of .rpm files) in one transaction; see would_install()."""
    given = (*_knowing(only), f"--comment={_OURS}", "--assumeyes")
    _dnf(*given, "install", *names, timeout=_INSTALL_SECONDS)


def repair() -> None:
    """Has rpm forget what an interrupted transaction of ours has brought, so that it comes anew:
    its scripts may not have run, and of an upgrade both versions may be known."""
    half = sorted(present(_interrupted()))
    if half:
        forget = ("--justdb", "--nodeps", "--noscripts", "--notriggers", "--allmatches")
        process.run(["rpm", "--erase", *forget, "--", *half], timeout=_LOOK_SECONDS, check=False)


def would_remove(names: Sequence[str]) -> frozenset[str]:
    """All packages that would go with these, and they themselves."""
    going = present(names)
    while going:
        answer = process.run(
            ["rpm", "--erase", "--test", "--allmatches", "--", *sorted(going)],
            timeout=_LOOK_SECONDS,
            check=False,
        )
        needing = set(_NEEDED.findall(answer.stderr))
        if not needing:
            if answer.code:
                raise _failure("remove", answer)
            break
        going |= set(_installed(needing))
    return going


def remove(names: Sequence[str]) -> None:
    """Removes packages and their configuration; see would_remove() for what goes with them."""
    alone = (_NO_REPOSITORY, "--noautoremove", "--assumeyes")
    _dnf(*alone, "remove", *names, timeout=_INSTALL_SECONDS)


def version_of(package: Path) -> tuple[str, str]:
    """The name and the version that an .rpm file says it has; raises ``package-broken``."""
    form = "--queryformat=%{NAME} %{VERSION}"
    answer = process.run(
        ["rpm", "--query", "--package", form, str(package)], timeout=_LOOK_SECONDS, check=False
    )
    name, _, version = answer.stdout.strip().partition(" ")
    if answer.code or not version:
        raise AgentError(
            Problem.PACKAGE_BROKEN,
            f"{package.name} is no rpm package",
            cause=answer.last_words() or None,
        )
    return name, version


def _installed(names: Collection[str]) -> list[str]:
    """The plain names of those of some packages, with or without versions, that rpm has."""
    if not names:
        return []
    asked = ["--queryformat=installed %{NAME}\n", "--", *sorted(names)]
    answer = process.run(["rpm", "--query", *asked], timeout=_LOOK_SECONDS, check=False)
    return re.findall(r"^installed (\S+)$", answer.stdout, re.MULTILINE)


def _interrupted() -> frozenset[str]:
    """The packages of the last transaction, if it was ours and has not come to its end."""
    told = _dnf("history", "info", "last", check=False).stdout
    if f"\nComment        : {_OURS}\n" not in told:
        return frozenset()
    return frozenset(re.findall(r"^ \*\* \w+ +(\S+)-[^-\s]+-[^-\s]+(?= |$)", told, re.MULTILINE))


def _steps(*arguments: str) -> list[_Step]:
    """What dnf would do; raises what it would raise."""
    answer = _dnf("--assumeno", *arguments, timeout=_REFRESH_SECONDS, check=False)
    told, summary, _ = answer.stdout.partition(_SUMMARY)
    if answer.code and not summary:
        raise _failure("install", answer)
    return list(_rows(told.rpartition(_TABLE)[2])) if summary else []


def _rows(table: str) -> Iterator[_Step]:
    """The rows of dnf's table: where a name does not fit into its column, the rest of the row comes
    in the next line, which begins with more spaces."""
    section, fields = "", list[str]()
    for line in [*table.splitlines(), ""]:
        if not line.startswith("  ") and fields:
            name, _, _, repository, *_ = fields
            yield _Step(section, name, repository)
            fields = []
        if line in _SECTIONS:
            section = line
        elif not line.startswith(" "):
            section = ""
        elif section:
            fields += line.split()


def _require_checks(repositories: Iterable[str]) -> None:
    """Raises ``repository-unchecked`` if what comes from one of some repositories is not checked
    for its signature."""
    main, *_ = configured = [_settings(path) for path in (_CONF, *_files_of_repositories())]
    default = main.get("main", {}).get("gpgcheck", "0")
    for name in sorted(repositories):
        own = [settings[name] for settings in configured if name in settings]
        checked = [settings.get("gpgcheck", default).lower() in _TRUE for settings in own]
        if not checked or not all(checked):
            raise AgentError(
                Problem.REPOSITORY_UNCHECKED,
                f"the repository {name} has gpgcheck off: nothing is installed from it",
            )


def _files_of_repositories() -> list[Path]:
    return [path for folder in _REPOSITORIES for path in disk.matching(folder, "*.repo")]


def _settings(path: Path) -> dict[str, dict[str, str]]:
    """A file of dnf.conf(5): its sections, with their settings."""
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(files.read(path) or "")
    except configparser.Error:
        return {}
    return {name: dict(parser[name]) for name in parser.sections()}


def _knowing(only: Path | None) -> list[str]:
    """The options by which dnf knows nothing but a piece of a repository, where there is one.

    Whoever filled it is not trusted, also on a node whose own repositories need no signature.
    """
    if only is None:
        return []
    keys = " ".join(f"file://{key}" for key in disk.matching(Path("/etc/pki/rpm-gpg"), "*"))
    settings = {"gpgcheck": "True", "gpgkey": keys, "metadata_expire": "0"}
    given = [f"--setopt={_ONLY}.{name}={value}" for name, value in settings.items()]
    return [f"--repofrompath={_ONLY},file://{only}", f"--repo={_ONLY}", *given]


def _dnf(*arguments: str, timeout: float = _LOOK_SECONDS, check: bool = True) -> process.Completed:
    """Runs dnf once nobody else installs or removes something; raises ``packages-failed``, with
    who did, where that takes too long."""
    deadline = time.monotonic() + LOCK_SECONDS
    command = ["dnf", *_OPTIONS, _PROVEN, *arguments]
    while True:
        held = lock_holder()
        if held is None:
            answer = process.run(command, timeout=timeout, check=False)
            if not _LOCKED.search(answer.stderr):
                break
            held = lock_holder() or "another program"
        if time.monotonic() >= deadline:
            raise AgentError(
                Problem.PACKAGES_FAILED,
                f"{held} has been changing packages for more than {LOCK_SECONDS:.0f} s",
                retry_for=math.inf,
            )
        time.sleep(_POLL_SECONDS)
    if answer.code and check:
        raise _failure(next(word for word in arguments if not word.startswith("-")), answer)
    return answer


def _failure(command: str, answer: process.Completed) -> AgentError:
    words = answer.last_words()
    lasting = (
        (_FULL, Problem.NO_SPACE),
        (_UNSIGNED, Problem.SIGNATURE_BAD),
    )
    problem = next((each for sign, each in lasting if sign.search(answer.stderr)), None)
    return AgentError(
        problem or Problem.PACKAGES_FAILED,
        f"`dnf {command}` ended with {answer.code}",
        cause=words or None,
        retry_for=0 if problem else math.inf,
    )
