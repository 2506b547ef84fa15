"""What the agent needs to know of a node before it does anything on it."""

from __future__ import annotations

from dataclasses import dataclass

from s3mount_agent import __version__
from s3mount_agent.config.configuration import Configuration, WhenBusy
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.mounts import Mount, Owner
from s3mount_agent.core.node_roles import Conduct, OnFailure, conduct, role_of
from s3mount_agent.mountpoint.program import Installed
from s3mount_agent.supervisor.interface import Supervisor, supervisor
from s3mount_agent.system import node, systemd


@dataclass(frozen=True)
class Context:
    """A node's facts, and what follows from them and the configuration.

    ``owner`` is None where files belong to root, and an error where nobody can tell whose they are;
    ``mounts`` are those meant for this node.
    """

    facts: node.NodeFacts
    configuration: Configuration
    conduct: Conduct
    owner: Owner | AgentError | None
    mounts: tuple[Mount, ...]
    supervisor: Supervisor

    def busy_policy(self, directory: str) -> WhenBusy:
        """What to do about a mount on a directory that must change while it is used."""
        return self.configuration.busy_policy(directory, self.conduct.role, self.facts.queue)

    def failure_policy(self, directory: str) -> OnFailure:
        """What a bootstrap does if the mount on a directory fails."""
        own = self.configuration.failure_policy(directory, self.conduct.role, self.facts.queue)
        return own or self.conduct.on_failure

    @property
    def required(self) -> frozenset[str]:
        """The directories of the mounts without which the node is not whole: all but those that
        the configuration itself lets fail (the default of a head node is about its bootstrap)."""
        role, queue, policy = self.conduct.role, self.facts.queue, self.configuration.failure_policy
        directories = (mount.directory for mount in self.mounts)
        return frozenset(d for d in directories if policy(d, role, queue) is not OnFailure.CONTINUE)

    def owner_of(self, mount: Mount) -> Owner | None:
        """Whose files those of a mount seem to be; raises ``owner-unknown``."""
        if mount.owner is None:
            if isinstance(self.owner, AgentError):
                raise self.owner
            return self.owner
        named = node.owner(mount.owner)
        if named is None:
            raise AgentError(
                Problem.OWNER_UNKNOWN,
                f"this node has no user {mount.owner!r} for {mount.directory}",
            )
        return named

    @property
    def words(self) -> str:
        """What the node is, and where that is from, in a few words."""
        facts = [f"role {self.conduct.role.value}", f"mode {self.conduct.mode.value}"]
        facts += [f"{each.value} in {each.file}" for each in self.facts.node_types[:1]]
        facts.append(f"files belong to {self.facts.user if self.owner else 'root'}")
        return ", ".join(facts)

    def describe(self, installed: Installed | None) -> dict[str, str]:
        """The node as status shows it."""
        node = {
            "role": self.conduct.role.value,
            "mode": self.conduct.mode.value,
            "cluster": self.facts.cluster,
            "queue": self.facts.queue,
            "agent": __version__,
            "mount_s3": str(installed or ""),
        }
        return {key: value for key, value in node.items() if value}


def gather(configuration: Configuration) -> Context:
    """Reads the node; raises ``node-type``, ``mode``, or what is wrong with its mounts together."""
    facts = node.read()
    decided = conduct(
        configuration.role or role_of(facts.node_types),
        systemd_runs=systemd.runs(),
        mode=configuration.mode,
        on_failure=configuration.on_failure,
    )
    return Context(
        facts,
        configuration,
        decided,
        owner=_owner(facts.user),
        mounts=configuration.mounts(decided.role, facts.queue),
        supervisor=supervisor(decided.mode),
    )


def ask_ahead(configuration: Configuration) -> None:
    """Asks outside of the lock what may take its time; within it, gather() then finds it known."""
    for user in {row.owner for row in configuration.rows if row.owner}:
        _owner(user)


def _owner(user: str) -> Owner | AgentError | None:
    try:
        return node.owner(user) if user else None
    except AgentError as error:
        return error
