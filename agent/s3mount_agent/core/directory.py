"""Which paths may become the directory of a mount. Judged as text; the node is asked elsewhere."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.text import require_plain

# Directories that must stay what they are, though a mount below them is fine. The first rows are
# those that ParallelCluster reserves (SharedStorageMountDirValidator in aws-parallelcluster).
_RESERVED = frozenset(
    "/ /bin /boot /dev /etc /lib /lib64 /media /mnt /opt /proc /root /run /sbin /srv /sys /tmp "
    "/usr /var /opt/parallelcluster /opt/parallelcluster/shared "
    "/opt/parallelcluster/shared_login_nodes /opt/slurm /opt/intel "
    "/home /lib32 /libx32 /lost+found /opt/amazon /opt/aws /opt/s3mount-agent /usr/local "
    "/var/cache /var/lib /var/log /var/opt /var/run /var/spool /var/tmp".split()
)
# Directories under which nothing may be mounted either: the system or ParallelCluster lives there.
_RESERVED_TREES = (
    "/bin /boot /dev /etc /lib /lib64 /proc /run /sbin /sys /usr/bin /usr/lib /usr/lib64 "
    "/usr/sbin /usr/share /var/run /var/lib /var/log /var/cache /var/spool /opt/slurm "
    "/opt/parallelcluster /opt/aws /opt/amazon /opt/s3mount-agent"
).split()

_LONGEST_PATH = 4095
_LONGEST_NAME = 255


def parse_directory(text: str) -> str:
    """Reads a directory argument and returns it in its one spelling, without a final slash.

    Raises ``directory-invalid`` or ``directory-reserved`` (or ``argument-not-text``).
    """
    require_plain("directory", text)
    if not text.startswith("/"):
        raise AgentError(Problem.DIRECTORY_INVALID, f"the directory {text!r} is not absolute")
    names = [name for name in text.split("/") if name]
    if ".." in names or "." in names:
        raise AgentError(Problem.DIRECTORY_INVALID, f"the directory {text!r} contains '.' or '..'")
    if "\\" in text:
        # It continues lines in unit files and is an escape in the mount table.
        raise AgentError(Problem.DIRECTORY_INVALID, f"the directory {text!r} contains a backslash")
    too_long = len(text.encode()) > _LONGEST_PATH
    if too_long or any(len(name.encode()) > _LONGEST_NAME for name in names):
        raise AgentError(Problem.DIRECTORY_INVALID, f"the directory {text[:60]!r}… is too long")
    directory = "/" + "/".join(names)
    tree = next((tree for tree in _RESERVED_TREES if is_below(directory, tree)), None)
    if directory in _RESERVED or directory in _RESERVED_TREES or tree:
        raise AgentError(
            Problem.DIRECTORY_RESERVED,
            f"the directory {directory} belongs to the system"
            + (f" (it is below {tree})" if tree else ""),
        )
    return directory


def is_below(directory: str, ancestor: str) -> bool:
    """Whether a path lies strictly below another; both absolute and normal."""
    return directory.startswith(posixpath.join(ancestor, ""))


def require_apart(directories: Iterable[str]) -> None:
    """Refuses a directory that is given twice or lies below another (``directory-twice``)."""
    seen: list[str] = []
    for directory in directories:
        for other in seen:
            if directory == other:
                raise AgentError(
                    Problem.DIRECTORY_TWICE, f"the directory {directory} is given twice"
                )
            if is_below(directory, other) or is_below(other, directory):
                raise AgentError(
                    Problem.DIRECTORY_TWICE,
                    f"the directories {other} and {directory} lie inside each other",
                )
        seen.append(directory)
