"""Mounting through libfuse2, as AWS's own build does, and taking the mount down again."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from pathlib import Path
from typing import Any

from .cli import Arguments
from .errors import MountError
from .logs import Log, reason

PR_SET_NAME = 15


class FuseArgs(ctypes.Structure):
    """struct fuse_args of fuse_opt.h."""

    _fields_ = [
        ("argc", ctypes.c_int),
        ("argv", ctypes.POINTER(ctypes.c_char_p)),
        ("allocated", ctypes.c_int),
    ]


def load_libfuse() -> Any:
    """Raise OSError with the dynamic linker's words on a machine without libfuse2."""
    return ctypes.CDLL("libfuse.so.2", use_errno=True)


def take_name() -> None:
    """Be called mount-s3 in ps and pgrep, not python3."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, b"mount-s3", 0, 0, 0)


class MountPoint:
    """A directory, or /dev/fd/N where the caller has mounted already (upstream fuse/config.rs)."""

    def __init__(self, arguments: Arguments) -> None:
        self.path: str = arguments.directory
        self._arguments = arguments
        passed = re.fullmatch(r"/dev/fd/(\d+)", self.path)
        self._passed = int(passed[1]) if passed else None
        problem = self._problem_with_descriptor() if passed else self._problem_with_directory()
        if problem:
            raise MountError("Failed to create mount point", problem)

    def mount(self, libfuse: Any) -> int:
        """Give back the descriptor on which the kernel sends its requests."""
        if self._passed is not None:
            return self._passed
        words = [b"mount-s3"]
        for option in _mount_options(self._arguments):
            words += [b"-o", option.encode()]
        argv = (ctypes.c_char_p * len(words))(*words)
        arguments = FuseArgs(len(words), argv, 0)
        ctypes.set_errno(0)
        descriptor = int(
            libfuse.fuse_mount_compat25(os.fsencode(self.path), ctypes.byref(arguments))
        )
        if descriptor < 0:
            number = ctypes.get_errno()
            text = reason(OSError(number, os.strerror(number))) if number else "Unspecified Error"
            raise MountError("Failed to create FUSE session", text)
        return descriptor

    def unmount(self, libfuse: Any, log: Log) -> None:
        """Plain umount(2), even if someone else has mounted there since; lazily if not root."""
        if self._passed is not None:
            return
        path = os.fsencode(self.path)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.umount2(path, 0) == 0:
            return
        number = ctypes.get_errno()
        if number == errno.EPERM:
            libfuse.fuse_unmount_compat22(path)
        else:
            log.warning("fuser::mnt::fuse2", f"umount failed with {os.strerror(number)}")

    def allowed_users(self) -> frozenset[int] | None:
        """Who may use the mount, where the kernel itself lets everybody in (fuser's SessionACL)."""
        if self._arguments.get("--allow-other"):
            return None
        if self._arguments.get("--allow-root"):
            return frozenset({0, os.geteuid()})
        return frozenset({os.geteuid()})

    def _problem_with_directory(self) -> str:
        # A stale mount, on which stat answers ENOTCONN, does "not exist" for Rust either.
        if not os.path.exists(self.path):  # noqa: PTH110  Path.exists raises ENOTCONN
            return f"mount point {self.path} does not exist"
        if not Path(self.path).is_dir():
            return f"mount point {self.path} is not a directory"
        if self.path in _mounted():
            return f"mount point {self.path} is already mounted"
        return ""

    def _problem_with_descriptor(self) -> str:
        try:
            target = str(Path(f"/proc/self/fd/{self._passed}").readlink())
        except OSError:
            return f"mount point {self.path} is not a valid file descriptor"
        if target != "/dev/fuse":
            return (
                f"expected mount point {self.path} to be a /dev/fuse file descriptor "
                f"but got {target}"
            )
        return ""


def _mount_options(arguments: Arguments) -> list[str]:
    options = ["default_permissions", "fsname=mountpoint-s3", "noatime"]
    options += ["ro"] if arguments.get("--read-only") else []
    # fusermount's auto_unmount works only together with allow_other.
    if arguments.get("--auto-unmount"):
        options.append("auto_unmount")
    if any(arguments.get(f"--{name}") for name in ("auto-unmount", "allow-root", "allow-other")):
        options.append("allow_other")
    return options


def _mounted() -> set[str]:
    """Every mount point except the triggers of automounts."""
    points = set()
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        if fields[fields.index("-") + 1] != "autofs":
            points.add(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4]))
    return points
