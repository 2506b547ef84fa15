"""Other programs: argument lists only, a deadline for each, and all output kept."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.masking import masked
from s3mount_agent.core.text import last_lines
from s3mount_agent.filesystem import disk

# The system's own programs, and no others, whatever our PATH says: /usr/local and what a site adds
# may hold anybody's. systemd, cfn-init and SSM start us with little or nothing anyway.
_PLACES = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
_KILL_GRACE_SECONDS = 2.0
_traced = False


@dataclass(frozen=True)
class Completed:
    """A program that has ended, and what it printed (decoded, with what is no UTF-8 replaced)."""

    arguments: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    @property
    def command(self) -> str:
        """The command as it can be pasted into a shell."""
        import shlex

        return shlex.join(self.arguments)

    def last_words(self) -> str:
        """What it said last, on stderr if it said anything there."""
        return last_lines(self.stderr) or last_lines(self.stdout)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a program: ours, with the system's PATH, in English, plus ``extra``."""
    merged = {**os.environ, "LC_ALL": "C.UTF-8", **(extra or {})}
    merged["PATH"] = ":".join(_PLACES)
    merged.setdefault("HOME", "/root")
    # A program that finds it could speak to systemd in our name.
    merged.pop("NOTIFY_SOCKET", None)
    return merged


def has(name: str) -> bool:
    """Whether the system has a program of this name."""
    return any(os.access(f"{place}/{name}", os.X_OK) for place in _PLACES)


def program(name: str) -> str:
    """The path of one of the system's programs; raises ``program-failed``."""
    for place in _PLACES:
        path = f"{place}/{name}"
        if os.access(path, os.X_OK):
            return path
    raise AgentError(Problem.PROGRAM_FAILED, f"this node has no {name} in {':'.join(_PLACES)}")


def hide_secrets() -> bool:
    """Has everybody else see our command line masked from now on: all users can read it in `ps`,
    and journald writes it down with each entry. Returns whether there is no secret in it any more.

    A process may write to its own memory, where the kernel has its arguments: proc_pid_mem(5), and
    arg_start and arg_end in proc_pid_stat(5).
    """
    try:
        given = Path("/proc/self/cmdline").read_bytes()
        shown = b"\0".join(os.fsencode(masked(os.fsdecode(word))) for word in given.split(b"\0"))
        if shown == given:
            return True
        fields = Path("/proc/self/stat").read_text(errors="replace").rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
            memory.seek(start)
            memory.write(shown[: end - start - 1].ljust(end - start, b"\0"))
    except OSError:
        return False
    return True


def trace() -> None:
    """Has each program be told on stderr from now on, with its end and the time that it took."""
    global _traced
    _traced = True


def run(
    arguments: Sequence[str],
    *,
    timeout: float,
    extra_environment: Mapping[str, str] | None = None,
    check: bool = True,
) -> Completed:
    """Runs a program to its end, at most ``timeout`` seconds long.

    Raises ``program-timeout``, or ``program-failed`` if it cannot be started or, with ``check``,
    if it does not end with 0.
    """
    # Not pipes: a daemon that the program leaves behind would hold a pipe open for ever. Not files
    # on a disk, which may be full.
    began = time.monotonic()
    with _memory("stdout") as stdout, _memory("stderr") as stderr:
        process = _popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=environment(extra_environment),
            start_new_session=True,
        )
        timed_out = not _wait(process, timeout)
        completed = Completed(
            tuple(arguments), process.returncode or 0, _text(stdout), _text(stderr)
        )
    if _traced and sys.stderr is not None:
        end = "killed" if timed_out else str(completed.code)
        sys.stderr.write(f"+ {completed.command} -> {end} ({time.monotonic() - began:.3f} s)\n")
    if timed_out:
        raise AgentError(
            Problem.PROGRAM_TIMEOUT,
            f"`{completed.command}` did not end within {timeout:.0f} seconds",
            cause=completed.last_words() or None,
        )
    if check and completed.code != 0:
        raise AgentError(
            Problem.PROGRAM_FAILED,
            f"`{completed.command}` ended with {completed.code}",
            cause=completed.last_words() or None,
        )
    return completed


def start(
    arguments: Sequence[str],
    *,
    errors: Path | None = None,
    extra_environment: Mapping[str, str] | None = None,
) -> int:
    """Starts a program in a session of its own that outlives us and keeps nothing of ours open;
    ``errors`` is the file for its stderr. Returns its pid; raises ``program-failed``."""
    # The file is opened for the program alone.
    with contextlib.ExitStack() as stack:
        stderr: IO[bytes] | int = subprocess.DEVNULL
        if errors is not None:
            stderr = stack.enter_context(disk.create(errors))
        return _popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=environment(extra_environment),
            start_new_session=True,
            cwd="/",
        ).pid


class Child:
    """A program that runs beside us, and is not heard; its end makes ``descriptor`` readable."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._process = _popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        pipe = self._process.stdout
        self.descriptor = pipe.fileno() if pipe else -1

    def has_ended(self) -> bool:
        """Whether it has ended; never waits. From then on there is no descriptor."""
        if self._process.poll() is None:
            return False
        if self._process.stdout:
            self._process.stdout.close()
        return True

    def kill(self) -> None:
        """Kills it, which may take its time."""
        self._process.kill()


def send(pid: int, signal_name: str) -> None:
    """Sends a signal (``SIGTERM``) to a process; one that has ended gets none."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.Signals[signal_name])


def signal_name(number: int) -> str:
    """What a signal is called."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _popen(arguments: Sequence[str], **settings: Any) -> subprocess.Popen[bytes]:
    if "/" not in arguments[0]:
        arguments = [program(arguments[0]), *arguments[1:]]
    try:
        return subprocess.Popen(arguments, **settings)
    except OSError as error:
        raise AgentError(
            Problem.PROGRAM_FAILED, f"{arguments[0]} could not be started", cause=str(error)
        ) from None


def _wait(process: subprocess.Popen[bytes], timeout: float) -> bool:
    """Waits for the end of a process; past ``timeout`` it is killed, and abandoned if it still
    does not end: subprocess.run() would wait for ever for one that hangs in the kernel."""
    if _ends(process, timeout):
        return True
    process.kill()
    _ends(process, _KILL_GRACE_SECONDS)
    return False


def _ends(process: subprocess.Popen[bytes], timeout: float) -> bool:
    """Whether a process ends in time. Popen.wait() with a deadline sleeps between looks, at last
    for 50 ms: longer than most of our programs run."""
    try:
        descriptor = os.pidfd_open(process.pid)
    # A kernel before 5.3, or a Python that was built on one, as on EL8.
    except (OSError, AttributeError):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout)
        return process.returncode is not None
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(timeout * 1000):
            return False
    finally:
        os.close(descriptor)
    process.wait()
    return True


def _memory(name: str) -> IO[bytes]:
    return os.fdopen(os.memfd_create(name), "w+b")


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")
