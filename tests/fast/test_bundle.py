"""Bundles: made of repositories that are folders; read as if anybody might have written them."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cluster.signing import Signer
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.mountpoint import bundle
from s3mount_agent.mountpoint.bundle import Bundle, Manifest, Piece

pytestmark = pytest.mark.skipif(
    not (shutil.which("gpg") and shutil.which("gpgv")), reason="GnuPG is not installed"
)
REPOSITORY = Path(__file__).parents[2]
PACKAGE = "1.24.0/arm64/mount-s3-1.24.0-arm64.deb"
# Ubuntu's, as far as it matters: name, component, what it needs, and more fields.
PACKAGES = (
    ("fuse3", "main", "adduser (>= 3), libfuse3-3 (= 3.14), mount | busybox:any", ""),
    ("libfuse3-3", "main", "libc6 (>= 2.34)", ""),
    ("libfuse2t64", "universe", "fuse-data, libc6, gone | odd", ""),
    ("odd", "universe", "", "Provides: fuse-data (= 1), other\n"),
    ("adduser", "main", "passwd-of-it", "Priority: important\n"),
    ("passwd-of-it", "main", "", ""),
    ("apt", "main", "adduser", "Priority: important\n"),
    ("mount", "main", "", "Priority: required\n"),
    ("dpkg", "main", "", "Essential: yes\nPre-Depends: libc6\n"),
    ("libc6", "main", "", ""),
    ("big", "main", "fuse3", ""),
)
TAKEN = {"fuse3", "libfuse3-3", "libfuse2t64", "odd"}


class Mirrors:
    """A repository of Ubuntu 24.04 for arm64, and AWS's release bucket: two folders."""

    def __init__(self, folder: Path, compressed: str = "xz") -> None:
        self.ubuntu, self.aws = folder / "ubuntu", folder / "aws"
        rows = []
        for component in ("main", "universe", "multiverse"):
            stanzas = [self._stanza(*each) for each in PACKAGES if each[1] == component]
            data = "\n".join(stanzas).encode()
            packed = lzma.compress(data) if compressed == "xz" else gzip.compress(data)
            name = f"{component}/binary-arm64/Packages.{compressed}"
            rows.append(f" {hashlib.sha256(packed).hexdigest()} {len(packed)} {name}\n")
            write(self.ubuntu / "dists/noble" / name, packed)
        release = (
            f"Codename: noble\nMD5Sum:\n 0 0 main/x\nSHA256:\n{''.join(rows)}SHA512:\n 1 1 y\n"
        )
        write(self.ubuntu / "dists/noble/InRelease", release.encode())
        write(self.aws / PACKAGE, b"a package of mount-s3")

    def _stanza(self, name: str, component: str, depends: str, more: str) -> str:
        path = f"pool/{component}/{name}_1+b1_arm64.deb"
        write(self.ubuntu / path, name.encode())
        digest = hashlib.sha256(name.encode()).hexdigest()
        needs = f"Depends: {depends}\n" if depends else ""
        text = f"Package: {name}\nDescription: x\n and more\n{needs}{more}"
        return f"{text}Filename: {path}\nSHA256: {digest}\n"


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def signer() -> Iterator[Signer]:
    """Who signs mount-s3; in a directory whose name is short enough for gpg-agent's socket."""
    home = Path(tempfile.mkdtemp(prefix="gpg-"))
    signer = Signer(home / "key", "signer@example.org")
    yield signer
    signer.close()
    shutil.rmtree(home)


@pytest.fixture
def mirrors(tmp_path: Path, signer: Signer) -> Mirrors:
    made = Mirrors(tmp_path)
    signer.sign(made.aws / PACKAGE, made.aws / f"{PACKAGE}.asc")
    write(made.aws / "public_keys/KEYS", signer.public_key.encode())
    return made


class Maker:
    """`make bundle` without make, with an agent that is a few bytes."""

    def __init__(self, folder: Path, mirrors: Mirrors, signer: Signer) -> None:
        self.repository = folder / "repository"
        shutil.copytree(REPOSITORY / "packaging", self.repository / "packaging")
        for name in ("s3mount-bootstrap", "SHA256SUMS"):
            write(self.repository / "dist" / name, name.encode())
        self.place = folder / "bundle"
        self.to = str(self.place)
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY / "agent"),
            "MIRROR_ubuntu2404": str(mirrors.ubuntu),
            "S3MOUNT_RELEASE_URL": str(mirrors.aws),
            "S3MOUNT_RELEASE_FINGERPRINTS": signer.fingerprint,
        }

    def __call__(self, systems: str = "ubuntu2404:arm64") -> subprocess.CompletedProcess[str]:
        script = self.repository / "packaging/build_bundle.py"
        return subprocess.run(
            [sys.executable, str(script), f"--systems={systems}", f"--to={self.to}"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def refused(self, code: str, systems: str = "ubuntu2404:arm64") -> str:
        """What it says in refusing; it must leave nothing."""
        answer = self(systems)
        assert answer.returncode != 0
        assert f"[{code}]" in answer.stderr, answer.stderr
        assert sorted(path.name for path in (self.repository / "dist").iterdir()) == [
            "SHA256SUMS",
            "s3mount-bootstrap",
        ]
        return answer.stderr


@pytest.fixture
def maker(tmp_path: Path, mirrors: Mirrors, signer: Signer) -> Maker:
    return Maker(tmp_path, mirrors, signer)


def test_a_bundle_has_the_agent_mount_s3_fuse_and_what_proves_them(
    maker: Maker, mirrors: Mirrors
) -> None:
    answer = maker()
    assert (answer.returncode, answer.stderr) == (0, "")
    found = {
        path.relative_to(maker.place).as_posix(): path.read_bytes()
        for path in maker.place.rglob("*")
        if path.is_file()
    }
    manifest = json.loads(found.pop("manifest.json"))
    assert manifest["systems"] == ["ubuntu2404:arm64"]
    assert manifest["files"] == {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in found.items()
    }
    fuse = "fuse/ubuntu2404/arm64/"
    indexes = {f"dists/noble/{each}/binary-arm64/Packages.xz" for each in ("main", "universe")}
    pool = {f"pool/{each[1]}/{each[0]}_1+b1_arm64.deb" for each in PACKAGES if each[0] in TAKEN}
    piece = {"dists/noble/InRelease", *indexes, *pool}
    assert {name[len(fuse) :] for name in found if name.startswith(fuse)} == piece
    for name in piece:
        assert found[fuse + name] == (mirrors.ubuntu / name).read_bytes()
    others = {name for name in found if not name.startswith(fuse)}
    agent = {"s3mount-bootstrap", "SHA256SUMS"}
    assert others == {*agent, PACKAGE, f"{PACKAGE}.asc", "public_keys/KEYS"}


def test_an_index_that_is_packed_otherwise_will_do(
    tmp_path: Path, maker: Maker, mirrors: Mirrors
) -> None:
    maker.environment["MIRROR_ubuntu2404_arm64"] = str(Mirrors(tmp_path / "other", "gz").ubuntu)
    maker.environment["MIRROR_ubuntu2404"] = "/nowhere"
    assert maker().returncode == 0
    assert list(maker.place.rglob("universe/binary-arm64/Packages.gz"))


def test_made_again_it_replaces_a_bundle_and_nothing_else(maker: Maker) -> None:
    assert maker().returncode == 0
    write(maker.place / "left/over", b"")
    assert maker().returncode == 0
    assert not (maker.place / "left").exists()
    (maker.place / "manifest.json").unlink()
    assert "is no bundle" in maker.refused("usage")
    assert (maker.place / PACKAGE).exists()


def test_what_the_repository_does_not_vouch_for_is_not_bundled(
    maker: Maker, mirrors: Mirrors
) -> None:
    package = mirrors.ubuntu / "pool/universe/libfuse2t64_1+b1_arm64.deb"
    package.write_bytes(b"another")
    assert "libfuse2t64_1+b1_arm64.deb is not the file" in maker.refused("package-broken")
    package.unlink()
    assert "libfuse2t64_1+b1_arm64.deb" in maker.refused("download-failed")
    index = mirrors.ubuntu / "dists/noble/main/binary-arm64/Packages.xz"
    index.write_bytes(lzma.compress(b"Package: fuse3\n"))
    assert "Packages.xz is not the file" in maker.refused("package-broken")
    assert not maker.place.exists()


def test_nor_a_mount_s3_that_its_signature_does_not_fit(maker: Maker, mirrors: Mirrors) -> None:
    (mirrors.aws / PACKAGE).write_bytes(b"another")
    maker.refused("signature-bad")
    assert not maker.place.exists()


@pytest.mark.parametrize("systems", ["", "ubuntu2404:arm65", "windows", "ubuntu2404,,hurd"])
def test_systems_that_there_are_not_are_refused(maker: Maker, systems: str) -> None:
    said = maker.refused("usage", systems)
    assert "ubuntu2204, ubuntu2404, debian12" in said


def test_a_system_of_which_nobody_says_where_it_is_is_refused(maker: Maker) -> None:
    said = maker.refused("usage", "ubuntu2404:arm64,ubuntu2204")
    assert "make bundle SYSTEMS=ubuntu2204:x86_64 MIRROR_ubuntu2204_x86_64=URL" in said
    maker.environment["MIRROR_ubuntu2204"] = maker.environment["MIRROR_ubuntu2404"]
    said = maker.refused("download-failed", "ubuntu2204:arm64")
    assert "dists/jammy/InRelease" in said
    assert "MIRROR_ubuntu2204_arm64=URL" in said


def test_a_bucket_that_cannot_be_written_to_is_told(maker: Maker) -> None:
    maker.to = "s3://nowhere/offline"
    maker.environment.update(
        AWS_ENDPOINT_URL="http://127.0.0.1:9", AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="x"
    )
    assert "s3://nowhere/offline/" in maker.refused("source-failed")


# Amazon Linux's, as far as it matters: name, architecture, when it was built, what it needs and
# provides.
RPMS = (
    ("fuse", "aarch64", 1, ("old",), ()),
    ("fuse", "aarch64", 3, ("fuse-common", "libfuse.so.2()(64bit)", "/bin/sh", "gone"), ()),
    ("fuse", "aarch64", 2, ("old",), ()),
    ("fuse", "x86_64", 4, ("old",), ()),
    ("old", "noarch", 1, (), ()),
    ("fuse-libs", "aarch64", 1, ("libc.so.6()(64bit)",), ("libfuse.so.2()(64bit)",)),
    ("fuse-common", "noarch", 1, ("/usr/bin/which",), ()),
    ("which", "aarch64", 1, ("bash",), ()),
    ("bash", "aarch64", 1, ("glibc",), ()),
    ("glibc", "aarch64", 1, (), ("libc.so.6()(64bit)",)),
    ("dnf", "noarch", 1, ("bash", "rpm"), ()),
    ("rpm", "aarch64", 1, ("glibc",), ()),
)
FILES = {"bash": "/bin/sh", "which": "/usr/bin/which"}


def amazon(folder: Path) -> Path:
    """A repository of Amazon Linux, where packages do not lie where their index does."""
    space, text = "http://linux.duke.edu/metadata", ""
    for name, machine, built, requires, provides in RPMS:
        data = f"{name} {machine} {built}".encode()
        digest = hashlib.sha256(data).hexdigest()
        file = f"{name}-{built}.{machine}.rpm"
        write(folder / "blobs" / digest / file, data)
        lists = ""
        for what, names in (("requires", requires), ("provides", (name, *provides))):
            entries = "".join(f'<rpm:entry name="{each}"/>' for each in names)
            lists += f"<rpm:{what}>{entries}</rpm:{what}>"
        files = f"<file>{FILES[name]}</file>" if name in FILES else ""
        text += (
            f'<package type="rpm"><name>{name}</name><arch>{machine}</arch>'
            f'<version epoch="0" ver="{built}" rel="1"/><time file="9" build="{built}"/>'
            f'<checksum type="sha256" pkgid="YES">{digest}</checksum>'
            f'<location href="../../blobs/{digest}/{file}"/>'
            f"<format>{lists}{files}</format></package>"
        )
    head = f'<metadata xmlns="{space}/common" xmlns:rpm="{space}/rpm" packages="{len(RPMS)}">'
    packed = gzip.compress(f"{head}{text}</metadata>".encode())
    place = folder / "core/aarch64"
    write(place / "repodata/x-primary.xml.gz", packed)
    repomd = (
        f'<repomd xmlns="{space}/repo"><data type="group"/><data type="primary">'
        f'<checksum type="sha256">{hashlib.sha256(packed).hexdigest()}</checksum>'
        '<location href="repodata/x-primary.xml.gz"/></data></repomd>'
    )
    write(place / "repodata/repomd.xml", repomd.encode())
    return place


def test_rpms_come_with_what_the_smallest_system_lacks_and_an_index_of_their_own(
    tmp_path: Path, maker: Maker, mirrors: Mirrors, signer: Signer
) -> None:
    name = PACKAGE.replace("deb", "rpm")
    write(mirrors.aws / name, b"a package of mount-s3")
    signer.sign(mirrors.aws / name, mirrors.aws / f"{name}.asc")
    maker.environment["MIRROR_al2023"] = str(amazon(tmp_path / "amazon"))
    answer = maker("al2023:arm64")
    assert (answer.returncode, answer.stderr) == (0, "")
    piece = maker.place / "fuse/al2023/arm64"
    taken = {path.name for path in piece.glob("*.rpm")}
    assert taken == {
        "fuse-3.aarch64.rpm",
        "fuse-libs-1.aarch64.rpm",
        "fuse-common-1.noarch.rpm",
        "which-1.aarch64.rpm",
    }
    assert (piece / "fuse-3.aarch64.rpm").read_bytes() == b"fuse aarch64 3"
    index = gzip.decompress((piece / "repodata/primary.xml.gz").read_bytes()).decode()
    assert set(re.findall(r'<location href="([^"]*)"', index)) == taken
    assert "<rpm:provides>" in index


def test_an_rpm_that_its_index_does_not_speak_of_is_not_bundled(
    tmp_path: Path, maker: Maker
) -> None:
    maker.environment["MIRROR_al2023"] = str(amazon(tmp_path / "amazon"))
    (package,) = (tmp_path / "amazon").rglob("fuse-libs-*.rpm")
    package.write_bytes(b"another")
    assert package.name in maker.refused("package-broken", "al2023:arm64")
    assert "no package fuse-libs" in maker.refused("packages-failed", "al2023:x86_64")


def test_an_index_that_cannot_be_read_is_told(tmp_path: Path, maker: Maker) -> None:
    place = amazon(tmp_path / "amazon")
    maker.environment["MIRROR_al2023"] = str(place)
    repomd = place / "repodata/repomd.xml"
    whole = repomd.read_text()
    (place / "repodata/x-primary.xml.gz").rename(place / "repodata/x-primary.xml.zst")
    repomd.write_text(whole.replace(".xml.gz", ".xml.zst"))
    assert "createrepo_c --general-" in maker.refused("packages-failed", "al2023:arm64")
    (place / "repodata/x-primary.xml.zst").rename(place / "repodata/x-primary.xml.xz")
    repomd.write_text(whole.replace(".xml.gz", ".xml.xz"))
    assert "x-primary.xml.xz is no .xz" in maker.refused("package-broken", "al2023:arm64")
    repomd.write_text("<html>not here<br>")
    assert "repomd.xml cannot be read" in maker.refused("package-broken", "al2023:arm64")


def test_where_rpms_come_from_has_to_be_said(maker: Maker) -> None:
    said = maker.refused("usage", "rhel9")
    assert "make bundle SYSTEMS=rhel9:x86_64 MIRROR_rhel9_x86_64=URL" in said
    assert "dnf download --resolve --destdir=FOLDER fuse fuse-libs" in said


def found(maker: Maker, tmp_path: Path) -> Bundle:
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    found = bundle.find(str(maker.place), scratch)
    assert found is not None
    return found


def test_a_node_takes_the_piece_for_its_system(maker: Maker, tmp_path: Path) -> None:
    maker()
    into = tmp_path / "fuse"
    found(maker, tmp_path).fetch_fuse("ubuntu2404:arm64", ["libfuse2t64"], into)
    original = maker.place / "fuse/ubuntu2404/arm64"
    names = {path.relative_to(original) for path in original.rglob("*")}
    assert names
    assert {path.relative_to(into) for path in into.rglob("*")} == names


def test_a_place_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    assert bundle.find(str(tmp_path), tmp_path) is None


def test_what_a_bundle_lacks_is_named_with_the_command_that_makes_it(
    maker: Maker, tmp_path: Path
) -> None:
    maker()
    made = found(maker, tmp_path)
    for target in ("ubuntu2404:x86_64", "debian13:arm64"):
        with pytest.raises(
            AgentError, match=f"this node is a {target}, .* no fuse3 and lib"
        ) as told:
            made.fetch_fuse(target, ["fuse3", "libfuse2t64"], tmp_path / "fuse")
        assert told.value.problem is Problem.BUNDLE_INCOMPLETE
        assert f"`make bundle SYSTEMS=ubuntu2404:arm64,{target}`" in told.value.hint
    with pytest.raises(AgentError, match=r"has no 1\.23\.0/"):
        made.require("1.23.0/arm64/mount-s3-1.23.0-arm64.deb", "ubuntu2404:arm64")
    made.require(PACKAGE, "ubuntu2404:arm64")
    next(maker.place.rglob("libfuse2t64_*.deb")).unlink()
    with pytest.raises(
        AgentError, match=r"libfuse2t64_1\+b1_arm64\.deb, which its manifest"
    ) as told:
        made.fetch_fuse("ubuntu2404:arm64", ["libfuse2t64"], tmp_path / "fuse")
    assert told.value.problem is Problem.BUNDLE_INCOMPLETE


@pytest.mark.parametrize(
    "changed",
    [
        {"schema": 2},
        {"systems": ["ubuntu2404"]},
        {"systems": ["ubuntu2404:arm64;reboot"]},
        {"systems": "ubuntu2404:arm64"},
        {"files": {"fuse/ubuntu2404/arm64/../../../../../etc/passwd": {"size": 1, "sha256": ""}}},
        {"files": {"/etc/passwd": {"size": 1, "sha256": ""}}},
        {"files": {"fuse/ubuntu2404/arm64/dists/noble [trusted=yes]/x": {"size": 1, "sha256": ""}}},
        {"files": {"fuse//x": {"size": 1, "sha256": ""}}},
        {"files": {"fuse/x": {"size": "1", "sha256": ""}}},
        {"files": {"fuse/x": 1}},
        {"files": ["fuse/x"]},
        [],
        None,
    ],
)
def test_a_manifest_that_no_bundle_has_is_refused(tmp_path: Path, changed: Any) -> None:
    text = json.dumps(
        {"schema": 1, "systems": [], "files": {}, **changed}
        if isinstance(changed, dict)
        else changed
    )
    place = tmp_path / "place"
    write(place / "manifest.json", text.encode())
    with pytest.raises(AgentError) as told:
        bundle.find(str(place), tmp_path)
    assert told.value.problem is Problem.BUNDLE_INCOMPLETE
    assert told.value.cause


class Web(BaseHTTPRequestHandler):
    """Refuses everything with the status that its server has, and keeps what it was asked for."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_error(self.server.status)  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[Any]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Web) as server:
        made: Any = server
        made.asked, made.url = [], f"http://127.0.0.1:{server.server_port}/offline"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield made
        server.shutdown()


@pytest.mark.parametrize("status", [403, 404])
def test_a_place_that_may_not_be_listed_need_not_have_a_manifest(
    web: Any, tmp_path: Path, status: int
) -> None:
    """S3 denies what is not there to a role that may only read."""
    web.status = status
    assert bundle.find(web.url, tmp_path) is None


def test_a_place_that_does_not_answer_is_not_taken_for_one_without(
    web: Any, tmp_path: Path
) -> None:
    web.status = 503
    with pytest.raises(AgentError) as told:
        bundle.find(web.url, tmp_path)
    assert told.value.problem is Problem.DOWNLOAD_FAILED


def test_a_plus_is_a_plus_in_a_url_too(web: Any, tmp_path: Path) -> None:
    """S3 takes it for a blank otherwise."""
    web.status = 404
    name = "fuse/debian12/x86_64/pool/main/f/fuse/libfuse2_2.9.9-6+b1_amd64.deb"
    made = Bundle(web.url, Manifest(("debian12:x86_64",), {name: Piece(1, "")}))
    with pytest.raises(AgentError, match="lacks the file"):
        made.fetch_fuse("debian12:x86_64", ["libfuse2"], tmp_path / "fuse")
    assert web.asked == [f"/offline/{name.replace('+', '%2B')}"]
