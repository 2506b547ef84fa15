"""What happens: changes of the mount table and signals, waited for without polling."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from types import FrameType

# Who has ended already is seen soon, but not at once: nothing may turn in a circle.
_GONE_SECONDS = 0.5
# Any user may mount and unmount as often as he likes: it is looked at this rarely.
_TABLE_SECONDS = 0.25


class Wakeups:
    """Wakes its owner when something is mounted or unmounted, a process ends, or a signal comes.

    SIGTERM and SIGINT set ``stopping``; SIGHUP asks for a reload.
    """

    def __init__(self) -> None:
        self.stopping = False
        self._reload = False
        self._table = True
        self._receiver, sender = socket.socketpair()
        for end in (self._receiver, sender):
            end.settimeout(0)
        self._sender = sender
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._ask_reload)
        # Python writes each signal's number here, so that none is missed before poll(2).
        signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        self._mounts = Path("/proc/self/mountinfo").open("rb")  # noqa: SIM115
        self._poll = select.poll()
        self._table_due = 0.0
        self._poll.register(self._receiver, select.POLLIN)

    def wait(
        self, seconds: float, pids: Iterable[int] = (), descriptors: Collection[int] = ()
    ) -> bool:
        """Returns after ``seconds``, or when something happens, a process or a pipe ends; False if
        it was the time, a pipe or the mount table alone."""
        if self.stopping or self._reload:
            return True
        with contextlib.ExitStack() as stack:
            gone = [pid for pid in pids if not self._watch(pid, stack)]
            for descriptor in descriptors:
                # No events: only its end (POLLHUP). What is said before can wait until then.
                self._poll.register(descriptor, 0)
                stack.callback(self._poll.unregister, descriptor)
            happened = self._await(min(seconds, _GONE_SECONDS) if gone else seconds)
            for descriptor, _ in happened:
                if descriptor == self._receiver.fileno():
                    self._receiver.recv(4096)
        quiet = {*descriptors, self._mounts.fileno()}
        if any(descriptor == self._mounts.fileno() for descriptor, _ in happened):
            self._table = True
            self._table_due = time.monotonic() + _TABLE_SECONDS
        return bool(gone) or any(descriptor not in quiet for descriptor, _ in happened)

    def take_table_change(self) -> bool:
        """Whether anything was mounted or unmounted since the last time."""
        changed, self._table = self._table, False
        return changed

    def take_reload(self) -> bool:
        """Whether a reload was asked for since the last time."""
        asked, self._reload = self._reload, False
        return asked

    def _await(self, seconds: float) -> list[tuple[int, int]]:
        """What happens within ``seconds``; a change of the mount table soon after another one is
        only seen a little later, and none is lost."""
        deaf = min(seconds, self._table_due - time.monotonic())
        if deaf > 0:
            happened = self._poll.poll(deaf * 1000)
            if happened or deaf == seconds:
                return happened
            seconds -= deaf
        # The kernel reports a changed mount table as an error condition: proc_pid_mounts(5).
        self._poll.register(self._mounts, select.POLLERR | select.POLLPRI)
        try:
            return self._poll.poll(seconds * 1000)
        finally:
            self._poll.unregister(self._mounts)

    def _watch(self, pid: int, stack: contextlib.ExitStack) -> bool:
        """A pidfd becomes readable when its process ends: pidfd_open(2), Linux 5.3. Returns False
        if it has ended already."""
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        # The kernel is older, or is that on which this Python was built, as on EL8.
        except (OSError, AttributeError):
            return True
        stack.callback(os.close, descriptor)
        self._poll.register(descriptor, select.POLLIN)
        stack.callback(self._poll.unregister, descriptor)
        return True

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True

    def _ask_reload(self, number: int, frame: FrameType | None) -> None:
        self._reload = True
