"""The wheel: built from what is tracked, it has everything that the agent needs at run time."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from s3mount_agent import __version__

REPOSITORY = Path(__file__).parents[2]
DIRECTORIES = ("agent", "systemd", "docs")
FILES = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is written into the repository."""
    home = tmp_path_factory.mktemp("wheel")
    for name in DIRECTORIES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, home / name, symlinks=True, ignore=ignored)
    for name in FILES:
        shutil.copy2(REPOSITORY / name, home / name)
    assert (home / "agent/s3mount_agent/systemd").is_symlink()
    answer = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", "tmp", "."],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    if "No matching distribution found for hatchling" in answer.stderr:
        pytest.skip("what builds the wheel (hatchling) cannot be downloaded here")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    (found,) = (home / "tmp").iterdir()
    return found


def test_the_wheel_is_for_every_python_and_has_our_version(wheel: Path) -> None:
    assert wheel.name == f"s3mount_agent-{__version__}-py3-none-any.whl"


def test_the_wheel_has_every_module_and_nothing_foreign(wheel: Path) -> None:
    source = REPOSITORY / "agent/s3mount_agent"
    modules = {path.relative_to(source.parent).as_posix() for path in source.rglob("*.py")}
    units = {f"s3mount_agent/systemd/{path.name}" for path in (REPOSITORY / "systemd").iterdir()}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    own = {name for name in names if ".dist-info/" not in name}
    assert own == modules | units | {"s3mount_agent/py.typed"}
    assert len(modules) > 40


@pytest.mark.parametrize("unit", ["mountpoint-s3.service", "s3mount-agent.service"])
def test_the_wheel_has_the_units_themselves_not_a_link(wheel: Path, unit: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.read(f"s3mount_agent/systemd/{unit}")
    assert packed == (REPOSITORY / "systemd" / unit).read_bytes()


def test_the_wheel_is_typed_and_brings_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert "s3mount_agent/py.typed" in archive.namelist()
        about = f"s3mount_agent-{__version__}.dist-info"
        entries = configparser.ConfigParser()
        entries.read_string(archive.read(f"{about}/entry_points.txt").decode())
        metadata = archive.read(f"{about}/METADATA").decode()
    assert dict(entries["console_scripts"]) == {"s3mount-agent": "s3mount_agent.cli:main"}
    assert f"\nVersion: {__version__}\n" in metadata
    assert "\nRequires-Python: >=3.9\n" in metadata


def test_the_command_of_the_wheel_runs_out_of_it(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1));"
        "from s3mount_agent.filesystem import paths;"
        "from s3mount_agent.cli import main;"
        "assert '[X-S3Mount]' in paths.template('mountpoint-s3.service');"
        "assert paths.__file__.startswith(sys.path[0]);"
        "sys.exit(main())"
    )
    answer = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path), "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (answer.returncode, answer.stdout) == (0, f"s3mount-agent {__version__}\n"), (
        answer.stderr
    )
