"""Times as the agent writes them."""

from __future__ import annotations

import calendar
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount_agent.core.text import epoch


@given(st.integers(0, 4102444800))
def test_a_time_reads_back_as_it_was_written(seconds: int) -> None:
    written = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    assert epoch(written) == seconds == calendar.timegm(time.gmtime(seconds))


@pytest.mark.parametrize(
    "text", ["", "now", "2026-13-01T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01 00:00:00", "\n"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        epoch(text)
