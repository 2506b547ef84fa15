"""The life of the process: fork, mount, report, wait, unmount (upstream run.rs, session.rs)."""

from __future__ import annotations

import os
import queue
import select
import shutil
import signal
from pathlib import Path
from typing import Any, Callable

from . import VERSION
from .cli import Arguments
from .errors import MountError
from .logs import open_log, reason
from .memory import Memory
from .mounting import MountPoint

START_SECONDS = 30
DEFAULT_THREADS = 16
READY, FAILED = b"0", b"1"
WORKERS_GONE = "all FUSE workers exited"


def run(arguments: Arguments, libfuse: Any) -> None:
    message = f"{arguments.bucket()} is mounted at {arguments.directory}"
    if arguments.get("--foreground"):
        mount = Mount(arguments, libfuse)
        print(message, flush=True)
        mount.wait()
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(readable)
        _serve_in_background(arguments, libfuse, writable)
    os.close(writable)
    _await_child(child, readable)
    print(message)


def _serve_in_background(arguments: Arguments, libfuse: Any, pipe: int) -> None:
    """Stay in the caller's session, process group and directory, as upstream does."""
    try:
        mount = Mount(arguments, libfuse)
    except MountError:
        os.write(pipe, FAILED)
        raise
    os.write(pipe, READY)
    os.close(pipe)
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    mount.wait()


def _await_child(child: int, pipe: int) -> None:
    ready, _, _ = select.select([pipe], [], [], START_SECONDS)
    if not ready:
        # Not waited for: it may well live on.
        os.kill(child, signal.SIGTERM)
        raise MountError(
            f"Timeout after {START_SECONDS} seconds while waiting for mount process to be ready"
        )
    if os.read(pipe, 1) != READY:
        os.waitpid(child, 0)
        raise MountError("Failed to create mount process")


class Mount:
    """A mounted bucket, served by threads of this process."""

    def __init__(self, arguments: Arguments, libfuse: Any) -> None:
        self._libfuse = libfuse
        self._log = open_log(arguments)
        self._events: queue.SimpleQueue[str] = queue.SimpleQueue()
        if not arguments.get("--no-log"):
            signal.signal(signal.SIGUSR2, lambda *_: None)  # would change the logs' verbosity
        _write_pid_file()
        self._log.info("mountpoint_s3::run", f"mount-s3 {VERSION}")
        self._point = MountPoint(arguments)
        if arguments.get("--sse-kms-key-id") and arguments.get("--sse") == "AES256":
            raise MountError("--sse-kms-key-id can not be used with --sse AES256")
        _check_part_sizes(arguments)
        self._memory = Memory(arguments, self._log)
        self._mount(arguments)

    def _mount(self, arguments: Arguments) -> None:
        # These load Python's HTTP client: a wrong command line is refused without it.
        from .filesystem import FileSystem
        from .kernel import Session
        from .s3 import open_bucket

        location = arguments.bucket()
        s3 = open_bucket(arguments, location)
        self._remove_cache = _make_cache(arguments)
        files = FileSystem(arguments, s3, location.prefix, self._memory)
        descriptor = self._point.mount(self._libfuse)
        session = Session(descriptor, files, self._point.allowed_users(), self._log)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: self._events.put("received interrupt signal"))
        session.start(
            arguments.get("--max-threads", DEFAULT_THREADS),
            lambda: self._events.put(WORKERS_GONE),
        )
        self._log.info(
            "mountpoint_s3::run", f"successfully mounted {location} at {arguments.directory}"
        )

    def wait(self) -> None:
        """Serve until a signal or somebody's umount, and then end the process."""
        cause = self._events.get()
        self._log.info("mountpoint_s3_fs::fuse::session", f"{cause}, shutting down Mountpoint")
        if self._remove_cache:
            self._remove_cache()
        self._log.info("mountpoint_s3_fs::fuse::session", "attempting unmount")
        self._point.unmount(self._libfuse, self._log)
        # Where somebody uses it that has failed, and it goes on serving: to the next signals nobody
        # listens any more. It ends when somebody else unmounts, or kills it.
        while cause != WORKERS_GONE:
            cause = self._events.get()
        # At once: threads still wait for requests, and the standard streams are closed.
        os._exit(0)


def _make_cache(arguments: Arguments) -> Callable[[], None] | None:
    """Start with an empty cache directory, whatever was in it; give back what removes it."""
    parent = arguments.get("--cache")
    if parent is None or arguments.get("--max-cache-size") == 0:
        return None
    directory = Path(parent) / "mountpoint-cache"
    what = "cleanup"
    try:
        if directory.exists():
            shutil.rmtree(directory)
        what = "creation"
        directory.mkdir(mode=0o700)
    except OSError as error:
        raise MountError(
            "failed to create cache directory",
            f"{what} of cache sub-directory failed due to IO error: {reason(error)}",
        ) from error
    return lambda: shutil.rmtree(directory, ignore_errors=True)


def _check_part_sizes(arguments: Arguments) -> None:
    both = arguments.get("--part-size", 8 << 20)
    for name in ("--read-part-size", "--write-part-size"):
        if not 5 << 20 <= arguments.get(name, both) <= 5 << 30:
            raise MountError(
                "Failed to create S3 client",
                "invalid configuration: part size must be at least 5 MiB and at most 5 GiB",
            )


def _write_pid_file() -> None:
    name = os.environ.get("UNSTABLE_MOUNTPOINT_PID_FILE")
    if name:
        Path(name).write_text(str(os.getpid()))
