"""Rpm packages made of Debian's files, and the repository from which simulated nodes get them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from cluster.host import run
from cluster.signing import Signer

VENDOR = "The distribution (simulation) <distribution@example.com>"
PUBLIC_KEY = "/etc/pki/rpm-gpg/RPM-GPG-KEY-simulation"
# As the distributions ship it.
DNF_CONF = """\
[main]
gpgcheck=1
installonly_limit=3
clean_requirements_on_remove=True
best=True
skip_if_unavailable=False
"""
# The file in /etc/yum.repos.d of a repository whose packages are signed.
REPOSITORY = f"""\
[{{name}}]
name=The distribution's packages ({{name}})
baseurl={{url}}
enabled=1
gpgcheck=1
gpgkey=file://{PUBLIC_KEY}
"""
# What the rpm database of a real system has, and whose files Debian has brought: AWS's rpm and the
# scripts of packages ask for them.
FOUND = {"bash": ("/bin/sh",), "ca-certificates": ()}
BUILD_SECONDS = 120.0
# Where a system's directories are links, rpm wants the files where they are.
MERGED = ("bin", "sbin", "lib", "lib64")
SPEC = """\
Name: {name}
Version: {version}
Release: {release}
Summary: {name}, made of Debian's files for tests
License: see the Debian package
AutoReqProv: no
{depends}
%description
For tests only.
%files
{files}
{scripts}
"""
MACROS = (
    # Else each of rpm's programs makes a database in the home of who builds.
    ("_dbpath", "%{_topdir}/database"),
    ("_build_id_links", "none"),
    ("_buildhost", "localhost"),
    ("__os_install_post", "%{nil}"),
    ("debug_package", "%{nil}"),
    ("_binary_payload", "w1.gzdio"),
)


def set_up(root: Path) -> None:
    """Make a Debian with rpm and dnf look to them like a system of the rpm family."""
    for path, text in {
        "etc/rpm/macros": "%_dbpath /var/lib/rpm\n",
        "etc/dnf/dnf.conf": DNF_CONF,
        "etc/dnf/vars/releasever": "1\n",
    }.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="ascii")
    (root / "etc/yum.repos.d").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name, provides in FOUND.items():
            package = pack(name, "1", Path(scratch), provides=provides)
            shutil.copy(package, root / "root")
            run("chroot", str(root), "rpm", "--install", f"/root/{package.name}")
            (root / "root" / package.name).unlink()


def make_repository(debs: Path, folder: Path, key: Path) -> None:
    """Make a repository of FUSE 2 as rpms, out of Debian's packages, signed by a new key."""
    folder.mkdir()
    signer = Signer(key, VENDOR)
    with tempfile.TemporaryDirectory() as scratch:
        fuse, libraries, common = (Path(scratch) / name for name in ("fuse", "libfuse2", "common"))
        for root in (fuse, libraries):
            (deb,) = debs.glob(f"{root.name}_*.deb")
            run("dpkg-deb", "--extract", str(deb), str(root))
            shutil.rmtree(root / "usr/share", ignore_errors=True)
        (fuse / "bin/fusermount").chmod(0o4755)  # on Debian that is done by a script
        (common / "etc").mkdir(parents=True)
        (fuse / "etc/fuse.conf").rename(common / "etc/fuse.conf")
        version = run("dpkg-deb", "--field", str(deb), "Version").partition("-")[0]
        needs = ("fuse-common", f"fuse-libs >= {version}")
        pack("fuse", version, folder, fuse, requires=needs)
        pack("fuse-libs", version, folder, libraries)
        pack("fuse-common", version, folder, common)
    for package in folder.glob("*.rpm"):
        sign(package, key, signer.fingerprint)
    signer.close()
    index(folder)


def index(folder: Path) -> None:
    """Write what dnf reads of a repository first: what is in it."""
    run("createrepo_c", "--quiet", str(folder))


def trust(root: Path, key: Path) -> None:
    """Have a system know the key that signs its distribution's packages."""
    file = root / PUBLIC_KEY.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(run("gpg", "--homedir", str(key), "--armor", "--export"), encoding="ascii")
    run("chroot", str(root), "rpmkeys", "--import", PUBLIC_KEY)


def sign(package: Path, key: Path, fingerprint: str) -> None:
    """Put the signature into an rpm, as distributions do (AWS does not)."""
    macros = (
        ("__gpg", shutil.which("gpg")),
        ("_gpg_path", key),
        ("_gpg_name", fingerprint),
        ("_dbpath", key / "rpm"),
    )
    defines = [word for name, value in macros for word in ("--define", f"{name} {value}")]
    run("rpmsign", *defines, "--addsign", str(package), timeout=BUILD_SECONDS)


def pack(
    name: str,
    version: str,
    directory: Path,
    files: Path | None = None,
    *,
    release: str = "1",
    requires: tuple[str, ...] = (),
    provides: tuple[str, ...] = (),
    scripts: str = "",
) -> Path:
    """Build an rpm of the files in a directory, which is used up, and give back its path."""
    machine = run("uname", "-m").strip()
    depends = [f"Requires: {each}" for each in requires] + [
        f"Provides: {each}" for each in provides
    ]
    with tempfile.TemporaryDirectory() as scratch:
        root = files or Path(scratch, "nothing")
        root.mkdir(exist_ok=True)
        for merged in filter(lambda each: (root / each).is_dir(), MERGED):
            shutil.copytree(root / merged, root / "usr" / merged, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(root / merged)
        spec = Path(scratch, f"{name}.spec")
        spec.write_text(
            SPEC.format(
                name=name,
                version=version,
                release=release,
                depends="\n".join(depends),
                files="\n".join(_files(root)),
                scripts=scripts,
            ),
            encoding="utf-8",
        )
        macros = [*MACROS, ("_topdir", f"{scratch}/top"), ("_rpmdir", f"{scratch}/made")]
        defines = [word for macro in macros for word in ("--define", " ".join(macro))]
        target = f"--target={machine}"
        kept = ("--buildroot", str(root), "--noclean", target)
        run("rpmbuild", "-bb", *defines, *kept, str(spec), timeout=BUILD_SECONDS)
        (built,) = Path(scratch, "made").rglob("*.rpm")
        return Path(shutil.move(str(built), directory / built.name))


def _files(root: Path) -> list[str]:
    """The lines of %files: all that is no directory, and those directories that are its own."""
    lines = []
    for path in sorted(root.rglob("*")):
        name = f"/{path.relative_to(root)}"
        if path.is_symlink() or not path.is_dir():
            lines.append(f"%config(noreplace) {name}" if name.startswith("/etc/") else name)
        elif name.startswith("/opt/"):
            lines.append(f"%dir {name}")
    return lines
