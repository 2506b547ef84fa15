"""A node that is not there: a supervisor that only takes notes, and a context made of it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from s3mount_agent.config.arguments import parse_arguments
from s3mount_agent.config.configuration import Configuration
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.mount_definition import Definition
from s3mount_agent.core.mounts import Mount, Owner
from s3mount_agent.core.node_roles import Conduct, Mode, OnFailure, Role
from s3mount_agent.decide.plan import Placed, Wanted
from s3mount_agent.reconcile.context import Context
from s3mount_agent.system.node import NodeFacts


def parse_mount(bucket: str, directory: str, options: str) -> Mount:
    """One mount as the arguments give it."""
    (mount,) = parse_arguments((bucket, directory, options))
    return mount


class Supervisor:
    """Does nothing but write down what it is asked to do.

    ``refusing`` are directories that are in use; ``here`` is what it says is on the node;
    ``unwritable`` and ``unremovable`` say why the definition for a directory cannot be written, or
    removed.
    """

    def __init__(self, *refusing: str, here: dict[str, Placed] | None = None) -> None:
        self.refusing = refusing
        self.here = here or {}
        self.unwritable: dict[str, AgentError] = {}
        self.unremovable: dict[str, AgentError] = {}
        self.log: list[str] = []
        self._lock = threading.Lock()

    def _note(self, what: str) -> None:
        with self._lock:
            self.log.append(what)

    def text(self, definition: Definition) -> str:
        return definition.to_json()

    def placed(self) -> dict[str, Placed]:
        return self.here

    def foreign(self) -> dict[str, str]:
        return {}

    def write(self, wanted: Sequence[Wanted]) -> dict[str, AgentError]:
        here = {want.mount.id: self.unwritable.get(want.mount.directory) for want in wanted}
        for want in wanted:
            if here[want.mount.id] is None:
                self._note(f"write {Path(want.mount.directory).name}")
        return {mount_id: error for mount_id, error in here.items() if error}

    def start(self, want: Wanted) -> None:
        self._note(f"start {Path(want.mount.directory).name}")

    def start_later(self, want: Wanted) -> None:
        self.start(want)

    def await_start(self, want: Wanted) -> None:
        pass

    def failure(self, placed: Placed) -> AgentError | None:
        return None

    def stop(self, placed: Placed, *, force: bool = False, patient: bool = True) -> None:
        if placed.definition.directory in self.refusing and not force:
            raise AgentError(Problem.MOUNT_BUSY, f"{placed.definition.directory} is in use")
        how = "tear away" if force else "stop"
        self._note(f"{how} {Path(placed.definition.directory).name}")

    def end(self, placed: Placed) -> None:
        self._note(f"end {Path(placed.definition.directory).name}")

    def remove(self, placed: Sequence[Placed]) -> dict[str, AgentError]:
        for each in placed:
            if each.definition.directory not in self.unremovable:
                self._note(f"remove {Path(each.definition.directory).name}")
        here = {each.id: self.unremovable.get(each.definition.directory) for each in placed}
        return {mount_id: error for mount_id, error in here.items() if error}


def context(
    configuration: Configuration | None = None,
    supervisor: Supervisor | None = None,
    *,
    role: Role = Role.COMPUTE,
    queue: str = "",
    on_failure: OnFailure = OnFailure.FAIL,
) -> Context:
    """What gather() would make of such a node."""
    configuration = configuration or Configuration()
    return Context(
        NodeFacts(cluster="cluster", queue=queue, user="ubuntu"),
        configuration,
        Conduct(role, Mode.SYSTEMD, on_failure),
        Owner(1000, 1000),
        configuration.mounts(role, queue),
        supervisor or Supervisor(),
    )
