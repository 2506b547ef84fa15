"""A mount: its identity, and the command line that makes it."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from s3mount_agent.core.buckets import Bucket
from s3mount_agent.core.directory_rules import ancestors, normal
from s3mount_agent.core.errors import AgentError, Problem, together
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


def unsound(mount: Mount) -> Iterator[AgentError]:
    """What is wrong with a mount by itself: a prefix both in its bucket and in its options, a
    secret, options that are too long to be executed."""
    if mount.bucket.prefix and "prefix" in mount.options:
        yield AgentError(
            Problem.OPTION_CONFLICT,
            f"the prefix is given twice: in 's3://{mount.bucket}' and as --prefix",
        )
    for name, value in mount.options.flags:
        if value and is_secret(value):
            own = "AWS_ENDPOINT_URL" if name == "endpoint-url" else "what mount-s3 reads instead"
            yield AgentError(
                Problem.OPTION_VALUE,
                f"the option --{name} holds a secret, which everybody can see in `ps`",
                hint=f"set {own} in /etc/s3mount-agent/environment",
            )
    sizes = [len(word.encode(errors="surrogateescape")) + 1 for word in mount.arguments(None)]
    if max(sizes) > _LONGEST_WORD or sum(sizes) > _LONGEST_COMMAND:
        yield AgentError(
            Problem.OPTION_VALUE,
            f"the options of {mount.directory[:60]} have {sum(sizes)} bytes, the longest of them "
            f"{max(sizes)}",
            hint=f"at most {_LONGEST_WORD} bytes each, and {_LONGEST_COMMAND} together",
        )


def require_consistent(mounts: Sequence[Mount]) -> tuple[Mount, ...]:
    """Returns the mounts, or refuses those that get in each other's way, all at once."""
    errors = [error for _, error in colliding(mounts)]
    if errors:
        raise together(errors)
    return tuple(mounts)


def colliding(
    mounts: Sequence[Mount], meet: Callable[[int, int], bool] = lambda one, other: True
) -> Iterator[tuple[int, AgentError]]:
    """Where mounts get in each other's way, with the number of the later of the two; ``meet`` says
    whether two of them, by their numbers, can be on the same node at all.

    In about linear time: a file from outside must not make that endless.
    """
    places = _Places(mounts, meet)
    for number, mount in enumerate(mounts):
        yield from places.not_apart(number, mount)
    for number, mount in enumerate(mounts):
        yield from places.inside(number, mount)
        yield from places.shared_cache(number, mount)


class _Places:
    """What mounts take up: their directories, ids and caches, each by name with who has it."""

    def __init__(self, mounts: Sequence[Mount], meet: Callable[[int, int], bool]) -> None:
        self._mounts, self._meet = mounts, meet
        self._directories: dict[str, list[int]] = {}
        self._ids: dict[str, list[int]] = {}
        self._caches: dict[str, list[int]] = {}
        for number, mount in enumerate(mounts):
            self._directories.setdefault(mount.directory, []).append(number)
            self._ids.setdefault(mount.id, []).append(number)
            if "cache" in mount.options:
                self._caches.setdefault(_path(mount, "cache"), []).append(number)

    def _other(self, number: int, holders: Sequence[int], *, alike: bool = False) -> int | None:
        """One of the holders that meets a mount. Where two are alike, each would find the other:
        only the later does."""
        if alike:
            holders = holders[: bisect.bisect_left(holders, number)]
        return next((e for e in holders if e != number and self._meet(number, e)), None)

    def not_apart(self, number: int, mount: Mount) -> Iterator[tuple[int, AgentError]]:
        """Two mounts have one directory or one id, or lie inside each other."""
        for place in ancestors(mount.directory):
            same = place == mount.directory
            other = self._other(number, self._directories.get(place, ()), alike=same)
            if other is not None:
                message = f"the directories {place} and {mount.directory} lie inside each other"
                if same:
                    message = f"the directory {mount.directory} is given twice"
                yield max(number, other), AgentError(Problem.DIRECTORY_TWICE, message)
        other = self._other(number, self._ids[mount.id], alike=True)
        if other is not None and self._mounts[other].directory != mount.directory:
            message = (
                f"{self._mounts[other].directory} and {mount.directory} would both be the mount "
                f"{mount.id}"
            )
            hint = "a rare accident: give one of the two another directory"
            yield number, AgentError(Problem.DIRECTORY_TWICE, message, hint=hint)

    def inside(self, number: int, mount: Mount) -> Iterator[tuple[int, AgentError]]:
        """A cache or logs lie in a mount."""
        for flag in ("cache", "log-directory"):
            path = _path(mount, flag)
            for place in ancestors(path):
                holders = self._directories.get(place, ())
                other = number if number in holders else self._other(number, holders)
                if other is not None:
                    message = f"--{flag} {path} lies in the mount on {place}"
                    hint = "name a directory on a disk of the node"
                    error = AgentError(Problem.OPTION_CONFLICT, message, hint=hint)
                    yield max(number, other), error

    def shared_cache(self, number: int, mount: Mount) -> Iterator[tuple[int, AgentError]]:
        """mount-s3 empties its cache directory at start and end: two would empty each other's."""
        if "cache" not in mount.options:
            return
        own = _path(mount, "cache")
        for place in ancestors(own):
            other = self._other(number, self._caches.get(place, ()), alike=place == own)
            if other is not None:
                yield (
                    max(number, other),
                    AgentError(
                        Problem.OPTION_CONFLICT,
                        f"{self._mounts[other].directory} and {mount.directory} share the cache "
                        f"directory {place}",
                        hint="give each mount a --cache directory of its own",
                    ),
                )


def _path(mount: Mount, flag: str) -> str:
    return normal(mount.options.value(flag) or "/")
