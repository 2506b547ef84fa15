"""What s3mount-bootstrap runs, as the archive's ``__main__``: checks, unpacks, hands over.

It works out of the archive until it knows that the arguments can be right, so that a mistake in the
cluster's configuration leaves no trace on the node.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ARCHIVE = Path(sys.argv[0])
PAYLOAD = "payload/"
sys.path.insert(0, f"{ARCHIVE}/{PAYLOAD}lib")

from s3mount_agent import __version__, cli  # noqa: E402
from s3mount_agent.system import files, paths  # noqa: E402

_LAUNCHER = """\
#!{python} -I
import os, sys
root = {root!r}
sys.path[:0] = [root + "/lib", root + "/lib-" + os.uname().machine]
from s3mount_agent.cli import main
sys.exit(main())
"""


def main(arguments: list[str]) -> int:
    """Installs the agent and becomes ``s3mount-agent bootstrap ARGUMENTS``."""
    debug = arguments[:1] == ["--debug"]
    return _install_and_run(arguments[debug:], ["--debug"] if debug else [])


def _install_and_run(arguments: list[str], debug: list[str]) -> int:
    if set(arguments) & {"--help", "-h"} and len(arguments) == 1:
        return cli.main(["bootstrap", "--help"])
    if arguments == ["--version"]:
        return cli.main(arguments)
    # boto3 does not run out of an archive: with a configuration from elsewhere, all of it is
    # unpacked for the check, and away again.
    quietly = [] if "--check" in arguments else ["--precheck"]
    check = [*debug, "bootstrap", *quietly, *arguments]
    followed = any(word.partition("=")[0] == "--config" for word in arguments)
    refused = cli.guarded(lambda: _check_unpacked(check)) if followed else cli.main(check)
    if refused or "--check" in arguments:
        return refused
    return cli.guarded(lambda: _become_agent([*debug, "bootstrap", *arguments]))


def _check_unpacked(check: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="s3mount-check-") as name:
        target = Path(name) / __version__
        with files.told_plainly("unpack the agent"), zipfile.ZipFile(ARCHIVE) as archive:
            _unpack(archive, target, _launcher(target))
        return subprocess.run([target / "bin/s3mount-agent", *check], check=False).returncode


def _launcher(target: Path) -> str:
    return _LAUNCHER.format(python=sys.executable, root=str(target))


def _become_agent(arguments: list[str]) -> int:
    with files.told_plainly(f"install the agent in {paths.ROOT}"):
        install(paths.ROOT, paths.LINK)
    os.execv(paths.COMMAND, [paths.COMMAND, *arguments])  # noqa: S606


def install(root: Path, link: Path) -> None:
    """Unpacks to ``root/<version>``, makes it current and links the command; raises OSError.

    Interrupted at any point and run again, it ends the same; run again after that, it changes
    nothing.
    """
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    # Given back with the end of this program, which execv is as well. Only root can hold it.
    fcntl.flock(
        os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), fcntl.LOCK_EX
    )
    target = root / __version__
    with zipfile.ZipFile(ARCHIVE) as archive:
        digest = archive.read(f"{PAYLOAD}payload.sha256")
        launcher = _launcher(target)
        if not _is_installed(target, digest, launcher):
            _unpack(archive, target, launcher)
    _point(root / "current", Path(__version__))
    link.parent.mkdir(parents=True, exist_ok=True)
    _point(link, root / "current/bin/s3mount-agent")
    _clear(root)


def _is_installed(target: Path, digest: bytes, launcher: str) -> bool:
    try:
        return (target / "payload.sha256").read_bytes() == digest and (
            target / "bin/s3mount-agent"
        ).read_text() == launcher
    except OSError:
        return False


def _unpack(archive: zipfile.ZipFile, target: Path, launcher: str) -> None:
    """Puts the archive's payload in place of ``target``, whole or not at all."""
    staging = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=target.parent))
    try:
        for name in archive.namelist():
            if name.startswith(PAYLOAD) and not name.endswith("/"):
                file = staging / name[len(PAYLOAD) :]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(archive.read(name))
        command = staging / "bin/s3mount-agent"
        command.parent.mkdir()
        command.write_text(launcher)
        command.chmod(0o755)
        staging.chmod(0o755)
        os.sync()  # a rename that outlives a power cut must find its files on the disk
        if target.exists():
            target.rename(Path(tempfile.mkdtemp(prefix=".old-", dir=target.parent)) / "version")
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _point(link: Path, target: Path) -> None:
    """Makes a symbolic link lead to ``target``, without a moment in which there is none."""
    if link.is_symlink() and link.readlink() == target:
        return
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)


def _clear(root: Path) -> None:
    """Removes what an interrupted or replaced installation left."""
    for left in [*root.glob(".unpacking-*"), *root.glob(".old-*")]:
        shutil.rmtree(left, ignore_errors=True)


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main(sys.argv[1:]))
