"""All commands, a row each: what it takes, what its help says, what people call it by mistake.

``status`` and the units' hooks read this at each start: nothing is imported here but what Python
has loaded anyway, and a command's own module is imported when it is called.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Option(NamedTuple):
    """An option: ``value`` names what follows it (nothing, if empty), ``read`` reads that and
    raises ValueError for what it cannot be, which ``form`` describes."""

    name: str
    about: str
    value: str = ""
    read: Callable[[str], object] = str
    form: str = ""


class Command(NamedTuple):
    """A command: ``about`` is its line in the list of all, ``does`` the text of its own help.

    ``words`` are its arguments, each with a sentence; at least ``least`` and at most ``most`` of
    them (None: any number). ``options_first``: from the first argument on nothing is an option of
    ours, and ``stray`` is the hint for what is none. ``aka``: other words by which people look for
    it. ``interrupted`` is said after Ctrl-C.
    """

    name: str
    about: str
    does: str
    options: tuple[Option, ...] = ()
    usage: tuple[str, ...] = ()
    words: tuple[tuple[str, str], ...] = ()
    least: int = 0
    most: int | None = 0
    codes: tuple[tuple[int, str], ...] = ()
    examples: tuple[str, ...] = ()
    hidden: bool = False
    options_first: bool = False
    stray: str = ""
    aka: tuple[str, ...] = ()
    interrupted: str = "interrupted: nothing was changed"

    def option(self, name: str) -> Option | None:
        """The option of this name."""
        return next((option for option in self.options if option.name == name), None)


def seconds(text: str) -> float:
    """A time such as 90, 90s, 5m or 1h, in seconds; raises ValueError."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)\s*([smhd]?)", text, re.ASCII)
    if match is None:
        raise ValueError(text)
    return float(match[1]) * _UNITS[match[2]]


def _release(text: str) -> str:
    if not re.fullmatch(r"\d+\.\d+\.\d+|latest", text, re.ASCII):
        raise ValueError(text)
    return text


def _choice(name: str, words: tuple[str, ...], about: str) -> Option:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return Option(name, about, "|".join(words), read, f"one of {', '.join(words)}")


_ASSUME_FAMILY = _choice(
    "--assume-family",
    ("deb", "rpm"),
    "the kind of this node's packages, where the agent does not know its Linux system",
)
JSON = Option("--json", "one line of JSON, for programs")
_URL = "s3://bucket/key, https://…, ssm:/parameter/name or an absolute path"
_AGAIN = "interrupted: run it again to bring it to its end"

COMMANDS = (
    Command(
        "bootstrap",
        "bring this node to the given mounts (the OnNodeConfigured action)",
        "Installs mount-s3 if it is missing, writes the configuration, mounts everything and "
        "starts the service that keeps it so. Run again, it changes nothing that is as it should "
        "be. `s3mount-bootstrap install` is for images, and mounts nothing.",
        options=(
            Option(
                "--config",
                f"a configuration file: {_URL}; the node follows it, and a new version is in force "
                "within minutes",
                "URL",
            ),
            _choice(
                "--role",
                ("head", "compute", "login", "standalone"),
                "what this node is (default: what ParallelCluster's files say)",
            ),
            _choice(
                "--mode",
                ("systemd", "direct"),
                "who starts mount-s3 (default: direct on compute nodes)",
            ),
            _choice(
                "--on-failure",
                ("fail", "continue"),
                "what a mount that fails means for the exit code (default: continue on head and "
                "login nodes)",
            ),
            _ASSUME_FAMILY,
            Option(
                "--check",
                "check the arguments, as root also this node, say what would be mounted, and "
                "change nothing",
            ),
            Option("--precheck", ""),
        ),
        usage=("[OPTIONS] BUCKET DIRECTORY MOUNT_OPTIONS [...]", "[OPTIONS] --config URL"),
        words=(
            ("BUCKET", "a bucket, an access point (alias or ARN), or s3://bucket/prefix/"),
            ("DIRECTORY", "where to mount it, for example /mnt/s3"),
            (
                "MOUNT_OPTIONS",
                'mount-s3\'s options in one word, for example "--allow-delete --allow-other"; '
                'none are ""',
            ),
        ),
        most=None,
        codes=((0, "done"), (1, "failed"), (2, "refused: nothing on the node was changed")),
        examples=(
            'bootstrap my-bucket /mnt/s3 "--allow-delete --allow-other"',
            "bootstrap --config s3://my-bucket/s3mount.yaml",
        ),
        options_first=True,
        stray="mount-s3's options are the third argument of each mount, in one word",
        aka=("setup", "init"),
        interrupted=_AGAIN,
    ),
    Command(
        "install",
        "install all that mounts need, and configure nothing (for an image)",
        "Brings mount-s3, FUSE and the agent's service onto this machine, of which an image is to "
        "be made, and leaves nothing there that is about this machine. A bootstrap on a node of "
        "that image has nothing to install.",
        options=(
            _ASSUME_FAMILY,
            Option(
                "--version",
                "which release of mount-s3 (default: the one that this agent was tested with)",
                "VERSION",
                _release,
                "a version such as 1.24.0, or latest",
            ),
            Option(
                "--source",
                "where releases of mount-s3 are: official, https://…, s3://bucket/prefix, /path",
                "PLACE",
            ),
            Option("--precheck", ""),
        ),
        usage=("[OPTIONS]",),
        codes=((0, "done"), (1, "failed"), (2, "refused: nothing on this machine was changed")),
        examples=("install",),
        aka=("bake", "image"),
        interrupted=_AGAIN,
    ),
    Command(
        "status",
        "show the mounts of this node and how they are",
        "Shows the mounts of this node. Never touches a mount, so that it answers while one hangs.",
        options=(
            JSON,
            Option(
                "--wait",
                "wait until all is well or one has failed, for at most so long: 90, 5m, 1h",
                "SECONDS",
                seconds,
                "a time such as 90, 90s, 5m or 1h",
            ),
        ),
        words=(("DIRECTORY", "only the mounts on these directories (default: all)"),),
        most=None,
        codes=(
            (0, "all is well"),
            (3, "degraded"),
            (1, "a mount failed"),
            (4, "not well within --wait"),
        ),
        examples=("status /mnt/s3", "status --wait 5m"),
        aka=("list", "ls", "show", "health", "info", "mounts"),
    ),
    Command(
        "check",
        "say in milliseconds whether a job may start here",
        "Says whether the data of a job are there: for Slurm's HealthCheckProgram, for prologs and "
        "for a job's own first line. Never touches a mount. Where the agent's service is silent it "
        "says so and lets the job start, unless a mount is seen to be missing.",
        options=(Option("--strict", "a silent service is a reason not to start"),),
        words=(
            (
                "PATH",
                "only the mounts that these files or directories are on (default: all that this "
                "node must have)",
            ),
        ),
        most=None,
        codes=(
            (0, "a job may start"),
            (3, "it may, but S3 does not answer well, or a mount that may fail has failed"),
            (1, "it may not: a mount is not there, or hangs"),
        ),
        examples=("check", "check /mnt/s3/samples/reads.fastq"),
        aka=("ready", "probe", "healthcheck", "ping"),
    ),
    Command(
        "plan",
        "show what apply would change",
        "Shows what `s3mount-agent apply` would change on this node; changes nothing.",
        options=(JSON, Option("--config", f"plan for this configuration instead: {_URL}", "URL")),
        codes=((0, "nothing to change"), (4, "changes")),
        examples=("plan --config s3://my-bucket/s3mount.yaml",),
        aka=("diff", "preview", "dry-run"),
    ),
    Command(
        "apply",
        "do what the configuration says, also for what was unmounted by hand",
        "Brings this node to what /etc/s3mount-agent/config.yaml says, tries at once what has "
        "failed, and mounts again what was taken down by `s3mount-agent unmount`.",
        options=(Option("--now", "ask the source for news first; fails if that is refused"),),
        codes=(
            (0, "done"),
            (1, "a mount failed, or the source could not be read"),
            (2, "the configuration is refused"),
            (4, "a change waits until a mount is free"),
        ),
        aka=("mount", "remount", "restart", "reload", "start", "retry", "repair", "up", "sync"),
        interrupted=_AGAIN,
    ),
    Command(
        "unmount",
        "take mounts down until the next boot, apply or bootstrap",
        "Takes mounts down and keeps them down until the next boot, `s3mount-agent apply` or "
        "bootstrap. A mount that programs use stays up, and is an error.",
        options=(Option("--all", "all mounts of this node"),),
        usage=("DIRECTORY...", "--all"),
        words=(("DIRECTORY", "the directory of a mount, for example /mnt/s3"),),
        most=None,
        codes=((0, "all are down"), (1, "a mount is in use")),
        examples=("unmount /mnt/s3",),
        aka=("umount", "stop", "down", "detach"),
        interrupted="interrupted: `s3mount-agent status` tells which mounts are down",
    ),
    Command(
        "uninstall",
        "take down all mounts and leave the node as it was found",
        "Takes all mounts down and removes what the agent brought: units, packages, its change to "
        "/etc/fuse.conf, empty directories that it made, and itself. While a mount is in use, the "
        "agent stays, and nothing is changed. /etc/s3mount-agent/environment is yours and stays "
        "too.",
        options=(Option("--dry-run", "say what would be removed, and change nothing"),),
        codes=((0, "nothing of the agent is left"), (1, "a mount is in use")),
        aka=("remove", "purge", "delete", "teardown"),
        interrupted=_AGAIN,
    ),
    Command(
        "validate",
        "check a configuration file, on any computer",
        "Checks configuration files and says what each kind of node will mount. Tells all that is "
        "wrong with them at once. Needs no AWS, no network and no root.",
        words=(("FILE", "a configuration file; - is the standard input"),),
        least=1,
        most=None,
        codes=((0, "good"), (2, "something is wrong")),
        examples=("validate s3mount.yaml",),
        aka=("lint", "verify", "test"),
    ),
    Command(
        "daemon",
        "the service that keeps the mounts (run by systemd)",
        "Keeps the mounts of this node until it is told to end (SIGTERM), and leaves them when it "
        "does. systemd runs it as s3mount-agent.service.",
        aka=("serve", "run"),
        interrupted="",
    ),
    Command(
        "unit-hook",
        "run by the mounts' units",
        "What a mount's unit has done at its start and end; run by systemd, not by people.",
        words=(
            ("NAME", "which hook"),
            ("DIRECTORY", "the mount's directory"),
            ("PLACE", "cache=PATH and their like, what mount-s3 is to use"),
        ),
        least=2,
        most=None,
        hidden=True,
        interrupted="",
    ),
    Command(
        "await-mounts",
        "wait until the mounts are up",
        "Waits until all mounts are up that this node must have, for at most five minutes; run by "
        "s3mount-wait.service, which makes s3mount.target wait. People use `s3mount-agent status "
        "--wait`.",
        hidden=True,
    ),
    Command(
        "keep-crawlers-out",
        "keep updatedb out of the mounts",
        "Has updatedb and needrestart keep out of this node's mounts, where they are there; run by "
        "the daemon.",
        hidden=True,
    ),
    Command(
        "install-mount-s3",
        "install mount-s3 where it is missing",
        "Installs mount-s3 if it is missing, and changes nothing else; run by the daemon of a node "
        "whose bootstrap had to go on without it. People use `s3mount-agent apply`.",
        hidden=True,
        interrupted=_AGAIN,
    ),
    Command(
        "refresh",
        "ask the configuration's source for news",
        "Asks the configuration's source for a new version and puts it in force if it is good; run "
        "by the daemon. People use `s3mount-agent apply --now`.",
        hidden=True,
    ),
)
