"""The options of one mount, as they reach mount-s3's command line, and what they ask of memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LEAST_MIB = 512
"""The least target that mount-s3 takes, in MiB."""
_MIB = 1 << 20
_OVERHEAD_MIB = 128
_PART_BYTES = 8 * _MIB

_OCTAL = ("dir-mode", "file-mode")
_NUMBERS = (
    "uid",
    "gid",
    "maximum-throughput-gbps",
    "max-threads",
    "memory-target",
    "part-size",
    "read-part-size",
    "write-part-size",
    "otlp-export-interval",
    "metadata-ttl",
    "negative-metadata-ttl",
    "max-cache-size",
)
# What mount-s3 does without them, by its own --help. Not here: what it finds out by itself, such as
# the region, and what depends on the bucket, such as checksums.
_DEFAULTS = {
    "max-threads": "16",
    "part-size": str(_PART_BYTES),
    "read-part-size": str(_PART_BYTES),
    "write-part-size": str(_PART_BYTES),
    "dir-mode": "755",
    "file-mode": "644",
    "otlp-export-interval": "60",
}


@dataclass(frozen=True)
class Buffers:
    """What mount-s3, from 1.24 on, keeps of its memory target: one part to ``read`` with, and one
    to ``write`` with for each file that is open for writing, in bytes. ``write`` is None where
    nothing can be written.

    https://github.com/awslabs/mountpoint-s3/blob/main/doc/CONFIGURATION.md, "Maximum number of
    files open for writing".
    """

    read: int = _PART_BYTES
    write: int | None = _PART_BYTES

    def files(self, target: int) -> int | None:
        """How many files may be open for writing at once with a target in MiB: one more gets
        ENOMEM. None where nothing can be written."""
        if self.write is None:
            return None
        return max(0, (room(target) - self.read) // self.write)

    def target(self, files: int) -> int:
        """The least target in MiB with which so many files may be open for writing."""
        parts = self.read + files * (self.write or 0)
        # An eighth is for something else, or 128 MiB if that is more: see room().
        need = max(-(-parts // _MIB) + _OVERHEAD_MIB, -(-parts * 8 // (7 * _MIB)))
        return max(LEAST_MIB, need)


def room(target: int) -> int:
    """The bytes that mount-s3 has for parts, of a target in MiB: the rest is for what it knows of
    files and directories."""
    return (target << 20) - max(_OVERHEAD_MIB << 20, (target << 20) // 8)


@dataclass(frozen=True)
class Options:
    """Flags of mount-s3 by their long names, each with its value or None, in the order given."""

    flags: tuple[tuple[str, str | None], ...] = ()

    @staticmethod
    def of(words: Iterable[str]) -> Options:
        """The inverse of :meth:`arguments`."""
        parted = (word[2:].partition("=") for word in words)
        return Options(tuple((name, value if sign else None) for name, sign, value in parted))

    def __contains__(self, name: str) -> bool:
        return any(name == flag for flag, _ in self.flags)

    def value(self, name: str) -> str | None:
        """The value of a flag, or None where it is absent or takes none."""
        return next((value for flag, value in self.flags if flag == name), None)

    def without(self, name: str) -> Options:
        """The same options, one flag less."""
        return Options(tuple(row for row in self.flags if row[0] != name))

    def extended(self, **defaults: str | None) -> Options:
        """The same options, with flags appended that are not there yet (``_`` stands for ``-``)."""
        added = ((name.replace("_", "-"), value) for name, value in defaults.items())
        return Options(self.flags + tuple(row for row in added if row[0] not in self))

    def arguments(self) -> tuple[str, ...]:
        """The options as mount-s3's argument list."""
        words: list[str] = []
        for name, value in self.flags:
            words += [f"--{name}"] if value is None else [f"--{name}={value}"]
        return tuple(words)

    def normal(self) -> Options:
        """Options that mean the same to mount-s3, written in the one way that they all have in
        common: sorted by name, numbers plainly, and none that says what it does anyway.

        A flag that may be given more than once keeps the order of its values.
        """
        plain = {name: _plain(name, value) for name, value in self.flags}
        cached = "cache" in self or "cache-xz" in self
        lifetime = plain.get("metadata-ttl") or ("60" if cached else "minimal")
        usual = {
            **_DEFAULTS,
            "metadata-ttl": "60" if cached else "minimal",
            "negative-metadata-ttl": lifetime,
        }
        rows = ((name, _plain(name, value)) for name, value in self.flags)
        kept = (row for row in rows if row[1] is None or row[1] != usual.get(row[0]))
        return Options(tuple(sorted(kept, key=lambda row: row[0])))

    @property
    def buffers(self) -> Buffers:
        """What they ask of the memory target."""
        both = self.value("part-size") or _PART_BYTES
        read, write = (int(self.value(f"{way}-part-size") or both) for way in ("read", "write"))
        return Buffers(read, None if "read-only" in self else write)

    @property
    def write_files(self) -> int | None:
        """How many files may be open for writing at once; None where nothing limits that: without
        a target (mount-s3 before 1.24), or where nothing can be written."""
        target = self.value("memory-target")
        return None if target is None else self.buffers.files(int(target))

    @property
    def least_write_files(self) -> int | None:
        """The same where the node is not known yet, which may give it more; None as well where
        nothing can be written."""
        if self.write_files is not None:
            return self.write_files
        return self.buffers.files(self.buffers.target(files=1))


def _plain(name: str, value: str | None) -> str | None:
    if value is not None and value.isdecimal():
        if name in _OCTAL:
            return f"{int(value, 8):o}"
        if name in _NUMBERS:
            return str(int(value))
    return value
