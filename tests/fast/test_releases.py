"""Downloads of mount-s3: from a real server, with real signatures."""

from __future__ import annotations

import math
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from fast import small_web
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.decide.retry_policy import is_lasting
from s3mount_agent.mountpoint import releases, trust
from s3mount_agent.mountpoint.releases import (
    Release,
)
from s3mount_agent.system import process
from s3mount_agent.system.retry import patiently

pytestmark = pytest.mark.skipif(
    not (shutil.which("gpg") and shutil.which("gpgv")), reason="GnuPG is not installed"
)
# Debian 13 has sqv instead of gpgv.
VERIFIERS = pytest.mark.parametrize(
    "verifier",
    [
        "gpgv",
        pytest.param(
            "sqv", marks=pytest.mark.skipif(not shutil.which("sqv"), reason="there is no sqv")
        ),
        "gpg",
    ],
    indirect=True,
)
PACKAGE = b"!<arch>\n" + bytes(range(256)) * 500
NAME = "mount-s3-9.9.9-x86_64.deb"
PATH = f"/9.9.9/x86_64/{NAME}"


@dataclass(frozen=True)
class Key:
    home: Path
    fingerprint: str

    def gpg(self, *arguments: str, data: bytes = b"") -> bytes:
        return subprocess.run(
            ["gpg", "--homedir", str(self.home), "--batch", "--yes", *arguments],
            input=data,
            capture_output=True,
            check=True,
        ).stdout

    def sign(self, data: bytes) -> bytes:
        return self.gpg("--armor", "--local-user", self.fingerprint, "--detach-sign", data=data)

    def public(self) -> bytes:
        return self.gpg("--armor", "--export", self.fingerprint)


@pytest.fixture(scope="module")
def keys() -> Iterator[tuple[Key, Key]]:
    """Two keys; the home is not in tmp_path, whose name is too long for gpg-agent's socket."""
    home = Path(tempfile.mkdtemp(prefix="gpg-"))
    maker = Key(home, "")
    made = []
    for owner in ("signer@example.org", "other@example.org"):
        maker.gpg("--passphrase", "", "--quick-generate-key", owner, "ed25519", "sign", "never")
        listing = maker.gpg("--list-keys", "--with-colons", owner).decode()
        found = re.search(r"^fpr:+([0-9A-F]{40}):", listing, re.MULTILINE)
        assert found
        made.append(Key(home, found[1]))
    yield made[0], made[1]
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)
    shutil.rmtree(home)


@dataclass
class Mirror:
    """A server of release files; ``refusals`` are codes it gives first, by path, one a request."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    refusals: dict[str, list[int]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def release(self, *trusted: Key) -> Release:
        return Release(self.url, "9.9.9", tuple(key.fingerprint for key in trusted))


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    content = Mirror()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            codes = content.refusals.get(self.path, [])
            code = codes.pop(0) if codes else 200 if self.path in content.files else 404
            body = content.files.get(self.path, b"") if code == 200 else b"refused"
            self.send_response(code)
            if content.broken.get(self.path) != "no length":
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            how = content.broken.get(self.path)
            self.wfile.write(body[: len(body) // 2] if how in ("cut", "reset") else body)
            if how == "reset":
                self.wfile.flush()
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()

    with small_web.serving(Handler) as content.url:
        yield content


@pytest.fixture(autouse=True)
def verifier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The only program of the node that can tell whether a signature is good."""
    only = getattr(request, "param", "gpgv")
    monkeypatch.setattr(process, "has", lambda name: name == only)


@pytest.fixture
def signed(mirror: Mirror, keys: tuple[Key, Key]) -> Mirror:
    signer, other = keys
    mirror.files = {
        PATH: PACKAGE,
        f"{PATH}.asc": signer.sign(PACKAGE),
        "/public_keys/KEYS": b"AWS keys\n\n" + other.public() + b"\n" + signer.public(),
    }
    return mirror


def refusal(from_: Release, directory: Path) -> AgentError:
    with pytest.raises(AgentError) as caught:
        releases.fetch(from_, "x86_64", "deb", directory)
    assert not (directory / NAME).exists()
    return caught.value


@VERIFIERS
def test_a_signed_package_is_fetched(signed: Mirror, keys: tuple[Key, Key], tmp_path: Path) -> None:
    package = releases.fetch(signed.release(keys[0]), "x86_64", "deb", tmp_path)
    assert package == tmp_path / NAME
    assert package.read_bytes() == PACKAGE


@pytest.mark.parametrize(
    "keys_text",
    [
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n" + b"\n" * 200_000,
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n" * 20_000,
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n" + b"a: b\n" * 100_000 + b"AAAA" * 50_000,
    ],
)
def test_no_file_of_keys_takes_long(
    signed: Mirror, keys: tuple[Key, Key], tmp_path: Path, keys_text: bytes
) -> None:
    """1,600 line breaks took six seconds, and 16,000 would have taken an hour and a half."""
    signed.files["/public_keys/KEYS"] = keys_text
    began = time.process_time()
    refusal(signed.release(keys[0]), tmp_path)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("name", [f"{PATH}.asc", "/public_keys/KEYS"])
def test_an_endless_signature_or_key_file_is_refused(
    signed: Mirror, keys: tuple[Key, Key], tmp_path: Path, name: str
) -> None:
    signed.files[name] = b"x" * (2 << 20)
    error = refusal(signed.release(keys[0]), tmp_path)
    assert error.problem is Problem.PACKAGE_BROKEN


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("glue", [b"", b"\n", b"text between\n"])
def test_a_file_of_two_armored_keys_serves_both(
    signed: Mirror, keys: tuple[Key, Key], tmp_path: Path, order: tuple[int, int], glue: bytes
) -> None:
    signed.files["/public_keys/KEYS"] = glue.join(keys[n].public() for n in order)
    for key in keys:
        signed.files[f"{PATH}.asc"] = key.sign(PACKAGE)
        releases.fetch(signed.release(*keys), "x86_64", "deb", tmp_path)


def test_armor_may_have_headers_and_windows_line_ends(
    signed: Mirror, keys: tuple[Key, Key], tmp_path: Path
) -> None:
    headed = keys[0].public().replace(b"BLOCK-----\n", b"BLOCK-----\nVersion: GnuPG v2\n", 1)
    signed.files["/public_keys/KEYS"] = headed.replace(b"\n", b"\r\n")
    releases.fetch(signed.release(keys[0]), "x86_64", "deb", tmp_path)


@VERIFIERS
def test_a_good_signature_by_a_key_that_is_not_pinned_is_refused(
    signed: Mirror, keys: tuple[Key, Key], tmp_path: Path
) -> None:
    error = refusal(signed.release(keys[1]), tmp_path)
    assert error.problem is Problem.SIGNING_KEY_UNKNOWN
    assert keys[0].fingerprint in error.message
    assert is_lasting(error)


@VERIFIERS
def test_a_signature_by_a_key_that_is_not_there_is_refused(
    signed: Mirror, keys: tuple[Key, Key], tmp_path: Path
) -> None:
    signed.files["/public_keys/KEYS"] = keys[1].public()
    error = refusal(signed.release(*keys), tmp_path)
    assert error.problem is Problem.SIGNING_KEY_UNKNOWN


@VERIFIERS
@pytest.mark.parametrize("package", [PACKAGE[:-1], PACKAGE + b"\n", b"", b"X" + PACKAGE[1:]])
def test_another_file_than_the_signed_one_is_refused(
    signed: Mirror, keys: tuple[Key, Key], tmp_path: Path, package: bytes
) -> None:
    signed.files[PATH] = package
    error = refusal(signed.release(keys[0]), tmp_path)
    assert error.problem is Problem.SIGNATURE_BAD
    assert is_lasting(error)


@VERIFIERS
@pytest.mark.parametrize("name", [f"{PATH}.asc", "/public_keys/KEYS"])
@pytest.mark.parametrize("content", [b"", b"\xff\x00garbage"])
def test_garbage_for_signature_or_keys_is_refused(
    signed: Mirror, keys: tuple[Key, Key], tmp_path: Path, name: str, content: bytes
) -> None:
    signed.files[name] = content
    error = refusal(signed.release(keys[0]), tmp_path)
    assert error.problem in (Problem.SIGNATURE_BAD, Problem.SIGNING_KEY_UNKNOWN)


@pytest.mark.parametrize("verifier", ["none"], indirect=True)
def test_where_nothing_can_tell_nothing_is_installed(
    signed: Mirror, keys: tuple[Key, Key], tmp_path: Path
) -> None:
    error = refusal(signed.release(keys[0]), tmp_path)
    assert error.problem is Problem.VERIFIER_MISSING
    assert "gpgv, sqv or gpg" in error.hint


@VERIFIERS
def test_a_subkey_counts_as_the_key_that_it_belongs_to(
    signed: Mirror, keys: tuple[Key, Key], tmp_path: Path
) -> None:
    maker = Key(keys[0].home, "")
    maker.gpg("--passphrase", "", "--quick-generate-key", "sub@example.org", "ed25519", "cert")
    listing = maker.gpg("--list-keys", "--with-colons", "sub@example.org").decode()
    found = re.search(r"^fpr:+([0-9A-F]{40}):", listing, re.MULTILINE)
    assert found
    key = Key(maker.home, found[1])
    key.gpg("--passphrase", "", "--quick-add-key", key.fingerprint, "ed25519", "sign")
    signed.files[f"{PATH}.asc"] = key.sign(PACKAGE)
    signed.files["/public_keys/KEYS"] = key.public()
    releases.fetch(signed.release(key), "x86_64", "deb", tmp_path)
    assert refusal(signed.release(keys[0]), tmp_path).problem is Problem.SIGNING_KEY_UNKNOWN


@pytest.mark.parametrize("name", [PATH, f"{PATH}.asc", "/public_keys/KEYS"])
@pytest.mark.parametrize(
    "page", [b"<html>captive portal</html>", b"\n<!DOCTYPE html>", b"<Error>NoSuchKey</Error>"]
)
def test_a_web_page_in_its_place_is_told_as_one(
    signed: Mirror, keys: tuple[Key, Key], tmp_path: Path, name: str, page: bytes
) -> None:
    signed.files[name] = page
    error = refusal(signed.release(keys[0]), tmp_path)
    assert error.problem is Problem.PACKAGE_BROKEN
    assert f"{signed.url}{name} is a web page" in error.message
    assert "proxy" in error.hint


def test_what_was_refused_is_kept_in_one_place_for_root_alone(
    signed: Mirror, keys: tuple[Key, Key], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside, downloads = tmp_path / "refused", tmp_path / "downloads"
    monkeypatch.setattr(trust, "ASIDE", aside)
    downloads.mkdir()
    error = trust.kept_aside(refusal(signed.release(keys[1]), downloads), downloads)
    assert error.message.endswith(f"which is not AWS's; it is kept in {aside}")
    assert error.problem is Problem.SIGNING_KEY_UNKNOWN
    assert aside.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in aside.iterdir()} == {f"{NAME}.refused", f"{NAME}.asc"}
    assert (aside / f"{NAME}.refused").read_bytes() == PACKAGE
    # There is never more than the last one; what did not come at all is nothing to be kept.
    (aside / "older").touch()
    signed.files[PATH] = b"<html>"
    trust.kept_aside(refusal(signed.release(keys[0]), downloads), downloads)
    assert (aside / f"{NAME}.refused").read_bytes() == b"<html>"
    assert not (aside / "older").exists()
    del signed.files[PATH]
    error = trust.kept_aside(refusal(signed.release(keys[0]), downloads), downloads)
    assert "kept" not in error.message
    assert aside.exists()
    trust.forget_refused()
    assert not aside.exists()


@pytest.mark.parametrize("name", [PATH, f"{PATH}.asc", "/public_keys/KEYS"])
@pytest.mark.parametrize(
    ("code", "patience"),
    [(403, 0), (404, 0), (408, math.inf), (429, math.inf), (500, math.inf), (503, math.inf)],
)
def test_a_refusing_server_is_asked_again_only_where_that_can_help(
    signed: Mirror,
    keys: tuple[Key, Key],
    tmp_path: Path,
    name: str,
    code: int,
    patience: float,
) -> None:
    signed.refusals[name] = [code]
    error = refusal(signed.release(keys[0]), tmp_path)
    assert error.problem is Problem.DOWNLOAD_FAILED
    assert (error.retry_for, str(code) in str(error.cause)) == (patience, True)
    assert f"{signed.url}{name}" in error.message


@pytest.mark.parametrize("how", ["cut", "reset"])
def test_a_download_that_breaks_off_is_worth_another_try(
    signed: Mirror, keys: tuple[Key, Key], tmp_path: Path, how: str
) -> None:
    signed.broken[PATH] = how
    error = refusal(signed.release(keys[0]), tmp_path)
    assert (error.problem, error.retry_for) == (Problem.DOWNLOAD_FAILED, math.inf)


def test_a_server_that_is_busy_at_first_is_waited_for(
    signed: Mirror, keys: tuple[Key, Key], tmp_path: Path
) -> None:
    signed.refusals[PATH] = [503]
    package = patiently(
        lambda: releases.fetch(signed.release(keys[0]), "x86_64", "deb", tmp_path), budget=30
    )
    assert package.read_bytes() == PACKAGE


def test_a_server_that_is_not_there_is_worth_another_try(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    error = refusal(Release(f"http://127.0.0.1:{port}", "9.9.9", ()), tmp_path)
    assert (error.problem, error.retry_for) == (Problem.DOWNLOAD_FAILED, math.inf)


@pytest.mark.parametrize("url", ["file:///etc", "ftp://x", "mirror", "S3://bucket"])
def test_no_other_way_is_gone(tmp_path: Path, url: str) -> None:
    error = refusal(Release(url, "9.9.9", ()), tmp_path)
    assert (error.problem, is_lasting(error)) == (Problem.DOWNLOAD_FAILED, True)
