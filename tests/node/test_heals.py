"""What failed because somebody had to act is up again by itself once he has, and at once where he
asks: nothing is given up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Callable

import pytest

from cluster.cluster import Cluster
from node.article import AGENT_UNIT, SECOND, UNIT, WRITABLE, main_pid, status
from node.conftest import NewNode
from node.live_site import Site, document, until

pytestmark = pytest.mark.node

ROW = {"bucket": SECOND, "directory": WRITABLE, "options": "--allow-delete --allow-other"}
SKEWED = "The difference between the request time and the current time is too large."
HIDDEN = "a-file-beneath-the-mount"


class Healing(Site):
    """A node whose mounts fail and heal."""

    def state(self, directory: str = WRITABLE) -> str:
        """What status says of a mount."""
        return str(self.mount(directory)["state"])

    def await_state(self, state: str, directory: str = WRITABLE) -> None:
        """Waits until status says so."""
        until(lambda: self.state(directory) == state, lambda: status(self.node))

    def fail(self, message: str) -> None:
        """Kills a mount whose next start fails."""
        self.node.run(["kill", "-KILL", str(self.mount(WRITABLE)["pid"])])
        self.await_reason(message)

    def await_reason(self, message: str) -> None:
        """Waits until status tells why the mount is down."""
        until(lambda: message in str(self.mount(WRITABLE)["reason"]), lambda: status(self.node))


@pytest.fixture(scope="module")
def site(cluster: Cluster, new_ready_module_node: NewNode) -> Healing:
    """A head, where systemd has a say in it, too, with one mount."""
    site = Healing(cluster, new_ready_module_node("head"))
    site.bootstrap(document(ROW, refresh="1d"))
    return site


def test_a_restart_of_unit_or_service_is_an_attempt_at_once(
    cluster: Cluster, site: Healing, break_s3: Callable[..., None]
) -> None:
    break_s3(SECOND)
    site.fail("S3 denies access")
    # None is refused, and the reason stays the true one.
    for unit in (UNIT[WRITABLE], AGENT_UNIT) * 2:
        asked = cluster.s3.requests(SECOND)
        site.node.run(["systemctl", "restart", "--no-block", unit])
        until(lambda before=asked: cluster.s3.requests(SECOND) > before)  # type: ignore[misc]
        site.await_reason("S3 denies access")
    cluster.s3.heal(SECOND)
    site.node.run(["systemctl", "restart", UNIT[WRITABLE]])
    site.await_state("ok")


def test_a_wrong_clock_and_a_wrong_key_are_not_called_a_missing_permission(
    cluster: Cluster, site: Healing, break_s3: Callable[..., None]
) -> None:
    break_s3(SECOND, code="RequestTimeTooSkewed", message=SKEWED)
    site.fail("clock")
    assert "timedatectl" in site.mount(WRITABLE)["hint"]
    unsigned = (
        "The request signature we calculated does not match the signature you provided. "
        "Check your key and signing method."
    )
    break_s3(SECOND, code="SignatureDoesNotMatch", message=unsigned)
    site.await_reason("secret access key is wrong")
    site.await_state("failed")
    cluster.s3.heal(SECOND)
    site.await_state("ok")  # nobody has asked for it


def test_a_directory_that_was_not_empty_is_looked_at_again(site: Healing) -> None:
    # Written in the root directory below all mounts, as somebody did before the boot.
    site.node.run(["systemctl", "stop", "s3mount-agent", UNIT[WRITABLE]])
    site.node.run(["chattr", "-i", WRITABLE])  # else nobody could
    site.node.run(["touch", f"{WRITABLE}/{HIDDEN}"])
    site.node.run(["systemctl", "start", "--no-block", "s3mount-agent"])
    site.await_reason("not empty")
    site.await_state("failed")
    site.node.run(["rm", f"{WRITABLE}/{HIDDEN}"])
    site.await_state("ok")
    assert main_pid(site.node, UNIT[WRITABLE])


def test_a_clock_that_is_wrong_at_the_boot_and_set_later_is_enough(
    cluster: Cluster, site: Healing, break_s3: Callable[..., None]
) -> None:
    break_s3(SECOND, code="RequestTimeTooSkewed", message=SKEWED)
    mark, asked = site.mark(), cluster.s3.requests(SECOND)
    with ThreadPoolExecutor() as pool:
        # On its way up it waits for its mounts, but not for ever.
        boot = pool.submit(site.node.reboot)
        until(lambda: cluster.s3.requests(SECOND) > asked + 1)
        cluster.s3.heal(SECOND)
        boot.result()
    site.await_state("ok")  # nobody has asked for it
    assert any("clock" in entry["MESSAGE"] for entry in site.told(mark))
