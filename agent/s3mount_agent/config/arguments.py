"""The mounts as arguments: ``BUCKET DIRECTORY OPTIONS``, as the article has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from s3mount_agent.core.buckets import Bucket, parse_bucket
from s3mount_agent.core.directory_rules import parse_directory
from s3mount_agent.core.errors import AgentError, Problem, together
from s3mount_agent.core.mounts import MOST_MOUNTS, Mount, colliding, unsound
from s3mount_agent.core.options import Options
from s3mount_agent.mountpoint.flag_check import parse_options

_Read = TypeVar("_Read")
_EXPECTED = ("a bucket", "a directory", "the options of a mount")
_PROBLEMS = (Problem.BUCKET_INVALID, Problem.DIRECTORY_INVALID, Problem.OPTION_UNKNOWN)
_QUOTE = 'write all options of a mount as one argument: "--allow-delete --allow-other"'


def parse_arguments(arguments: Sequence[str]) -> tuple[Mount, ...]:
    """Reads the article's form, ``BUCKET DIRECTORY OPTIONS`` as often as there are mounts.

    Raises the first thing that is wrong, with all others in its company.
    """
    if not arguments:
        raise AgentError(Problem.ARGS_NOT_TRIPLES, "no mount was given")
    for number, word in enumerate(arguments, start=1):
        _require_in_place(number, word, arguments)
    if len(arguments) % 3:
        missing = _is(_EXPECTED[len(arguments) % 3])
        raise AgentError(
            Problem.ARGS_NOT_TRIPLES,
            f"{len(arguments)} arguments are not a multiple of three: after argument "
            f"{len(arguments)}, {arguments[-1]!a}, {missing} missing",
        )
    if len(arguments) > 3 * MOST_MOUNTS:
        raise AgentError(
            Problem.MOUNTS_TOO_MANY,
            f"{len(arguments) // 3} mounts were given, but a node has at most {MOST_MOUNTS}",
        )
    errors: list[AgentError] = []
    mounts: list[Mount] = []
    for at in range(0, len(arguments), 3):
        bucket = _read(parse_bucket, at, arguments, errors)
        directory = _read(parse_directory, at + 1, arguments, errors)
        options = _read(parse_options, at + 2, arguments, errors)
        if directory:  # what could not be read of a mount collides with no other
            mount = Mount(bucket or Bucket(""), directory, options or Options())
            errors += unsound(mount)
            mounts.append(mount)
    errors += (error for _, error in colliding(mounts))
    if errors:
        raise together(errors)
    return tuple(mounts)


def _read(
    parse: Callable[[str], _Read], at: int, arguments: Sequence[str], errors: list[AgentError]
) -> _Read | None:
    try:
        return parse(arguments[at])
    except AgentError as error:
        for each in (error, *error.more):
            message = f"argument {at + 1}: {each.message}"
            errors.append(AgentError(each.problem, message, cause=each.cause, hint=each.hint))
        return None


def _require_in_place(number: int, word: str, arguments: Sequence[str]) -> None:
    """Refuses an argument that is plainly one of the other kinds."""
    place = (number - 1) % 3
    problem = Problem.ARGS_NOT_TRIPLES if len(arguments) % 3 else _PROBLEMS[place]
    following = arguments[number] if number < len(arguments) else ""
    before = arguments[number - 2] if number > 1 else ""
    if place == 0 and word.startswith("/") and following and following[0] not in "/-":
        raise AgentError(
            problem,
            f"arguments {number} and {number + 1} are the wrong way round: {word!a} is a "
            f"directory, and {following!a} a bucket",
            hint="the bucket comes first, then the directory",
        )
    if place == 0 and word.startswith("-") and before.startswith("-"):
        raise AgentError(problem, _stands(number, word, place) + ": quote the options", hint=_QUOTE)
    if place == 1 and word.startswith("-") and number > 2 and arguments[number - 3][:1] == "-":
        raise AgentError(problem, _stands(number, word, place) + ": quote the options", hint=_QUOTE)
    if place == 1 and word.startswith("-"):
        raise AgentError(
            problem,
            _stands(number, word, place),
            hint="give BUCKET DIRECTORY OPTIONS, in this order",
        )
    if place == 2 and word and not word.startswith("-") and following.startswith("/"):
        raise AgentError(
            problem,
            f"{_stands(number, word, place)}, but looks like the next bucket",
            hint='a mount without options has an empty one: ""',
        )


def _stands(number: int, word: str, place: int) -> str:
    return f"argument {number} {word!a} stands where {_is(_EXPECTED[place])} expected"


def _is(what: str) -> str:
    return f"{what} {'are' if 'options' in what else 'is'}"
