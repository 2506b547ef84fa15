"""mount-s3 under systemd: one unit for each mount, in both modes and on every role.

In ``systemd`` mode the unit lies in /etc, is started at every boot and restarted by systemd. In
``direct`` mode it lies in /run: the agent alone starts it, and nothing of it outlives the boot.
Either way the process has a cgroup of its own and stays when the agent goes.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from s3mount_agent.core import retry_policy
from s3mount_agent.core.definition import Definition
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.plan import Placed, Wanted
from s3mount_agent.core.roles import Mode
from s3mount_agent.core.states import Presence
from s3mount_agent.supervisor.unit_text import read_definition, render
from s3mount_agent.system import files, holders, journal, mountinfo, paths, systemd

# A little more than the unit's own TimeoutStartSec=, which is to speak first.
_START_SECONDS = 170.0
_HOOK_SECONDS = 30.0
_UNIT_NAME = re.compile(r"mountpoint-s3-[0-9a-f]{8}\.service")
_PLACES = (systemd.ETC, systemd.RUN)  # in systemd's own order of precedence


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
        facts = systemd.show(list(found))
        return {
            _id(unit): self._placed(unit, path, text, definition, facts[unit])
            for unit, (path, text, definition) in found.items()
        }

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
        changed = False
        for want in wanted:
            taken = foreign.get(want.mount.id)
            try:
                if taken:
                    raise AgentError(Problem.UNIT_FOREIGN, f"{taken} was not made by the agent")
                changed |= files.write(self._home / want.mount.unit, want.text)
                written.append(want)
            except AgentError as error:
                failures[want.mount.id] = error
        if written:
            self._settle(written, changed=changed)
        return failures

    def _settle(self, wanted: Sequence[Wanted], *, changed: bool) -> None:
        """Has systemd know the units as they are on disk, as far as that is new: it reads nothing
        while there is no space in /run."""
        elsewhere = next(place for place in _PLACES if place != self._home)
        moved = [want.mount.unit for want in wanted if (elsewhere / want.mount.unit).exists()]
        if moved and elsewhere == systemd.ETC:
            systemd.disable(moved)
        for unit in moved:
            files.remove(elsewhere / unit)
        facts = systemd.show([want.mount.unit for want in wanted])
        if moved or changed or any(each.needs_reload for each in facts.values()):
            systemd.reload()
        new = [unit for unit, each in facts.items() if each.file_state != "enabled"]
        if new and self._mode is Mode.SYSTEMD:
            systemd.enable(new)

    def start(self, want: Wanted) -> None:
        """``systemctl start``, which returns when the unit's "ready" hook has seen the mount."""
        unit = want.mount.unit
        if systemd.start(unit, timeout=_START_SECONDS).code == 0:
            return
        error = self._explain(unit, want.definition)
        if retry_policy.is_lasting(error):
            systemd.stop(unit)  # which would try again in vain
        raise error

    def start_later(self, want: Wanted) -> None:
        """``systemctl start --no-block``."""
        systemd.reset_failed(want.mount.unit)
        systemd.start_later(want.mount.unit)

    def failure(self, placed: Placed) -> AgentError | None:
        """Reads the journal of a unit that failed, where nothing else says why."""
        if placed.ending:
            return placed.ended()
        unit = _unit(placed.id)
        if systemd.show([unit])[unit].active_state != "failed":
            return None
        return self._explain(unit, placed.definition)

    def stop(self, placed: Placed, *, force: bool = False) -> None:
        """Unmounts before it stops the unit: while files are open neither happens.

        By force the process is killed: it would live on for those files, and unmount whatever is on
        the directory by then. So would one whose mount has been taken away.
        """
        unit, directory = _unit(placed.id), placed.definition.directory
        presence = mountinfo.presence(directory)
        force = force or presence is Presence.ABSENT
        if presence is Presence.MOUNTPOINT_S3:
            # Nothing is lost with a mount whose process is gone.
            alive = placed.active or placed.starting
            _outside("unmount" if alive and not force else "detach", directory)
        if force:
            systemd.kill(unit)
        systemd.stop(unit)

    def end(self, placed: Placed) -> None:
        """Kills a process that hangs; its unit cleans up behind it."""
        try:
            _outside("detach", placed.definition.directory)
        finally:
            # Also where nothing can be run outside, as without space in /run: with its process a
            # mount nearly always ends, too.
            systemd.kill(_unit(placed.id))

    def remove(self, placed: Sequence[Placed]) -> dict[str, AgentError]:
        """Removes the unit files and what systemd remembers of them."""
        units = {each.id: _unit(each.id) for each in placed}
        enabled = [unit for unit in units.values() if (systemd.ETC / unit).exists()]
        failures: dict[str, AgentError] = {}
        if enabled:
            try:
                systemd.disable(enabled)
            except AgentError as error:
                failures.update(dict.fromkeys(map(_id, enabled), error))
        for mount_id, unit in units.items():
            try:
                for place in _PLACES:
                    files.remove(place / unit)
            except AgentError as error:
                failures[mount_id] = error
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
            ending="" if facts.active_state == "active" else _ending(facts),
            settled=(
                path.parent == self._home
                and not facts.needs_reload
                and facts.file_state == wanted_state
            ),
        )

    def _explain(self, unit: str, definition: Definition) -> AgentError:
        from s3mount_agent.mountpoint import messages

        words = journal.errors_of(unit, systemd.show([unit])[unit].invocation)
        return messages.explain(words, bucket=definition.bucket, directory=definition.directory)


def _is_on_its_way(facts: systemd.UnitFacts, mode: Mode) -> bool:
    """Whether a unit will be up without us. One that ends is started again by systemd in its own
    time: started by us meanwhile, it would never come to its limit of attempts."""
    if facts.active_state in ("activating", "reloading"):
        return True
    ends = facts.active_state == "deactivating" and mode is Mode.SYSTEMD
    return ends or (facts.has_job and facts.active_state != "active")


def _ending(facts: systemd.UnitFacts) -> str:
    if facts.result == "oom-kill":
        return "killed for want of memory"
    if facts.killed_by:
        names = {int(each): each.name for each in signal.Signals}
        return f"killed by {names.get(facts.killed_by, f'signal {facts.killed_by}')}"
    return ""


def _unit_files() -> Iterator[tuple[Path, str]]:
    for place in _PLACES:
        for path in sorted(place.glob("mountpoint-s3-*.service")):
            text = files.read(path) if _UNIT_NAME.fullmatch(path.name) else None
            if text is not None:
                yield path, text


def _outside(hook: str, directory: str) -> None:
    """Has a hook done where the whole node sees it; raises ``mount-busy``, ``program-failed``."""
    answer = systemd.outside([paths.COMMAND, "unit-hook", hook, directory], timeout=_HOOK_SECONDS)
    if answer.code == 0:
        return
    if f"[{Problem.MOUNT_BUSY.code}]" in answer.stderr:
        raise AgentError(
            Problem.MOUNT_BUSY, f"{directory} is in use", cause=holders.of(directory) or None
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
