"""Which paths may be named in a configuration. Judged as text.

The node is asked by filesystem/safe_path.py (is the way to it root's?) and
reconcile/directories.py (is it free?).

A configuration may come from outside, and what it names is used by root. So there is a list of what
is permitted, and not only one of what is forbidden: docs/security.md.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.text import require_plain

# Below these anybody may have a directory of his own, but not in their place. Those that
# ParallelCluster reserves (SharedStorageMountDirValidator in aws-parallelcluster) are among them.
_SHARED = frozenset("/ /home /media /mnt /opt /srv /tmp".split())
# Whole trees that belong to the system, to ParallelCluster or to the agent: programs, libraries and
# settings are searched there by root. Any other directory at the top is the cluster's own.
_SYSTEM = tuple(
    "/bin /boot /cgroup /dev /efi /etc /gnu /lib /lib32 /lib64 /libexec /libx32 /lost+found /nix "
    "/ostree /proc /root /run /sbin /selinux /snap /sys /sysroot /usr /var "
    "/opt/amazon /opt/aws /opt/intel /opt/parallelcluster /opt/s3mount-agent /opt/slurm".split()
)
# Where mount-s3 may write its cache and its logs, beside where there may be mounts.
_WRITABLE = ("/var/cache", "/var/log", "/var/tmp")  # noqa: S108
_OTHERS_OWN = frozenset(
    "/var/cache/apparmor /var/cache/apt /var/cache/debconf /var/cache/dnf /var/cache/fontconfig "
    "/var/cache/ldconfig /var/cache/man /var/cache/private /var/cache/yum /var/log/apt "
    "/var/log/audit /var/log/journal /var/log/private /var/log/sudo-io".split()
)
# What root's programs search by themselves: never to be mounted over, by whatever name.
_SEARCHED = tuple(
    "/bin /boot /etc /lib /lib32 /lib64 /libx32 /root /sbin /usr /run/s3mount-agent /run/systemd "
    "/var/lib /var/spool "
    "/opt/amazon /opt/aws /opt/intel /opt/parallelcluster /opt/s3mount-agent /opt/slurm".split()
)
# Where a node says in which other directories root's programs are searched: login, shells, sudo,
# cron and systemd.
PATH_FILES = (
    *(f"/etc/{name}" for name in "environment login.defs profile bash.bashrc bashrc".split()),
    *(f"/etc/{name}" for name in "sudoers crontab anacrontab systemd/system.conf".split()),
    *(f"/root/.{name}" for name in "profile bash_profile bash_login bashrc".split()),
)
PATH_FOLDERS = ("/etc/cron.d", "/etc/sudoers.d", "/etc/profile.d", "/etc/systemd/system.conf.d")
_PATH_LINE = re.compile(
    r"[^#]*?(?:\bPATH\s*\+?=|ENV_(?:SU)?PATH\s+(?:PATH=)?|\bsecure_path\s*\+?=)(.*?)(?:\s#.*)?$"
)
_BETWEEN_PLACES = re.compile(r"\$\{?PATH|[\s:;\"',]+")
# Reading some of these never ends.
_NO_FILES = ("/dev", "/proc", "/sys")

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
    tree = reserved_by(directory)
    if tree:
        raise AgentError(
            Problem.DIRECTORY_RESERVED,
            f"the directory {directory} belongs to the system"
            + (f" (it is below {tree})" if tree != directory else ""),
        )
    return directory


def normal(path: str) -> str:
    """The one spelling of an absolute path: without ``//``, ``.`` and a final slash.

    Not posixpath.normpath alone, which leaves two slashes at the beginning.
    """
    return "/" + posixpath.normpath(path).lstrip("/")


def reserved_by(path: str) -> str | None:
    """Which directory of the system a path is or lies in, or None where there may be a mount."""
    if path in _SHARED:
        return path
    if ".ssh" in path.split("/"):
        return path
    return next((tree for tree in _SYSTEM if path == tree or is_below(path, tree)), None)


def is_searched(path: str) -> bool:
    """Whether root's own programs, libraries or settings are in a directory."""
    return any(path == tree or is_below(path, tree) for tree in _SEARCHED)


def in_search_path(path: str, lines: Iterable[str]) -> set[str]:
    """The directories in a PATH, and in those that lines of ``PATH_FILES`` set. What is in another
    variable is not known."""
    values = [path, *(match[1] for line in lines if (match := _PATH_LINE.match(line)))]
    words = _BETWEEN_PLACES.split(":".join(values))
    return {normal(word) for word in words if word.startswith("/") and "$" not in word}


def may_be_written(path: str) -> bool:
    """Whether mount-s3 may be told to write its cache or its logs in a directory."""
    if not path.startswith("/") or ".." in path.split("/"):
        return False
    place = normal(path)
    if any(is_below(place, writable) for writable in _WRITABLE):
        return not any(place == own or is_below(place, own) for own in _OTHERS_OWN)
    return reserved_by(place) is None


def may_be_read(path: str) -> bool:
    """Whether mount-s3 may be told to read a file."""
    if not path.startswith("/") or ".." in path.split("/"):
        return False
    return not any(is_below(normal(path), tree) for tree in _NO_FILES)


def is_below(directory: str, ancestor: str) -> bool:
    """Whether a path lies strictly below another; both absolute and normal."""
    return directory.startswith(posixpath.join(ancestor, ""))


def ancestors(path: str) -> Iterator[str]:
    """A path itself and all that it lies below, innermost first."""
    while path != "/":
        yield path
        path = posixpath.dirname(path)
    yield path
