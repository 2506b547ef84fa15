"""What a node finds around it: a proxy as its only way out, environment files as people write
them, secrets that nobody else may see, and state of another machine."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import pytest

from cluster.cluster import Cluster
from cluster.proxy import OUTSIDE, Proxy
from node.article import ENVIRONMENT, UNIT, WRITABLE, listed, main_pid, mounted, status
from node.conftest import NewNode
from node.live_site import CONFIG, Site, document, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.node import Node

pytestmark = pytest.mark.node

SECRET = "SECRETWORD"
DNA = "/etc/chef/dna.json"
ARGS = ("hpc-dev-mountpoint-sample-2", WRITABLE, "--allow-delete --allow-other")
READ_BY_SYSTEMD = """\
systemd-run --quiet --pipe --wait -p EnvironmentFile=/tmp/odd env --null | tr '\\n\\0' '?\\n' | sort
"""
ODD = """\
A=b
C='d e'  \r
F = g
H="i\\"j\\\\k\\$l\\m"
I=a\\tb\\
c
J="x" 'y'z
K=#no comment
; comment
# comment
L='a#b'
M=
export N=o
"""


@pytest.fixture(scope="module")
def proxy(cluster: Cluster) -> Iterator[Proxy]:
    with Proxy(cluster.network.address, f"it's-{SECRET}") as running:  # all that a URL may have
        yield running


@pytest.fixture(scope="module")
def node(cluster: Cluster, new_module_node: NewNode, proxy: Proxy) -> Node:
    """A compute node whose S3, mirror and packages are behind the proxy of its cluster."""
    node = new_module_node("compute")
    facts = json.loads(node.read(DNA))
    facts["cluster"]["proxy"] = proxy.url
    node.write(DNA, json.dumps(facts))
    inside = cluster.network.address
    for path in ("/etc/apt/sources.list", ENVIRONMENT):
        mode = 0o600 if path == ENVIRONMENT else 0o644
        node.write(path, node.read(path).replace(f"//{inside}:", f"//{OUTSIDE}:"), mode=mode)
    return node


def readable_by_all(node: Node) -> str:
    """All that anybody on the node can read of what an agent may have written."""
    find = (
        "find /etc /var/lib/s3mount-agent /run /tmp /var/tmp /opt/s3mount-agent /var/log -xdev "
        "-type f -perm /044 -not -path /etc/chef/dna.json -size -4M -print0 "
        f"| xargs -0 grep -l -a {SECRET} || true"
    )
    return node.run(["sh", "-c", find]).stdout


def test_a_proxy_of_the_cluster_is_the_only_way_out(
    cluster: Cluster, node: Node, proxy: Proxy
) -> None:
    action = cluster.custom_action(node, ARGS)
    assert (action.returncode, action.stderr) == (0, ""), action.stdout
    assert "1 of 1 mounts are up" in action.stdout
    assert "YouCanLookThisFileFromS3.txt" in listed(node, WRITABLE)
    node.run(["touch", f"{WRITABLE}/by-proxy.txt"], user="ubuntu")
    until(lambda: "by-proxy.txt" in cluster.s3.keys("hpc-dev-mountpoint-sample-2"))
    assert proxy.refused == 0
    hosts = {url.split("/")[2] for url in proxy.requests}
    assert {host.split(":")[0] for host in hosts} == {OUTSIDE}
    assert len(hosts) == 2  # S3 and the mirror
    # The service and its children, too: it follows a source.
    site = Site(cluster, node)
    text = document(site.row("/mnt/followed"))
    site.bootstrap(text)
    site.await_version(site.edit(text + "# edited\n"))
    site.await_mounts("/mnt/followed")
    # ...and after a boot, when nobody has given them anything.
    node.reboot()
    node.run(["s3mount-agent", "status", "--wait", "60"])
    site.await_version(site.edit(text + "# edited again\n"))
    pid = main_pid(node, site.unit("/mnt/followed"))
    given = node.run(["cat", f"/proc/{pid}/environ"]).stdout.split("\0")
    assert f"https_proxy={proxy.url}" in given
    assert any("169.254.169.254" in each for each in given if each.startswith("NO_PROXY="))


def test_secrets_are_seen_by_nobody_else(cluster: Cluster, node: Node, proxy: Proxy) -> None:
    """A presigned source's query, passwords of proxies wherever they are named, and of files."""
    site = Site(cluster, node)
    row = site.row("/mnt/followed")
    bare = proxy.url.partition("//")[2]
    named = {"HTTPS_PROXY": bare, "HTTP_PROXY": proxy.url}
    figures = "/run/figures.prom"
    more = {"metrics": {"prometheus": figures}}
    text = document(row, environment=named, **more)
    site.source.put(text)
    signed = f"{cluster.s3.url.replace(cluster.network.address, '127.0.0.1')}"
    forward = node.popen(["python3", "-c", _FORWARD, cluster.network.address, *_port(signed)])
    url = f"{signed}/{site.source.bucket}/clusters/s3mount.yaml?X-Amz-Signature={SECRET}&t={SECRET}"
    said = []
    with forward:
        # The first of all fails: who checks it, before anything is unpacked, tells the journal.
        node.run(["rm", "/opt/s3mount-agent/current"])
        action = cluster.custom_action(node, ["--config", url.replace(".yaml?", ".none?")])
        said.append(action.stdout + action.stderr)
        assert (action.returncode, "[source-failed]" in action.stderr) == (1, True), said
        action = cluster.custom_action(node, ["--config", url])
        said.append(action.stdout + action.stderr)
        assert action.returncode == 0, said
        site.await_mounts("/mnt/followed")
        before = site.pids()
        assert listed(node, "/mnt/followed") == ["seen.txt"]
        # It works, and is followed.
        changed = {"environment": {"HTTP_PROXY": proxy.url}, **more}
        site.source.put(document(row, site.row("/mnt/more"), **changed))
        node.run(["systemctl", "reload", "s3mount-agent"])
        site.await_mounts("/mnt/followed", "/mnt/more")
        assert site.pids()["/mnt/followed"] != before["/mnt/followed"]  # another environment
        # It is refused with its lines.
        mirror = f"http://mirror:{SECRET}@mirror.example.org"
        bad = f"environment: {{HTTPS_PROXY: {proxy.url}}}\ninstall: {{source: '{mirror}'}}\n"
        bad += "mounts: [{bucket: x}]\n"
        site.source.put(bad)
        for words in (["apply", "--now"], ["apply"], ["plan", "--config", url], ["plan", "--json"]):
            answer = node.run(["s3mount-agent", *words], check=False)
            said.append(answer.stdout + answer.stderr)
        forward.kill()
    # Out of reach, too.
    answer = node.run(["s3mount-agent", "apply", "--now"], check=False)
    assert answer.returncode == 1
    said.append(answer.stdout + answer.stderr)
    for words in (["status"], ["status", "--json"], ["plan"], ["validate", CONFIG]):
        answer = node.run(["s3mount-agent", *words], check=False)
        said.append(answer.stdout + answer.stderr)
    # With the command line of whoever sent each entry; and all that runs now.
    told = node.run(["journalctl", "--no-pager", "-o", "json"]).stdout
    assert '"_CMDLINE"' in told
    assert "?***" in told
    said += [told, node.run(["sh", "-c", "cat /proc/[0-9]*/cmdline"], check=False).stdout]
    until(lambda: node.exists(figures))
    said.append(node.read(figures))
    said.append(node.run(["systemctl", "show", "s3mount-agent", "mountpoint-s3-*"]).stdout)
    said.append(node.run(["systemctl", "cat", "s3mount-agent", "mountpoint-s3-*"]).stdout)
    assert SECRET not in "".join(said)
    assert "?***" in "".join(said)
    assert readable_by_all(node) == ""
    as_user = node.run(["s3mount-agent", "status", "--json"], user="ubuntu", check=False)
    assert SECRET not in as_user.stdout + as_user.stderr
    assert json.loads(as_user.stdout)["config"]["source"].endswith("?***")


def test_an_environment_file_means_the_same_to_systemd_and_to_us(node: Node) -> None:
    node.write("/tmp/odd", ODD)
    by_systemd = node.run(["sh", "-c", READ_BY_SYSTEMD]).stdout.splitlines()
    ours = (
        "import sys; sys.path[:0] = ['/opt/s3mount-agent/current/lib']\n"
        "from s3mount_agent.config.environment import parse\n"
        "for n, v in parse(open('/tmp/odd', newline='').read()).items(): print(n + '=' + v)\n"
    )
    by_us = node.run(["python3", "-c", ours]).stdout.splitlines()
    assert {"export N=o"} & set(by_systemd) == set()
    understood = sorted(set(by_us) - {"N=o"})
    assert [each for each in by_systemd if each in understood] == understood
    assert "N=o" in by_us


def test_an_environment_file_as_people_write_it_reaches_every_mount(
    cluster: Cluster, node: Node
) -> None:
    before = node.read(ENVIRONMENT)
    lines = [f"export {line}" for line in before.splitlines()]
    node.write(ENVIRONMENT, "\r\n".join([*lines, "export AWS_MAX_ATTEMPTS = '2'"]), mode=0o600)
    action = cluster.custom_action(node, ARGS)
    assert (action.returncode, action.stderr) == (0, ""), action.stdout
    node.run(["systemctl", "restart", UNIT[WRITABLE]])
    pid = main_pid(node, UNIT[WRITABLE])
    assert "AWS_MAX_ATTEMPTS=2" in node.run(["cat", f"/proc/{pid}/environ"]).stdout.split("\0")
    assert listed(node, WRITABLE)
    # An edit is found by a restart of the unit alone, which systemd carries out.
    text = node.read(ENVIRONMENT).replace("AWS_MAX_ATTEMPTS = '2'", "AWS_MAX_ATTEMPTS = '3'")
    node.write(ENVIRONMENT, text, mode=0o600)
    node.run(["systemctl", "restart", UNIT[WRITABLE]])
    pid = main_pid(node, UNIT[WRITABLE])
    assert "AWS_MAX_ATTEMPTS=3" in node.run(["cat", f"/proc/{pid}/environ"]).stdout.split("\0")
    # What says nothing is told with its line, at once, and changes nothing.
    node.write(ENVIRONMENT, before + f"AWS_SECRET_ACCESS_KEY: {SECRET}\n", mode=0o600)
    line = len(before.splitlines()) + 1
    for words in (["apply"], ["plan"]):
        answer = node.run(["s3mount-agent", *words], check=False)
        assert answer.returncode == 2
        assert f"[environment-invalid]: {ENVIRONMENT}:{line}: " in answer.stderr
        assert SECRET not in answer.stdout + answer.stderr
    assert main_pid(node, UNIT[WRITABLE]) == pid
    node.write(ENVIRONMENT, before, mode=0o600)


def _port(url: str) -> tuple[str, str]:
    port = url.rpartition(":")[2]
    return port, port


# An https:// source would need a certificate; a server on this node itself needs none.
_FORWARD = """
import socket, sys, threading
host, port, local = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
server = socket.create_server(("127.0.0.1", local))
def pump(one, other):
    try:
        while piece := one.recv(65536):
            other.sendall(piece)
    except OSError:
        pass
    other.close()
while True:
    client, _ = server.accept()
    behind = socket.create_connection((host, port))
    for pair in ((client, behind), (behind, client)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""


def test_an_image_of_a_node_does_nothing_on_another_machine(
    cluster: Cluster, new_ready_node: NewNode
) -> None:
    node = new_ready_node("head")
    assert cluster.custom_action(node, ARGS).returncode == 0
    node.power_off()
    (node.root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n", encoding="ascii")
    node.boot()
    assert main_pid(node, "s3mount-agent.service") > 0  # up at once: it has nothing to wait for
    refused = node.run(["s3mount-agent", "status"], check=False)
    assert refused.returncode == 1
    assert "error [foreign-machine]" in refused.stderr
    assert "s3mount-bootstrap" in refused.stderr
    assert node.run(["s3mount-agent", "apply"], check=False).returncode == 1
    assert mounted(node) == {}
    assert node.run(["pgrep", "-x", "mount-s3"], check=False).stdout == ""
    # Whatever this one is: it is asked to be something else, and is that and nothing more.
    other = ("hpc-dev-mountpoint-sample-1", "/mnt/other", "--read-only --allow-other")
    action = cluster.custom_action(node, other)
    assert (action.returncode, action.stderr) == (0, ""), action.stdout
    assert mounted(node).keys() == {"/mnt/other"}
    assert [mount["path"] for mount in status(node, wait=30)["mounts"]] == ["/mnt/other"]
    assert not node.exists(f"/etc/systemd/system/{UNIT[WRITABLE]}")
