"""What s3mount-bootstrap runs, as the archive's ``__main__``: checks, unpacks, hands over.

It works out of the archive until it knows that the arguments can be right, so that a mistake in the
cluster's configuration leaves no trace on the node.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib.util
import marshal
import os
import shutil
import signal
import struct
import sys
import time
import zipfile
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

ARCHIVE = Path(sys.argv[0])
PAYLOAD = "payload/"
# Put in by build_bootstrap.py.
VERSION = "@VERSION@"
DIGEST = "@DIGEST@"
ROOT = Path("/opt/s3mount-agent")
LINK = Path("/usr/local/bin/s3mount-agent")
_OWN = "s3mount_agent"
_COMMAND = "bin/s3mount-agent"
# For sh and for Python: it is run by the Python that it was made for, as long as that is there. Who
# removes that, by a clean-up or an upgrade, must not leave mounts that cannot come back.
# Nothing is read from site directories (-S), where others than this payload put their code.
_LAUNCHER = """\
#!/bin/sh
''':'
[ -x '{python}' ] && exec '{python}' -ISXutf8 "$0" "$@"
for python in /usr/bin/python3 /usr/bin/python3.1[0-9] /usr/bin/python3.9 \
    /usr/libexec/platform-python /opt/parallelcluster/pyenv/versions/*/bin/python3 \
    /opt/parallelcluster/pyenv/versions/*/envs/*/bin/python3; do
    "$python" -ISc 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null &&
        exec "$python" -ISXutf8 "$0" "$@"
done
echo 's3mount-agent: error [python-missing]: {python} is gone, and there is no other Python 3.9' >&2
echo '  hint: install one, then run s3mount-bootstrap again' >&2
exit 1
'''
import sys
root = {root!r}
sys.path += [root + "/lib", root + "/lib-{machine}"]
from s3mount_agent.cli import run
run()
"""
_INTERPRETER_SECONDS = 30.0
_LINK_SECONDS = 5.0
# In the background, as the very last in line for a processor: what no bootstrap has imported would
# be compiled anew each time that a user who may not write there asks for the status.
_COMPILE = """\
import compileall, os, sys
os.nice(19)
compileall.compile_dir(sys.argv[1], quiet=2)
"""


class Source:
    """Imports the agent's own modules out of the archive, a finder and loader of importlib's.

    What it has compiled is kept: the agent that is unpacked afterwards need not compile it again.
    """

    def __init__(self) -> None:
        self.compiled: dict[str, CodeType] = {}
        with zipfile.ZipFile(ARCHIVE) as archive:
            own = f"{PAYLOAD}lib/{_OWN}/"
            self._texts = {
                name[len(PAYLOAD) :]: archive.read(name)
                for name in archive.namelist()
                if name.startswith(own) and name.endswith(".py")
            }

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Where a module is, if it is one of the agent's."""
        place = f"lib/{name.replace('.', '/')}"
        for file in (f"{place}/__init__.py", f"{place}.py"):
            if file in self._texts:
                package = [f"{ARCHIVE}/{PAYLOAD}{place}"] if file.endswith("/__init__.py") else None
                return importlib.util.spec_from_file_location(
                    name,
                    f"{ARCHIVE}/{PAYLOAD}{file}",
                    loader=self,  # type: ignore[arg-type]
                    submodule_search_locations=package,
                )
        return None

    def create_module(self, spec: ModuleSpec) -> None:
        """As importlib does by itself."""

    def exec_module(self, module: ModuleType) -> None:
        """Compiles a module and runs it."""
        name = str(module.__file__)
        file = name[len(f"{ARCHIVE}/{PAYLOAD}") :]
        code = self.compiled[file] = compile(self._texts[file], name, "exec", dont_inherit=True)
        exec(code, vars(module))  # noqa: S102

    def write_compiled(self, home: Path) -> None:
        """Puts what is compiled where Python looks for it: PEP 552."""
        for file, code in self.compiled.items():
            source = home / file
            status = source.stat()
            stamp = (0, int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF)
            cached = Path(importlib.util.cache_from_source(str(source)))
            cached.parent.mkdir(exist_ok=True)
            head = importlib.util.MAGIC_NUMBER + struct.pack("<III", *stamp)
            cached.write_bytes(head + marshal.dumps(code))


def main(arguments: list[str]) -> int:
    """Installs the agent and becomes ``s3mount-agent bootstrap ARGUMENTS``, or ``s3mount-agent
    install`` where that is the first word, and is no bucket: a directory follows on that."""
    debug = arguments[:1] == ["--debug"]
    words = arguments[debug:]
    command = "bootstrap"
    if words[:1] == ["install"] and all(word.startswith("-") for word in words[1:2]):
        command = words.pop(0)
    return _install_and_run(command, words, ["--debug"] if debug else [])


def _install_and_run(command: str, arguments: list[str], debug: list[str]) -> int:
    run = [*debug, command, *arguments]
    asked = arguments in (["--help"], ["-h"], ["--version"])
    if not asked and _is_settled():
        _go_on_as_agent(run)  # which checks the arguments first, too
    source = Source()
    sys.meta_path.insert(0, source)
    sys.path.append(f"{ARCHIVE}/{PAYLOAD}lib")
    from s3mount_agent import cli
    from s3mount_agent.filesystem import files
    from s3mount_agent.system import process

    process.hide_secrets()

    def put_in_place() -> int:
        with files.told_plainly(f"install the agent in {ROOT}"):
            target, new = install(ROOT, source)
        _link_command(LINK, ROOT / "current" / _COMMAND)
        if new:
            compiling = _compile_the_rest(target)
            if compiling and command == "install":
                compiling.wait()  # an image is made of what is there at the end
        return _become_agent(run)

    if asked:
        return cli.main(arguments if arguments == ["--version"] else [command, "--help"])
    quietly = [] if "--check" in arguments else ["--precheck"]
    check = [*debug, command, *quietly, *arguments]
    # boto3 does not run out of an archive: with a configuration from elsewhere, all of it is
    # unpacked for the check, and away again.
    if any(word.partition("=")[0] == "--config" for word in arguments):
        refused = cli.guarded(lambda: _check_unpacked(check))
    else:
        refused = cli.main(check)
    return refused if refused or "--check" in arguments else cli.guarded(put_in_place)


def _is_settled() -> bool:
    """Whether this very payload is installed, in force, and can be run."""
    try:
        target = ROOT / (ROOT / "current").readlink().name
        _asked(lambda: LINK.readlink() == ROOT / "current" / _COMMAND)
        return _is_whole(target, _sizes()) and _is_launched_well(target)
    except OSError:
        return False


def _go_on_as_agent(arguments: list[str]) -> None:
    """Becomes the agent without a new process, where its own Python runs this: to begin anew takes
    a tenth of a bootstrap that has nothing to do."""
    command = ROOT / "current" / _COMMAND
    text = command.read_text()
    if text != _launcher(ROOT / (ROOT / "current").readlink().name, _interpreter()):
        _become_agent(arguments)
    sys.argv = [str(command), *arguments]
    del sys.path[0]  # this archive
    exec(compile(text, str(command), "exec"), {"__name__": "__main__"})  # noqa: S102


def _become_agent(arguments: list[str]) -> int:
    command = str(ROOT / "current" / _COMMAND)
    os.execv(command, [command, *arguments])  # noqa: S606


def _check_unpacked(check: list[str]) -> int:
    """Runs the check with all of the payload on disk: for root not in /tmp, which may be small, and
    may have nothing executed."""
    import subprocess
    import tempfile

    from s3mount_agent.filesystem import files

    as_root = os.geteuid() == 0
    there = ROOT.exists() or not as_root
    with files.told_plainly("unpack the agent for a check"):
        if as_root:
            ROOT.mkdir(mode=0o755, parents=True, exist_ok=True)
        home = Path(tempfile.mkdtemp(prefix=".checking-", dir=ROOT if as_root else None))
    try:
        with files.told_plainly("unpack the agent for a check"):
            _extract(home, _launcher(home, sys.executable))
        command = [sys.executable, "-I", "-S", "-X", "utf8", str(home / _COMMAND), *check]
        return subprocess.run(command, check=False).returncode
    finally:
        shutil.rmtree(home, ignore_errors=True)
        if not there:
            with contextlib.suppress(OSError):
                ROOT.rmdir()


def install(root: Path, source: Source | None = None) -> tuple[Path, bool]:
    """Has the payload in a directory of ``root`` and ``current`` lead to it; raises OSError.

    Nothing that is in use is touched, and one rename switches from the old build to the new one:
    whatever is killed at whatever moment, the hooks of the mounts find an agent behind ``current``.
    Run again, it ends the same; run again after that, it changes nothing. The directory is called
    by the version, or where another build of that version is there already, by version and digest.
    Returns it, and whether it is new.
    """
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    # Given back with the end of this program, which execv is as well. Only root can hold it.
    fcntl.flock(
        os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), fcntl.LOCK_EX
    )
    for left in root.glob(".*ing-*"):  # of an installation or a check that was interrupted
        shutil.rmtree(left, ignore_errors=True)
    sizes = _sizes()
    names = [VERSION, f"{VERSION}+{DIGEST[:12]}"]
    names += [f"{names[1]}.{number}" for number in range(2, 100)]
    whole = next((name for name in names if _is_whole(root / name, sizes)), None)
    name = whole or next(name for name in names if not os.path.lexists(root / name))
    if whole is None:
        _unpack(root / name, source)
    elif not _is_launched_well(root / name):
        _renew_launcher(root / name)
    _point(root / "current", Path(name))
    return root / name, whole is None


def _sizes() -> dict[str, int]:
    with zipfile.ZipFile(ARCHIVE) as archive:
        return {entry.filename[len(PAYLOAD) :]: entry.file_size for entry in _payload(archive)}


def _is_whole(target: Path, sizes: dict[str, int]) -> bool:
    """Whether this payload is there, all of it: as far as the sizes of its files tell."""
    try:
        return (target / "payload.sha256").read_text() == f"{DIGEST}\n" and all(
            os.lstat(target / file).st_size == size for file, size in sizes.items()
        )
    except OSError:
        return False


def _unpack(target: Path, source: Source | None) -> None:
    """Puts the payload into a new directory, whole or not at all."""
    import tempfile

    staging = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=target.parent))
    try:
        _extract(staging, _launcher(target, _interpreter()))
        if source is not None:
            source.write_compiled(staging)
        staging.chmod(0o755)
        os.sync()  # a rename that outlives a power cut must find its files on the disk
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _extract(home: Path, launcher: str) -> None:
    with zipfile.ZipFile(ARCHIVE) as archive:
        for entry in _payload(archive):
            file = home / entry.filename[len(PAYLOAD) :]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(archive.read(entry))
    command = home / _COMMAND
    command.parent.mkdir()
    command.write_text(launcher)
    command.chmod(0o755)


def _payload(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    return [entry for entry in archive.infolist() if entry.filename.startswith(PAYLOAD)]


def _launcher(home: Path, python: str) -> str:
    return _LAUNCHER.format(python=python, root=str(home), machine=os.uname().machine)


def _is_launched_well(target: Path) -> bool:
    """Whether the command is run by a Python that works. The one it was made for is kept as long as
    it does: which one runs this may change with PATH."""
    try:
        text = (target / _COMMAND).read_text()
    except (OSError, ValueError):
        return False
    python = text.partition("[ -x '")[2].partition("'")[0]
    return text == _launcher(target, python) and (python == _interpreter() or _works(python))


def _renew_launcher(target: Path) -> None:
    command = target / _COMMAND
    command.parent.mkdir(exist_ok=True)
    new = command.with_name(".s3mount-agent.new")
    new.unlink(missing_ok=True)
    with new.open("x") as stream:
        stream.write(_launcher(target, _interpreter()))
        os.fchmod(stream.fileno(), 0o755)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(command)


def _interpreter() -> str:
    """The Python that runs this, by its real name and not as a virtual environment has it: that may
    be gone tomorrow, and with it all hooks of the mounts."""
    real = Path(sys.executable).resolve()
    if any((place / "pyvenv.cfg").exists() for place in (real.parent, real.parent.parent)):
        major, minor = sys.version_info[:2]
        base = Path(sys.base_prefix, "bin", f"python{major}.{minor}").resolve()
        if _works(str(base)):
            return str(base)
    return str(real)


def _works(python: str) -> bool:
    import subprocess

    old = "import sys; sys.exit(sys.version_info < (3, 9))"
    command = [python, "-I", "-S", "-c", old]
    try:
        answer = subprocess.run(
            command, check=False, capture_output=True, timeout=_INTERPRETER_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


def _point(link: Path, target: Path) -> None:
    """Makes a symbolic link lead to ``target``, without a moment in which there is none."""
    if link.is_symlink() and link.readlink() == target:
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)


def _link_command(link: Path, command: Path) -> None:
    """Puts the command into PATH, for people's convenience: where that cannot be, it is told."""
    try:
        _asked(lambda: _point(link, command))
    except OSError as error:
        print(f"warning: {link} could not be made ({error.strerror}): call {command}", flush=True)


def _asked(do: Callable[[], object]) -> None:
    """Has it done, or found not to be False, by a child that can be left behind and keeps nothing
    of ours open: /usr/local may be the head node's, and never answer. Raises OSError."""
    pid = os.fork()
    if pid == 0:
        try:
            os.closerange(0, 1024)
            os._exit(errno.ENOENT if do() is False else 0)
        except OSError as error:
            os._exit(error.errno or errno.EIO)
        finally:
            os._exit(errno.EIO)
    deadline = time.monotonic() + _LINK_SECONDS
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            raise TimeoutError(errno.ETIMEDOUT, "it does not answer")
        time.sleep(0.002)
    if ended[1]:
        raise OSError(ended[1] >> 8, os.strerror(ended[1] >> 8))


def _compile_the_rest(target: Path) -> subprocess.Popen[bytes] | None:
    import subprocess

    nothing = subprocess.DEVNULL
    with contextlib.suppress(OSError):  # a courtesy
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _COMPILE, str(target / "lib" / _OWN)],
            stdin=nothing,
            stdout=nothing,
            stderr=nothing,
            start_new_session=True,
            cwd="/",
        )
    return None


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main(sys.argv[1:]))
