"""Running programs on this machine, with a deadline and with their complaint in the error."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class ProgramError(Exception):
    """A program failed; the message holds its command line, exit code and the end of its output."""


def run(*argv: str, timeout: float = 30.0, env: Mapping[str, str] | None = None) -> str:
    """Run `argv` without a standard input and return its standard output.

    `env` replaces the whole environment. Raises ProgramError when the program exits non-zero, and
    subprocess.TimeoutExpired after `timeout` seconds.
    """
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=timeout,
        env=env,
        check=False,
    )
    if done.returncode != 0:
        complaint = (done.stderr or done.stdout)[-2000:].strip()
        raise ProgramError(f"{' '.join(argv)} exited with {done.returncode}: {complaint}")
    return done.stdout
