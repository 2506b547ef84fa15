"""The command line: finds the command, runs it, and tells errors as users should see them.

Imports nothing that a command may not need: ``status`` answers in tens of milliseconds.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module, util
from typing import NoReturn

from s3mount_agent import __version__
from s3mount_agent.console import parser
from s3mount_agent.console.table import COMMANDS

# Commands that answer as quickly as they can: jobs wait for `check`, mounts' starts for the last.
_AT_ONCE = ("status", "check", "unit-hook")
# Without one of these there is no secret in an argument: core/masking.py.
_OF_SECRETS = "@=:?"
_HELP = """\
s3mount-agent {version}: keeps S3 buckets mounted as directories on the nodes of
an AWS ParallelCluster.

usage: s3mount-agent COMMAND [ARGUMENTS]

commands:
{commands}

`s3mount-agent help COMMAND` tells more of a command.
options: --version, --help, and with every command --debug (shows tracebacks
         and each program that is run, with its exit code and time)

exit codes: 0 ok, 1 failed, 2 wrong usage or configuration, 3 degraded,
            4 changes pending, or not ready in time
files:
  /etc/s3mount-agent/config.yaml           what is mounted
  /etc/s3mount-agent/environment           AWS_* settings and proxies
logs:
  journalctl _UID=0 -t s3mount-agent       what the agent did, bootstrap too
  journalctl _UID=0 S3MOUNT_MOUNT=/mnt/s3  what happened to one mount
  journalctl _UID=0 -t mount-s3            what mount-s3 itself says
"""


def run() -> NoReturn:
    """The program: does what its command line says, and ends. Nothing is taken apart on the way
    out, which would take a tenth of the time of a `status`."""
    code = main()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed when we were started
            with contextlib.suppress(OSError):
                stream.flush()
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    os.umask(0o022)  # whoever calls: what we make is for root alone to change
    words = list(sys.argv[1:] if arguments is None else arguments)
    if any(sign in word for word in words for sign in _OF_SECRETS):
        _hide_secrets()
    debug = bool(words) and words[0] == "--debug"
    words = words[debug:]
    if not words or words[0] in ("-h", "--help", "help", "-V", "--version"):
        return guarded(lambda: _tell_about(words), debug=debug)
    if words[0] in _AT_ONCE:
        gc.disable()  # there is nothing yet to collect
        _load_later("inspect", "copy", "locale")
    try:
        command = parser.find(words[0])
        given = parser.parse(command, words[1:])
    except Exception as error:
        if words[0] == "bootstrap" and "--check" not in words:
            import_module("s3mount_agent.commands.bootstrap").write_down(error)
        return _tell(error)
    return guarded(lambda: _run(given), debug=debug or given.debug, interrupted=command.interrupted)


def _hide_secrets() -> None:
    from s3mount_agent.system import journal, process

    if not process.hide_secrets():
        journal.close()


def guarded(work: Callable[[], int], *, debug: bool = False, interrupted: str = "") -> int:
    """Does some work and tells its errors; the one place where errors become exit codes."""
    if debug:
        from s3mount_agent.system import process

        process.trace()
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
            import traceback

            traceback.print_exc()
        return _tell(error)
    except KeyboardInterrupt as stop:
        words = str(stop) or interrupted  # who knows better what becomes of it, says so
        if words and sys.stderr is not None:
            sys.stderr.write(f"\ns3mount-agent: {words}\n")
        return 1


def _run(given: parser.Given) -> int:
    if given.wants_help:
        print(parser.help_of(given.command))
        return 0
    command = import_module(f"s3mount_agent.commands.{given.command.name.replace('-', '_')}")
    code: int = command.main(given)
    return code


def _tell_about(words: list[str]) -> int:
    """The version, the help of all or of one command; none at all is wrong usage."""
    if words[:1] in (["-V"], ["--version"]):
        print(f"s3mount-agent {__version__}")
    elif len(words) > 1 and words[0] == "help":
        print(parser.help_of(parser.find(words[1])))
    else:
        print(_help())
    return 0 if words else 2


def _tell(error: Exception) -> int:
    from s3mount_agent.console.output import tell
    from s3mount_agent.core.errors import AgentError, Problem

    if not isinstance(error, AgentError):
        cause = f"{type(error).__name__}: {error}"
        error = AgentError(Problem.INTERNAL, "something unforeseen went wrong", cause=cause)
    tell([error])
    return error.problem.exit_code


def _help() -> str:
    rows = (f"  {c.name:<10} {c.about}" for c in COMMANDS if not c.hidden)
    return _HELP.format(version=__version__, commands="\n".join(rows)).rstrip()


def _load_later(*names: str) -> None:
    """Puts modules in place that load themselves when first used; not for who has threads.

    The import of ``dataclasses`` alone takes as long as that of everything else that ``status``
    needs, for modules that it nearly never uses.
    https://docs.python.org/3/library/importlib.html#implementing-lazy-imports
    """
    for name in names:
        spec = None if name in sys.modules else util.find_spec(name)
        if spec is None or spec.loader is None:
            continue
        spec.loader = util.LazyLoader(spec.loader)
        module = sys.modules[name] = util.module_from_spec(spec)
        spec.loader.exec_module(module)
