"""What the agent needs to know of a node before it does anything on it."""

from __future__ import annotations

from dataclasses import dataclass

from s3mount_agent import __version__
from s3mount_agent.doors import node, systemd
from s3mount_agent.doors.mount_s3 import Installed
from s3mount_agent.model.configuration import Configuration
from s3mount_agent.model.mounts import Owner
from s3mount_agent.model.roles import Conduct, conduct, role_of
from s3mount_agent.work.supervision import Supervisor, supervisor


@dataclass(frozen=True)
class Context:
    """A node's facts, and what follows from them: ``owner`` is None where files belong to root."""

    facts: node.NodeFacts
    conduct: Conduct
    owner: Owner | None
    supervisor: Supervisor

    def describe(self, installed: Installed | None) -> dict[str, str]:
        """The node as status shows it."""
        told = {
            "role": self.conduct.role.value,
            "mode": self.conduct.mode.value,
            "cluster": self.facts.cluster,
            "queue": self.facts.queue,
            "agent": __version__,
            "mount_s3": str(installed or ""),
        }
        return {key: value for key, value in told.items() if value}


def gather(configuration: Configuration) -> Context:
    """Reads the node; raises ``node-type`` or ``mode``."""
    facts = node.read()
    decided = conduct(
        configuration.role or role_of(facts.node_types),
        systemd_runs=systemd.runs(),
        mode=configuration.mode,
        on_failure=configuration.on_failure,
    )
    owner = node.owner(facts.user) if facts.user else None
    return Context(facts, decided, owner, supervisor(decided.mode))
