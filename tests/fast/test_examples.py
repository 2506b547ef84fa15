"""The examples that people copy: what of them can be checked without AWS."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

AMI = Path(__file__).parents[2] / "examples/ami"


def component_commands() -> list[str]:
    """The shell lines of the component, as EC2 Image Builder runs them."""
    phases = yaml.safe_load((AMI / "component.yaml").read_text(encoding="utf-8"))["phases"]
    steps = [step for phase in phases for step in phase["steps"]]
    shell = [step["inputs"]["commands"] for step in steps if step["action"] == "ExecuteBash"]
    return [line for lines in shell for line in lines]


def packer_commands() -> list[str]:
    """The shell lines of Packer's provisioner."""
    text = (AMI / "s3mount.pkr.hcl").read_text(encoding="utf-8")
    inline = text.partition("inline = [")[2].partition("]")[0]
    return re.findall(r'^\s*"(.*)",?$', inline, re.MULTILINE)


def test_both_ways_to_an_image_run_the_same_command() -> None:
    for commands in (component_commands(), packer_commands()):
        assert [c.removeprefix("sudo ") for c in commands if c.endswith(" install")] == [
            "sh /tmp/s3mount-bootstrap install"
        ]


@pytest.mark.parametrize("line", component_commands() + packer_commands())
def test_a_shell_line_is_one(line: str) -> None:
    answer = subprocess.run(
        ["sh", "-n", "-c", line], capture_output=True, text=True, timeout=10, check=False
    )
    assert (answer.returncode, answer.stderr) == (0, "")


def test_the_component_is_what_image_builder_takes() -> None:
    document = yaml.safe_load((AMI / "component.yaml").read_text(encoding="utf-8"))
    assert document["schemaVersion"] == 1.0
    assert [phase["name"] for phase in document["phases"]] == ["build", "validate", "test"]
    for phase in document["phases"]:
        for step in phase["steps"]:
            assert step["action"] in {"S3Download", "ExecuteBash"}
            assert re.fullmatch(r"[A-Za-z0-9_-]{1,128}", step["name"])
            assert step["timeoutSeconds"] > 0


def test_build_image_names_the_component() -> None:
    """ParallelCluster 3.16.1's own schema takes it as well; it is no dependency of these tests."""
    build = yaml.safe_load((AMI / "build-image.yaml").read_text(encoding="utf-8"))["Build"]
    (component,) = build["Components"]
    name = yaml.safe_load((AMI / "component.yaml").read_text(encoding="utf-8"))["name"]
    assert component["Type"] == "arn"
    assert f":component/{name}/" in component["Value"]


SLURM = AMI.with_name("slurm")


def test_the_page_on_slurm_shows_the_example_as_it_is() -> None:
    page = (AMI.parents[1] / "docs/slurm.md").read_text(encoding="utf-8")
    shown = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])
    example = yaml.safe_load((SLURM / "cluster.yaml").read_text(encoding="utf-8"))
    settings = example["Scheduling"]["SlurmSettings"]
    assert shown["Scheduling"]["SlurmSettings"] == settings
    (program, *_) = settings["CustomSlurmSettings"]
    assert (SLURM / Path(program["HealthCheckProgram"]).name).stat().st_mode & 0o111
    for path in re.findall(r"\(\.\./(examples/slurm[^)]*)\)", page):
        assert (AMI.parents[1] / path).exists(), path


@pytest.mark.parametrize("name", ["s3mount-health-check", "50_s3mount", "job.sbatch"])
def test_a_script_for_slurm_is_one(name: str) -> None:
    answer = subprocess.run(
        ["sh", "-n", SLURM / name], capture_output=True, text=True, timeout=10, check=False
    )
    assert (answer.returncode, answer.stderr) == (0, "")
