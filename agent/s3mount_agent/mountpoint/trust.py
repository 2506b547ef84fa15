"""Whether a package is what somebody signed whom we trust: a detached OpenPGP signature, by a key
that is pinned by its fingerprint. Where what was refused is kept.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.filesystem import disk, files, paths
from s3mount_agent.system import process

ASIDE = paths.STATE / "refused"
_SECONDS = 60.0
_BEGIN = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
_END = "-----END PGP PUBLIC KEY BLOCK-----"
_SQV_KEY = re.compile(r"^[0-9A-F]{40,64}$", re.MULTILINE)
_SQV_MISSING = re.compile(r"Missing key ([0-9A-F]{16,64})")


class _Verdict(NamedTuple):
    """What a program says of a signature: the fingerprints of the keys that made it, if it is good;
    else the key that would be needed, or neither. ``words`` are its own."""

    signers: frozenset[str]
    missing: str
    words: str


def verify(package: Path, signature: Path, keys: Path, fingerprints: tuple[str, ...]) -> None:
    """Raises unless ``signature`` is a good one of ``package`` by one of the pinned keys:
    ``signature-bad``, ``signing-key-unknown``, or ``verifier-missing`` where nothing on this node
    can tell.

    The key file is as untrusted as the package: what counts is the fingerprint that the good
    signature was made with.
    """
    keyring = keys.with_suffix(".gpg")
    armored = (files.read(keys) or "").encode("ascii", errors="replace").decode("ascii")
    armored = armored.replace("\r\n", "\n")
    with files.told_plainly(f"write {keyring}"), disk.create(keyring) as file:
        file.write(_dearmor(armored))
    ask = next((ask for program, ask in _VERIFIERS.items() if process.has(program)), None)
    if ask is None:
        raise AgentError(
            Problem.VERIFIER_MISSING,
            f"nothing on this node can tell whether {package.name} is AWS's, so that it is not "
            "installed",
        )
    verdict = ask(keyring, signature, package)
    if verdict.signers.intersection(fingerprints):
        return
    unknown = min(verdict.signers, default=verdict.missing)
    if unknown:
        raise AgentError(
            Problem.SIGNING_KEY_UNKNOWN,
            f"{package.name} is signed with the key {unknown}, which is not AWS's",
        )
    raise AgentError(
        Problem.SIGNATURE_BAD,
        f"the signature of {package.name} does not fit the file",
        cause=verdict.words or None,
    )


def _gpgv(keyring: Path, signature: Path, package: Path) -> _Verdict:
    return _gnupg(["gpgv", f"--keyring={keyring}"], signature, package)


def _gpg(keyring: Path, signature: Path, package: Path) -> _Verdict:
    """With a home of its own: neither the keys nor the trust of whoever runs us matter."""
    home = keyring.with_suffix(".home")
    disk.empty_directory(home, mode=0o700)
    own = [f"--homedir={home}", "--batch", "--no-tty", "--no-default-keyring"]
    only = [f"--keyring={keyring}", "--trust-model=always", "--no-auto-key-retrieve", "--verify"]
    return _gnupg(["gpg", *own, *only], signature, package)


def _gnupg(command: list[str], signature: Path, package: Path) -> _Verdict:
    """What GnuPG's programs say to machines: its doc/DETAILS."""
    program, *options = command
    answer = process.run(
        [program, "--status-fd=1", *options, str(signature), str(package)],
        timeout=_SECONDS,
        check=False,
    )
    status = [line.split() for line in answer.stdout.splitlines() if line.startswith("[GNUPG:]")]
    words = {fields[1]: fields[2:] for fields in status}
    signers: frozenset[str] = frozenset()
    if answer.code == 0 and "GOODSIG" in words and "VALIDSIG" in words:
        # First the key that signed, last the primary key it belongs to.
        signers = frozenset({words["VALIDSIG"][0], words["VALIDSIG"][-1]})
    return _Verdict(signers, words.get("NO_PUBKEY", [""])[0], answer.last_words())


def _sqv(keyring: Path, signature: Path, package: Path) -> _Verdict:
    """Sequoia's, which apt brings from Debian 13 on. It prints the primary keys of good ones."""
    command = ["sqv", f"--keyring={keyring}", str(signature), str(package)]
    answer = process.run(command, timeout=_SECONDS, check=False)
    signers = frozenset(_SQV_KEY.findall(answer.stdout)) if answer.code == 0 else frozenset()
    missing = _SQV_MISSING.search(answer.stderr)
    return _Verdict(signers, missing[1] if missing else "", answer.last_words())


# In the order in which they are taken.
_VERIFIERS: dict[str, Callable[[Path, Path, Path], _Verdict]] = {
    "gpgv": _gpgv,
    "sqv": _sqv,
    "gpg": _gpg,
}


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


_REFUSALS = (
    Problem.PACKAGE_BROKEN,
    Problem.PACKAGE_OTHER,
    Problem.SIGNATURE_BAD,
    Problem.SIGNING_KEY_UNKNOWN,
    Problem.VERIFIER_MISSING,
)


def kept_aside(error: AgentError, directory: Path) -> AgentError:
    """The same error; a package that is refused with it is kept with its signature, for root alone,
    and the error says where. What was refused before goes."""
    if error.problem not in _REFUSALS or not disk.matching(directory, "mount-s3*[!c]"):
        return error
    try:
        disk.empty_directory(ASIDE, mode=0o700)
        for path in disk.matching(directory, "mount-s3*"):
            disk.move(path, ASIDE / path.name)
    except AgentError:  # why it was refused is what matters
        return error
    return error.saying(f"{error.message}; it is kept in {ASIDE}")


def forget_refused() -> None:
    """Removes what was refused: something better has come."""
    disk.remove_tree(ASIDE)
