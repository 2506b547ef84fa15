"""mount-s3's own flags: one row each. Taken from its command line, releases 1.0 to 1.24.

Options are checked against them in mountpoint/flag_check.py, keys of a configuration in
config/schema.py.

https://github.com/awslabs/mountpoint-s3/blob/main/doc/CONFIGURATION.md
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from s3mount_agent.core.directory_rules import may_be_read, may_be_written
from s3mount_agent.core.options import LEAST_MIB
from s3mount_agent.core.versions import MEMORY_TARGET, Version


@dataclass(frozen=True)
class Value:
    """What may follow a flag: ``form`` names it in errors, ``pattern`` must match all of it,
    and a number must be at least ``least`` (after reading it in ``base``)."""

    form: str
    pattern: str = r".+"
    least: int | None = None
    most: int | None = None
    base: int = 10
    permits: Callable[[str], bool] | None = None
    """What a pattern cannot say."""

    def accepts(self, text: str) -> bool:
        """Whether mount-s3 would take this text as the flag's value."""
        if text.startswith("-") or not re.fullmatch(self.pattern, text, re.ASCII | re.DOTALL):
            return False
        if self.permits is not None and not self.permits(text):
            return False
        if self.least is None and self.most is None:
            return True
        number = int(text, self.base)
        return (self.least is None or number >= self.least) and (
            self.most is None or number <= self.most
        )


@dataclass(frozen=True)
class Flag:
    """One flag: its value if it takes one, the first version that has it, and its company."""

    name: str
    value: Value | None = None
    since: Version = (1, 0)
    short: str | None = None
    conflicts: tuple[str, ...] = ()
    requires: str | None = None
    repeatable: bool = False
    reserved: bool = False
    """Whether it is the agent's business, so that a user may not give it."""


def _number(least: int, most: int | None = None) -> Value:
    limit = f"from {least} to {most}" if most else f"of at least {least}"
    return Value(f"a whole number {limit}", r"\d{1,19}", least, most)


def _choice(*words: str) -> Value:
    return Value("one of " + ", ".join(words), "|".join(map(re.escape, words)))


_TEXT = Value("a value")
_PART = Value(
    "a number of bytes from 5242880 (5 MiB) to 5368709120 (5 GiB)", r"\d{1,19}", 5 << 20, 5 << 30
)
# Root reads and writes there, so a configuration may not name everything: docs/security.md.
_FILE = Value("the absolute path of a file", permits=may_be_read)
_OWN_DIRECTORY = Value(
    "an absolute path outside of the system's directories", permits=may_be_written
)
_MODE = Value("an octal number up to 777", r"[0-7]{1,4}", 0, 0o777, base=8)
_TTL = Value("a number of seconds, 'indefinite' or 'minimal'", r"\d{1,10}|indefinite|minimal")
_UNSIGNED = 2**32 - 1
_LOGGING = ("log-directory", "log-metrics", "debug", "debug-crt")

_ROWS = (
    # the bucket
    Flag("prefix", Value("a prefix that ends with '/'", r".*/")),
    Flag("region", Value("a region such as eu-west-1", r"[a-z0-9-]+")),
    Flag("endpoint-url", Value("a URL", r"https?://\S+")),
    Flag("force-path-style"),
    Flag("transfer-acceleration"),
    Flag("dual-stack"),
    Flag("requester-pays"),
    Flag("bucket-type", _choice("general-purpose", "directory")),
    Flag("storage-class", _TEXT),
    Flag("expected-bucket-owner", Value("an account number", r"\d{12}")),
    Flag("sse", _choice("aws:kms", "aws:kms:dsse", "AES256")),
    Flag("sse-kms-key-id", Value("a key's ARN", r"arn:.*:key.*"), requires="sse"),
    Flag("upload-checksums", _choice("crc32c", "crc64nvme", "off")),
    Flag("infer-content-type"),
    # credentials
    Flag("no-sign-request"),
    Flag("profile", _TEXT),
    # the mount
    Flag("read-only", conflicts=("allow-delete", "allow-overwrite")),
    Flag("allow-delete"),
    Flag("allow-overwrite"),
    Flag("incremental-upload"),
    Flag("auto-unmount"),
    Flag("allow-root", conflicts=("allow-other",)),
    Flag("allow-other"),
    Flag("uid", _number(1, _UNSIGNED)),
    Flag("gid", _number(1, _UNSIGNED)),
    Flag("dir-mode", _MODE),
    Flag("file-mode", _MODE),
    # the client
    Flag("maximum-throughput-gbps", _number(1)),
    Flag("max-threads", _number(1)),
    Flag("memory-target", _number(LEAST_MIB), since=MEMORY_TARGET),
    Flag("part-size", _PART, conflicts=("read-part-size", "write-part-size")),
    Flag("read-part-size", _PART),
    Flag("write-part-size", _PART),
    Flag("ca-bundle", _FILE, since=(1, 23)),
    Flag("bind", _TEXT, repeatable=True),
    # logging
    Flag("log-directory", _OWN_DIRECTORY, short="l"),
    Flag("log-metrics"),
    Flag("otlp-endpoint", Value("a URL", r"https?://\S+"), since=(1, 21)),
    Flag("otlp-export-interval", _number(1), since=(1, 21), requires="otlp-endpoint"),
    Flag("debug", short="d"),
    Flag("debug-crt"),
    Flag("no-log", conflicts=_LOGGING),
    # the cache
    Flag("cache", _OWN_DIRECTORY),
    Flag("cache-xz", _TEXT),
    Flag("metadata-ttl", _TTL),
    Flag("negative-metadata-ttl", _TTL),
    Flag("max-cache-size", _number(0), requires="cache"),
    # the rest
    Flag("user-agent-prefix", _TEXT),
    Flag("foreground", short="f", reserved=True),
    Flag("help", short="h", reserved=True),
    Flag("version", short="V", reserved=True),
)

FLAGS = {flag.name: flag for flag in _ROWS}
SHORT_FLAGS = {flag.short: flag for flag in _ROWS if flag.short}
