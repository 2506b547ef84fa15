"""What there is to divide on a node: its memory, what Slurm promises of it to jobs, its CPUs.

Slurm's configuration lies on a file system of the head node, which may be away: it is asked at a
bootstrap and by `apply` only, and remembered.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

from s3mount_agent.core.resources import Machine
from s3mount_agent.filesystem import json_codec, paths
from s3mount_agent.system import probe

_NODE_NAME = Path("/etc/parallelcluster/slurm_plugin/slurm_nodename")
_SLURM = Path("/opt/slurm/etc")
_REMEMBERED = paths.STATE / "slurm.json"
_SLURM_SECONDS = 5.0


def read() -> Machine:
    """The machine's memory (MiB), what is remembered of Slurm's RealMemory for this node, and its
    CPUs."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(memory >> 20, remembered(), os.cpu_count() or 1)


def remembered(name_file: Path = _NODE_NAME, path: Path = _REMEMBERED) -> int | None:
    """RealMemory of this node in MiB; an image's or another node's is not ours."""
    known = json_codec.read(path, _build)
    try:
        same = known is not None and known[0] == name_file.read_text().strip()
    except (OSError, ValueError):
        return None
    return known[1] if known is not None and same else None


def _build(fields: Any) -> tuple[str, int]:
    memory = json_codec.field(fields, "real_memory", int)
    if memory <= 0:
        raise ValueError(f"{memory} MiB is no memory")
    return json_codec.field(fields, "node", str), memory


def ask_slurm(
    name_file: Path = _NODE_NAME, slurm: Path = _SLURM, path: Path = _REMEMBERED
) -> str | None:
    """Asks Slurm's configuration for this node's RealMemory, and remembers it.

    What cannot be found keeps what was found before. Returns a sentence if nothing answers.
    """
    try:
        name = name_file.read_text().strip()
    except (OSError, ValueError):
        return None  # no node of Slurm's
    try:
        found = probe.ask(slurm_memory, name, slurm, timeout=_SLURM_SECONDS, place=f"slurm {slurm}")
    except probe.SilenceError as error:
        return f"{slurm} does not answer: {error.strerror}"
    if found is not None:
        json_codec.write(path, {"node": name, "real_memory": found})
    return None


def slurm_memory(name: str, slurm: Path = _SLURM) -> int | None:
    """RealMemory of a node in MiB; ParallelCluster writes it for each compute resource.

    Reads where a file system may hang.
    """
    with contextlib.suppress(OSError, ValueError):  # a host list that ParallelCluster writes not
        confs = sorted(slurm.glob("pcluster/slurm_parallelcluster_*.conf"))
        lines = [line for conf in confs for line in conf.read_text().splitlines()]
        for line in lines:
            match = re.match(r"NodeName=(\S+) .*\bRealMemory=(\d+)", line)
            if match and _covers(match[1], name):
                return int(match[2])
    return None


def _covers(pattern: str, name: str) -> bool:
    """Whether a Slurm host list such as ``p1-dy-m5-[1-30]`` has a name."""
    prefix, bracket, ranges = pattern.rstrip("]").partition("[")
    if not bracket:
        return pattern == name
    number = name[len(prefix) :]
    if not name.startswith(prefix) or not number.isdigit():
        return False
    for each in ranges.split(","):
        first, _, last = each.partition("-")
        if int(first) <= int(number) <= int(last or first):
            return True
    return False
