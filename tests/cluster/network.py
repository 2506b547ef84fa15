"""The cluster's network: one bridge with a /24 of its own, and a network namespace per node.

There is no route out of it. A node reaches the bridge's address, where S3 and the mirror listen,
and the other nodes.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
from pathlib import Path

from cluster.host import ProgramError, run

POOL = ipaddress.IPv4Network("10.83.0.0/16")  # each cluster takes a free /24 of it


class Link:
    """A node's cable: a network namespace whose eth0 is plugged into the cluster's bridge.

    name: unique on this machine, as `s3m0-1`: the namespace's, and that of the bridge's end.
    address: the node's IPv4 address.
    namespace: the path by which others join the namespace.
    """

    def __init__(self, name: str, address: ipaddress.IPv4Interface, network: Network) -> None:
        """Make a cable, all of it or nothing."""
        self.name = name
        self.address = str(address.ip)
        self.namespace = Path("/run/netns") / name
        with contextlib.ExitStack() as undo:
            run("ip", "netns", "add", name)
            undo.callback(run, "ip", "netns", "delete", name)
            ends = ("type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "link", "add", name, *ends)
            # Deleted by name: left to the end of its namespace, it would go some time later.
            undo.callback(run, "ip", "link", "delete", name)
            run("ip", "link", "set", name, "master", network.name, "up")
            run("ip", "-netns", name, "address", "add", str(address), "dev", "eth0")
            run("ip", "-netns", name, "link", "set", "eth0", "up")
            run("ip", "-netns", name, "link", "set", "lo", "up")
            # Known for good: looked up while the cable is cut, the bridge would be unreachable
            # after three seconds, where AWS drops packets without a word for as long as it takes.
            gateway = ("to", network.address, "lladdr", network.mac, "nud", "permanent")
            run("ip", "-netns", name, "neighbour", "add", *gateway, "dev", "eth0")
            self._undo = undo.pop_all()

    def cut(self) -> None:
        """Pull the cable: from now on packets vanish without an answer, in both directions."""
        run("ip", "link", "set", self.name, "down")

    def reconnect(self) -> None:
        """Plug the cable in again."""
        run("ip", "link", "set", self.name, "up")

    def close(self) -> None:
        """Remove the cable and the namespace; twice is once."""
        self._undo.close()


class Network:
    """A bridge on a free /24 of POOL.

    name: the bridge's, which no other network on this machine has.
    address: the bridge's IPv4 address, the only one that a node reaches besides other nodes.
    mac: its hardware address.
    """

    def __init__(self) -> None:
        self.name, subnet = _claim_bridge()
        self._addresses = (
            ipaddress.IPv4Interface((host, subnet.prefixlen)) for host in subnet.hosts()
        )
        self._links = 0
        gateway = next(self._addresses)
        self.address = str(gateway.ip)
        self.mac = ":".join(f"{byte:02x}" for byte in b"\x02\x00" + gateway.ip.packed)
        try:
            # Without one of its own a bridge takes over that of a cable, another with each node.
            run("ip", "link", "set", self.name, "address", self.mac)
            run("ip", "address", "add", str(gateway), "dev", self.name)
            run("ip", "link", "set", self.name, "up")
        except BaseException:
            self.close()
            raise

    def attach(self) -> Link:
        """Return a new cable with the next free address; its user closes it."""
        self._links += 1
        return Link(f"{self.name}-{self._links}", next(self._addresses), self)

    def close(self) -> None:
        """Remove the bridge."""
        run("ip", "link", "delete", self.name)


def _claim_bridge() -> tuple[str, ipaddress.IPv4Network]:
    """Make a bridge for a subnet that this machine has no route into.

    Several clusters may do so at the same time: the bridge is named after its subnet, and the
    kernel gives a name only once.
    """
    routes = json.loads(run("ip", "-json", "-4", "route", "show", "table", "all") or "[]")
    used = [ipaddress.IPv4Network(route["dst"]) for route in routes if route["dst"] != "default"]
    for subnet in POOL.subnets(new_prefix=24):
        if any(subnet.overlaps(other) for other in used):
            continue
        name = f"s3m{subnet.network_address.packed[2]}"
        try:
            run("ip", "link", "add", name, "type", "bridge")
        except ProgramError as error:
            if "File exists" not in str(error):
                raise
        else:
            return name, subnet
    raise OSError(f"no free subnet left in {POOL}; `ip link show type bridge` lists who has them")
