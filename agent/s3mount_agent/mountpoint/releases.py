"""AWS's releases of mount-s3: where they are, and whether they are AWS's.

https://github.com/awslabs/mountpoint-s3/blob/main/doc/INSTALL.md
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import math
import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.versions import PINNED, Install
from s3mount_agent.filesystem import disk, files
from s3mount_agent.system import process
from s3mount_agent.system.threads import together

DEFAULT_URL = "https://s3.amazonaws.com/mountpoint-s3-release"
DEFAULT_VERSION = PINNED
# AWS's signing keys: the one in use since 1.22.2 (March 2026), and the one before it.
DEFAULT_FINGERPRINTS = (
    "8AEFE705EBE329C0948C75A66F1C3B3AEF4B030B",
    "673FE4061506BB469A0EF857BE397A52B086DA5A",
)
_WHOLE_SECONDS = 300.0
_LARGEST_BYTES = 200 << 20
# Of a signature, and of a file of public keys: AWS's have 1 and 6 KB.
_LARGEST_TEXT_BYTES = 1 << 20
_BEGIN = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
_END = "-----END PGP PUBLIC KEY BLOCK-----"


@dataclass(frozen=True)
class Release:
    """Where mount-s3 comes from; ``fingerprints`` are the keys it may be signed with."""

    url: str = DEFAULT_URL
    version: str = DEFAULT_VERSION
    fingerprints: tuple[str, ...] = DEFAULT_FINGERPRINTS

    @staticmethod
    def chosen(source: Install) -> Release:
        """A mirror may be named in the configuration or, for this node alone, in the agent's
        environment file; the keys that packages may be signed with only there: whoever writes the
        configuration must not be able to install anything as root."""
        named = os.environ.get("S3MOUNT_RELEASE_FINGERPRINTS", "")
        fingerprints = tuple(re.sub(r"[\s:]", "", f).upper() for f in named.split(",") if f)
        return Release(
            (os.environ.get("S3MOUNT_RELEASE_URL") or source.url or DEFAULT_URL).rstrip("/"),
            os.environ.get("S3MOUNT_RELEASE_VERSION") or source.version or DEFAULT_VERSION,
            fingerprints or DEFAULT_FINGERPRINTS,
        )

    def package_url(self, architecture: str, extension: str) -> str:
        """The URL of a package: ``architecture`` x86_64 or arm64, ``extension`` deb or rpm."""
        if self.version == "latest":
            return f"{self.url}/latest/{architecture}/mount-s3.{extension}"
        name = f"mount-s3-{self.version}-{architecture}.{extension}"
        return f"{self.url}/{self.version}/{architecture}/{name}"


def fetch(release: Release, architecture: str, extension: str, directory: Path) -> Path:
    """Downloads a package, its signature and the public keys, and returns the package once proven.

    Raises ``download-failed``, ``package-broken``, ``signature-bad`` or ``signing-key-unknown``;
    then nothing of it stays in ``directory``.
    """
    url = release.package_url(architecture, extension)
    package = directory / url.rpartition("/")[2]
    signature = directory / f"{package.name}.asc"
    keys = directory / "KEYS"
    try:
        wanted = (
            (url, package, _LARGEST_BYTES),
            (f"{url}.asc", signature, _LARGEST_TEXT_BYTES),
            (f"{release.url}/public_keys/KEYS", keys, _LARGEST_TEXT_BYTES),
        )
        together([partial(_download, *each) for each in wanted], at_once=len(wanted))
        verify(package, signature, keys, release.fingerprints)
    except BaseException:
        files.remove(package)
        raise
    return package


def verify(package: Path, signature: Path, keys: Path, fingerprints: tuple[str, ...]) -> None:
    """Raises unless ``signature`` is a good one of ``package`` by one of the pinned keys.

    The key file is as untrusted as the package: what counts is the fingerprint that the good
    signature was made with.
    """
    keyring = keys.with_suffix(".gpg")
    armored = (files.read(keys) or "").encode("ascii", errors="replace").decode("ascii")
    armored = armored.replace("\r\n", "\n")
    with files.told_plainly(f"write {keyring}"), disk.create(keyring) as file:
        file.write(_dearmor(armored))
    answer = process.run(
        ["gpgv", "--status-fd=1", f"--keyring={keyring}", str(signature), str(package)],
        timeout=60,
        check=False,
    )
    status = [line.split() for line in answer.stdout.splitlines() if line.startswith("[GNUPG:]")]
    words = {fields[1]: fields[2:] for fields in status}
    if answer.code == 0 and "GOODSIG" in words and "VALIDSIG" in words:
        # First the key that signed, last the primary key it belongs to: gnupg's doc/DETAILS.
        signers = {words["VALIDSIG"][0], words["VALIDSIG"][-1]}
        if not signers.intersection(fingerprints):
            raise _unknown_key(package, signers.pop())
        return
    if "NO_PUBKEY" in words:
        raise _unknown_key(package, words["NO_PUBKEY"][0])
    raise AgentError(
        Problem.SIGNATURE_BAD,
        f"the signature of {package.name} does not fit the file",
        cause=answer.last_words() or None,
    )


def _unknown_key(package: Path, key: str) -> AgentError:
    return AgentError(
        Problem.SIGNING_KEY_UNKNOWN,
        f"{package.name} is signed with the key {key}, which is not AWS's",
    )


def _dearmor(text: str) -> bytes:
    """The binary form of one or more armored public keys (RFC 9580, section 6), line by line."""
    keys = b""
    body: list[str] | None = None
    for line in map(str.strip, text.splitlines()):
        if line == _BEGIN:
            body = []
        elif body is not None and line == _END:
            with contextlib.suppress(binascii.Error):
                keys += base64.b64decode("".join(body))
            body = None
        # Headers have a colon; the checksum comes last, and nobody checks it any more.
        elif body is not None and ":" not in line and not line.startswith("="):
            body.append(line)
    return keys


def _download(url: str, target: Path, limit: int) -> None:
    from s3mount_agent.system import web  # slow, and rarely needed

    if not url.startswith(("https://", "http://")):
        raise AgentError(Problem.DOWNLOAD_FAILED, f"{url} is not an http(s) URL")
    file = disk.create(target)

    def take(piece: bytes) -> None:
        with files.told_plainly(f"write {target}"):
            file.write(piece)

    try:
        with file:
            web.get(url, take, limit=limit, seconds=_WHOLE_SECONDS)
    except web.TooLargeError:
        raise AgentError(Problem.PACKAGE_BROKEN, f"{url} is larger than it can be") from None
    except web.WebError as error:
        raise AgentError(
            Problem.DOWNLOAD_FAILED,
            f"{url} could not be downloaded",
            cause=str(error),
            retry_for=0 if error.final else math.inf,
        ) from None
