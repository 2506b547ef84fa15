"""A mirror of AWS's release bucket of mount-s3 and of the distribution's packages, over HTTP."""

from __future__ import annotations

import functools
import http.server
import shutil
import socketserver
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.host import run
from cluster.signing import Signer

if TYPE_CHECKING:
    from collections.abc import Callable

# How AWS names what dpkg calls amd64 and arm64, and rpm x86_64 and aarch64.
ARCHITECTURES = {
    "amd64": ("x86_64",),
    "x86_64": ("x86_64",),
    "arm64": ("arm64",),
    "aarch64": ("arm64",),
    "all": ("x86_64", "arm64"),
}
OWNER = "Mountpoint for Amazon S3 (simulation) <mountpoint@example.com>"
STRANGER = "Somebody Else <stranger@example.com>"


def package_version(package: Path) -> str:
    """Return the version that a .deb says it has, as `1.23.0`."""
    return run("dpkg-deb", "--field", str(package), "Version").strip()


@dataclass
class Trouble:
    """How a file is served: first ``refusals`` times with 503, then with a redirect to another
    path, there broken off once after ``cut`` bytes, and in ``pieces`` with a second between two."""

    refusals: int = 0
    moved: bool = False
    cut: int = 0
    pieces: int = 1


class Mirror:
    """A static web server with `/mountpoint-s3-release/` (AWS's layout) and what is offered.

    url: its address without a slash at the end. fingerprint: of the key that signs the releases.
    requests: the path of each request, in the order of arrival.
    """

    def __init__(self, address: str, folder: Path) -> None:
        """Listen on a free port of `address`; `folder`, which must not exist, holds the files."""
        folder.mkdir()
        self.requests: list[str] = []
        self._troubles: dict[str, Trouble] = {}
        self._gnupg = folder / "gnupg"
        self._gnupg.mkdir()
        self._files = folder / "files"
        self._releases = self._files / "mountpoint-s3-release"
        keys = self._releases / "public_keys/KEYS"
        keys.parent.mkdir(parents=True)
        self._signer = Signer(self._gnupg / "release", OWNER)
        self.fingerprint = self._signer.fingerprint
        keys.write_text(self._signer.public_key, encoding="ascii")
        try:
            handler = functools.partial(
                _Handler, self.requests, self._troubles, directory=str(self._files)
            )
            self._server = _Server((address, 0), handler)
        except BaseException:
            self._signer.close()
            raise
        self.url = f"http://{address}:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="mirror", daemon=True
        )
        self._thread.start()

    def offer(self, name: str, folder: Path) -> None:
        """Serve the files of a folder, a repository for apt or dnf, as `/name/`."""
        (self._files / name).symlink_to(folder)

    def publish(self, package: Path, version: str) -> None:
        """Release a .deb or .rpm under `version`, signed, and as the latest from now on."""
        kind = package.suffix
        for folder in ARCHITECTURES[_architecture(package)]:
            release = self._releases / version / folder / f"mount-s3-{version}-{folder}{kind}"
            release.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(package, release)
            self._signer.sign(release, _signature(release))
            latest = self._releases / "latest" / folder / f"mount-s3{kind}"
            latest.parent.mkdir(parents=True, exist_ok=True)
            # Links, so that what breaks a release breaks it as the latest one, too.
            for link, target in ((latest, release), (_signature(latest), _signature(release))):
                link.unlink(missing_ok=True)
                link.symlink_to(target)

    def replace(self, version: str, content: bytes) -> None:
        """Put something else in the place of a release's packages; their signatures stay."""
        for package in self._packages(version):
            package.write_bytes(content)

    def behave(self, version: str, trouble: Trouble) -> None:
        """Answer requests for the packages of a release in another way from now on."""
        for package in self._packages(version):
            self._troubles[f"/{package.relative_to(self._files)}"] = trouble

    def put_into(self, put: Callable[[str, bytes], object]) -> None:
        """Give all releases to whoever keeps files by their names: ``put(name, content)``."""
        for path in sorted(self._releases.rglob("*")):
            if path.is_file():
                put(str(path.relative_to(self._releases)), path.read_bytes())

    def truncate(self, version: str) -> None:
        """Cut the packages of a release in half, as an interrupted upload does."""
        for package in self._packages(version):
            content = package.read_bytes()
            package.write_bytes(content[: len(content) // 2])

    def corrupt_signature(self, version: str) -> None:
        """Put something else in the place of a release's signatures."""
        for package in self._packages(version):
            _signature(package).write_text("this is not a signature\n", encoding="ascii")

    def resign_with_unknown_key(self, version: str) -> None:
        """Sign a release's packages correctly, but with a key that nobody has heard of."""
        stranger = Signer(self._gnupg / f"stranger-{version}", STRANGER)
        try:
            for package in self._packages(version):
                stranger.sign(package, _signature(package))
        finally:
            stranger.close()

    def _packages(self, version: str) -> list[Path]:
        packages = sorted((self._releases / version).glob("*/*.[dr][ep][bm]"))
        if not packages:
            raise LookupError(f"version {version} was never published")
        return packages

    def close(self) -> None:
        """Stop listening, and end GnuPG's agent."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._signer.close()


def _signature(package: Path) -> Path:
    return package.with_name(f"{package.name}.asc")


def _architecture(package: Path) -> str:
    if package.suffix == ".rpm":
        return package.name.split(".")[-2]
    return run("dpkg-deb", "--field", str(package), "Architecture").strip()


class _Server(socketserver.ThreadingTCPServer):
    """http.server.ThreadingHTTPServer, except that it does not ask the DNS for its own name."""

    daemon_threads = True


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files, and writes each request to a list instead of to the terminal."""

    protocol_version = "HTTP/1.1"  # apt keeps its connection open
    timeout = 60  # seconds without a request, after which a connection is closed

    def __init__(
        self,
        requests: list[str],
        troubles: dict[str, Trouble],
        *args: object,
        directory: str,
    ) -> None:
        self._requests = requests
        self._troubles = troubles
        super().__init__(*args, directory=directory)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        moved = self.path.endswith("?moved")
        self.path = self.path.removesuffix("?moved")
        trouble = self._troubles.get(self.path)
        if trouble is None:
            super().do_GET()
        elif trouble.refusals > 0:
            trouble.refusals -= 1
            self.send_error(http.HTTPStatus.SERVICE_UNAVAILABLE)
        elif trouble.moved and not moved:
            self.send_response(http.HTTPStatus.FOUND)
            self.send_header("Location", f"{self.path}?moved")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._send(trouble)

    def _send(self, trouble: Trouble) -> None:
        """The file, or the rest of it that is asked for, as troubled as it is."""
        content = Path(self.translate_path(self.path)).read_bytes()
        asked = self.headers.get("Range")
        begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        self.send_response(http.HTTPStatus.PARTIAL_CONTENT if asked else http.HTTPStatus.OK)
        self.send_header("ETag", '"one"')
        self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        rest, cut = content[begin:], trouble.cut
        if cut:
            trouble.cut, self.close_connection = 0, True
            rest = rest[:cut]
        length = -(-len(rest) // trouble.pieces)
        for at in range(0, len(rest), length):
            self.wfile.write(rest[at : at + length])
            time.sleep(1 if trouble.pieces > 1 else 0)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        self._requests.append(self.path)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
