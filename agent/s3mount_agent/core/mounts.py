"""A mount: its identity, and the command line that makes it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from s3mount_agent.core.buckets import Bucket
from s3mount_agent.core.directory_rules import ancestors, normal
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.masking import is_secret
from s3mount_agent.core.options import Options

MOST_MOUNTS = 100
"""Of one node, or one configuration."""
# The kernel takes 128 KiB in one word (execve(2)), and systemd a line of 1 MiB.
_LONGEST_WORD = 8192
_LONGEST_COMMAND = 65536


@dataclass(frozen=True)
class Owner:
    """The user and group that files on a mount appear to belong to (numeric ids)."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Mount:
    """A mount as the user wants it: a bucket, a directory, and options for mount-s3."""

    bucket: Bucket
    directory: str
    options: Options = field(default_factory=Options)
    owner: str | None = None
    """The user whose files they seem to be; None stands for the cluster's user."""
    weight: int = 1
    """Its share of the node's memory and bandwidth, beside those of the others."""

    @property
    def id(self) -> str:
        """Eight hexadecimal digits that name the mount everywhere; the same on every node."""
        identity = f"{self.bucket.name}:{self.directory}".encode()
        return hashlib.md5(identity, usedforsecurity=False).hexdigest()[:8]

    @property
    def unit(self) -> str:
        """The name of its systemd unit."""
        return f"mountpoint-s3-{self.id}.service"

    @property
    def description(self) -> str:
        """What systemctl shows."""
        return f"Mount s3://{self.bucket} at {self.directory}"

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written through it."""
        return "read-only" in self.options

    def arguments(self, owner: Owner | None) -> tuple[str, ...]:
        """mount-s3's argument list (without the program), with what the agent adds.

        mount-s3 runs as root, who alone may always reach IMDS. So that the files belong to the
        people who use them, they get ``owner`` (None: root); and without --allow-other or
        --allow-root the mount is private to that owner, as mount-s3 means it to be private to
        whoever runs it.
        """
        options = self.options
        if self.bucket.prefix:
            options = options.extended(prefix=self.bucket.prefix)
        if "allow-other" not in options and "allow-root" not in options:
            options = options.extended(dir_mode="0700", file_mode="0600", allow_other=None)
        if owner is not None and owner.uid > 0:
            options = options.extended(uid=str(owner.uid))
        if owner is not None and owner.gid > 0:
            options = options.extended(gid=str(owner.gid))
        options = options.extended(user_agent_prefix="s3mount-agent")
        return ("--foreground", *options.arguments(), self.bucket.name, self.directory)


def require_sound(mount: Mount) -> Mount:
    """Returns the mount, or refuses a prefix in its bucket and in its options, and options that are
    too long to be executed."""
    if mount.bucket.prefix and "prefix" in mount.options:
        raise AgentError(
            Problem.OPTION_CONFLICT,
            f"the prefix is given twice: in 's3://{mount.bucket}' and as --prefix",
        )
    for name, value in mount.options.flags:
        if value and is_secret(value):
            own = "AWS_ENDPOINT_URL" if name == "endpoint-url" else "what mount-s3 reads instead"
            raise AgentError(
                Problem.OPTION_VALUE,
                f"the option --{name} holds a secret, which everybody can see in `ps`",
                hint=f"set {own} in /etc/s3mount-agent/environment",
            )
    sizes = [len(word.encode(errors="surrogateescape")) + 1 for word in mount.arguments(None)]
    if max(sizes) > _LONGEST_WORD or sum(sizes) > _LONGEST_COMMAND:
        raise AgentError(
            Problem.OPTION_VALUE,
            f"the options of {mount.directory[:60]} have {sum(sizes)} bytes, the longest of them "
            f"{max(sizes)}",
            hint=f"at most {_LONGEST_WORD} bytes each, and {_LONGEST_COMMAND} together",
        )
    return mount


def require_consistent(
    mounts: Sequence[Mount], together: Callable[[int, int], bool] = lambda one, other: True
) -> tuple[Mount, ...]:
    """Returns the mounts, or refuses those that get in each other's way; ``together`` says whether
    two of them, by their place in the list, can be on the same node at all.

    In about linear time: a file from outside must not make that endless.
    """
    places = _Places(mounts, together)
    for number, mount in enumerate(mounts):
        places.require_apart(number, mount)
    for number, mount in enumerate(mounts):
        places.require_outside(number, mount)
        places.require_own_cache(number, mount)
    return tuple(mounts)


class _Places:
    """What mounts take up: their directories, ids and caches, each by name with who has it."""

    def __init__(self, mounts: Sequence[Mount], together: Callable[[int, int], bool]) -> None:
        self._mounts, self._together = mounts, together
        self._directories: dict[str, list[int]] = {}
        self._ids: dict[str, list[int]] = {}
        self._caches: dict[str, list[int]] = {}
        for number, mount in enumerate(mounts):
            self._directories.setdefault(mount.directory, []).append(number)
            self._ids.setdefault(mount.id, []).append(number)
            if "cache" in mount.options:
                self._caches.setdefault(_path(mount, "cache"), []).append(number)

    def _other(self, number: int, holders: Iterable[int]) -> Mount | None:
        others = (each for each in holders if each != number and self._together(number, each))
        found = next(others, None)
        return None if found is None else self._mounts[found]

    def require_apart(self, number: int, mount: Mount) -> None:
        """No two mounts have one directory or one id, or lie inside each other."""
        for place in ancestors(mount.directory):
            other = self._other(number, self._directories.get(place, ()))
            if other is not None and place == mount.directory:
                raise AgentError(
                    Problem.DIRECTORY_TWICE, f"the directory {mount.directory} is given twice"
                )
            if other is not None:
                raise AgentError(
                    Problem.DIRECTORY_TWICE,
                    f"the directories {place} and {mount.directory} lie inside each other",
                )
        other = self._other(number, self._ids[mount.id])
        if other is not None:
            raise AgentError(
                Problem.DIRECTORY_TWICE,
                f"{other.directory} and {mount.directory} would both be the mount {mount.id}",
                hint="a rare accident: give one of the two another directory",
            )

    def require_outside(self, number: int, mount: Mount) -> None:
        """Neither cache nor logs lie in a mount."""
        for flag in ("cache", "log-directory"):
            path = _path(mount, flag)
            for place in ancestors(path):
                holders = self._directories.get(place, ())
                if number in holders or self._other(number, holders) is not None:
                    raise AgentError(
                        Problem.OPTION_CONFLICT,
                        f"--{flag} {path} lies in the mount on {place}",
                        hint="name a directory on a disk of the node",
                    )

    def require_own_cache(self, number: int, mount: Mount) -> None:
        """mount-s3 empties its cache directory at start and end: two would empty each other's."""
        if "cache" not in mount.options:
            return
        for place in ancestors(_path(mount, "cache")):
            other = self._other(number, self._caches.get(place, ()))
            if other is not None:
                raise AgentError(
                    Problem.OPTION_CONFLICT,
                    f"{other.directory} and {mount.directory} share the cache directory {place}",
                    hint="give each mount a --cache directory of its own",
                )


def _path(mount: Mount, flag: str) -> str:
    return normal(mount.options.value(flag) or "/")
