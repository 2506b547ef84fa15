"""A thousand nodes that boot in the same second do not ask together (`make herd`)."""

from __future__ import annotations

import random

import herd


def luck() -> herd.Luck:
    return random.Random(5).random  # noqa: S311


def test_the_official_bucket_takes_them_all_at_once() -> None:
    found = herd.downloads(luck(), each_second=herd.S3_EACH_SECOND)
    assert found.busiest() < herd.S3_EACH_SECOND
    assert found.all() == herd.NODES * herd.DOWNLOADS


def test_nodes_that_a_mirror_refuses_come_back_apart() -> None:
    found = herd.downloads(luck(), each_second=200)
    assert found.after(1.0) < 60
    # Each has been refused a few times, and they are no herd any more.
    assert found.all() < 5 * herd.NODES * herd.DOWNLOADS
    assert found.busiest(since=10) < 2.5 * 200
    # This is what it looks like where pauses are the same on all nodes.
    without = herd.downloads(herd.same, each_second=200)
    assert without.busiest(since=10) > 0.5 * herd.NODES * herd.DOWNLOADS
    assert without.after(1.0) > 3 * found.after(1.0)


def test_a_spread_keeps_a_mirror_from_refusing_any() -> None:
    found = herd.downloads(luck(), each_second=200, spread=60)
    assert found.busiest() <= 200
    assert found.after(1.0) <= 60


def test_daemons_ask_apart_for_as_long_as_they_live() -> None:
    for name, found, without in herd.hourly(luck()):
        since = 60 if name.startswith("again") else 0
        everybody = herd.NODES * herd.MOUNTS
        assert found.all() > 0, name
        assert found.busiest(since) < 0.1 * everybody, name
        assert without.busiest(since) >= 0.5 * everybody, name
