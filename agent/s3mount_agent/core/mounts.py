"""A mount: its identity, and the command line that makes it."""

from __future__ import annotations

import hashlib
import posixpath
from dataclasses import dataclass, field

from s3mount_agent.core.buckets import Bucket
from s3mount_agent.core.directory import is_below, require_apart
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.options import Options


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


def require_one_prefix(mount: Mount) -> Mount:
    """Returns the mount, or refuses a prefix in its bucket and in its options."""
    if mount.bucket.prefix and "prefix" in mount.options:
        raise AgentError(
            Problem.OPTION_CONFLICT,
            f"the prefix is given twice: in 's3://{mount.bucket}' and as --prefix",
        )
    return mount


def require_consistent(mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
    """Returns the mounts, or refuses those that get in each other's way."""
    require_apart(mount.directory for mount in mounts)
    caches: dict[str, Mount] = {}
    for mount in mounts:
        _require_outside(mount, mounts)
        cache = posixpath.normpath(mount.options.value("cache") or "")
        other = caches.setdefault(cache, mount) if "cache" in mount.options else mount
        if other is not mount:
            # mount-s3 empties its cache directory at start and end: two would empty each other's.
            raise AgentError(
                Problem.OPTION_CONFLICT,
                f"{other.directory} and {mount.directory} share the cache directory {cache}",
                hint="give each mount a --cache directory of its own",
            )
    return mounts


def _require_outside(mount: Mount, mounts: tuple[Mount, ...]) -> None:
    for flag in ("cache", "log-directory"):
        path = posixpath.normpath(mount.options.value(flag) or "/")
        for other in mounts:
            if path == other.directory or is_below(path, other.directory):
                raise AgentError(
                    Problem.OPTION_CONFLICT,
                    f"--{flag} {path} lies in the mount on {other.directory}",
                    hint="name a directory on a disk of the node",
                )
