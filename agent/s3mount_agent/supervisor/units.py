"""mount-s3 under systemd: writes, starts and removes one unit for each mount, in both modes and on
every role. The text is unit_text.py's, from systemd/mountpoint-s3.service.

In ``systemd`` mode the unit lies in /etc, is started at every boot and restarted by systemd. In
``direct`` mode it lies in /run: the agent alone starts it, and nothing of it outlives the boot.
Either way the process has a cgroup of its own and stays when the agent goes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from s3mount_agent.core.directory_rules import is_below
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.mount_definition import Definition
from s3mount_agent.core.node_roles import Mode
from s3mount_agent.core.states import Presence
from s3mount_agent.decide.plan import Placed, Wanted
from s3mount_agent.filesystem import disk, files, json_codec, mountinfo, paths
from s3mount_agent.supervisor import fuse_connections, selinux
from s3mount_agent.supervisor.unit_text import on_disks, read_definition, render
from s3mount_agent.system import journal, process, systemd

# A little more than the unit's own TimeoutStartSec=, which is to speak first.
_START_SECONDS = 170.0
_HOOK_SECONDS = 30.0
# How long a process may take to end before it is no longer waited for here: what keeps it may last.
_SOON_SECONDS = 1.0
_GONE_SECONDS = 5.0
_SLOW_SECONDS = 15.0
_KILLED_SECONDS = 120.0
_UNIT_NAME = re.compile(r"mountpoint-s3-[0-9a-f]{8}\.service")
_PLACES = paths.UNITS
# The definitions of what we have written, for the day when somebody deletes a unit: where the unit
# outlives a boot, its record does, too.
_RECORDS = {Mode.SYSTEMD: paths.STATE / "definitions", Mode.DIRECT: paths.RUN / "definitions"}


class Units:
    """The supervisor of nodes where systemd is PID 1."""

    def __init__(self, mode: Mode) -> None:
        self._mode = mode
        self._home = systemd.ETC if mode is Mode.SYSTEMD else systemd.RUN

    def text(self, definition: Definition) -> str:
        """The text of the unit."""
        template = paths.template("mountpoint-s3.service")
        return render(template, definition, agent=[paths.COMMAND])

    def placed(self) -> dict[str, Placed]:
        """Reads the units that the agent made, and what systemd knows of them."""
        found: dict[str, tuple[Path, str, Definition]] = {}
        for path, text in _unit_files():
            definition = read_definition(text)
            if definition is not None:
                found.setdefault(path.name, (path, text, definition))
        recorded = {unit: each for unit, each in _recorded() if unit not in found}
        facts = systemd.show([*found, *recorded])
        placed = {
            _id(unit): self._placed(unit, path, text, definition, facts[unit])
            for unit, (path, text, definition) in found.items()
        }
        for unit, definition in recorded.items():
            # Of a unit that was deleted there is nothing left once its process has ended.
            if facts[unit].main_pid:
                lost = self._placed(unit, self._home / unit, "", definition, facts[unit])
                placed[_id(unit)] = dataclasses.replace(lost, settled=False, lost=True)
        return placed

    def foreign(self) -> dict[str, str]:
        """Unit files of our names that something else wrote, such as the scripts before us."""
        return {
            _id(path.name): str(path)
            for path, text in _unit_files()
            if read_definition(text) is None
        }

    def write(self, wanted: Sequence[Wanted]) -> dict[str, AgentError]:
        """Writes the units, and has systemd read and (in ``systemd`` mode) enable them."""
        foreign = self.foreign()
        failures: dict[str, AgentError] = {}
        written: list[Wanted] = []
        new: list[Path] = []
        for want in wanted:
            taken = foreign.get(want.mount.id)
            try:
                if taken:
                    raise AgentError(Problem.UNIT_FOREIGN, f"{taken} was not made by the agent")
                record = _RECORDS[self._mode] / f"{want.mount.id}.json"
                with contextlib.suppress(AgentError):  # it is for an accident only
                    files.write(record, want.definition.to_json())
                unit = self._home / want.mount.unit
                if files.write(unit, want.text):
                    new.append(unit)
                written.append(want)
            except AgentError as error:
                failures[want.mount.id] = error
        selinux.restore(new)
        if written:
            self._settle(written)
        return failures

    def _settle(self, wanted: Sequence[Wanted]) -> None:
        """Has systemd know the units as they are on disk, as far as that is new: it reads nothing
        while there is no space in /run."""
        elsewhere = next(place for place in _PLACES if place != self._home)
        moved = [want.mount.unit for want in wanted if disk.exists(elsewhere / want.mount.unit)]
        if moved and elsewhere == systemd.ETC:
            systemd.disable(moved)
        for unit in moved:
            files.remove(elsewhere / unit)
        units = [want.mount.unit for want in wanted]
        enabled = self._mode is Mode.SYSTEMD
        if enabled:
            systemd.enable(units)
        facts = systemd.show(units)  # which loads units that are new
        if moved or not all(each.is_settled(enabled=enabled) for each in facts.values()):
            systemd.reload()
        for want in wanted:
            fuse_connections.adopt(want.mount.directory, facts[want.mount.unit].main_pid)

    def start_later(self, want: Wanted) -> None:
        """``systemctl start --no-block``."""
        systemd.reset_failed(want.mount.unit)
        systemd.start_later(want.mount.unit)

    def await_start(self, want: Wanted) -> None:
        """A ``systemctl start`` that joins the one under way, and returns when the unit's "ready"
        hook has seen the mount."""
        unit = want.mount.unit
        facts = systemd.show([unit])[unit]
        if _is_on_its_way(facts, self._mode):
            up = systemd.join(unit, timeout=_START_SECONDS)
        else:
            up = facts.active_state == "active"
        if not up:
            raise self._explain(unit, want.definition)

    def failure(self, placed: Placed) -> AgentError | None:
        """Reads the journal of a unit that failed, where nothing else says why."""
        unit = _unit(placed.id)
        facts = systemd.show([unit])[unit]
        error = None
        if placed.ending:
            error = placed.ended()
        elif facts.active_state == "failed":
            error = self._explain(unit, placed.definition)
        elif facts.active_state == "inactive" and not facts.has_job:
            error = _missing_disk(placed.definition)
        limited = placed.ending or facts.result == "start-limit-hit"
        if facts.active_state == "failed" and limited:
            # It ended too often for systemd, which would now refuse an administrator's own
            # `systemctl restart`, too. From here on it is the agent that counts.
            systemd.reset_failed(unit)
        return error

    def stop(self, placed: Placed, *, force: bool = False, patient: bool = True) -> None:
        """Unmounts before it stops the unit: while the mount is used neither happens.

        By force the process is killed: it would live on for who uses it, and unmount whatever is on
        the directory by then.
        """
        unit, directory = _unit(placed.id), placed.definition.directory
        alive = placed.serves or placed.starting
        presence = fuse_connections.presence(directory, running=alive)
        if presence is Presence.OURS and not alive:
            _outside("clean", directory)  # nothing is lost with a mount whose process is gone
        elif force and alive:
            _outside("detach", directory)
            systemd.kill(unit)
        elif presence is Presence.OURS:
            _outside("unmount", directory)
        elif presence is Presence.ABSENT and placed.active:
            # Somebody has unmounted it here, perhaps lazily. Who has it open still, or elsewhere,
            # is waited for: mount-s3 ends with the last of them, having uploaded what they wrote.
            fuse_connections.require_unused(directory)
        elif presence is Presence.ABSENT and placed.starting:
            systemd.kill(unit)
        _await_end(directory, unit, killed=force, patient=patient)

    def end(self, placed: Placed) -> None:
        """Kills a process that hangs; its unit cleans up behind it."""
        try:
            _outside("detach", placed.definition.directory)
        finally:
            # Also where nothing can be run outside, as without space in /run: with its process a
            # mount nearly always ends, too.
            systemd.kill(_unit(placed.id))

    def remove(self, placed: Sequence[Placed]) -> dict[str, AgentError]:
        """Removes the unit files and what systemd remembers of them, also of those that somebody
        has deleted; one that somebody else has put in the place of ours stays."""
        units = {each.id: _unit(each.id) for each in placed}
        enabled = [unit for unit in units.values() if _is_ours(systemd.ETC / unit)]
        failures: dict[str, AgentError] = {}
        if enabled:
            try:
                systemd.disable(enabled)
            except AgentError as error:
                failures.update(dict.fromkeys(map(_id, enabled), error))
        for each in placed:
            try:
                for records in _RECORDS.values():
                    files.remove(records / f"{each.id}.json")
                for path in (place / units[each.id] for place in _PLACES):
                    if _is_ours(path):
                        files.remove(path)
                fuse_connections.forget(each.definition.directory)
            except AgentError as error:
                failures[each.id] = error
        _sweep_links()
        systemd.reload()
        for unit in units.values():
            systemd.reset_failed(unit)
        return failures

    def _placed(
        self, unit: str, path: Path, text: str, definition: Definition, facts: systemd.UnitFacts
    ) -> Placed:
        wanted_state = "enabled" if self._mode is Mode.SYSTEMD else facts.file_state
        return Placed(
            id=_id(unit),
            definition=definition,
            text=text,
            active=facts.active_state == "active",
            starting=_is_on_its_way(facts, definition.mode),
            pid=facts.main_pid or None,
            leaving=_is_leaving(facts),
            invocation=facts.invocation,
            ending="" if facts.active_state == "active" else _ending(facts),
            settled=(
                path.parent == self._home
                and not facts.needs_reload
                and facts.file_state == wanted_state
            ),
        )

    def _explain(self, unit: str, definition: Definition) -> AgentError:
        from s3mount_agent.mountpoint import messages

        missing = _missing_disk(definition)
        if missing is not None:
            return missing
        words = journal.errors_of(unit, systemd.show([unit])[unit].invocation)
        return messages.explain(words, bucket=definition.bucket, directory=definition.directory)


def _missing_disk(definition: Definition) -> AgentError | None:
    """The file system of fstab's that a mount needs and that could not be mounted: systemd does not
    even begin with the mount then, so that its unit has not failed (RequiresMountsFor=)."""
    for place in sorted(mountinfo.fstab().difference(mountinfo.read())):
        needed = any(path == place or is_below(path, place) for path in on_disks(definition))
        if needed and systemd.has_failed_to_mount(place):
            return AgentError(
                Problem.PATH_MISSING,
                f"the file system on {place}, which /etc/fstab names, could not be mounted",
                hint=f"`systemctl status {place}` tells why; it is tried again",
            )
    return None


def _is_on_its_way(facts: systemd.UnitFacts, mode: Mode) -> bool:
    """Whether a unit will be up without us. One that ends is started again by systemd in its own
    time: started by us meanwhile, it would never come to its limit of attempts."""
    if facts.active_state in ("activating", "reloading"):
        return True
    if _is_leaving(facts):
        return False
    ends = facts.active_state == "deactivating" and mode is Mode.SYSTEMD
    return ends or (facts.has_job and facts.active_state != "active")


def _is_leaving(facts: systemd.UnitFacts) -> bool:
    """Whether a unit is being stopped whose process lives on."""
    return facts.active_state == "deactivating" and facts.main_pid > 0


def _ending(facts: systemd.UnitFacts) -> str:
    if facts.result == "oom-kill":
        return "killed for want of memory"
    if facts.killed_by:
        return f"killed by {process.signal_name(facts.killed_by)}"
    return ""


def _is_ours(path: Path) -> bool:
    """Whether a unit file is there, and is still one that the agent made."""
    text = files.read(path)
    return text is not None and read_definition(text) is not None


def _unit_files() -> Iterator[tuple[Path, str]]:
    for place in _PLACES:
        for path in disk.matching(place, "mountpoint-s3-*.service"):
            text = files.read(path) if _UNIT_NAME.fullmatch(path.name) else None
            if text is not None:
                yield path, text


def _sweep_links() -> None:
    """`systemctl disable` leaves the link of a unit that somebody has deleted."""
    for link in disk.matching(systemd.wanted_at_boot(), "mountpoint-s3-*.service"):
        if _UNIT_NAME.fullmatch(link.name) and not disk.exists(link):
            with contextlib.suppress(AgentError):  # it starts nothing
                files.remove(link)


def _recorded() -> Iterator[tuple[str, Definition]]:
    for path in (each for home in _RECORDS.values() for each in disk.matching(home, "*.json")):
        known = json_codec.read(path, Definition.from_json, parse=str)
        if known is not None:
            yield _unit(path.stem), known


def _await_end(directory: str, unit: str, *, killed: bool, patient: bool) -> None:
    """Has a unit stopped; what takes longer goes on without us, and is ``mount-busy``, or
    ``mount-ending`` for who has no patience."""
    patience = (_KILLED_SECONDS,) if killed else (_GONE_SECONDS, _SLOW_SECONDS)
    for seconds in patience if patient else (_SOON_SECONDS,):
        try:
            systemd.stop(unit, timeout=seconds)
        except AgentError as error:
            if error.problem is not Problem.PROGRAM_TIMEOUT:
                raise
        else:
            return
        who = "" if killed else fuse_connections.users(directory)
        if who:
            raise fuse_connections.still_served(directory, who)
    raise (
        fuse_connections.still_served(directory, "")
        if patient
        else fuse_connections.ending(directory)
    )


def _outside(hook: str, directory: str) -> None:
    """Has a hook done where the whole node sees it; raises ``mount-busy``, ``program-failed``."""
    from s3mount_agent.supervisor import hooks  # of which `status` needs nothing

    answer = systemd.outside([paths.COMMAND, "unit-hook", hook, directory], timeout=_HOOK_SECONDS)
    if answer.code == 0:
        return
    if answer.code == hooks.BUSY:
        raise AgentError(
            Problem.MOUNT_BUSY, f"{directory} is in use", cause=answer.stdout.strip() or None
        )
    raise AgentError(
        Problem.PROGRAM_FAILED,
        f"{directory} could not be unmounted",
        cause=answer.last_words() or None,
    )


def _unit(mount_id: str) -> str:
    return f"mountpoint-s3-{mount_id}.service"


def _id(unit: str) -> str:
    return unit[len("mountpoint-s3-") : -len(".service")]
