"""The rules of the house, kept by machines."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from s3mount_agent.core.errors import Problem

REPOSITORY = Path(__file__).parents[2]
MODULES = sorted((REPOSITORY / "agent/s3mount_agent").rglob("*.py"))
LONGEST_MODULE = 400
LONGEST_FUNCTION = 50
MODULES_IN_A_ROOM = 12
ADAPTERS = {"system", "filesystem", "packages"}
ABOVE_ADAPTERS = [p for p in MODULES if p.parent.name not in ADAPTERS and p.name != "cli.py"]


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(REPOSITORY)) for path in paths]


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "ruff", "check"],
        ["-m", "ruff", "format", "--check"],
        ["-m", "mypy"],
        ["-c", "from importlinter.cli import lint_imports_command as main; main()"],
    ],
    ids=["ruff check", "ruff format", "mypy", "lint-imports"],
)
def test_the_linters_have_nothing_to_say(command: list[str]) -> None:
    answer = subprocess.run(
        [sys.executable, *command],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


WORKFLOWS = sorted((REPOSITORY / ".github/workflows").glob("*.yml"))


def test_githubs_workflows_are_what_github_takes() -> None:
    """`make lint-workflows` asks actionlint as well."""
    schema = ["--builtin-schema", "vendor.github-workflows"]
    answer = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *schema, *map(str, WORKFLOWS)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def commands_of(workflow: Path) -> list[str]:
    """What a workflow's steps run, a line each."""
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].values()
    return [line for job in jobs for s in job["steps"] for line in s.get("run", "").splitlines()]


def test_every_target_that_a_workflow_or_a_hook_calls_is_there() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    lines = [line for workflow in WORKFLOWS for line in commands_of(workflow)]
    called = {name for line in lines for name in re.findall(r"\bmake ([a-z-]+)", line)}
    assert {"lint", "lint-workflows", "test-fast", "test-node", "release"} <= called <= targets
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    entries = [hook["entry"] for repo in hooks["repos"] for hook in repo["hooks"]]
    programs = {word for entry in entries for word in entry.split() if word.startswith(".venv/")}
    assert {Path(program).name for program in programs} == {
        *("ruff", "mypy", "lint-imports", "python", "check-jsonschema")
    }


def test_the_pythons_that_are_tested_are_those_that_nodes_may_have() -> None:
    jobs = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    versions = jobs["jobs"]["fast"]["strategy"]["matrix"]["python"]
    assert versions == [f"3.{minor}" for minor in range(9, 15)]
    about = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert f'requires-python = ">={versions[0]}"' in about


def test_every_decision_says_why_and_what_follows() -> None:
    home = REPOSITORY / "docs/decisions"
    index = (home / "README.md").read_text(encoding="utf-8")
    pages = sorted(path for path in home.glob("*.md") if path.name != "README.md")
    assert [path.name for path in pages] == re.findall(r"\((.+\.md)\)$", index, re.MULTILINE)
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert re.findall("^## (.+)$", text, re.M) == ["Why", "What", "What follows"], path.name


def test_there_are_modules_to_look_at() -> None:
    assert len(MODULES) > 40


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_a_module_is_short_documented_and_named_after_what_it_does(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_MODULE
    assert ast.get_docstring(ast.parse(text))
    assert not re.search(r"util|helper|manager|common|misc", path.stem)


def test_a_room_can_be_overlooked() -> None:
    """commands/ has a module for each command."""
    rooms = Counter(path.parent.name for path in MODULES if path.name != "__init__.py")
    assert {name for name, n in rooms.items() if n > MODULES_IN_A_ROOM} <= {"commands"}


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_functions_are_short(path: Path) -> None:
    lengths = {f.name: (f.end_lineno or f.lineno) - f.lineno + 1 for f in functions(path)}
    assert {name: n for name, n in lengths.items() if n > LONGEST_FUNCTION} == {}


@pytest.mark.parametrize(
    "path",
    ABOVE_ADAPTERS,
    ids=names(ABOVE_ADAPTERS),
)
def test_no_shell_is_ever_asked(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "shell=True" not in text
    assert "os.system" not in text


# What of os and pathlib asks nobody but this process.
PURE_OS = {"environ", "path", "cpu_count", "uname", "urandom", "fsencode", "fsdecode", "fspath"}
PURE_PATHS = {"join", "split", "normpath", "basename", "dirname", "isabs", "commonpath"}
TOUCHING = set(
    "exists is_dir is_file is_symlink is_mount iterdir glob rglob unlink rmdir mkdir chmod lchmod "
    "read_text read_bytes write_text write_bytes open stat lstat touch symlink_to hardlink_to "
    "readlink rename samefile owner group expanduser".split()
)


def touches(path: Path) -> Iterator[str]:
    """Where a module asks or changes the world by os or pathlib."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "os" and node.attr not in PURE_OS:
                yield f"{node.lineno}: os.{node.attr}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
            of_os = isinstance(node.value.value, ast.Name) and node.value.value.id == "os"
            if of_os and node.value.attr == "path" and node.attr not in PURE_PATHS:
                yield f"{node.lineno}: os.path.{node.attr}"
        elif isinstance(node, ast.Call):
            yield from touching_call(node)


def touching_call(node: ast.Call) -> Iterator[str]:
    if isinstance(node.func, ast.Name) and node.func.id == "open":
        yield f"{node.lineno}: open()"
    elif isinstance(node.func, ast.Attribute):
        name, of = node.func.attr, node.func.value
        adapter = isinstance(of, ast.Name) and of.id in ("disk", "files", "safe_path", "node")
        # A YAML loader resolves tags; a path resolves without arguments.
        if (name in TOUCHING and not adapter) or (name == "resolve" and not node.args):
            yield f"{node.lineno}: .{name}()"


def test_only_adapters_touch_the_world() -> None:
    """import-linter has it of programs, signals and sockets; this is about files."""
    found = {str(path.relative_to(REPOSITORY)): list(touches(path)) for path in ABOVE_ADAPTERS}
    assert {path: where for path, where in found.items() if where} == {}


@pytest.mark.parametrize(
    "code",
    [
        *("os.kill(1, 9)", "os.path.exists(x)", "Path(x).unlink()", "open(x)", "path.resolve()"),
        *("(a / b).glob('*')", "os.scandir(x)", "path.parent.mkdir(parents=True)"),
    ],
)
def test_what_touches_the_world_is_seen(tmp_path: Path, code: str) -> None:
    module = tmp_path / "module.py"
    module.write_text(f"def work():\n    {code}\n")
    assert list(touches(module)) != []
    module.write_text("os.path.join(a, b), os.environ['x'], disk.exists(x), loader.resolve(a, b)\n")
    assert list(touches(module)) == []


def test_error_codes_are_unique_and_well_formed() -> None:
    counted = Counter(problem.code for problem in Problem)
    assert [code for code, count in counted.items() if count > 1] == []
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code) for code in counted)
    # A row that repeats another one entirely would silently be its alias.
    assert len(Problem.__members__) == len(list(Problem))


@pytest.mark.parametrize("problem", Problem, ids=[problem.code for problem in Problem])
def test_every_problem_is_used_and_has_a_hint_in_plain_words(problem: Problem) -> None:
    used = [p for p in MODULES if f"Problem.{problem.name}" in p.read_text(encoding="utf-8")]
    assert used, f"{problem.code} is never raised"
    assert 10 < len(problem.hint) < 120
    assert not problem.hint.endswith(".")


def test_the_documents_say_what_the_code_says() -> None:
    """docs/errors.md, the tables of docs/configuration.md, docs/s3mount.schema.json."""
    answer = subprocess.run(
        [sys.executable, "packaging/build_docs.py", "--check"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": "agent"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def codes_of_the_head() -> set[str]:
    text = (REPOSITORY / "packaging/head.sh").read_text(encoding="utf-8")
    return set(re.findall(r"^ *fail ([a-z-]+) ", text, re.MULTILINE))


def test_the_codes_of_the_bootstrap_files_head_are_explained_too() -> None:
    text = (REPOSITORY / "docs/errors.md").read_text(encoding="utf-8")
    listed = Counter(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))
    assert codes_of_the_head()
    assert {code: listed[code] for code in codes_of_the_head()} == dict.fromkeys(
        codes_of_the_head(), 1
    )
