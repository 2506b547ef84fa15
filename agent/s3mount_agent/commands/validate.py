"""``s3mount-agent validate``: checks a configuration file, on any computer and without AWS."""

from __future__ import annotations

import sys
from pathlib import Path

from s3mount_agent.config import config_file, yaml_text
from s3mount_agent.console import mount_list
from s3mount_agent.console.output import tell_all
from s3mount_agent.console.parser import Given
from s3mount_agent.core.errors import AgentError, Exit, Problem, together
from s3mount_agent.filesystem import disk

_HINT = "docs/configuration.md has all keys"


def main(given: Given) -> int:
    """0 if all files are good, 2 if something is wrong with one, of which all is told."""
    code = Exit.OK
    for name in given.words:
        try:
            _validate(name)
        except AgentError as error:
            sys.stdout.flush()
            tell_all([_without_own_advice(error)])
            code = Exit.USAGE
    return code


def _validate(name: str) -> None:
    shown = "the standard input" if name == "-" else name
    configuration = config_file.parse(yaml_text.decode(_data(name), shown), shown)
    listed = list(mount_list.every_node(configuration))
    print(f"{shown} is good.")
    print("\n".join(listed))
    for note in mount_list.notes(configuration):
        print(f"  note: {note}")


def _data(name: str) -> bytes:
    most = yaml_text.LARGEST_BYTES + 1
    if name == "-":
        return sys.stdin.buffer.read(most)
    try:
        return disk.head(Path(name), most)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise AgentError(
            Problem.USAGE, f"{name} cannot be read: {reason}", hint="give the path of a file"
        ) from None


def _without_own_advice(error: AgentError) -> AgentError:
    """Nobody who runs `validate` need be told to run it."""

    def hint(each: AgentError) -> str:
        return _HINT if each.hint == Problem.CONFIG_INVALID.hint else each.hint

    all_of_them = (error, *error.more)
    return together(
        [AgentError(e.problem, e.message, cause=e.cause, hint=hint(e)) for e in all_of_them]
    )
