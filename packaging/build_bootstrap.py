"""Builds dist/s3mount-bootstrap: one file, the same bytes for the same commit.

The file is ``head.sh`` followed by a zip archive: ``__main__.py`` (``unpack.py``) and, under
``payload/``, what becomes /opt/s3mount-agent/<version>/ on a node.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

HERE = Path(__file__).parent
REPOSITORY = HERE.parent
AGENT = REPOSITORY / "agent/s3mount_agent"
LOCK = HERE / "payload.txt"
# psutil is the one dependency with compiled code; its stable ABI fits every Python.
PLATFORMS = {"x86_64": "manylinux_2_28_x86_64", "aarch64": "manylinux_2_28_aarch64"}
COMPILED = "psutil"
# The AWS services whose models botocore needs here; all of them would be ten times the rest.
SERVICES = ("s3", "ssm", "sts", "sso", "sso-oidc")
# What their endpoints are called, where that is not the service's name.
ENDPOINTS = (*SERVICES, "portal.sso", "oidc")
# What no node ever reads; licences stay. AWS PCS takes no script of more than 2 MiB.
_UNNEEDED = (
    *("*.pyi", "*.so", "*.c", "*.h", "py.typed"),
    *("*/tests/*", "*/__pycache__/*", "*/examples-1.json*", "*/waiters-2.json*"),
    *(
        "*.dist-info/RECORD",
        "*.dist-info/METADATA",
        "*.dist-info/WHEEL",
        "*.dist-info/top_level.txt",
    ),
    # Only UTC is asked for, boto3's "resources" are never used, and nodes run Linux.
    *("dateutil/zoneinfo/*.tar.gz", "boto3/data/*", "boto3/examples/*"),
    *("psutil/_pswindows.py", "psutil/_psbsd.py", "psutil/_psosx.py", "psutil/_pssunos.py"),
    *(
        "psutil/_psaix.py",
        "urllib3/contrib/securetransport.py",
        "urllib3/contrib/_securetransport/*",
    ),
)
# AWS PCS refuses larger scripts.
_MOST_BYTES = 2_097_152
_EPOCH = (1980, 1, 1, 0, 0, 0)


def main() -> None:
    """Writes dist/s3mount-bootstrap and dist/SHA256SUMS."""
    dist = REPOSITORY / "dist"
    dist.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="s3mount-build-") as name:
        payload = Path(name) / "payload"
        _gather(payload, Path(name))
        data = _assemble(payload)
    if len(data) > _MOST_BYTES:
        sys.exit(f"s3mount-bootstrap has {len(data)} bytes; AWS PCS takes at most {_MOST_BYTES}")
    target = dist / "s3mount-bootstrap"
    digest = hashlib.sha256(data).hexdigest()
    _write(target, data, 0o755)
    _write(dist / "SHA256SUMS", f"{digest}  {target.name}\n".encode(), 0o644)
    print(f"dist/{target.name}: {len(data) / 1e6:.1f} MB, sha256 {digest}")


def _write(path: Path, data: bytes, mode: int) -> None:
    """Whole or not at all: the tests of several processes build and use it at the same time."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    Path(file.name).chmod(mode)
    Path(file.name).replace(path)


def _gather(payload: Path, scratch: Path) -> None:
    """Lays out the payload: ``lib`` for every processor, ``lib-<machine>`` for one."""
    names = [line.strip() for line in LOCK.read_text().splitlines()]
    pinned = [line for line in names if line and not line.startswith("#")]
    pure = [line for line in pinned if not line.lower().startswith(COMPILED)]
    compiled = [line for line in pinned if line not in pure]
    _unpack_wheels(_download(pure, PLATFORMS["x86_64"], scratch / "pure"), payload / "lib")
    for machine, platform in PLATFORMS.items():
        wheels = _download(compiled, platform, scratch / machine)
        _unpack_wheels(wheels, payload / f"lib-{machine}", keep=("*.so",))
    shutil.copytree(
        AGENT, payload / "lib" / AGENT.name, ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copyfile(REPOSITORY / "LICENSE", payload / "LICENSE")
    # `systemctl status` and `systemctl help` show people where these are (Documentation=).
    shutil.copytree(
        REPOSITORY / "docs", payload / "docs", ignore=shutil.ignore_patterns("decisions")
    )
    _trim_services(payload / "lib/botocore/data")
    (payload / "payload.sha256").write_text(_digest(payload) + "\n")


def _download(requirements: list[str], platform: str, target: Path) -> list[Path]:
    arguments = ["--no-deps", "--only-binary=:all:", "--python-version=3.9", "--implementation=cp"]
    arguments += ["--abi=abi3", "--abi=none", "--abi=cp39", f"--platform={platform}"]
    arguments += ["--platform=manylinux_2_17_" + platform.partition("28_")[2]]
    arguments += ["--quiet", f"--dest={target}", *requirements]
    subprocess.run([sys.executable, "-m", "pip", "download", *arguments], check=True)
    return sorted(target.glob("*.whl"))


def _unpack_wheels(wheels: list[Path], target: Path, *, keep: tuple[str, ...] = ()) -> None:
    """Unpacks wheels, but for what no node needs; licences stay, in ``*.dist-info``."""
    dropped = [pattern for pattern in _UNNEEDED if pattern not in keep]
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if not name.endswith("/") and not any(fnmatchcase(name, p) for p in dropped):
                    archive.extract(name, target)


def _trim_services(data: Path) -> None:
    for service in data.iterdir():
        if service.is_dir() and service.name not in SERVICES:
            shutil.rmtree(service)
    # botocore reads all of this file for every client: a fifth of what a look at the source costs.
    file = data / "endpoints.json"
    endpoints = json.loads(file.read_text(encoding="utf-8"))
    for partition in endpoints["partitions"]:
        services = partition["services"]
        partition["services"] = {name: services[name] for name in services if name in ENDPOINTS}
    file.write_text(json.dumps(endpoints, separators=(",", ":")), encoding="utf-8")


def _files(payload: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(payload.rglob("*")):
        if path.is_file():
            yield path.relative_to(payload).as_posix(), path


def _digest(payload: Path) -> str:
    """One digest of all names and contents."""
    digest = hashlib.sha256()
    for name, path in _files(payload):
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _assemble(payload: Path) -> bytes:
    """Head and archive as one; the head knows the size of the whole."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        digest = (payload / "payload.sha256").read_text().strip()
        unpack = (HERE / "unpack.py").read_text()
        unpack = unpack.replace("@VERSION@", _version()).replace("@DIGEST@", digest)
        _add(archive, "__main__.py", unpack.encode())
        for name, path in _files(payload):
            _add(archive, f"payload/{name}", path.read_bytes())
    archive_bytes = buffer.getvalue()
    head = (HERE / "head.sh").read_text().replace("@VERSION@", _version())
    size = len(archive_bytes)
    while len(head.replace("@SIZE@", str(size)).encode()) + len(archive_bytes) != size:
        size = len(head.replace("@SIZE@", str(size)).encode()) + len(archive_bytes)
    return head.replace("@SIZE@", str(size)).encode() + archive_bytes


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = 0o644 << 16
    entry.create_system = 3
    archive.writestr(entry, data, zipfile.ZIP_DEFLATED, compresslevel=9)


def _version() -> str:
    text = (AGENT / "__init__.py").read_text()
    return text.partition('__version__ = "')[2].partition('"')[0]


if __name__ == "__main__":
    main()
