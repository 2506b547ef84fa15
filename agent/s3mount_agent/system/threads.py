"""Several things at the same time, in threads that nobody has to wait for.

Those of concurrent.futures are waited for at the end of the program, whatever hangs in them: after
Ctrl-C a user would stare at a program that ends when its last deadline has passed.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

_POLL_SECONDS = 3600.0
# Who waits for longer than this, and hears nothing, thinks that it hangs.
_SILENT_SECONDS = 2.0


def together(jobs: Sequence[Callable[[], Any]], *, at_once: int) -> list[Any]:
    """What each job returns, in their order, with at most ``at_once`` of them at a time.

    All come to their end; then the first error of the first job that raised one is raised.
    KeyboardInterrupt leaves those that run to themselves.
    """
    if len(jobs) == 1:
        return [jobs[0]()]
    numbers = itertools.count()
    done: queue.SimpleQueue[tuple[int, Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        # next() of a count is one step: no two threads get the same number.
        while (number := next(numbers)) < len(jobs):
            try:
                done.put((number, jobs[number](), None))
            except BaseException as error:  # the caller's to judge
                done.put((number, None, error))

    for _ in range(min(at_once, len(jobs))):
        threading.Thread(target=work, daemon=True).start()
    # With a deadline, since a wait without one is deaf to signals on some systems.
    results = sorted((done.get(timeout=_POLL_SECONDS) for _ in jobs), key=lambda each: each[0])
    for _, _, error in results:
        if error is not None:
            raise error
    return [result for _, result, _ in results]


@contextlib.contextmanager
def if_it_lasts(do: Callable[[], object]) -> Iterator[None]:
    """Does something, once, if what is within keeps somebody waiting."""
    timer = threading.Timer(_SILENT_SECONDS, do)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join(_SILENT_SECONDS)
