"""Whether a package is what somebody signed whom we trust: a detached OpenPGP signature, by a key
that is pinned by its fingerprint.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from pathlib import Path

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.filesystem import disk, files
from s3mount_agent.system import process

_BEGIN = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
_END = "-----END PGP PUBLIC KEY BLOCK-----"


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
