"""Logs as upstream logging.rs writes them: to syslog or a file, and to stdout in the foreground."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Callable

from .cli import Arguments
from .errors import MountError

LEVELS = {"DEBUG": 7, "INFO": 6, "WARN": 4, "ERROR": 3}
USER_FACILITY = 1 << 3


class Log:
    """Every line goes to every sink; a sink takes the level, the source and the message."""

    def __init__(self, *, debug: bool = False) -> None:
        self._sinks: list[Callable[[str, str, str], None]] = []
        self._lowest = LEVELS["DEBUG" if debug else "INFO"]

    def debug(self, source: str, message: str) -> None:
        self._write("DEBUG", source, message)

    def info(self, source: str, message: str) -> None:
        self._write("INFO", source, message)

    def warning(self, source: str, message: str) -> None:
        self._write("WARN", source, message)

    def _write(self, level: str, source: str, message: str) -> None:
        if LEVELS[level] <= self._lowest:
            for sink in self._sinks:
                sink(level, source, message)

    def to_descriptor(self, descriptor: int) -> None:
        def sink(level: str, source: str, message: str) -> None:
            now = time.time()
            moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
            micros = int(now % 1 * 1e6)
            line = f"{moment}.{micros:06}Z {level:>5} {_thread()} {source}: {message}\n"
            os.write(descriptor, line.encode())

        self._sinks.append(sink)

    def to_syslog(self) -> None:
        """Do nothing where there is no syslog: "Don't fail … since it's a default"."""
        log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            log.connect("/dev/log")
        except OSError:
            log.close()
            return

        def sink(level: str, source: str, message: str) -> None:
            moment = time.strftime("%b %e %H:%M:%S")
            head = f"<{USER_FACILITY | LEVELS[level]}>{moment} mount-s3[{os.getpid()}]:"
            with suppress(OSError):  # a log that is gone is no reason to fail
                log.send(f"{head} [{level}] {_thread()} {source}: {message}".encode())

        self._sinks.append(sink)


def _thread() -> str:
    name = threading.current_thread().name
    number = name.rpartition("-")[2] if name.startswith("fuse-worker-") else "1"
    return f"ThreadId({number:0>2})"


def open_log(arguments: Arguments) -> Log:
    log = Log(debug=arguments.get("--debug"))
    if arguments.get("--no-log"):
        return log
    directory = arguments.get("--log-directory")
    if directory is None:
        log.to_syslog()
    else:
        log.to_descriptor(_new_file(Path(directory)))
    if arguments.get("--foreground"):
        log.to_descriptor(1)
    return log


def _new_file(directory: Path) -> int:
    moment = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime())
    name = directory / f"mountpoint-s3-{moment}.{os.urandom(3).hex()}.log"
    try:
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise MountError(
            "failed to initialize logging", "failed to create log folder", reason(error)
        ) from error
    try:
        return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise MountError(
            "failed to initialize logging", "failed to create log file", reason(error)
        ) from error


def reason(error: OSError) -> str:
    """Describe an error of the system as Rust does."""
    return f"{error.strerror} (os error {error.errno})"
