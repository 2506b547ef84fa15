"""A command in a node, which can be ended together with all that it has started."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import PurePath

    from cluster.cgroup import Cgroup

OUTPUT_SHOWN = 4000  # characters of each stream in an error message
REAP_DEADLINE = 1.0  # seconds


def joining(group: PurePath) -> tuple[str, ...]:
    """Return what has to stand before a command so that it joins `group` before it does anything.

    `group` is the control group's directory as it is seen where the command runs.
    """
    return ("/bin/sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group))


class CommandError(subprocess.CalledProcessError):
    """A command in a node failed; unlike its parent class it shows what the command said."""

    def __str__(self) -> str:
        """Return the exit code and the ends of both streams."""
        return (
            f"{super().__str__()}\n--- stdout\n{str(self.output)[-OUTPUT_SHOWN:]}"
            f"\n--- stderr\n{str(self.stderr)[-OUTPUT_SHOWN:]}"
        )


class Command(subprocess.Popen[str]):
    """A running command with stdout and stderr as pipes, and a kill() that spares nothing of it.

    group: the control group of the command and of whatever it has started and systemd has not
    taken over.
    """

    def __init__(self, argv: Sequence[str], group: Cgroup, *, stdin: int) -> None:
        """Start `argv`, of which one part is joining(); `stdin` is PIPE or DEVNULL."""
        self.group = group
        super().__init__(
            argv,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="backslashreplace",
            start_new_session=True,  # a Ctrl-C is ours to handle, not the node's
        )

    def kill(self) -> None:
        """Send SIGKILL to the command and everything that it has started, at the same moment."""
        self.group.kill()
        # What stays outside of the group ends by itself when it has reaped the command. Killed
        # before, it would leave a zombie in the node to this machine's PID 1, which may not care.
        try:
            self.wait(REAP_DEADLINE)
        except subprocess.TimeoutExpired:
            super().kill()
