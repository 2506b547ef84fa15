"""The environment file as people write it, proxies wherever they are named, and nothing secret
where others can read it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast.in_memory import parse_mount
from s3mount_agent.config import config_file, environment
from s3mount_agent.config.desired import Desired
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.masking import is_secret, masked
from s3mount_agent.core.mount_definition import Definition
from s3mount_agent.core.node_roles import Mode
from s3mount_agent.filesystem import json_codec, paths
from s3mount_agent.state import config_origin, in_force, machine, secrets
from s3mount_agent.state.config_origin import Origin
from s3mount_agent.supervisor.unit_text import render
from s3mount_agent.system import node

PROXY = "http://proxy.cluster:3128"
ENDPOINTS = "localhost,127.0.0.1,169.254.169.254,169.254.170.2,.vpce.amazonaws.com"
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


class Place:
    """The files of a node, none of which is there yet."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def file(self, name: str) -> Path:
        return self.directory / name

    def put(self, text: str) -> None:
        self.file("environment").write_text(text, newline="")

    def of_parallelcluster(self, **cluster: str) -> None:
        self.file("dna.json").write_text(json.dumps({"cluster": cluster}))

    def settled(self) -> dict[str, str]:
        """What the units of mounts get that they could not read in the node's file themselves."""
        environment.settle({})
        path = self.file("node.env")
        return environment.parse(path.read_text()) if path.exists() else {}

    def readable_by_all(self) -> str:
        """What is in files that are not for root alone."""
        return "".join(
            path.read_text() for path in self.directory.iterdir() if path.stat().st_mode & 0o077
        )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    found = Place(tmp_path)
    monkeypatch.setattr(environment, "PATH", found.file("environment"))
    monkeypatch.setattr(environment, "NODE", found.file("node.env"))
    monkeypatch.setattr(environment, "MOUNTS", found.file("mounts.env"))
    monkeypatch.setattr(machine, "PATH", found.file("machine.json"))
    monkeypatch.setattr(secrets, "PATH", found.file("secrets.json"))
    monkeypatch.setattr(in_force, "PATH", found.file("in-force.json"))
    monkeypatch.setattr(config_file, "PATH", found.file("config.yaml"))
    monkeypatch.setattr(paths, "CONFIG", found.file("config.yaml"))
    monkeypatch.setattr(
        node.read, "__defaults__", (found.file("dna.json"), found.file("cfnconfig"))
    )
    for function in (config_origin.load, config_origin.save):
        monkeypatch.setattr(function, "__defaults__", (found.file("origin.json"),))
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    return found


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("export A=b\n", {"A": "b"}),
        ("  export   A=b\n", {"A": "b"}),
        ("export A='b c'\nexport A\n", {"A": "b c"}),
        ("A=b\r\nC='d'\r\n# x\r\nE=f", {"A": "b", "C": "d", "E": "f"}),
        ("\ufeffA=b\n", {"A": "b"}),
        ("A = b\n", {"A": "b"}),
        ("A =  'b c'  \n", {"A": "b c"}),
        ("A=\"b\" 'c'd\n", {"A": "bcd"}),
        ("A=b\\\nc\n", {"A": "bc"}),
        ('A="b\\\nc"\n', {"A": "bc"}),
        ('A="a\\tb"\n', {"A": "a\\tb"}),
        ("A=a\\tb\n", {"A": "atb"}),
        ("A='it\\s'\n", {"A": "it\\s"}),
        ("A=b # c\n", {"A": "b # c"}),
    ],
)
def test_what_people_write_is_understood(text: str, values: dict[str, str]) -> None:
    assert environment.parse(text) == values


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("A=1\nAWS_REGION eu-west-1\n", 2, "not NAME=value"),
        ("# x\n\nAWS_REGION: eu-west-1\n", 3, "not NAME=value"),
        ("A=1\r\nAWS-REGION=x\r\n", 2, "not the name of a variable"),
        ("set A=b\n", 1, "not the name of a variable"),
        ("export A B=c\n", 1, "not the name of a variable"),
        ("AWS_REGION: a=b\n", 1, "not the name of a variable"),
        ("1A=b\n", 1, "not the name of a variable"),
        ("A='b\nC=d\n", 1, "not closed on the same line"),
        ('A=1\nB="c\nD="e"\n', 2, "not closed on the same line"),
        ("A=b # the region\n", 1, "a comment needs a line of its own"),
        ("A='b' # the region\n", 1, "a comment needs a line of its own"),
        ("A=a\x07b\n", 1, "cannot be shown"),
        ("A=1\nexport A=2\n", 2, "given twice"),
        ("X='multi\\\n'\nA=b # c\n", 1, "not closed"),
    ],
)
def test_what_says_nothing_is_refused_with_its_line_and_not_quoted(
    place: Place, text: str, line: int, words: str
) -> None:
    place.put(text)
    with pytest.raises(AgentError) as caught:
        environment.require_understood()
    assert caught.value.problem is Problem.ENVIRONMENT_INVALID
    assert caught.value.message.startswith(f"{environment.PATH}:{line}: ")
    assert words in caught.value.message
    assert "eu-west-1" not in caught.value.message


@given(st.text(alphabet="A=b '\"\\\n#;\r\texport$", max_size=60))
def test_no_text_is_too_odd(text: str) -> None:
    values = environment.parse(text)
    assert all("\n" not in name and name for name in values)
    # What is written for the units is read back as it was.
    written = "".join(f"{n}={environment._quote(v)}\n" for n, v in values.items())
    assert environment.parse(written) == values


def test_a_file_that_is_good_is_accepted_and_reaches_units_whole(place: Place) -> None:
    place.put("export AWS_REGION='eu-west-1'\r\nexport AWS_PROFILE = x\nHTTP_TIMEOUT=5\n")
    environment.require_understood()
    assert place.settled() == {"AWS_REGION": "eu-west-1", "AWS_PROFILE": "x"}
    assert place.file("node.env").stat().st_mode & 0o777 == 0o600
    place.put("AWS_REGION=eu-west-1\n")
    assert place.settled() == {}
    assert not place.file("node.env").exists()


@pytest.mark.parametrize("where", ["dna.json", "cfnconfig", "started with", "node's file"])
def test_a_proxy_counts_wherever_it_is_named(
    place: Place, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == "dna.json":
        place.of_parallelcluster(node_type="HeadNode", proxy=PROXY)
    elif where == "cfnconfig":
        place.file("cfnconfig").write_text(f"cfn_node_type=HeadNode\ncfn_proxy={PROXY}\n")
    elif where == "node's file":
        place.put(f"https_proxy={PROXY}\nHTTP_PROXY={PROXY}\n")
    else:
        monkeypatch.setenv("http_proxy", PROXY)
        monkeypatch.setenv("https_proxy", PROXY)
        environment.keep_given()
    environment.load()
    for name in PROXIES:
        assert os.environ[name] == (ENDPOINTS if "no" in name.lower()[:2] else PROXY)
    # The daemon and the mounts, which are started with nothing.
    by_systemd = environment.parse(environment.PATH.read_text()) if where == "node's file" else {}
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    assert {**place.settled(), **by_systemd}.keys() == set(PROXIES)
    environment.load()
    assert os.environ["https_proxy"] == os.environ["HTTPS_PROXY"] == PROXY


def test_the_proxy_that_an_image_was_made_behind_does_not_go_along(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", PROXY)
    environment.keep_given()
    json_codec.write(machine.PATH, {"instance": "", "machine": "that it was made on"})
    monkeypatch.delenv("https_proxy")
    monkeypatch.setattr(machine, "MACHINE_ID", place.file("machine-id"))
    place.file("machine-id").write_text("that it is booted as\n")
    environment.load()  # as `--check` does
    assert not set(PROXIES) & set(os.environ)
    environment.keep_given()
    machine.claim()
    environment.load()
    assert not set(PROXIES) & set(os.environ)
    assert place.settled() == {}


def test_a_proxy_is_kept_until_it_is_given_empty(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", PROXY)
    environment.keep_given()
    monkeypatch.delenv("https_proxy")
    environment.keep_given()  # by sudo, which takes it away
    assert place.settled()["https_proxy"] == PROXY
    monkeypatch.setenv("https_proxy", "")
    environment.keep_given()
    assert place.settled() == {}


def test_without_a_proxy_nothing_is_set(place: Place) -> None:
    place.of_parallelcluster(node_type="HeadNode", proxy="NONE")
    place.file("cfnconfig").write_text("cfn_proxy=NONE\n")
    environment.load()
    assert not set(PROXIES) & set(os.environ)
    assert place.settled() == {}


def test_the_nodes_own_file_wins_and_what_it_excepts_stays(place: Place) -> None:
    place.of_parallelcluster(node_type="HeadNode", proxy=PROXY)
    place.put("HTTPS_PROXY=http://mine:1\nNO_PROXY=.corp,localhost\n")
    environment.load()
    assert os.environ["https_proxy"] == os.environ["HTTPS_PROXY"] == "http://mine:1"
    assert os.environ["http_proxy"] == PROXY
    assert os.environ["no_proxy"].split(",")[:2] == [".corp", "localhost"]
    assert "169.254.169.254" in os.environ["NO_PROXY"].split(",")
    assert place.settled().keys() == {"http_proxy", "HTTP_PROXY", "https_proxy", "no_proxy"}
    place.put("https_proxy=\nhttp_proxy=\n")  # none at all
    assert place.settled() == {}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:pw@proxy:3128/x", "http://***@proxy:3128/x"),
        ("socks5://u@h", "socks5://***@h"),
        ("http://u:p@ss@h and ftp://x:y@z", "http://***@h and ftp://***@z"),
        ("https://h/k?X-Amz-Signature=abc&t=1: no", "https://h/k?*** no"),
        ("s3://bucket/key@2024?x", "s3://bucket/key@2024?x"),
        ("https://h/p: HTTP Error 404", "https://h/p: HTTP Error 404"),
        ("AWS_SECRET_ACCESS_KEY=abc/def", "AWS_SECRET_ACCESS_KEY=***"),
        ("  AWS_SESSION_TOKEN: 'abc'", "  AWS_SESSION_TOKEN: ***"),
        ("aws_secret_access_key = abc/def", "aws_secret_access_key = ***"),
        ('{"SecretAccessKey": "abc"}', '{"SecretAccessKey": ***'),
        ("GET /b/k?X-Amz-Signature=abc", "GET /b/k?X-Amz-Signature=***"),
        ("user:pw@proxy:3128", "***@proxy:3128"),
        ("HTTP_PROXY=u:p:w@[fd00::1]:3128", "HTTP_PROXY=***@[fd00::1]:3128"),
        ("a proxy 'u:p@h' is none", "a proxy '***@h' is none"),
        ("http://user:pa'ss@proxy:3128", "http://***@proxy:3128"),
        ('"http://user:p/a<s"s@w@proxy:3128/"', '"http://***@proxy:3128/"'),
        ("HTTP_PROXY=user:pa'ss@proxy:3128,", "HTTP_PROXY=***@proxy:3128,"),
        ("user:p@ss@proxy", "***@proxy"),
        ("http://:pa'ss@[fd00::1]:3128", "http://***@[fd00::1]:3128"),
        ("a file 'https://h/it's?t=a'b&u=c' is none", "a file 'https://h/it's?***' is none"),
        ("http://proxy:3128 and me@example.org", "http://proxy:3128 and me@example.org"),
        ("at 10:30 mail me@example.org", "at 10:30 mail me@example.org"),
        ("arn:aws:s3:::b/key@2024", "arn:aws:s3:::b/key@2024"),
        ("systemctl stop user@1000.service", "systemctl stop user@1000.service"),
        ("InvalidToken: the token is bad", "InvalidToken: the token is bad"),
        ("mail me@example.org", "mail me@example.org"),
    ],
)
def test_what_is_secret_is_not_said(text: str, shown: str) -> None:
    assert masked(text) == shown
    assert masked(shown) == shown
    assert is_secret(text) is (text != shown)
    error = AgentError(Problem.USAGE, text, cause=text)
    assert (error.message, error.cause, str(error)) == (shown, shown, shown)


@given(st.text(max_size=200))
def test_what_is_masked_stays_so(text: str) -> None:
    assert masked(masked(text)) == masked(text)


@pytest.mark.parametrize("piece", ["x://y:", "a:,", "a@", "a'b:", "https://h", "x:/"])
def test_no_text_takes_long_to_mask(piece: str) -> None:
    """It would be minutes if for each piece all others were looked at."""
    masked("a@b " + piece * 80_000)


SIGNED = "https://host/s3mount.yaml?X-Amz-Signature=SECRETWORD&X-Amz-Security-Token=SECRETWORD"
SECRET_PROXY = "http://user:it's/SECRETWORD@proxy:3128"
CONFIGURATION = f"""\
environment: {{HTTPS_PROXY: "{SECRET_PROXY}", AWS_REGION: eu-west-1}}
mounts: [{{bucket: my-bucket, directory: /mnt/s3}}]
"""


def test_secrets_lie_in_files_of_root_alone(place: Place) -> None:
    place.file("config.yaml").write_text("mounts: []\n")  # readable, before there was a secret
    configuration = config_file.parse(CONFIGURATION, "x")
    Desired(configuration, CONFIGURATION, Origin(SIGNED, "1", "1")).save()
    assert "SECRETWORD" not in place.readable_by_all()
    assert "?***" in place.readable_by_all()
    found = config_origin.load()
    assert found == Origin(SIGNED, "1", "1")
    assert found.shown_url == "https://host/s3mount.yaml?***"
    assert environment.parse(place.file("mounts.env").read_text()) == {
        **configuration.environment,
        "https_proxy": SECRET_PROXY,
    }
    # To who may not read the secrets it is another source, but the same to look at.
    place.file("secrets.json").unlink()
    found = config_origin.load()
    assert found is not None
    assert found.url == found.shown_url
    # Without a secret everybody may read it again.
    Desired(config_file.parse("mounts: []", "x"), "mounts: []").save()
    assert place.file("config.yaml").stat().st_mode & 0o777 == 0o644
    assert not place.file("mounts.env").exists()


def test_an_administrators_own_mode_stays(place: Place) -> None:
    path = place.file("config.yaml")
    path.write_text("mounts: []\n")
    path.chmod(0o640)
    Desired(config_file.parse("mounts: []", "x"), "# another\nmounts: []").save()
    assert path.stat().st_mode & 0o777 == 0o640
    assert place.file("in-force.json").stat().st_mode & 0o777 == 0o640


def test_of_a_secret_a_unit_says_only_whether_it_is_another(place: Place) -> None:
    one, two = secrets.fingerprint("one"), secrets.fingerprint("two")
    assert one == secrets.fingerprint("one")
    assert one != two
    place.file("secrets.json").unlink()
    assert secrets.fingerprint("one") != one  # another node
    bare = Definition("b", "/mnt/s3", ("mount-s3",), Mode.DIRECT, read_only=True)
    definition = Definition(
        "b", "/mnt/s3", ("mount-s3",), Mode.DIRECT, read_only=True, secrets=(("HTTPS_PROXY", one),)
    )
    assert definition.essence() != bare.essence()
    assert Definition.from_json(definition.to_json()) == definition
    unit = render(paths.template("mountpoint-s3.service"), definition, agent=["agent"])
    assert "Environment=\n" in unit


def test_a_password_in_an_option_is_refused() -> None:
    with pytest.raises(AgentError) as caught:
        parse_mount("my-bucket", "/mnt/s3", "--endpoint-url http://user:SECRETWORD@host")
    assert caught.value.problem is Problem.OPTION_VALUE
    assert "SECRETWORD" not in "".join(caught.value.lines())
