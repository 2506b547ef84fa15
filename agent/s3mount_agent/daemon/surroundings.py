"""All that the daemon touches: the node, its files, its journal and its clock, one method for each.

It is handed to the daemon, whose tests hand in a node of their own.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

from s3mount_agent.config import config_file, desired, environment
from s3mount_agent.config.configuration import Configuration
from s3mount_agent.core.errors import AgentError
from s3mount_agent.core.mounts import Mount
from s3mount_agent.daemon.health import Health
from s3mount_agent.daemon.neighbours import Neighbours
from s3mount_agent.daemon.senses import Senses
from s3mount_agent.decide.hang import Condition
from s3mount_agent.decide.journal_events import Event
from s3mount_agent.decide.mount_status import MountStatus
from s3mount_agent.decide.plan import Observed, Plan, Wanted
from s3mount_agent.filesystem import files, lock, metrics_file, mountinfo, paths
from s3mount_agent.mountpoint import choice, program
from s3mount_agent.mountpoint.program import Installed
from s3mount_agent.reconcile import context, directories, execute, observe
from s3mount_agent.reconcile.context import Context
from s3mount_agent.reconcile.execute import Failures
from s3mount_agent.state import config_origin, held_down, in_force, status_file
from s3mount_agent.supervisor import agent_service
from s3mount_agent.system import journal, process, systemd

_TIDY_SECONDS = 300.0


class Surroundings:
    """The node on which the service runs."""

    def __init__(self) -> None:
        self._neighbours = Neighbours(self.now)
        self._tidy_due = 0.0

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def wall_time(self) -> float:
        """Seconds since 1970, for people and other machines."""
        return time.time()

    def luck(self) -> float:
        """What is left to chance, from 0 to 1."""
        return random.random()  # noqa: S311

    def health(self) -> Health:
        """Who looks after the mounts that are up."""
        return Health(Senses())

    def versions(self) -> tuple[int, int]:
        """When the configuration in force, and what is known of its source, were last written."""
        return files.modified(in_force.PATH), files.modified(config_origin.PATH)

    def configuration(self) -> Configuration:
        """What is in force; raises what is wrong with it."""
        return desired.in_force().configuration

    def begin(self) -> tuple[Configuration, AgentError | None]:
        """Puts config.yaml in force, and what is wrong with it, or impossible on this node, where
        the last good one stays; raises that where there is none."""
        wanted, wrong = desired.begin(
            lambda configuration: execute.require_divisible(self.gather(configuration))
        )
        return wanted.configuration, wrong

    def edited(self) -> int:
        """When config.yaml was last written."""
        return files.modified(config_file.PATH)

    def pending(self) -> str | None:
        """How config.yaml differs from what is in force, if it does."""
        return desired.pending()

    def ask_ahead(self, configuration: Configuration) -> None:
        """Asks what may take its time before anybody waits for it."""
        context.ask_ahead(configuration)

    def recall(self) -> tuple[MountStatus, ...]:
        """What was last known of the mounts in this boot."""
        known = status_file.load()
        return known.mounts if known else ()

    def why_missing(self) -> Failures:
        """What the last attempt to install mount-s3 said, by mount; nothing where none has."""
        known = status_file.load()
        if known is None or "mount_s3" in known.node:
            return {}
        return {
            each.id: status_file.error_of(each.failure) for each in known.mounts if each.failure
        }

    def alone(self) -> AbstractContextManager[None]:
        """Keeps others from changing the node. Not waited for: while another command works, SIGTERM
        must still be heard. Raises ``locked``."""
        return lock.hold("daemon", timeout=0)

    def table(self) -> Mapping[str, object]:
        """The mount table, to be compared with a later one."""
        return mountinfo.read()

    def gather(self, configuration: Configuration) -> Context:
        """The node's facts; raises what is wrong with them."""
        return context.gather(configuration)

    def installed(self) -> Installed | None:
        """The node's mount-s3."""
        return program.find()

    def is_to_install(self, configuration: Configuration) -> bool:
        """Whether the node is to have another mount-s3 than it has."""
        environment.load()  # the node's own file may be newer than this process
        try:
            return choice.planned(configuration.install) is not None
        except AgentError:  # told by who installs
            return False

    def observe(self, around: Context) -> Observed:
        """The node as it is."""
        return observe.observe(around.supervisor)

    def want(
        self, around: Context, installed: Installed, observed: Observed
    ) -> tuple[tuple[Wanted, ...], Failures]:
        """The mounts as they shall be, and those that cannot be."""
        return execute.want(around, installed, observed)

    def held(self) -> frozenset[str]:
        """The ids of mounts that an administrator took down."""
        return held_down.load()

    def carry_out(
        self,
        todo: Plan,
        wanted: Sequence[Wanted],
        observed: Observed,
        around: Context,
        told: Failures,
    ) -> Failures:
        """Does what the plan says, and waits for no start and no end."""
        start = around.supervisor.start_later
        return execute.carry_out(
            todo, wanted, observed, around, start=start, told=told, patient=False
        )

    def tidy(self, wanted: Iterable[Mount]) -> None:
        """Removes directories that the agent made and nobody wants any more. Where one does not
        answer, the mounts do not wait for it again soon."""
        if self.now() >= self._tidy_due and not directories.tidy(wanted):
            self._tidy_due = self.now() + _TIDY_SECONDS

    def remember(
        self,
        around: Context,
        installed: Installed | None,
        failures: Failures,
        conditions: Mapping[str, Condition],
    ) -> tuple[MountStatus, ...]:
        """Writes down what is known of the mounts, and returns it."""
        return observe.remember(around, installed, failures, conditions)

    def tell_neighbours(self, around: Context, mounts: tuple[MountStatus, ...]) -> None:
        """Tells others that have to know of the mounts."""
        self._neighbours.see(around, mounts)

    def tell(
        self,
        event: Event,
        message: str,
        error: AgentError | None,
        *,
        mount: str = "",
        bucket: str = "",
    ) -> None:
        """Writes an entry into the journal, of one mount or of none ("")."""
        code = error.problem.code if error else ""
        cause = (error.cause or "") if error else ""
        journal.event(event, message, mount=mount, bucket=bucket, error_code=code, cause=cause)

    def install_later(self) -> None:
        """Has another attempt made to install mount-s3."""
        agent_service.install_later()

    def follows_a_source(self) -> bool:
        """Whether there is one to be asked for news."""
        return config_origin.load() is not None

    def refresh(self) -> process.Child:
        """Begins to ask the source for news."""
        return process.Child([paths.COMMAND, "refresh"])

    def record(self, line: str) -> None:
        """Writes a line for machines into the journal."""
        journal.record(line)

    def write_figures(self, path: str, text: str) -> None:
        """Writes the file for Prometheus; raises what is wrong with its place."""
        metrics_file.write(path, text)

    def take_back_figures(self, path: str | None) -> None:
        """Removes it."""
        metrics_file.take_back(path)

    def notify(self, *lines: str) -> None:
        """Tells systemd how the service is (sd_notify(3))."""
        systemd.notify(*lines)

    def watchdog(self) -> float:
        """Within how many seconds systemd must hear that the work goes on."""
        return systemd.watchdog()

    def tell_lost(self) -> None:
        """Tells how many entries the journal did not take."""
        journal.tell_lost()
