"""The processes of many mounts are killed, or hang, at the same moment: all come back."""

from __future__ import annotations

import pytest

from cluster.cluster import Cluster
from node.article import pids
from node.conftest import NewNode
from node.live_site import SEEN, Site, document, until
from node.scene import QUICK
from node.witness import require_tidy, undisturbed

pytestmark = pytest.mark.node

OTHERS = ("/mnt/other-1", "/mnt/other-2")


@pytest.mark.parametrize(
    ("role", "number", "name"),
    [("head", 8, "KILL"), ("compute", 32, "KILL"), ("compute", 8, "STOP")],
)
def test_many_mounts_that_are_lost_at_once_all_come_back(
    cluster: Cluster, new_ready_node: NewNode, role: str, number: int, name: str
) -> None:
    site = Site(cluster, new_ready_node(role))
    victims = [f"/mnt/victim-{each}" for each in range(number)]
    every = [*victims, *OTHERS]
    site.bootstrap(document(*map(site.row, every), health=QUICK))
    site.await_mounts(*every)
    before = site.pids()
    with undisturbed(site.node, *OTHERS):
        site.node.run(["kill", f"-{name}", *(str(before[directory]) for directory in victims)])
        until(lambda: not lost(before, site, victims), lambda: lost(before, site, victims))
        site.await_mounts(*every)
    after = site.pids()
    assert [after[directory] for directory in OTHERS] == [before[directory] for directory in OTHERS]
    require_tidy(site.node, *every)
    for directory in victims:
        assert site.node.read(f"{directory}/{SEEN}") == "seen\n"


def lost(before: dict[str, int], site: Site, victims: list[str]) -> list[str]:
    """The mounts that have no new process yet."""
    now = pids(site.node)
    return [each for each in victims if now.get(each) in (None, before[each])]
