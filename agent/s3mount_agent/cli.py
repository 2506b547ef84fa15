"""The command line: finds the command, runs it, and tells errors as users should see them.

Imports nothing that a command may not need: ``status`` answers in tens of milliseconds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from s3mount_agent import __version__

_COMMANDS = {
    "bootstrap": "bring this node to the given mounts (the OnNodeConfigured action)",
    "status": "show the mounts of this node and how they are",
    "plan": "show what apply would change",
    "apply": "bring the mounts to what the configuration says, also those unmounted by hand",
    "unmount": "take mounts down until the next boot, apply or bootstrap",
    "uninstall": "take down all mounts and leave the node as it was found",
    "validate": "check a configuration file, on any computer",
    "daemon": "the service that keeps the mounts (run by systemd)",
}
_HIDDEN = ("unit-hook", "refresh")  # run by the mounts' units and by the daemon

_HELP = """\
s3mount-agent {version}: keeps S3 buckets mounted as directories on a ParallelCluster node.

usage: s3mount-agent COMMAND [ARGUMENTS]

commands:
{commands}

`s3mount-agent COMMAND --help` tells more of a command.
options: --version, --help, and with every command --debug (shows tracebacks)

exit codes: 0 ok, 1 failed, 2 wrong usage or configuration, 3 degraded, 4 not ready in time
files:      /etc/s3mount-agent/config.yaml    what is mounted
            /etc/s3mount-agent/environment    AWS_* settings and proxies, NAME=value
logs:       journalctl -u s3mount-agent, journalctl S3MOUNT_MOUNT=/mnt/s3
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words[:2]
    if debug:
        words.remove("--debug")
    return guarded(lambda: _run(words), debug=debug)


def guarded(work: Callable[[], int], *, debug: bool = False) -> int:
    """Does some work and tells its errors; the one place where errors become exit codes."""
    try:
        code = work()
        if sys.stdout is not None:  # closed when we were started
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Nobody reads any more; the interpreter flushes once more on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            raise
        return _tell(error)
    except KeyboardInterrupt:
        return 1


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        print(f"s3mount-agent {__version__}")
        return 0
    name, arguments = words[0], words[1:]
    if name not in _COMMANDS and name not in _HIDDEN:
        from difflib import get_close_matches

        from s3mount_agent.core.errors import AgentError, Problem

        close = get_close_matches(name, _COMMANDS, n=1)
        hint = f"did you mean `s3mount-agent {close[0]}`?" if close else None
        raise AgentError(Problem.USAGE, f"there is no command {name!r}", hint=hint)
    command = import_module(f"s3mount_agent.commands.{name.replace('-', '_')}")
    code: int = command.main(arguments)
    return code


def _tell(error: Exception) -> int:
    from s3mount_agent.commands.output import tell
    from s3mount_agent.core.errors import AgentError, Problem

    if not isinstance(error, AgentError):
        cause = f"{type(error).__name__}: {error}"
        error = AgentError(Problem.INTERNAL, "something unforeseen went wrong", cause=cause)
    tell([error])
    return error.problem.exit_code


def _help() -> str:
    rows = (f"  {name:<10} {what}" for name, what in _COMMANDS.items())
    return _HELP.format(version=__version__, commands="\n".join(rows)).rstrip()
