"""Trying again while somebody waits for it, with the pauses, and for as long, as
decide/retry_policy.py says."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from s3mount_agent.core.errors import AgentError
from s3mount_agent.decide.retry_policy import pace_of, pause_of_bootstrap

_Result = TypeVar("_Result")


def patiently(
    attempt: Callable[[], _Result],
    *,
    budget: float,
    on_retry: Callable[[AgentError], None] = lambda error: None,
    spread: float = 0.0,
) -> _Result:
    """Calls ``attempt`` until it succeeds, for at most ``budget`` seconds of trying, which begin
    somewhere within the next ``spread`` seconds.

    Whether to try again is said by the table of :mod:`core.retry_policy`; the last error is raised.
    """
    if spread:
        time.sleep(spread * random.random())  # noqa: S311
    began = time.monotonic()
    try:
        return attempt()
    except AgentError as error:
        failed: AgentError | None = error
    import tenacity  # 30 ms, which only those pay who have to wait anyway

    def attempt_on() -> _Result:
        """The first failure is the first attempt's, which has been made."""
        nonlocal failed
        if failed is None:
            return attempt()
        first, failed = failed, None
        raise first

    def may_heal(error: BaseException) -> bool:
        if not isinstance(error, AgentError):
            return False
        return time.monotonic() - began < pace_of(error).quick_for

    def report(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, AgentError):
            on_retry(error)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(may_heal),
        stop=tenacity.stop_before_delay(budget - (time.monotonic() - began)),
        wait=lambda state: pause_of_bootstrap(state.attempt_number, random.random()),  # noqa: S311
        before_sleep=report,
        reraise=True,
    )
    return retrying(attempt_on)
