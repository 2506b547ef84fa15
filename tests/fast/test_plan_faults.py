"""Random faults against plan(): whatever happens to a node, it converges to what is wanted.

The node is a small world in memory that follows the rules of systemd and the kernel as far as they
matter: mounts lie on each other, a process can die and leave its mount, a unit can differ.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fast.in_memory import parse_mount
from s3mount_agent.core.mount_definition import Definition
from s3mount_agent.core.node_roles import Mode
from s3mount_agent.core.states import Presence
from s3mount_agent.decide.plan import Kind, Observed, Placed, Plan, Wanted, plan

BUCKETS = ("bucket-one", "bucket-two")
DIRECTORIES = ("/mnt/a", "/mnt/b", "/data")
OPTIONS = ("--allow-other", "--read-only", "--allow-delete --allow-other")


def want(bucket: str, directory: str, options: str) -> Wanted:
    mount = parse_mount(bucket, directory, options)
    command = ("/usr/bin/mount-s3", *mount.arguments(None))
    definition = Definition(bucket, directory, command, Mode.SYSTEMD, mount.read_only)
    return Wanted(mount, definition, definition.to_json())


WANTS = st.lists(
    st.builds(want, *map(st.sampled_from, (BUCKETS, DIRECTORIES, OPTIONS))),
    unique_by=lambda w: w.mount.directory,
    max_size=3,
)


@dataclass
class Unit:
    """A unit on the node: its file, what systemd has loaded, and its process if any."""

    definition: Definition
    text: str
    settled: bool = True
    process: int | None = None
    starting: bool = False


@dataclass
class Node:
    """``stacks``: what lies on each directory, the uppermost last: a process, or 0 for foreign."""

    units: dict[str, Unit] = field(default_factory=dict)
    stacks: dict[str, list[int]] = field(default_factory=dict)
    processes: int = 0

    def top(self, directory: str) -> int | None:
        stack = self.stacks.get(directory, [])
        return stack[-1] if stack else None

    def observe(self) -> Observed:
        placed = {
            key: Placed(
                id=key,
                definition=unit.definition,
                text=unit.text,
                active=unit.process is not None and not unit.starting,
                starting=unit.starting,
                pid=unit.process,
                settled=unit.settled,
            )
            for key, unit in self.units.items()
        }
        presence = {
            directory: Presence.OURS if stack[-1] else Presence.FOREIGN
            for directory, stack in self.stacks.items()
            if stack
        }
        return Observed(placed, presence)

    def healthy(self, key: str, wanted: Wanted) -> bool:
        unit = self.units.get(key)
        return (
            unit is not None
            and unit.process is not None
            and not unit.starting
            and unit.definition == wanted.definition
            and self.top(wanted.mount.directory) == unit.process
        )

    def stop(self, key: str) -> None:
        """Unmounts if mount-s3 lies uppermost, and ends the process.

        A process that ends unmounts its directory once more, whatever lies on it by then.
        """
        unit = self.units[key]
        stack = self.stacks.get(unit.definition.directory, [])
        if stack and (stack[-1] or unit.process is not None):
            stack.pop()
        unit.process, unit.starting = None, False

    def start(self, wanted: Wanted) -> None:
        """Clears dead mounts as ExecStartPre does, and mounts unless something is in the way."""
        unit = self.units[wanted.mount.id]
        stack = self.stacks.setdefault(wanted.mount.directory, [])
        alive = {each.process for each in self.units.values()}
        while stack and stack[-1] and stack[-1] not in alive:
            stack.pop()
        assert unit.process is None, "started twice"
        if stack:
            return  # mount-s3 refuses a directory that is mounted, and ends
        self.processes += 1
        unit.process = self.processes
        stack.append(unit.process)

    def settle(self) -> None:
        """Lets what is starting come up, or fail where something is in the way."""
        for unit in self.units.values():
            if unit.starting and unit.process is not None:
                stack = self.stacks.setdefault(unit.definition.directory, [])
                unit.starting = False
                if stack:
                    unit.process = None
                else:
                    stack.append(unit.process)

    def carry_out(self, todo: Plan, wanted: list[Wanted], limit: int) -> None:
        """As work.reconcile does it: stops, then writes, then starts; ends after ``limit``."""
        by_id = {each.mount.id: each for each in wanted}
        actions = (action for kind in Kind for action in todo.of(kind))
        for number, action in enumerate(actions):
            if number >= limit:
                return
            if action.kind is Kind.STOP:
                self.stop(action.id)
                del self.units[action.id]
                continue
            each = by_id[action.id]
            unit = self.units.setdefault(action.id, Unit(each.definition, each.text))
            unit.definition, unit.text, unit.settled = each.definition, each.text, True
            if action.kind is Kind.START:
                self.start(each)


class Faults(RuleBasedStateMachine):
    """Plays faults and checks, after each, that two passes of the agent put everything right."""

    def __init__(self) -> None:
        super().__init__()
        self.node = Node()
        self.wanted: list[Wanted] = []

    def pass_once(self, limit: int = 1000) -> Plan:
        todo = plan(self.wanted, self.node.observe())
        for each in self.wanted:
            if self.node.healthy(each.mount.id, each):
                touched = {action.kind for action in todo.actions if action.id == each.mount.id}
                assert touched <= {Kind.WRITE}, "a healthy mount is restarted"
        for directory, stack in self.node.stacks.items():
            if stack and not stack[-1]:
                kinds = {a.kind for a in todo.actions if a.directory == directory}
                assert not kinds & {Kind.START, Kind.WRITE}, "mounted over a foreign mount"
        foreign = {d: s.count(0) for d, s in self.node.stacks.items()}
        self.node.carry_out(todo, self.wanted, limit)
        assert {d: s.count(0) for d, s in self.node.stacks.items() if d in foreign} == foreign
        return todo

    @rule(wanted=WANTS)
    def change_the_configuration(self, wanted: list[Wanted]) -> None:
        self.wanted = wanted

    @precondition(lambda self: self.node.units)
    @rule(data=st.data())
    def kill_a_process(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.node.units)))
        self.node.units[key].process = None
        self.node.units[key].starting = False

    @precondition(lambda self: self.node.units)
    @rule(data=st.data())
    def systemd_restarts_a_mount(self, data: st.DataObject) -> None:
        unit = self.node.units[data.draw(st.sampled_from(sorted(self.node.units)))]
        if unit.process is None:
            stack = self.node.stacks.setdefault(unit.definition.directory, [])
            if stack and stack[-1]:
                stack.pop()  # ExecStartPre clears what is dead
            self.node.processes += 1
            unit.process, unit.starting = self.node.processes, True

    @rule(directory=st.sampled_from(DIRECTORIES))
    def unmount_by_hand(self, directory: str) -> None:
        if self.node.stacks.get(directory):
            self.node.stacks[directory].pop()

    @rule(directory=st.sampled_from(DIRECTORIES))
    def mount_something_else_over_it(self, directory: str) -> None:
        self.node.stacks.setdefault(directory, []).append(0)

    @precondition(lambda self: self.node.units)
    @rule(data=st.data(), text=st.sampled_from(["edited", "older"]), settled=st.booleans())
    def edit_a_unit(self, data: st.DataObject, text: str, settled: bool) -> None:
        unit = self.node.units[data.draw(st.sampled_from(sorted(self.node.units)))]
        unit.text, unit.settled = text, settled

    @precondition(lambda self: self.node.units)
    @rule(data=st.data())
    def edit_the_command_of_a_unit(self, data: st.DataObject) -> None:
        unit = self.node.units[data.draw(st.sampled_from(sorted(self.node.units)))]
        unit.definition = dataclasses.replace(unit.definition, command=("/usr/bin/mount-s3", "x"))

    @precondition(lambda self: self.node.units)
    @rule(data=st.data())
    def remove_a_unit_whose_process_is_down(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.node.units)))
        unit = self.node.units[key]
        if unit.process is None and not self.node.stacks.get(unit.definition.directory):
            del self.node.units[key]

    @rule(units_stay=st.booleans())
    def reboot(self, units_stay: bool) -> None:
        self.node.stacks.clear()
        for unit in self.node.units.values():
            unit.process, unit.starting = None, False
        if not units_stay:
            self.node.units.clear()

    @rule(limit=st.integers(0, 4))
    def carry_out_and_be_interrupted(self, limit: int) -> None:
        self.pass_once(limit)

    @rule()
    def converge(self) -> None:
        self.node.settle()
        first = self.pass_once()
        if self.pass_once():
            self.pass_once()
        last = plan(self.wanted, self.node.observe())
        assert not last, f"no end: {last} after {first}"
        blocked = set(last.foreign)
        ids = {each.mount.id for each in self.wanted}
        for key, unit in self.node.units.items():
            assert key in ids or unit.definition.directory in blocked
        for each in self.wanted:
            if each.mount.directory not in blocked:
                assert self.node.healthy(each.mount.id, each), each.mount.directory
                assert self.node.units[each.mount.id].text == each.text
                assert self.node.units[each.mount.id].settled
        alive = {unit.process for unit in self.node.units.values() if unit.process is not None}
        for directory in DIRECTORIES:
            if directory not in {each.mount.directory for each in self.wanted}:
                assert self.node.top(directory) not in alive

    @invariant()
    def an_observation_has_one_plan(self) -> None:
        observed = self.node.observe()
        assert plan(self.wanted, observed) == plan(self.wanted, observed)


Faults.TestCase.settings = settings(max_examples=300, stateful_step_count=25, deadline=None)
TestFaults = Faults.TestCase
