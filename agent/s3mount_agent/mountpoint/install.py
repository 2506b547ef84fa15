"""Bringing mount-s3, and the libfuse2 it needs, onto a node that does not have them yet."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable
from pathlib import Path

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.versions import LATEST, PINNED, PRESENT, Install, shown, version_of
from s3mount_agent.filesystem import disk, files, fuse, paths
from s3mount_agent.mountpoint import bundle, choice, origin, program, releases, trust
from s3mount_agent.mountpoint.bundle import Bundle
from s3mount_agent.mountpoint.program import Installed
from s3mount_agent.mountpoint.releases import OFFICIAL_URL, Release
from s3mount_agent.packages import systems
from s3mount_agent.packages.interface import LOCK_SECONDS, PackageManager
from s3mount_agent.packages.systems import System
from s3mount_agent.state import inventory
from s3mount_agent.system import node
from s3mount_agent.system.retry import patiently
from s3mount_agent.system.threads import together

_DOWNLOADS = paths.STATE / "downloads"
_PLACES = "/usr/bin:/bin"
# What the last attempt has for its download, however late it begins.
_LEAST_SECONDS = 30.0


def ensure_mount_s3(
    source: Install,
    *,
    budget: float,
    on_retry: Callable[[AgentError], None],
    on_lock: Callable[[str, float], None],
    on_progress: origin.Tell = origin.nobody,
) -> tuple[Installed, bool]:
    """Returns the node's mount-s3, and whether it had to be installed; tries ``budget`` seconds.
    Which one that is, releases.py says. What runs already runs on.

    ``on_retry`` is told why it is tried again, ``on_lock`` who else installs something, and for how
    many seconds he is waited for, and ``on_progress`` how far the download is.
    """
    found, release = program.find(), choice.planned(source)
    named = releases.asked(source)
    interrupted = named != PRESENT and _is_half_done(source.family)
    if found and release is None and not interrupted:
        return found, False
    system = systems.of_this_node(source.family)
    system.manager.require_space()
    disk.empty_directory(_DOWNLOADS)
    holder = system.manager.lock_holder()
    if holder is not None:
        on_lock(holder, LOCK_SECONDS)
    release = release or Release.chosen(source)
    until = time.monotonic() + source.spread + budget

    def bring(release: Release, architecture: str, kind: str, folder: Path) -> Path:
        left = max(until - time.monotonic(), _LEAST_SECONDS)
        return releases.fetch(release, architecture, kind, folder, seconds=left, tell=on_progress)

    attempt = _Attempt(system, release, source, bring, again=interrupted)
    try:
        patiently(attempt, budget=budget, on_retry=on_retry, spread=source.spread)
    finally:
        disk.remove_tree(_DOWNLOADS)
    trust.forget_refused()
    return _installed(attempt.version), True


def _installed(version: str) -> Installed:
    """The mount-s3 that was just installed."""
    found = program.find()
    if found is None:
        raise AgentError(
            Problem.MOUNT_FAILED,
            "mount-s3 was installed but does not run",
            hint="run `mount-s3 --version` on the node to see why",
        )
    if version != LATEST and found.version != version_of(version):
        raise AgentError(
            Problem.MOUNT_FAILED,
            f"mount-s3 {version} was installed, but {found.program} is {found}",
            hint=f"remove {found.program}, or whatever brought it",
        )
    return found


def _is_half_done(family: str | None) -> bool:
    """Whether an installation of ours was ended before its end, and has left something half-done.

    What it had not brought by its end is not ours: whoever brings it from now on, or has brought it
    since, it was not us. One that goes on without us, after Ctrl-C, is not judged.
    """
    made = inventory.load()
    if not made.installing:
        return False
    system = systems.of_this_node(family)
    manager = system.manager
    if manager.lock_holder() is not None:
        return True
    half = manager.half_installed({*made.packages, *system.named, *system.libraries})
    _unbook(frozenset(made.packages) - manager.present(made.packages), over=not half)
    return bool(half)


class _Attempt:
    """Installs mount-s3 and what it needs when called; called again, it trusts less. ``bring``
    fetches a release; ``version`` is then the one that it has installed."""

    def __init__(
        self,
        system: System,
        release: Release,
        source: Install,
        bring: Callable[[Release, str, str, Path], Path],
        *,
        again: bool,
    ) -> None:
        self.version = release.version
        self._system = system
        self._manager = system.manager
        self._release = release
        self._source = source
        self._bring = bring
        self._again = again
        # A later one gives way only to one that is named.
        self._older = releases.asked(source) is not None
        self._first = True
        self._bundle: Bundle | None = None
        self._only: Path | None = None
        self._theirs: frozenset[str] = frozenset()
        self._node = f"{system.name}:{node.architecture()}"

    def __call__(self) -> None:
        if self._again or not self._first:
            self._repair()
        if self._release.origin != OFFICIAL_URL:
            self._bundle = bundle.find(self._release.origin, _DOWNLOADS)
        own = self._system.own and not self._bundle
        package, trouble = self._from_own() if own else self._from_release()
        self._first = False
        try:
            self._install([*self._lacking_program(), str(package)])
        except AgentError as error:
            if self._bundle and self._only:
                raise self._bundle.refused(error) from None
            if trouble is None:
                raise
            # A repository that cannot be read may be why, or have nothing to do with it.
            causes = filter(None, [error.cause, trouble.cause])
            raise error.caused_by("\n".join(causes)) from None

    def _repair(self) -> None:
        """What was there before us, and is known to be before the package manager may forget it,
        does not become ours by coming anew."""
        names = {*self._system.named, *self._system.libraries}
        self._theirs |= self._manager.present(names).difference(inventory.load().packages)
        self._manager.repair()

    def _from_own(self) -> tuple[Path | str, AgentError | None]:
        """What to install of the system's own, or else of AWS's."""
        trouble = self._refresh()
        own = choice.own(self._system, self._source)
        if own is None:
            self.version = self._release.version
            return self._fetch(), trouble
        self.version = own
        return f"mount-s3-{own}", trouble

    def _from_release(self) -> tuple[Path | str, AgentError | None]:
        """The lists and the package at the same time, then everything in one go."""
        package, trouble = together([self._fetch, self._refresh], at_once=2)
        return package, trouble

    def _lacking_program(self) -> list[str]:
        """The package that brings fusermount, where there is none."""
        programs = ("fusermount3", "fusermount")
        return [] if any(disk.program(each, _PLACES) for each in programs) else [self._system.fuse]

    def _refresh(self) -> AgentError | None:
        """Has the package manager know what is needed; returns what went wrong with that."""
        if self._bundle and self._take_fuse(self._bundle):
            return None
        known = self._manager.can_have_any(self._system.libraries)
        if self._system.own:
            known = known and self._manager.version_offered("mount-s3") is not None
        return None if self._first and known else self._manager.refresh()

    def _take_fuse(self, source: Bundle) -> bool:
        """Brings what the node lacks of FUSE from a bundle, and has the package manager know only
        that from then on: there may be no other place to ask. Returns whether it lacks any."""
        lacking = self._lacking_program()
        if not self._manager.present(self._system.libraries):
            lacking += self._system.libraries[:1]
        if not lacking:
            return False
        self._only = _DOWNLOADS / "fuse"
        disk.empty_directory(self._only)
        source.fetch_fuse(self._node, lacking, self._only)
        trouble = self._manager.refresh(self._only)
        if trouble is not None:
            raise source.refused(trouble)
        return True

    def _install(self, names: list[str]) -> None:
        """One transaction, of which it is written down before what it will bring."""
        brought = self._manager.would_install(
            names, again=self._again, older=self._older, only=self._only
        )
        brought -= self._theirs
        _book(brought)
        try:
            self._manager.install(names, again=self._again, older=self._older, only=self._only)
        except AgentError:
            # Whoever installs them from now on, it was not us.
            with contextlib.suppress(AgentError):
                _unbook(brought - self._manager.present(brought), over=False)
            raise
        _unbook(frozenset(), over=True)

    def _fetch(self) -> Path:
        kind, architecture = self._system.family.kind, node.architecture()
        if self._bundle:
            self._bundle.require(self._release.package(architecture, kind), self._node)
        try:
            package = self._bring(self._release, architecture, kind, _DOWNLOADS)
            _require_version(self._manager, package, self._release)
        except AgentError as error:
            raise trust.kept_aside(error, _DOWNLOADS) from None
        return package


def _require_version(manager: PackageManager, package: Path, release: Release) -> None:
    """Refuses another package than its name says: one that is as validly signed, but older.

    Which one is the latest only the mirror says: it must not be older than what this agent installs
    by itself, nor than what is here.
    """
    name, version = manager.version_of(package)
    found = re.match(r"\d+\.\d+\.\d+(?![\d.])", version)
    wanted, good = f"mount-s3 {release.version}", found and found[0] == release.version
    if release.version == LATEST:
        here = program.find()
        oldest = max(version_of(PINNED), here.version if here else ())
        wanted = f"mount-s3 {shown(oldest)} or later"
        good = found and version_of(found[0]) >= oldest
    if name != "mount-s3" or not good:
        raise AgentError(
            Problem.PACKAGE_OTHER, f"{package.name} is {name} {version} instead of {wanted}"
        )


def _book(packages: frozenset[str]) -> None:
    made = inventory.load()
    booked = tuple(sorted({*made.packages, *packages}))
    inventory.save(dataclasses.replace(made, packages=booked, installing=True))


def _unbook(gone: frozenset[str], *, over: bool) -> None:
    """After an attempt: these are not there. ``over`` if everything is."""
    made = inventory.load()
    kept = tuple(name for name in made.packages if name not in gone)
    inventory.save(dataclasses.replace(made, packages=kept, installing=not over))


def ensure_allow_other() -> bool:
    """Puts ``user_allow_other`` in force in fuse.conf; returns whether it was not yet.

    Raises ``file-failed`` or ``no-space``; root's mounts work without it.
    """
    before = files.read(fuse.CONF)
    after = fuse.allow_other(before)
    if after == before:
        return False
    made = inventory.load()
    booked = made
    if made.fuse_conf_before is None:
        booked = dataclasses.replace(
            made, fuse_conf_before=before or "", fuse_conf_made=before is None
        )
        inventory.save(booked)
    try:
        return files.write(fuse.CONF, after)
    except AgentError:
        if booked is not made:
            inventory.save(made)
        raise


def take_back_allow_other() -> str:
    """Makes fuse.conf what it was, unless somebody else has changed it since; says what it did."""
    made = inventory.load()
    before = made.fuse_conf_before
    if before is None:
        return f"{fuse.CONF} stays: the agent has not changed it"
    if files.read(fuse.CONF) != fuse.allow_other(before):
        return f"{fuse.CONF} stays: somebody else has changed it since"
    if made.fuse_conf_made:
        files.remove(fuse.CONF)
    else:
        files.write(fuse.CONF, before)
    return f"took back {fuse.CONF}"


def packages_to_take_back() -> tuple[list[str], dict[str, str]]:
    """The packages that were installed for the agent and may go, and why others of them stay."""
    booked, family = inventory.load().packages, systems.family_of_this_node()
    return _to_take_back(family.manager, booked) if booked and family else ([], {})


def _to_take_back(
    manager: PackageManager, booked: tuple[str, ...]
) -> tuple[list[str], dict[str, str]]:
    here = manager.present(booked)
    stay = dict.fromkeys(
        manager.chosen_by_hand(sorted(here.difference(systems.NAMED))),
        "somebody has asked for it by name since",
    )
    going = sorted(here.difference(stay))
    while going and manager.would_remove(going).difference(going):
        for name in going:
            needing = manager.would_remove([name]).difference(going)
            if needing:
                stay[name] = f"{', '.join(sorted(needing))} needs it"
        if stay.keys().isdisjoint(going):
            # Each alone could go, since another of ours does for who needs it; not all of them.
            stay.update(dict.fromkeys(going, "something else needs one of them"))
        going = [name for name in going if name not in stay]
    return going, stay


def take_back_packages() -> str:
    """Removes the packages that were installed for the agent, and nothing that others need; says
    what it did."""
    going, stay = packages_to_take_back()
    family = systems.family_of_this_node()
    if going and family:
        family.manager.remove(going)
    inventory.save(dataclasses.replace(inventory.load(), packages=(), installing=False))
    kept = [f"the package {name} stays: {why}" for name, why in stay.items()]
    gone = f"took back the packages {', '.join(going)}" if going else "took back no package"
    return "; ".join([gone, *kept])
