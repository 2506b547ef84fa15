"""A GnuPG key made for one run, which signs packages as AWS's release key does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.host import run

if TYPE_CHECKING:
    from pathlib import Path


class Signer:
    """A key pair without a passphrase in a GnuPG home of its own.

    fingerprint: 40 hexadecimal digits. public_key: the armoured key.
    """

    def __init__(self, home: Path, owner: str | None = None) -> None:
        """Make the directory `home` and a key in it; `home` must be a short path (a socket's).

        Without an owner, the key is there already.
        """
        self._home = home
        home.mkdir(mode=0o700, exist_ok=owner is None)
        make = ("--quick-generate-key", str(owner), "ed25519", "sign", "never")
        try:
            if owner is not None:
                self._gpg("--passphrase", "", *make)
            self.fingerprint = self._first_fingerprint()
            self.public_key = self._gpg("--armor", "--export", self.fingerprint)
        except BaseException:
            self.close()
            raise

    def _gpg(self, *arguments: str) -> str:
        return run("gpg", "--homedir", str(self._home), "--batch", "--yes", *arguments)

    def _first_fingerprint(self) -> str:
        for line in self._gpg("--list-keys", "--with-colons").splitlines():
            fields = line.split(":")
            if fields[0] == "fpr":
                return fields[9]
        raise LookupError(f"no key in {self._home}")

    def sign(self, file: Path, signature: Path) -> None:
        """Write an armoured detached signature of `file`."""
        self._gpg("--armor", "--output", str(signature), "--detach-sign", str(file))

    def clearsign(self, file: Path, signed: Path) -> None:
        """Write a text with its signature around it."""
        self._gpg("--output", str(signed), "--clearsign", str(file))

    def close(self) -> None:
        """End the agent that gpg has left behind; it would outlive this process."""
        run("gpgconf", "--homedir", str(self._home), "--kill", "gpg-agent")
