"""Random faults against lifecycle and plan together, as the daemon uses them, without a node.

The node is a small world that follows the rules of systemd and the kernel as far as they matter:
a process can die, hang, be slow to start or fail at it, a mount can be taken away or covered, and a
mount in use cannot be unmounted. Whatever happens: what is healthy and wanted is left alone, none
is tried in a flurry, what is told is true and told once, and all is well in the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fast.test_plan_faults import want
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.states import Presence
from s3mount_agent.decide import lifecycle
from s3mount_agent.decide.hang import Condition
from s3mount_agent.decide.journal_events import TELLINGS, Event
from s3mount_agent.decide.lifecycle import Chance, Happening, Looked, Record, Tried, standing
from s3mount_agent.decide.plan import Action, Kind, Observed, Placed, Plan, Wanted, plan
from s3mount_agent.decide.retry_policy import Wake

DIRECTORIES = ("/mnt/a", "/mnt/b")
OPTIONS = ("--allow-other", "--read-only")
FAULTS = (
    Problem.S3_UNREACHABLE,
    Problem.BUCKET_MISSING,
    Problem.ACCESS_DENIED,
    Problem.DIRECTORY_NOT_EMPTY,
)
NAMES = st.sampled_from(DIRECTORIES)
# More attempts at one mount within a minute than this would be a flurry.
MOST_A_MINUTE = 12


@dataclass
class Unit:
    """A mount as it stands on the node; ``wants`` is what it was written for."""

    wants: Wanted
    pid: int | None = None
    rising: bool = False
    mounted: bool = False
    hangs: bool = False
    used: bool = False
    ending: str = ""
    failure: AgentError | None = None

    @property
    def active(self) -> bool:
        return self.pid is not None and not self.rising


@dataclass
class World:
    """``faults`` say why a start on a directory fails; ``covered`` are those on which somebody
    else has mounted."""

    units: dict[str, Unit] = field(default_factory=dict)
    faults: dict[str, Problem] = field(default_factory=dict)
    covered: set[str] = field(default_factory=set)
    pids: int = 0

    def observe(self) -> Observed:
        placed, presence = {}, {}
        for key, unit in self.units.items():
            definition, text = unit.wants.definition, unit.wants.text
            pid = unit.pid if unit.active else None
            placed[key] = Placed(
                key, definition, text, unit.active, unit.rising, pid, ending=unit.ending
            )
            if unit.mounted:
                presence[definition.directory] = Presence.OURS
        presence.update(dict.fromkeys(self.covered, Presence.FOREIGN))
        return Observed(placed, presence)

    def on(self, directory: str) -> list[Unit]:
        return [u for u in self.units.values() if u.wants.mount.directory == directory]

    def rise(self) -> None:
        """What is starting comes up, or fails."""
        for unit in self.units.values():
            directory = unit.wants.mount.directory
            if not unit.rising:
                continue
            unit.rising = False
            fault = self.faults.get(directory)
            if fault is not None:
                unit.pid, unit.failure = None, AgentError(fault, f"{fault.code} at {directory}")
            else:
                unit.mounted = True

    def start(self, want: Wanted) -> None:
        unit = self.units[want.mount.id]
        assert unit.pid is None, "started twice"
        assert want.mount.directory not in self.covered, "mounted over somebody else's mount"
        others = [u for u in self.on(want.mount.directory) if u is not unit and u.mounted]
        assert not others, "mounted over another of ours"
        self.pids += 1
        unit.wants = want
        unit.pid, unit.rising, unit.mounted, unit.hangs = self.pids, True, False, False
        unit.ending, unit.failure = "", None

    def stop(self, key: str) -> AgentError | None:
        unit = self.units[key]
        if unit.used and unit.mounted and unit.pid is not None:
            return AgentError(Problem.MOUNT_BUSY, "in use", retry_for=3600)
        del self.units[key]
        return None

    def kill(self, key: str) -> None:
        unit = self.units[key]
        unit.pid, unit.mounted, unit.hangs, unit.used = None, False, False, False
        unit.ending = "killed by SIGKILL"


class Life(RuleBasedStateMachine):
    """Plays faults; after each the daemon looks, as it does."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.now = 1000.0
        self.wanted: dict[str, Wanted] = {}
        self.records: dict[str, Record] = {}
        self.starts: dict[str, list[float]] = {}
        self.open: dict[str, set[Event]] = {}

    # What the daemon does with one cycle, in its order.
    def cycle(self) -> Plan:
        observed = self.world.observe()
        ids = {each.mount.id: each for each in self.wanted.values()}
        self.records = {k: v for k, v in self.records.items() if k in ids or k in observed.placed}
        # Who forgets a mount tells no more of it.
        self.open = {k: v for k, v in self.open.items() if k in self.records}
        conditions = {}
        for key, placed in observed.placed.items():
            unit = self.world.units[key]
            condition = Condition(silences=2 if unit.hangs else 0)
            conditions[key] = condition
            if key in ids or unit.hangs:
                wants = self.records.get(key, Record()).wants_reason(placed)
                directory = placed.definition.directory
                reason = unit.failure if wants else None
                self.step(key, Looked(placed, observed.on(directory), condition, reason))
        records = {
            key: standing(record, conditions.get(key), self.now)
            for key, record in self.records.items()
        }
        todo = plan(ids.values(), observed, records=records)
        self.require_careful(todo, observed)
        failed: dict[str, AgentError] = {}
        for kind in (Kind.KILL, Kind.STOP, Kind.START):
            for action in todo.of(kind):
                if action.id not in failed:
                    self.carry_out(action, ids, failed)
        return todo

    def carry_out(
        self, action: Action, ids: dict[str, Wanted], failed: dict[str, AgentError]
    ) -> None:
        world, key = self.world, action.id
        repair = False
        if action.kind is Kind.KILL:
            world.kill(key)
        elif action.kind is Kind.STOP:
            before = world.units[key].wants.definition.essence()
            repair = key in ids and ids[key].definition.essence() == before
            error = world.stop(key)
            if error is not None:
                failed[key] = error
                for want in ids.values():
                    if want.mount.directory == action.directory:
                        failed.setdefault(want.mount.id, error)
        elif action.kind is Kind.START:
            world.units.setdefault(key, Unit(ids[key]))
            world.start(ids[key])
            self.starts.setdefault(key, []).append(self.now)
        self.step(key, Tried(action.kind, failed.get(key), repair))

    def step(self, key: str, seen: Happening) -> None:
        record = self.records.get(key, Record())
        self.records[key], told = lifecycle.step(record, seen, self.now, Chance(jitter=0.5))
        unit = self.world.units.get(key)
        here = self.open.setdefault(key, set())
        for each in told:
            if each.event is Event.RECOVERED:
                assert unit is not None
                assert unit.active
                assert unit.mounted
                assert unit.wants.mount.directory not in self.world.covered
                here -= TELLINGS[Event.RECOVERED].ends
            elif each.event is Event.ENDED:
                assert Event.HUNG not in here, "that we ended it was told"
                here.add(each.event)
            else:
                here.add(each.event)

    def require_careful(self, todo: Plan, observed: Observed) -> None:
        for action in todo.actions:
            unit = self.world.units.get(action.id)
            if unit is None or action.kind is Kind.WAIT:
                continue
            want = self.wanted.get(action.directory)
            same = want is not None and want.definition.essence() == unit.wants.definition.essence()
            well = unit.active and unit.mounted and not unit.hangs
            if same and well and want is not None and want.mount.id == action.id:
                assert action.kind is Kind.WRITE, "a healthy mount is touched"
            if action.kind is Kind.KILL:
                assert unit.hangs
            if unit.pid is not None:
                on = observed.on(action.directory)
                assert on is not Presence.FOREIGN, "somebody else's mount would be unmounted"

    @rule(directory=NAMES, options=st.sampled_from(OPTIONS), bucket=st.sampled_from("ab"))
    def want_a_mount(self, directory: str, options: str, bucket: str) -> None:
        self.wanted[directory] = want(f"bucket-{bucket}", directory, options)
        self.configure()

    @rule(directory=NAMES)
    def want_it_no_more(self, directory: str) -> None:
        self.wanted.pop(directory, None)
        self.configure()

    def configure(self) -> None:
        for key in self.records:
            self.step(key, Wake.CONFIGURATION)
        self.cycle()

    @rule(directory=NAMES, how=st.sampled_from(["kill", "umount", "hang", "use", "free"]))
    def befall(self, directory: str, how: str) -> None:
        for unit in self.world.on(directory):
            if how == "kill" and unit.pid is not None:
                unit.pid, unit.rising, unit.hangs, unit.ending = None, False, False, "killed"
            elif how == "umount" and not unit.used:
                unit.mounted = False
            elif how == "hang" and unit.active and unit.mounted:
                unit.hangs = directory not in self.world.covered
            elif how in ("use", "free"):
                unit.used = how == "use" and unit.mounted
        self.cycle()

    @rule(directory=NAMES, fault=st.sampled_from([None, *FAULTS]))
    def let_starts_fail(self, directory: str, fault: Problem | None) -> None:
        if fault is None:
            self.world.faults.pop(directory, None)
        else:
            self.world.faults[directory] = fault

    @rule(directory=NAMES)
    def cover_or_uncover(self, directory: str) -> None:
        for unit in self.world.on(directory):
            unit.hangs = False
        self.world.covered ^= {directory}
        self.cycle()
        self.world.rise()
        self.cycle()

    @rule(seconds=st.sampled_from([0.5, 2, 20, 70, 400]))
    def time_passes(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.world.rise()
            self.cycle()
            pauses = [record.pause(self.now) for record in self.records.values()]
            self.now += max(0.25, min([300, *pauses]))

    @rule()
    def somebody_asks(self) -> None:
        for key in self.records:
            self.step(key, Wake.ASKED)
            self.starts.pop(key, None)  # who asks is answered
        self.cycle()

    @rule()
    def the_service_is_restarted(self) -> None:
        self.records.clear()
        self.starts.clear()
        self.open.clear()

    @invariant()
    def nothing_is_tried_in_a_flurry(self) -> None:
        for times in self.starts.values():
            # Faults that somebody plays one after the other come without a pause.
            recent = [each for each in times if each > self.now - 60]
            assert len({round(each) for each in recent}) <= MOST_A_MINUTE

    def teardown(self) -> None:
        """Everything is mended, and nobody asks for anything: all comes right by itself."""
        self.world.faults.clear()
        self.world.covered.clear()
        for unit in self.world.units.values():
            unit.used = False
        self.time_passes(900)
        ids = {each.mount.id for each in self.wanted.values()}
        assert self.world.units.keys() == ids
        for each in self.wanted.values():
            unit = self.world.units[each.mount.id]
            assert (unit.active, unit.mounted, unit.hangs) == (True, True, False)
            assert unit.wants.definition.essence() == each.definition.essence()
            record = self.records[each.mount.id]
            assert record.trouble is None
            assert not self.open.get(each.mount.id), "what began was told to be over"
            assert self.cycle().actions == ()


Life.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestLifeUnderFaults = Life.TestCase
