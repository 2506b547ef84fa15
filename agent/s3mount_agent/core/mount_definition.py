"""What a mount runs with, as it is kept on the node."""

from __future__ import annotations

import json
from dataclasses import dataclass

from s3mount_agent.core.directory_rules import normal
from s3mount_agent.core.node_roles import Mode
from s3mount_agent.core.options import Options
from s3mount_agent.core.text import parse_json

# Options that name a path of this node.
_PLACES = ("cache", "log-directory", "ca-bundle")


@dataclass(frozen=True)
class Definition:
    """What a mount was started with: enough to see whether it is still what is wanted.

    ``command`` is the whole argument list, the program first; ``share`` those of its words that are
    this mount's part of the node, which change with every other mount's coming and going and are
    not worth a restart. ``secrets`` are variables whose values not everybody may see, each with
    what tells its value from another. ``memory_max`` is the limit of its cgroup in MiB, None for no
    limit.
    """

    bucket: str
    directory: str
    command: tuple[str, ...]
    mode: Mode
    read_only: bool
    share: tuple[str, ...] = ()
    memory_max: int | None = None
    environment: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, str], ...] = ()
    lazy: bool = False
    """Whether a stop of its unit tears it away from who uses it."""

    def essence(self, beside: Definition | None = None) -> tuple[str, ...]:
        """All that a process cannot change about itself: if it differs, it must be started anew.

        Not how it is written: the same options in another order, with one that mount-s3 takes for
        granted, or with the share that the other definition leaves to the agent, are the same. Nor
        which mount-s3 it is: a new package is no reason for a new mount.
        """
        shares = {*self.share, *(beside.share if beside else ())}
        plain = (word for word in self.command[1:] if not word.startswith("--"))
        options = (word for word in self.options.normal().arguments() if word not in shares)
        environment = (f"{name}={value}" for name, value in self.environment)
        secrets = (f"{name}=(secret {value})" for name, value in self.secrets)
        return (*plain, *options, *environment, *secrets)

    def runs_as(self, other: Definition) -> bool:
        """Whether its process need not be started anew to be the other's."""
        return self.essence(other) == other.essence(self)

    @property
    def options(self) -> Options:
        """The options of its command, its share of the node among them."""
        return Options.of(word for word in self.command if word.startswith("--"))

    @property
    def places(self) -> tuple[tuple[str, str], ...]:
        """The paths of this node that mount-s3 writes to and reads, by the option they are for."""
        given = dict(word[2:].partition("=")[::2] for word in self.command if word[:2] == "--")
        given.setdefault("ca-bundle", dict(self.environment).get("AWS_CA_BUNDLE", ""))
        return tuple((name, normal(given[name])) for name in _PLACES if given.get(name))

    def to_json(self) -> str:
        """One line of ASCII, which cannot end with a backslash."""
        return json.dumps({**vars(self), "mode": self.mode.value}, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Definition:
        """The inverse of :meth:`to_json`; raises ValueError, KeyError, TypeError, AttributeError or
        RecursionError for what is none."""
        fields = parse_json(text)
        known = Definition(
            bucket=fields["bucket"],
            directory=fields["directory"],
            command=tuple(fields["command"]),
            mode=Mode(fields["mode"]),
            read_only=bool(fields["read_only"]),
            share=tuple(fields.get("share", ())),
            memory_max=fields.get("memory_max"),
            environment=tuple((k, v) for k, v in fields.get("environment", ())),
            secrets=tuple((k, v) for k, v in fields.get("secrets", ())),
            lazy=bool(fields.get("lazy")),
        )
        pairs = [word for pair in (*known.environment, *known.secrets) for word in pair]
        words = (known.bucket, known.directory, *known.command, *known.share, *pairs)
        if not all(isinstance(word, str) for word in words):
            raise TypeError("a word is no text")
        if not known.command or not known.directory.startswith("/"):
            raise ValueError("it has no command, or no directory")
        if known.memory_max is not None and type(known.memory_max) is not int:
            raise TypeError("memory_max is no number")
        return known
