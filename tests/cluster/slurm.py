"""Slurm, the real one: slurmctld on the head, slurmd on compute nodes, munge on all of them.

Debian's packages (systems.SYSTEMS["slurm"]), laid out as far as we use it like ParallelCluster's
Slurm: programs in /opt/slurm/bin, its configuration in /opt/slurm/etc. Debian's slurmd.service is
ordered as ParallelCluster's (After=munge.service network-online.target remote-fs.target).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.image import FIRST_USER
from cluster.parallelcluster import QUEUE

if TYPE_CHECKING:
    import subprocess

    from cluster.node import Node

SYSTEM = "slurm"
CONF = "/opt/slurm/etc/slurm.conf"
PROGRAMS = ("sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")
_NODE_NAME = "/etc/parallelcluster/slurm_plugin/slurm_nodename"
# As ParallelCluster's, but for what a container is not: it has the machine's uptime, by which Slurm
# would tell whether it was rebooted (so a node that was down is back when it registers), and the
# machine's control groups.
_SETTINGS = """\
ClusterName=hpc-dev
AuthType=auth/munge
SlurmUser=slurm
StateSaveLocation=/var/spool/slurm.state
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldLogFile=/var/log/slurmctld.log
SlurmdLogFile=/var/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=nohold_on_prolog_fail,sched_interval=2
"""


class Slurm:
    """The Slurm of a cluster whose nodes are up; ``head`` is where its controller runs."""

    def __init__(self, head: Node, *compute: Node, settings: str = "") -> None:
        """Write its configuration on all nodes, with additional lines, and start the controller.

        Compute nodes join with finalize().
        """
        self.head = head
        names = [node.name for node in compute]
        rows = [
            f"SlurmctldHost={head.name}({head.address})",
            *(f"NodeName={node.name} NodeAddr={node.address} CPUs=1" for node in compute),
            f"PartitionName={QUEUE} Nodes={','.join(names)} Default=YES MaxTime=INFINITE State=UP",
        ]
        text = _SETTINGS + settings + "\n".join(rows) + "\n"
        for node in (head, *compute):
            node.run(["systemctl", "disable", "--now", "slurmctld", "slurmd", "munge"])
            node.run(["mkdir", "-p", "/opt/slurm/bin", "/opt/slurm/etc"])
            node.run(["ln", "-sf", *(f"/usr/bin/{each}" for each in PROGRAMS), "/opt/slurm/bin"])
            node.write(CONF, text)
            node.run(["ln", "-sf", CONF, "/etc/slurm/slurm.conf"])
            node.write("/etc/slurm/cgroup.conf", "CgroupPlugin=cgroup/v1\n")
            node.run(["systemctl", "enable", "--now", "munge"])
        for node in compute:
            node.write(_NODE_NAME, f"{node.name}\n")
        head.run(["install", "-d", "-o", "slurm", "/var/spool/slurm.state"])
        head.run(["systemctl", "enable", "--now", "slurmctld"])

    def finalize(self, node: Node) -> None:
        """Have a node take jobs, as ParallelCluster does once OnNodeConfigured has ended well."""
        node.run(["systemctl", "enable", "slurmd"])
        node.run(["systemctl", "start", "slurmd"], timeout=300)

    def ask(self, program: str, *arguments: str, check: bool = True) -> str:
        """What one of Slurm's programs says on the head."""
        return self._run(program, *arguments, check=check).stdout.strip()

    def _run(
        self, program: str, *arguments: str, check: bool = True, user: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        return self.head.run([f"/opt/slurm/bin/{program}", *arguments], check=check, user=user)

    def state(self, node: Node) -> str:
        """What sinfo calls a node: idle, allocated, drained, down*…"""
        return self.ask("sinfo", "--noheader", f"--nodes={node.name}", "--format=%T")

    def reason(self, node: Node) -> str:
        """Why a node takes no jobs."""
        return self.ask("sinfo", "--noheader", "--list-reasons", f"--nodes={node.name}", "-o%E")

    def submit(self, script: str, output: str, *options: str) -> str:
        """Have the cluster's user submit a job whose output goes to a file on the node that runs
        it; returns its number."""
        self.head.write("/home/ubuntu/job.sh", script, mode=0o755)
        words = ("--parsable", f"--output={output}", "--chdir=/tmp", *options)
        return self._run("sbatch", *words, "/home/ubuntu/job.sh", user=FIRST_USER).stdout.strip()

    def power_off(self, node: Node) -> None:
        """Power a node off, and have Slurm know of it: its jobs wait until it is back."""
        node.power_off()
        self.ask("scontrol", "update", f"NodeName={node.name}", "State=DOWN", "Reason=reboot")

    def job(self, number: str, field: str = "JobState") -> str:
        """A field of what scontrol shows of a job."""
        words = self.ask("scontrol", "show", "job", number).split()
        return dict(word.partition("=")[::2] for word in words)[field]
