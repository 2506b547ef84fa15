"""The command line: one table row per flag (upstream cli.rs), checked like clap."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from . import RELEASE
from .buckets import Location, parse_location, parse_prefix
from .errors import MountError, UsageError

MINIMAL_TTL = -1.0
"""`--metadata-ttl minimal`: as little caching as Linux tolerates."""

Check = Callable[[str], Any]


def at_least(low: int, high: int = 2**64 - 1) -> Check:
    def check(text: str) -> int:
        if not text.isdecimal():
            raise ValueError("invalid digit found in string")
        if not low <= int(text) <= high:
            raise ValueError(f"{text} is not in {low}..={high}")
        return int(text)

    return check


def permissions(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        raise ValueError("must be a valid octal number") from None
    if mode > 0o777:
        raise ValueError("only user/group/other permissions are supported")
    return mode


def key_arn(text: str) -> str:
    if not (text.startswith("arn:") and ":key" in text):
        raise ValueError(
            "KMS Key ARN is only accepted as a key identifier, Key Alias ARN is not accepted"
        )
    return text


def time_to_live(text: str) -> float:
    named = {"indefinite": 100 * 365 * 86400.0, "minimal": MINIMAL_TTL, "0": MINIMAL_TTL}
    return named[text] if text in named else float(at_least(0, 100 * 365 * 86400)(text))


class Flag(NamedTuple):
    """One flag. Without a `value` it is a switch."""

    name: str
    value: str = ""
    check: Check = str
    choices: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    requires: str = ""
    short: str = ""
    repeatable: bool = False
    since: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} <{self.value}>" if self.value else self.name


ALL_FLAGS = (
    Flag("--prefix", "PREFIX", parse_prefix),
    Flag("--region", "REGION"),
    Flag("--endpoint-url", "ENDPOINT_URL"),
    Flag("--force-path-style"),
    Flag("--transfer-acceleration"),
    Flag("--dual-stack"),
    Flag("--requester-pays"),
    Flag("--bucket-type", "BUCKET_TYPE", choices=("general-purpose", "directory")),
    Flag("--storage-class", "STORAGE_CLASS"),
    Flag("--expected-bucket-owner", "AWS_ACCOUNT_ID"),
    Flag("--sse", "SSE", choices=("aws:kms", "aws:kms:dsse", "AES256")),
    Flag("--sse-kms-key-id", "AWS_KMS_KEY_ARN", key_arn, requires="--sse"),
    Flag("--upload-checksums", "ALGORITHM", choices=("crc32c", "crc64nvme", "off")),
    Flag("--infer-content-type"),
    Flag("--no-sign-request"),
    Flag("--profile", "PROFILE"),
    Flag("--read-only"),
    Flag("--allow-delete"),
    Flag("--allow-overwrite"),
    Flag("--incremental-upload"),
    Flag("--auto-unmount"),
    Flag("--allow-root"),
    Flag("--allow-other", conflicts=("--allow-root",)),
    Flag("--uid", "UID", at_least(1, 2**32 - 1)),
    Flag("--gid", "GID", at_least(1, 2**32 - 1)),
    Flag("--dir-mode", "DIR_MODE", permissions),
    Flag("--file-mode", "FILE_MODE", permissions),
    Flag("--maximum-throughput-gbps", "N", at_least(1)),
    Flag("--max-threads", "N", at_least(1)),
    Flag("--memory-target", "MiB", at_least(512), since=(1, 24)),
    Flag("--part-size", "SIZE", at_least(1)),
    Flag("--read-part-size", "SIZE", at_least(1), conflicts=("--part-size",)),
    Flag("--write-part-size", "SIZE", at_least(1), conflicts=("--part-size",)),
    Flag("--ca-bundle", "PATH"),
    Flag("--bind", "NETWORK_INTERFACE", repeatable=True),
    Flag("--log-directory", "DIRECTORY", short="-l"),
    Flag("--log-metrics"),
    Flag("--otlp-endpoint", "ENDPOINT"),
    Flag("--otlp-export-interval", "SECONDS", at_least(1), requires="--otlp-endpoint"),
    Flag("--debug", short="-d"),
    Flag("--debug-crt"),
    Flag("--no-log", conflicts=("--log-directory", "--debug", "--debug-crt", "--log-metrics")),
    Flag("--cache", "DIRECTORY"),
    Flag("--cache-xz", "BUCKET", parse_location),
    Flag("--metadata-ttl", "SECONDS|indefinite|minimal", time_to_live),
    Flag("--negative-metadata-ttl", "SECONDS|indefinite|minimal", time_to_live),
    Flag("--max-cache-size", "MiB", at_least(0), requires="--cache"),
    Flag("--user-agent-prefix", "PREFIX"),
    Flag("--foreground", short="-f"),
    Flag("--help", short="-h"),
    Flag("--version", short="-V"),
)
FLAGS = tuple(flag for flag in ALL_FLAGS if flag.since <= RELEASE)
BY_NAME = {name: flag for flag in FLAGS for name in (flag.name, flag.short) if name}
POSITIONALS = ("<BUCKET_NAME>", "<DIRECTORY>")


class Arguments:
    """A checked command line. Where nothing was given, `get` answers None (a switch: False)."""

    def __init__(self, positionals: list[str], values: dict[str, Any]) -> None:
        self._values = values
        try:
            self.location = parse_location(positionals[0])
        except ValueError as error:
            raise UsageError(
                f"invalid value '{positionals[0]}' for '<BUCKET_NAME>': {error}"
            ) from None
        self.directory = positionals[1]

    def get(self, name: str, default: Any = None) -> Any:
        nothing = default if BY_NAME[name].value else False
        return self._values.get(name, nothing)

    def bucket(self) -> Location:
        """The location with --prefix in it. Refused only here, as upstream does: exit status 1."""
        prefix = self.get("--prefix")
        if not prefix:
            return self.location
        if self.location.is_uri:
            raise MountError("explicit prefix option not allowed with S3 URI")
        return self.location._replace(prefix=prefix)


class Wanted(Exception):  # noqa: N818  not an error
    """--help or --version was asked for: nothing else of the command line matters."""


def parse(words: list[str]) -> Arguments:
    """Read a command line (without the program's name)."""
    positionals: list[str] = []
    values: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            positionals += rest
            break
        if word.startswith("-") and word != "-":
            _take_flag(word, rest, values)
        elif len(positionals) == len(POSITIONALS):
            raise UsageError(f"unexpected argument '{word}' found")
        else:
            positionals.append(word)
    _check_together(positionals, values)
    return Arguments(positionals, values)


def _take_flag(word: str, rest: list[str], values: dict[str, Any]) -> None:
    if not word.startswith("--") and len(word) > 2:
        flag = BY_NAME.get(word[:2])
        # -fd is -f -d; -lDIR is -l DIR.
        rest.insert(0, word[2:] if flag and flag.value else f"-{word[2:]}")
        word = word[:2]
    name, equals, inline = word.partition("=")
    flag = BY_NAME.get(name)
    if flag is None:
        raise UsageError(f"unexpected argument '{name}' found")
    if flag.name in ("--help", "--version"):
        raise Wanted(flag.name)
    if flag.name in values and not flag.repeatable:
        raise UsageError(f"the argument '{flag}' cannot be used multiple times")
    given = inline if equals else None
    if flag.value and given is None and rest and not rest[0].startswith("-"):
        given = rest.pop(0)
    values[flag.name] = _value(flag, given)


def _value(flag: Flag, given: str | None) -> Any:
    if not flag.value:
        if given is not None:
            raise UsageError(
                f"unexpected value '{given}' for '{flag}' found; no more were expected"
            )
        return True
    if given is None:
        raise UsageError(f"a value is required for '{flag}' but none was supplied")
    if flag.choices and given not in flag.choices:
        allowed = ", ".join(flag.choices)
        raise UsageError(f"invalid value '{given}' for '{flag}'\n  [possible values: {allowed}]")
    try:
        return flag.check(given)
    except ValueError as error:
        raise UsageError(f"invalid value '{given}' for '{flag}': {error}") from None


def _check_together(positionals: list[str], values: dict[str, Any]) -> None:
    for name in values:
        for other in BY_NAME[name].conflicts:
            if other in values:
                raise UsageError(
                    f"the argument '{BY_NAME[name]}' cannot be used with '{BY_NAME[other]}'"
                )
    missing = [*POSITIONALS[len(positionals) :]]
    missing += [
        str(BY_NAME[BY_NAME[name].requires])
        for name in values
        if BY_NAME[name].requires and BY_NAME[name].requires not in values
    ]
    if missing:
        lines = "".join(f"\n  {name}" for name in missing)
        raise UsageError(f"the following required arguments were not provided:{lines}")


def help_text() -> str:
    width = max(len(str(flag)) for flag in FLAGS)
    rows = [f"  {flag.short + ',' if flag.short else '':4}{flag!s:{width}}" for flag in FLAGS]
    head = ["Mountpoint for Amazon S3 (stand-in for tests)", "", UsageError.USAGE, "", "Options:"]
    return "\n".join([*head, *(row.rstrip() for row in rows)])
