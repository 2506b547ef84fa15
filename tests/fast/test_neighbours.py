"""Who has to know of the mounts is told until he knows, and again when he comes later."""

from __future__ import annotations

import pytest

from fast.in_memory import context
from s3mount_agent.config.configuration import Configuration, Row
from s3mount_agent.core.buckets import Bucket
from s3mount_agent.daemon.neighbours import Neighbours
from s3mount_agent.supervisor import agent_service, crawlers, needrestart, target

ONE = Configuration((Row(Bucket("my-bucket"), "/mnt/s3"),))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When they were told."""
    monkeypatch.setattr(target.Target, "see", lambda self, *, all_up: None)
    return []


def test_they_are_told_until_they_know(told: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    now, out, installed = 0.0, False, False

    def tell() -> None:
        told.append(now)

    monkeypatch.setattr(agent_service, "keep_crawlers_out_later", tell)
    monkeypatch.setattr(crawlers, "are_kept_out", lambda directories: out)
    monkeypatch.setattr(needrestart, "is_told", lambda: not installed)
    neighbours = Neighbours(lambda: now)

    def live(seconds: int) -> int:
        nonlocal now
        before = len(told)
        for _ in range(seconds // 10):
            neighbours.see(context(ONE), ())
            now += 10
        return len(told) - before

    assert live(600) == 1
    assert live(86_400) in range(3, 12), "what cannot be told is told with growing pauses"
    out = True
    assert live(2 * 86_400) == 0
    installed = True
    assert live(600) == 1
    installed = False
    live(86_400)
    neighbours.see(context(Configuration()), ())
    out = False
    assert live(600) >= 1, "other mounts are told at once"
