"""What there is to divide on a node: its memory, and what Slurm promises to jobs."""

from __future__ import annotations

import os
import re
from pathlib import Path

from s3mount_agent.core.resources import Machine

_NODE_NAME = Path("/etc/parallelcluster/slurm_plugin/slurm_nodename")
_SLURM = Path("/opt/slurm/etc")


def read() -> Machine:
    """The machine's memory (MiB), and Slurm's RealMemory for this node where it can be found."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(memory >> 20, slurm_memory())


def slurm_memory(name_file: Path = _NODE_NAME, slurm: Path = _SLURM) -> int | None:
    """RealMemory of this node in MiB; ParallelCluster writes it for each compute resource."""
    try:
        name = name_file.read_text().strip()
        confs = sorted(slurm.glob("pcluster/slurm_parallelcluster_*.conf"))
        lines = [line for conf in confs for line in conf.read_text().splitlines()]
        for line in lines:
            match = re.match(r"NodeName=(\S+) .*\bRealMemory=(\d+)", line)
            if match and _covers(match[1], name):
                return int(match[2])
    except (OSError, ValueError):  # a host list that ParallelCluster does not write
        return None
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
