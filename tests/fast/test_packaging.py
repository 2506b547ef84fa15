"""s3mount-bootstrap: built, damaged, run by every Python there is, installed and interrupted.

Built without what pip would download, which the agent imports only where it changes a node.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fast.small_fuse import MAY_MOUNT, SmallFuse
from s3mount_agent import __version__

REPOSITORY = Path(__file__).parents[2]
BUILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import build_bootstrap as build
payload = Path(sys.argv[2]) / "payload"
data = payload / "lib/botocore/data"
data.mkdir(parents=True)
(data / "endpoints.json").write_text('{"partitions": []}')
build._download = lambda *arguments: []
build._gather(payload, Path(sys.argv[2]))
if sys.argv[3]:
    (payload / "LICENSE").write_text(sys.argv[3])
    (payload / "payload.sha256").unlink()
    (payload / "payload.sha256").write_text(build._digest(payload) + "\\n")
target = Path(sys.argv[2]) / "s3mount-bootstrap"
target.write_bytes(build._assemble(payload))
target.chmod(0o755)
"""
INSTALL = """
import os, runpy, sys
from pathlib import Path
unpack = runpy.run_path(sys.argv[1], run_name="unpack")
home = Path(sys.argv[2])
os.umask(0o022)
unpack["install"](home / "opt/agent")
unpack["_link_command"](
    home / "usr/bin/s3mount-agent", home / "opt/agent/current/bin/s3mount-agent"
)
"""
# The same, but dead before the N-th change to what is not yet a build of its own, and before some
# of the many within.
KILLED = """
import os, runpy, sys
from pathlib import Path
unpack = runpy.run_path(sys.argv[1], run_name="unpack")
root, last, steps = Path(sys.argv[2]) / "opt/agent", int(sys.argv[3]), 0
CHANGES = ("open", "os.rename", "os.symlink", "os.remove", "os.mkdir", "os.rmdir", "os.chmod")
def hook(event, arguments):
    global steps
    if event not in CHANGES or isinstance(arguments[0], int):
        return
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & 0o103):
        return
    path = os.fsdecode(arguments[0])
    if not path.startswith(str(root)) or ("/lib" in path and "/core/t" not in path):
        return
    steps += 1
    if steps == last:
        os._exit(99)
sys.addaudithook(hook)
unpack["install"](root)
"""


def pythons() -> list[str]:
    found = [Path(sys.executable), Path("/usr/bin/python3")]
    found += sorted(Path.home().glob(".pyenv/versions/*/bin/python3"))
    good = []
    for path in found:
        code = "import sys; sys.exit(sys.version_info < (3, 9))"
        if path.exists() and not subprocess.run([path, "-c", code], check=False).returncode:
            good.append(str(path))
    return good


def built(home: Path, *, other: str = "") -> Path:
    """Builds the file; ``other`` stands in its LICENSE, so that the build is another one."""
    home.mkdir(parents=True)
    arguments = [sys.executable, "-c", BUILD, str(REPOSITORY / "packaging"), str(home), other]
    subprocess.run(arguments, check=True, timeout=60)
    return home / "s3mount-bootstrap"


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("build") / "one")


def run(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="session")
def other_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("build") / "other", other="another build of the version")


def installed(bootstrap: Path, home: Path, python: str = sys.executable) -> None:
    answer = run(python, "-I", "-c", INSTALL, bootstrap, home)
    assert answer.returncode == 0, answer.stderr


def tree(home: Path) -> dict[str, tuple[int, int, int]]:
    found: dict[str, tuple[int, int, int]] = {}
    for path in sorted(home.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(home))] = (status.st_ino, status.st_mtime_ns, status.st_mode)
    return found


def test_the_same_commit_gives_the_same_bytes(bootstrap: Path, tmp_path: Path) -> None:
    again = built(tmp_path / "elsewhere/two")
    assert again.read_bytes() == bootstrap.read_bytes()


@pytest.mark.parametrize("how", ["truncated", "longer", "line ends"])
def test_a_damaged_file_says_so_and_does_nothing(bootstrap: Path, tmp_path: Path, how: str) -> None:
    data = bootstrap.read_bytes()
    damaged = {
        "truncated": data[:-1],
        "longer": data + b"\n",
        "line ends": data[:3000].replace(b"set -u\n", b"set -u \n") + data[3000:],
    }[how]
    path = tmp_path / "file"
    path.write_bytes(damaged)
    path.chmod(0o755)
    answer = run(path, "my-bucket", "/mnt/s3", "")
    assert answer.returncode == 1
    assert answer.stderr.startswith("s3mount-agent: error [bootstrap-damaged]: ")
    assert answer.stderr.count("\n") == 2
    assert f"{len(damaged)} bytes instead of {len(data)}" in answer.stderr


@pytest.fixture(params=pythons())
def path_with(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A PATH on which one particular Python comes first."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").symlink_to(request.param)
    return f"{tmp_path / 'bin'}:/usr/bin:/bin"


def test_every_python_runs_it(bootstrap: Path, path_with: str) -> None:
    answer = run(bootstrap, "--version", PATH=path_with)
    assert (answer.returncode, answer.stdout) == (0, f"s3mount-agent {__version__}\n")
    answer = run(bootstrap, "--help", PATH=path_with)
    assert answer.stdout.startswith("usage: s3mount-agent bootstrap ")
    answer = run(bootstrap, "install", "--help", PATH=path_with)
    assert answer.stdout.startswith("usage: s3mount-agent install ")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["my-bucket", "relative", ""], "directory-invalid"),
        (["--check", "my-bucket", "/mnt/s3", "--read-onyl"], "option-unknown"),
        (["--check"], "args-not-triples"),
        ([], "args-not-triples"),
        (["my-bucket", "/mnt/\udcff", ""], "argument-not-text"),
        (["install", "--assume-family", "apk"], "usage"),
        # A bucket may be called so: on a bucket follows a directory.
        (["install", "relative", ""], "directory-invalid"),
        (["install", "/mnt/s3"], "args-not-triples"),
    ],
)
def test_every_python_refuses_bad_arguments(
    bootstrap: Path, path_with: str, arguments: list[str], code: str
) -> None:
    answer = run(bootstrap, *arguments, PATH=path_with)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith(f"s3mount-agent: error [{code}]: ")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_command_takes_what_is_compiled_for_its_processor(
    bootstrap: Path, tmp_path: Path, machine: str
) -> None:
    uname = f"os.uname = lambda: type('', (), {{'machine': '{machine}'}})"
    code = INSTALL.replace("os.umask", f"{uname}; os.umask")
    answer = run(sys.executable, "-I", "-c", code, bootstrap, tmp_path)
    assert answer.returncode == 0, answer.stderr
    launcher = (tmp_path / "usr/bin/s3mount-agent").read_text()
    assert f'sys.path += [root + "/lib", root + "/lib-{machine}"]' in launcher


def test_help_and_refusals_leave_no_trace(bootstrap: Path, tmp_path: Path) -> None:
    before = Path("/opt/s3mount-agent").exists()
    home = tmp_path / "home"
    home.mkdir()
    for words in (["--help"], ["B", "/mnt/s3", ""]):
        run(bootstrap, *words, HOME=str(home), TMPDIR=str(home))
    assert tree(home) == {}
    assert Path("/opt/s3mount-agent").exists() == before


HIDE = """
for python in /usr/bin/python3 /usr/libexec/platform-python; do
    [ ! -e "$python" ] || mount --bind /bin/false "$(readlink -f "$python")" || exit 99
done
exec "$@"
"""


def test_without_a_python_there_is_one_sentence(bootstrap: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("python3", "python3.11"):
        (tmp_path / f"bin/{name}").symlink_to("/bin/false")
    namespace = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
    path = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    answer = run(*namespace, "sh", "-c", HIDE, "sh", bootstrap, "b", "/mnt/s3", "", PATH=path)
    if answer.returncode == 99 or "unshare" in answer.stderr:
        pytest.skip("this machine lets nobody hide its Python")
    assert answer.returncode == 1
    assert answer.stderr.splitlines() == [
        "s3mount-agent: error [python-missing]: this node has no python3 of version 3.9 or later",
        "  hint: install one (dnf install python3.11, apt-get install python3), then run this file "
        "again",
    ]


def test_an_installation_works(bootstrap: Path, tmp_path: Path) -> None:
    installed(bootstrap, tmp_path)
    link = tmp_path / "usr/bin/s3mount-agent"
    assert link.is_symlink()
    answer = run(link, "--version", PYTHONPATH="/nonsense")
    assert (answer.returncode, answer.stdout) == (0, f"s3mount-agent {__version__}\n")
    assert run(link, "bootstrap", "B", "/mnt/s3", "").returncode == 2
    root = tmp_path / "opt/agent"
    assert (root / "current").readlink() == Path(__version__)
    assert sorted(path.name for path in root.iterdir()) == [".lock", __version__, "current"]
    template = root / "current/lib/s3mount_agent/systemd/mountpoint-s3.service"
    assert template.read_bytes() == (REPOSITORY / "systemd/mountpoint-s3.service").read_bytes()
    modes = {oct(p.stat().st_mode & 0o777) for p in root.rglob("*") if p.is_file()}
    assert modes == {"0o600", "0o644", "0o755"}  # only root may hold the lock
    assert (root / __version__).stat().st_mode & 0o777 == 0o755


def test_the_digest_names_what_was_unpacked(bootstrap: Path, tmp_path: Path) -> None:
    installed(bootstrap, tmp_path)
    root = tmp_path / "opt/agent" / __version__
    own = {"bin/s3mount-agent", "payload.sha256"}
    digest = hashlib.sha256()
    for name in sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()):
        if name not in own:
            content = hashlib.sha256((root / name).read_bytes()).hexdigest()
            digest.update(f"{name}\0{content}\n".encode())
    assert (root / "payload.sha256").read_text().strip() == digest.hexdigest()


def test_installing_again_changes_nothing(bootstrap: Path, tmp_path: Path) -> None:
    installed(bootstrap, tmp_path)
    before = tree(tmp_path)
    installed(bootstrap, tmp_path)
    assert tree(tmp_path) == before


def damages() -> Iterator[tuple[str, str]]:
    version = f"opt/agent/{__version__}"
    yield "the version is gone", f"rm -r {version}"
    yield "the command is gone", f"rm {version}/bin/s3mount-agent"
    yield (
        "the command's Python is gone",
        f"sed -i \"s,'/[^']*',/gone,g\" {version}/bin/s3mount-agent",
    )
    yield "the link is gone", "rm opt/agent/current usr/bin/s3mount-agent"
    yield "the link leads elsewhere", "ln -sfn 0.0.9 opt/agent/current"
    yield "interrupted while unpacking", "mkdir -p opt/agent/.unpacking-x/lib opt/agent/.checking-y"
    yield "interrupted while linking", "ln -s x opt/agent/.current.new"


@pytest.mark.parametrize(
    "damage", [damage for _, damage in damages()], ids=[name for name, _ in damages()]
)
def test_an_interrupted_installation_is_made_whole(
    bootstrap: Path, tmp_path: Path, damage: str
) -> None:
    installed(bootstrap, tmp_path)
    whole = tree(tmp_path).keys()
    subprocess.run(["sh", "-c", damage], cwd=tmp_path, check=True)
    installed(bootstrap, tmp_path)
    if "current.new" not in damage:
        assert tree(tmp_path).keys() == whole
    assert run(tmp_path / "usr/bin/s3mount-agent", "--version").returncode == 0


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="there is no other Python")
def test_the_command_is_run_by_another_python_when_its_own_is_gone(
    bootstrap: Path, tmp_path: Path
) -> None:
    installed(bootstrap, tmp_path)
    command = tmp_path / "usr/bin/s3mount-agent"
    text = command.read_text()
    own = text.partition("[ -x '")[2].partition("'")[0]
    command.write_text(text.replace(own, "/gone/python3"))
    answer = run(command, "--version")
    assert (answer.returncode, answer.stdout) == (0, f"s3mount-agent {__version__}\n")
    command.write_text(text.replace(own, "/gone/python3").replace("/usr/", "/gone/"))
    answer = run(command, "--version")
    assert answer.returncode == 1
    assert "error [python-missing]: /gone/python3 is gone" in answer.stderr


@pytest.mark.parametrize("damage", ["rm {}/lib/s3mount_agent/cli.py", ": >{}/LICENSE"])
def test_a_build_with_a_hole_in_it_is_not_taken_for_whole(
    bootstrap: Path, tmp_path: Path, damage: str
) -> None:
    installed(bootstrap, tmp_path)
    root = tmp_path / "opt/agent"
    subprocess.run(["sh", "-c", damage.format(root / __version__)], check=True)
    installed(bootstrap, tmp_path)
    assert (root / "current").readlink().name.startswith(f"{__version__}+")
    assert run(tmp_path / "usr/bin/s3mount-agent", "--version").returncode == 0
    before = tree(tmp_path)
    installed(bootstrap, tmp_path)
    assert tree(tmp_path) == before


def test_another_build_of_the_version_has_a_directory_of_its_own(
    bootstrap: Path, other_build: Path, tmp_path: Path
) -> None:
    installed(bootstrap, tmp_path)
    root = tmp_path / "opt/agent"
    old = tree(root / __version__)
    installed(other_build, tmp_path)
    assert (root / "current/LICENSE").read_text() == "another build of the version"
    # Programs of the old one may still run, and import what they have not needed until now.
    assert tree(root / __version__) == old
    installed(bootstrap, tmp_path)
    assert (root / "current").readlink() == Path(__version__)


def test_killed_at_any_step_an_upgrade_leaves_an_agent_that_runs(
    bootstrap: Path, other_build: Path, tmp_path: Path
) -> None:
    installed(bootstrap, tmp_path)
    command = tmp_path / "opt/agent/current/bin/s3mount-agent"
    steps = 0
    while True:
        steps += 1
        words = [sys.executable, "-ISc", KILLED, str(other_build), str(tmp_path), str(steps)]
        answer = run(*words)
        license = (command.parent.parent / "LICENSE").read_text()
        if answer.returncode != 99:
            break
        # Whole, and the old one: the last step of all is the switch.
        assert "Apache License" in license, steps
        assert run(command, "--version").returncode == 0, steps
    assert (answer.returncode, answer.stderr) == (0, "")
    assert license == "another build of the version"
    assert run(command, "--version").returncode == 0
    assert steps > 10


def test_the_same_file_under_another_path_changes_nothing(bootstrap: Path, tmp_path: Path) -> None:
    """What was installed stays as long as its Python works, whichever comes first in PATH."""
    before = None
    for python in pythons():
        installed(bootstrap, tmp_path, python)
        before = before or tree(tmp_path)
        assert tree(tmp_path) == before


@pytest.mark.parametrize("how", ["--symlinks", "--copies"])
def test_a_virtual_environment_is_not_what_hooks_run_in(
    bootstrap: Path, tmp_path: Path, how: str
) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", how, venv], check=True)
    installed(bootstrap, tmp_path, str(venv / "bin/python3"))
    shutil.rmtree(venv)
    answer = run(tmp_path / "usr/bin/s3mount-agent", "--version")
    assert (answer.returncode, answer.stdout) == (0, f"s3mount-agent {__version__}\n")


def test_the_systems_own_python_comes_before_that_of_path(bootstrap: Path, path_with: str) -> None:
    system = Path("/usr/bin/python3")
    if not system.exists():
        pytest.skip("this system has no python3 of its own")
    ran = run("strace", "-f", "-e", "trace=execve", bootstrap, "--version", PATH=path_with)
    executed = re.findall(r'execve\("([^"]+)"', ran.stderr)
    assert executed[-1] == str(system)


def test_no_program_in_front_of_the_systems_is_run(bootstrap: Path, tmp_path: Path) -> None:
    path = tmp_path / "bin"
    path.mkdir()
    for name in ("wc", "python3"):
        (path / name).write_text(f'#!/bin/sh\ntouch {tmp_path}/pwned\nexec /usr/bin/{name} "$@"\n')
        (path / name).chmod(0o755)
    ran = run(bootstrap, "--version", PATH=f"{path}:/usr/bin:/bin")
    assert (ran.returncode, ran.stdout) == (0, f"s3mount-agent {__version__}\n")
    assert not (tmp_path / "pwned").exists()


def test_no_site_directory_is_read(bootstrap: Path, tmp_path: Path) -> None:
    installed(bootstrap, tmp_path)
    link = tmp_path / "usr/bin/s3mount-agent"
    ran = run("strace", "-f", "-e", "trace=file", link, "status", "--help", PATH="/usr/bin:/bin")
    assert ran.returncode == 0
    assert re.findall(r".*(?:site|dist)-packages.*", ran.stderr) == []


def test_what_the_check_has_compiled_is_not_compiled_again(bootstrap: Path, tmp_path: Path) -> None:
    code = (
        "import runpy, sys, pathlib\n"
        "unpack = runpy.run_path(sys.argv[1], run_name='unpack')\n"
        "source = unpack['Source']()\n"
        "sys.meta_path.insert(0, source)\n"
        "import s3mount_agent.cli\n"
        "unpack['install'](pathlib.Path(sys.argv[2]) / 'opt/agent', source)\n"
    )
    assert run(sys.executable, "-ISc", code, bootstrap, tmp_path).returncode == 0
    own = tmp_path / f"opt/agent/{__version__}/lib/s3mount_agent"
    (made,) = own.glob("__pycache__/cli.*.pyc")
    before = made.stat().st_mtime_ns
    code = "import s3mount_agent.cli as cli; print(cli.main.__code__.co_filename)"
    launched = run(
        sys.executable, "-ISc", f"import sys; sys.path.append({str(own.parent)!r}); {code}"
    )
    assert launched.stdout == f"{own}/cli.py\n"
    assert made.stat().st_mtime_ns == before


def test_who_has_its_link_is_settled(bootstrap: Path, tmp_path: Path) -> None:
    installed(bootstrap, tmp_path)
    code = (
        "import pathlib, runpy, sys\n"
        "unpack = runpy.run_path(sys.argv[1], run_name='unpack')\n"
        "place, home = unpack['_is_settled'].__globals__, pathlib.Path(sys.argv[2])\n"
        "place['ROOT'] = home / 'opt/agent'\n"
        "place['LINK'] = home / 'usr/bin/s3mount-agent'\n"
        "print(unpack['_is_settled']())\n"
        "place['LINK'].unlink()\n"
        "print(unpack['_is_settled']())\n"
    )
    answer = run(sys.executable, "-ISc", code, bootstrap, tmp_path)
    assert answer.stdout.split() == ["True", "False"]


def test_a_link_that_cannot_be_made_is_a_warning(bootstrap: Path, tmp_path: Path) -> None:
    (tmp_path / "usr").symlink_to("/nonexistent/not/mounted")
    answer = run(sys.executable, "-I", "-c", INSTALL, bootstrap, tmp_path)
    assert answer.returncode == 0
    assert answer.stdout.startswith(f"warning: {tmp_path}/usr/bin/s3mount-agent could not be made")
    assert run(tmp_path / "opt/agent/current/bin/s3mount-agent", "--version").returncode == 0


@pytest.mark.skipif(not MAY_MOUNT, reason="mounts, which takes root and /dev/fuse")
def test_a_link_on_a_file_system_that_hangs_is_not_waited_for(
    bootstrap: Path, tmp_path: Path, fuse: SmallFuse
) -> None:
    """/usr/local may be the head node's: the bootstrap never ended."""
    code = (
        "import pathlib, runpy, sys\n"
        "unpack = runpy.run_path(sys.argv[1], run_name='unpack')\n"
        "place = unpack['_is_settled'].__globals__\n"
        "place['ROOT'] = pathlib.Path(sys.argv[2]) / 'opt/agent'\n"
        "place['LINK'] = link = pathlib.Path(sys.argv[3]) / 'bin/s3mount-agent'\n"
        "place['_LINK_SECONDS'] = 0.3\n"
        "unpack['install'](place['ROOT'])\n"
        "print(unpack['_is_settled']())\n"
        "unpack['_link_command'](link, place['ROOT'] / 'current/bin/s3mount-agent')\n"
    )
    fuse.hang()
    asked = run("timeout", "30", sys.executable, "-ISc", code, bootstrap, tmp_path, fuse.directory)
    settled, warning = asked.stdout.splitlines()
    assert (asked.returncode, settled) == (0, "False")
    assert "could not be made (it does not answer)" in warning


def test_the_bootstrap_file_is_small_enough_for_aws_pcs(tmp_path: Path) -> None:
    """The one that is shipped, with everything in it."""
    build = REPOSITORY / "packaging/build_bootstrap.py"
    code = (
        f"import runpy; from pathlib import Path; b = runpy.run_path({str(build)!r});"
        f"home = Path({str(tmp_path)!r}); p = home / 'payload'; b['_gather'](p, home);"
        f"print(len(b['_assemble'](p)))"
    )
    answer = run(sys.executable, "-c", code)
    if "No matching distribution" in answer.stderr:
        pytest.skip("the payload's packages cannot be downloaded here")
    assert answer.returncode == 0, answer.stderr
    # AWS PCS refuses larger scripts than this; there has to be room for what is to come.
    assert int(answer.stdout) < 2_000_000 < 2_097_152
