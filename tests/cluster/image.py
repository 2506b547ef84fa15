"""The root file system that all nodes of a kind share, and the packages they may fetch later."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster import rpms
from cluster.host import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.systems import Recipe

CACHE_VARIABLE = "S3MOUNT_TEST_CACHE"
DEFAULT_CACHE = "/var/cache/s3mount-agent-tests"

FIRST_USER = "ubuntu"
# Units that a container has no use for, and that cost boot time or touch the host's kernel.
MASKED_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
    "dev-hugepages.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-firstboot.service",
    "systemd-modules-load.service",
    "systemd-networkd.service",
    "systemd-pstore.service",
    "systemd-sysctl.service",
)
# The unit to which a test's commands in a node belong, as on a real one they belong to cloud-init
# or the SSM agent. Without a unit they would be there until the very end of a shutdown, where
# systemd waits for ten seconds for processes whose parent is outside of the node.
VISITORS = "visitors.service"
VISITORS_UNIT = """\
[Unit]
Description=Commands from outside of the node

[Service]
ExecStart=/bin/sleep infinity
Delegate=yes
TimeoutStopSec=10

[Install]
WantedBy=multi-user.target
"""
BUILD_DEADLINE = 900.0  # seconds; about one minute on a fast mirror


@dataclass(frozen=True)
class Image:
    """A finished image; its folders are read-only for everybody.

    root: the root file system, the lower layer of every node's overlay. later: the packages that
    it lacks and a node may fetch, as a repository: a flat one for apt (`deb [trusted=yes] URL ./`),
    or one for dnf. key: GnuPG's home with the key that signs the latter's packages.
    """

    root: Path
    later: Path
    key: Path


def ensure_image(recipe: Recipe) -> Image:
    """Return the image of a recipe, and build it first where it is not there yet.

    Needs root. Raises cluster.host.ProgramError when debootstrap or apt fail; whatever happens,
    the cache holds complete images only.
    """
    cache = Path(os.environ.get(CACHE_VARIABLE, DEFAULT_CACHE))
    cache.mkdir(parents=True, exist_ok=True)
    # Whatever changes in how it is made makes another image.
    makers = [Path(__file__).with_name("rpms.py")] if recipe.rpm else []
    made_by = [path.read_bytes() for path in (Path(__file__), *makers)]
    key = hashlib.sha256(b"\0".join([repr(recipe).encode(), *made_by])).hexdigest()[:12]
    folder = cache / f"image-{recipe.name}-{key}"
    if not folder.exists():
        with _locked(cache / "lock"):
            if not folder.exists():
                _build(recipe, cache, folder)
    return Image(folder / "root", folder / "later", folder / "key")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(recipe: Recipe, cache: Path, folder: Path) -> None:
    """Build an image beside `folder` and rename it into place; the caller holds the lock."""
    for abandoned in cache.glob("building-*"):  # its builder was killed: we hold the lock
        shutil.rmtree(abandoned)
    building = Path(tempfile.mkdtemp(prefix="building-", dir=cache))
    try:
        root, later = building / "root", building / "later"
        _install(recipe, root)
        _set_up(root)
        debs = building / "debs"
        _download(recipe, root, debs)
        if recipe.rpm:
            rpms.set_up(root)
            rpms.make_repository(debs, later, building / "key")
            rpms.trust(root, building / "key")
            shutil.rmtree(debs)
        else:
            debs.rename(later)
        _forget_package_sources(root)
        building.chmod(0o755)
        building.rename(folder)
    except BaseException:
        shutil.rmtree(building)
        raise


def _isolated(*argv: str) -> str:
    """Run `argv` where its mounts and processes end with it, also when it is interrupted."""
    isolation = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    return run(*isolation, *argv, timeout=BUILD_DEADLINE, env=environment)


def _install(recipe: Recipe, root: Path) -> None:
    mirror = _host_mirror(recipe.suite)
    include = f"--include={','.join(recipe.packages)}"
    where = [recipe.suite, str(root), *([mirror] if mirror else [])]
    _isolated("debootstrap", "--variant=minbase", include, *where)


def _host_mirror(suite: str) -> str | None:
    """Return the URL from which this machine gets Debian, None where it gets another system."""
    targets = run("apt-get", "indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)")
    urls = {}
    for origin, codename, url in (line.split(" ", 2) for line in targets.splitlines()):
        if origin == "Debian":
            urls[codename] = url
    # A mirror has all of Debian's releases, but security updates are elsewhere.
    others = [url for codename, url in urls.items() if "-" not in codename]
    return urls.get(suite) or next(iter(others), None)


def _set_up(root: Path) -> None:
    """Add the cluster's user, and leave out what makes one machine different from another."""
    _isolated(
        "chroot", str(root), "useradd", "--uid=1000", "--user-group", "--create-home",
        "--shell=/bin/bash", FIRST_USER,
    )  # fmt: skip
    _isolated("systemctl", f"--root={root}", "mask", *MASKED_UNITS)
    (root / "etc/systemd/system" / VISITORS).write_text(VISITORS_UNIT, encoding="ascii")
    _isolated("systemctl", f"--root={root}", "enable", VISITORS)
    (root / "var/log/journal").mkdir(exist_ok=True)  # its presence makes the journal persistent
    (root / "etc/machine-id").write_text("", encoding="ascii")
    for made_by_debootstrap in ("etc/hostname", "etc/resolv.conf"):
        (root / made_by_debootstrap).unlink(missing_ok=True)


def _download(recipe: Recipe, root: Path, debs: Path) -> None:
    """Fetch the recipe's later packages and their dependencies, with the index that apt reads."""
    # A resolver's address for as long as the mirror is needed.
    shutil.copyfile("/etc/resolv.conf", root / "etc/resolv.conf")
    apt_get = ("chroot", str(root), "apt-get", "--quiet", "--yes")
    _isolated(*apt_get, "clean")  # debootstrap leaves the packages of the image there
    _isolated(*apt_get, "update")
    _isolated(*apt_get, "install", "--download-only", "--no-install-recommends", *recipe.later)
    debs.mkdir()
    for package in (root / "var/cache/apt/archives").glob("*.deb"):
        shutil.move(str(package), debs / package.name)
    stanzas = (_stanza(package) for package in sorted(debs.glob("*.deb")))
    (debs / "Packages").write_text("\n".join(stanzas), encoding="utf-8")


def _stanza(package: Path) -> str:
    """Return the entry of one .deb in a repository's Packages file."""
    content = package.read_bytes()
    return (
        f"{run('dpkg-deb', '--field', str(package)).rstrip()}\n"
        f"Filename: ./{package.name}\n"
        f"Size: {len(content)}\n"
        f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
    )


def _forget_package_sources(root: Path) -> None:
    """Leave the image without package lists and sources: a node gets the cluster's own."""
    _isolated("chroot", str(root), "apt-get", "clean")
    for listed in (root / "var/lib/apt/lists").iterdir():
        if listed.is_file():
            listed.unlink()
    (root / "etc/apt/sources.list").write_text("", encoding="ascii")
    (root / "etc/resolv.conf").unlink()
