"""The door to a mounted directory: every look at one is made by a child that can be left behind.

A program that touches a hung FUSE file system cannot be killed before the file system answers, so
whoever looks must not be anybody we need.
"""

from __future__ import annotations

import enum
import errno
import subprocess
import sys
import threading
from dataclasses import dataclass

_LIST = "import os,sys\nos.statvfs(sys.argv[1])\nnext(os.scandir(sys.argv[1]),None)"
_LOOK = "import os,sys\nos.statvfs(sys.argv[1])"
_REPORT = (
    "import sys\ntry:\n exec(sys.argv[2])\nexcept OSError as e:\n sys.exit(min(e.errno or 1,255))"
)


class Answer(enum.Enum):
    """How a directory answers."""

    ANSWERS = "answers"
    DISCONNECTED = "disconnected"
    ERROR = "error"
    SILENT = "silent"


@dataclass(frozen=True)
class Finding:
    """An answer, and the error's name (``EIO``) where it is one."""

    answer: Answer
    error: str | None = None


def look(directory: str, *, timeout: float) -> Finding:
    """Whether the file system itself answers; asks nothing of S3."""
    return _probe(_LOOK, directory, timeout)


def list_first(directory: str, *, timeout: float) -> Finding:
    """Whether the directory can be listed, which takes S3 and the permission to list."""
    return _probe(_LIST, directory, timeout)


def _probe(code: str, directory: str, timeout: float) -> Finding:
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _REPORT, directory, code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        code_number = child.wait(timeout)
    except subprocess.TimeoutExpired:
        child.kill()
        # Reaped whenever it ends: until then it cannot even be killed.
        threading.Thread(target=child.wait, daemon=True).start()
        return Finding(Answer.SILENT)
    if code_number == 0:
        return Finding(Answer.ANSWERS)
    name = errno.errorcode.get(code_number, str(code_number))
    if code_number in (errno.ENOTCONN, errno.ECONNABORTED):
        return Finding(Answer.DISCONNECTED, name)
    return Finding(Answer.ERROR, name)
