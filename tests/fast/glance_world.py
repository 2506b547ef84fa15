"""A node as `status` sees it, in files below one directory: two mounts that are up, served by one
living process, and a daemon that holds its lock. Imports little, since a child that counts what
`status` imports uses it, too."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from s3mount_agent.core.states import State
from s3mount_agent.decide.mount_status import MountStatus
from s3mount_agent.filesystem import paths, procfs
from s3mount_agent.filesystem.mountinfo import Table
from s3mount_agent.state import in_force, status_file
from s3mount_agent.supervisor import fuse_connections
from s3mount_agent.supervisor.fuse_connections import Connection

NODE = {"role": "compute", "mode": "direct"}
INVOCATION = "4f1ad7cb0e3f4ab0a5b1d5bbf2d8fcad"
IDS = {"/mnt/s3": "585e79a6", "/mnt/s3-readonly": "91ef1212"}
ROOT = "22 1 259:1 / / rw shared:1 - ext4 /dev/root rw\n"
LINE = "{id} 22 0:{minor} / {directory} rw - fuse mountpoint-s3 rw,user_id=0\n"


class World:
    """The node in ``home``; ``patch`` is setattr, or a fixture's that can be taken back."""

    def __init__(self, home: Path, patch: Callable[[object, str, object], None]) -> None:
        self.home = home
        self.snapshot, self.table = home / "status.json", home / "mountinfo"
        self.units, self.lock = home / "units", home / "daemon.lock"
        patch(status_file, "load", partial(status_file.load, self.snapshot))
        patch(fuse_connections, "_HOME", home / "connections")
        patch(procfs, "_UNITS", self.units)
        patch(paths, "UNITS", (home / "none", home))
        patch(paths, "DAEMON_LOCK", self.lock)
        patch(paths, "CONFIG", home / "config.yaml")
        patch(in_force, "PATH", home / "in-force.json")
        patch(paths, "broken_command", lambda: None)
        patch(Table, "read", partial(Table.read, self.table))

    def make(self, pid: int) -> int:
        """Writes the node, whose mounts the process ``pid`` serves; returns the descriptor that
        holds the daemon's lock."""
        self.units.mkdir()
        rows = ROOT
        for number, (directory, mount_id) in enumerate(IDS.items()):
            minor = 54 + number
            rows += LINE.format(id=96 + number, minor=minor, directory=directory)
            fuse_connections.save(
                Connection(directory, f"0:{minor}", 96 + number, pid, procfs.started(pid) or 0)
            )
            self.link(mount_id)
            self.unit(directory).touch()
        self.table.write_text(rows)
        self.node, self.rows = NODE, [self.row(directory, pid) for directory in IDS]
        status_file.save(self.node, self.rows, self.snapshot)
        self.descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT)
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        return self.descriptor

    def row(self, directory: str, pid: int) -> MountStatus:
        """A mount as the daemon saw it."""
        return MountStatus(
            IDS[directory],
            directory,
            "my-bucket",
            read_only=False,
            state=State.OK,
            since="2026-01-01T00:00:00Z",
            asked=pid,
            pid=pid,
            invocation=INVOCATION,
        )

    def unit(self, directory: str) -> Path:
        """A mount's unit file."""
        return self.home / f"mountpoint-s3-{IDS[directory]}.service"

    def link(self, mount_id: str, invocation: str = INVOCATION) -> None:
        """What systemd does when a unit starts."""
        link = self.units / f"invocation:mountpoint-s3-{mount_id}.service"
        link.unlink(missing_ok=True)
        link.symlink_to(invocation)
