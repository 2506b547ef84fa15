"""The mounts as arguments: ``BUCKET DIRECTORY OPTIONS``, as the article has them."""

from __future__ import annotations

from collections.abc import Sequence

from s3mount_agent.core.buckets import parse_bucket
from s3mount_agent.core.directory import parse_directory
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.mounts import MOST_MOUNTS, Mount, require_consistent, require_sound
from s3mount_agent.mountpoint.command_line import parse_options


def parse_mount(bucket: str, directory: str, options: str) -> Mount:
    """Reads the three arguments of one mount; every error names the argument that is wrong."""
    mount = Mount(parse_bucket(bucket), parse_directory(directory), parse_options(options))
    return require_sound(mount)


def parse_arguments(arguments: Sequence[str]) -> tuple[Mount, ...]:
    """Reads the article's form, ``BUCKET DIRECTORY OPTIONS`` as often as there are mounts."""
    if not arguments or len(arguments) % 3:
        raise AgentError(
            Problem.ARGS_NOT_TRIPLES,
            "no mount was given"
            if not arguments
            else f"{len(arguments)} arguments are not a multiple of three",
        )
    if len(arguments) > 3 * MOST_MOUNTS:
        raise AgentError(
            Problem.MOUNTS_TOO_MANY,
            f"{len(arguments) // 3} mounts were given, but a node has at most {MOST_MOUNTS}",
        )
    triples = zip(arguments[::3], arguments[1::3], arguments[2::3])
    return require_consistent(tuple(parse_mount(*triple) for triple in triples))
