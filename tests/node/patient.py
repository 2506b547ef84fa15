"""A bootstrap under way for a long time, which somebody looks at later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from node.article import set_environment

if TYPE_CHECKING:
    from cluster.cluster import Cluster
    from cluster.command import Command
    from cluster.node import Node

DENIED = "bucket-that-denies"


@dataclass(frozen=True)
class Outcome:
    """How a custom action ended."""

    returncode: int
    stdout: str
    stderr: str


class Patient:
    """A custom action on a node of its own."""

    def __init__(self, node: Node, command: Command, said: str) -> None:
        self.node = node
        self._command = command
        self._said = said
        self._outcome: Outcome | None = None

    @classmethod
    def start(
        cls, cluster: Cluster, node: Node, arguments: tuple[str, ...], *, cut: bool = False
    ) -> Patient:
        """Starts it; with ``cut`` the node loses its network once the script has been fetched."""
        set_environment(node, AWS_MAX_ATTEMPTS="1")
        command = cluster.start_custom_action(node, arguments)
        assert command.stdout is not None
        said = command.stdout.readline()
        if cut:
            node.cut()
        return cls(node, command, said)

    def outcome(self) -> Outcome:
        """Waits for its end."""
        if self._outcome is None:
            assert self._command.stdout is not None
            assert self._command.stderr is not None
            said = self._said + self._command.stdout.read()
            errors = self._command.stderr.read()
            self._outcome = Outcome(self._command.wait(), said, errors)
        return self._outcome

    def end(self) -> None:
        """Kills it, if it has not ended."""
        self._command.kill()
        self._command.wait()
