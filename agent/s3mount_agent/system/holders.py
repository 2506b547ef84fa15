"""Who uses a mount: found by what /proc says of each process, never by the mount."""

from __future__ import annotations

from pathlib import Path

from s3mount_agent.core.directory import is_below

_MOST = 5


def of(directory: str) -> str:
    """The programs that have a file or their working directory on a mount, as one line."""
    import psutil  # 20 ms, for an error message only

    found = []
    for process in psutil.process_iter(["name"]):
        if any(path == directory or is_below(path, directory) for path in _paths(process.pid)):
            found.append(f"{process.info['name']} (pid {process.pid})")
    more = f" and {len(found) - _MOST} more" if len(found) > _MOST else ""
    return ", ".join(found[:_MOST]) + more


def _paths(pid: int) -> list[str]:
    """Where a process's links in /proc lead; reading a link does not look at its target."""
    links = [f"/proc/{pid}/cwd", f"/proc/{pid}/root", f"/proc/{pid}/exe"]
    paths = []
    try:
        links += [str(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return []
    for link in links:
        try:
            paths.append(str(Path(link).readlink()))
        except OSError:
            continue
    return paths
