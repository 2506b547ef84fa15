"""Every problem that a user can meet: one row each, with a stable code, an exit code and a hint."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, IntEnum, unique
from typing import Any, Final

from s3mount_agent.core.masking import masked


class Exit(IntEnum):
    """The exit codes, frozen. Never 194: SSM Run Command reads it as a request to reboot."""

    OK = 0
    FAILED = 1
    USAGE = 2
    DEGRADED = 3
    PENDING = 4


@unique
class Problem(Enum):
    """One row each: exit code, default hint. The code is its name, as ``no-space``: it is stable,
    because people search for it."""

    # What was asked for cannot be right: nothing on the node is changed.
    USAGE = (Exit.USAGE, "run `s3mount-agent --help` for the commands and their options")
    ARGS_NOT_TRIPLES = (
        Exit.USAGE,
        "give BUCKET DIRECTORY OPTIONS for each mount; no options are an empty string",
    )
    ARGUMENT_NOT_TEXT = (
        Exit.USAGE,
        "use plain UTF-8 text without line breaks or control characters",
    )
    MOUNTS_TOO_MANY = (Exit.USAGE, "mount a common prefix once instead of many below it")
    BUCKET_INVALID = (
        Exit.USAGE,
        "give a bucket name, an access point alias or ARN, or s3://bucket/prefix/",
    )
    DIRECTORY_INVALID = (Exit.USAGE, "give an absolute path such as /mnt/s3")
    DIRECTORY_RESERVED = (Exit.USAGE, "choose a directory of its own, for example /mnt/s3")
    PATH_UNSAFE = (
        Exit.USAGE,
        "have root make one where nobody else may rename anything, such as /mnt/s3 or /fsx/s3",
    )
    PATH_MISSING = (Exit.FAILED, "make it, or mount the disk that it is on; it is tried again")
    PATH_SILENT = (
        Exit.FAILED,
        "the file system that it is on does not answer: see `dmesg`; it is tried again",
    )
    DIRECTORY_TWICE = (
        Exit.USAGE,
        "one directory belongs to one mount: give each mount a directory of its own",
    )
    DIRECTORY_NOT_EMPTY = (
        Exit.USAGE,
        "move its files away first: a mount would hide them, and mount-s3 refuses it",
    )
    DIRECTORY_NOT_A_DIRECTORY = (
        Exit.USAGE,
        "choose a directory, or a path that does not exist yet",
    )
    DIRECTORY_IN_USE = (
        Exit.USAGE,
        "unmount what is there, or choose another directory; the agent never touches "
        "a mount that it did not make",
    )
    UNIT_FOREIGN = (
        Exit.USAGE,
        "a unit of this name was made by something else: stop and remove it, then run again",
    )
    OPTIONS_UNBALANCED = (Exit.USAGE, "close every quote in the options string")
    OPTION_UNKNOWN = (Exit.USAGE, "`mount-s3 --help` lists what it knows")
    OPTION_VALUE = (Exit.USAGE, "see `mount-s3 --help` for the values it takes")
    OPTION_CONFLICT = (Exit.USAGE, "keep one of the two")
    OPTION_RESERVED = (Exit.USAGE, "leave it out: the agent runs and watches mount-s3 itself")
    NODE_TYPE = (
        Exit.USAGE,
        "correct the file, or say what this node is with --role head|compute|login|standalone",
    )
    MODE = (Exit.USAGE, "leave --mode out, or use --mode direct")
    CONFIG_INVALID = (
        Exit.USAGE,
        "docs/configuration.md has all keys; `s3mount-agent validate FILE` checks a file",
    )
    ENVIRONMENT_INVALID = (
        Exit.USAGE,
        "write one NAME=value a line, as EnvironmentFile= in systemd.exec(5) has it",
    )
    SHARES_IMPOSSIBLE = (
        Exit.USAGE,
        "mount less on this node, raise memory_percent, or take a larger instance",
    )
    MOUNT_UNKNOWN = (Exit.USAGE, "`s3mount-agent status` lists the mounts of this node")

    # What was asked for is right, but it could not be done.
    NOT_ROOT = (Exit.FAILED, "run it as root, for example with sudo")
    NOT_CONFIGURED = (Exit.FAILED, "run s3mount-bootstrap with the node's mounts first")
    ALREADY_CONFIGURED = (
        Exit.USAGE,
        "run `s3mount-agent uninstall` first; for this node's own mounts there is `apply`",
    )
    NODE_UNSUPPORTED = (
        Exit.FAILED,
        "bake mount-s3 and libfuse2 into the image: a node that has them needs no package manager",
    )
    FOREIGN_MACHINE = (
        Exit.FAILED,
        "run s3mount-bootstrap on this machine; until then the agent does nothing here",
    )
    LOCKED = (Exit.FAILED, "wait for it to end, then run again")
    SOURCE_FAILED = (
        Exit.FAILED,
        "check that the configuration is there and that the node's role may read it",
    )
    OWNER_UNKNOWN = (
        Exit.FAILED,
        "name a user that this node knows (`id NAME`), or leave owner out",
    )
    NO_SPACE = (Exit.FAILED, "free some space (`df -h`), then run again")
    FUSE_MISSING = (
        Exit.FAILED,
        "load the kernel module with `modprobe fuse`; a container needs the device /dev/fuse",
    )
    MOUNT_S3_MISSING = (
        Exit.FAILED,
        "bake mount-s3 into the image, or leave install.version out and have it installed",
    )
    PACKAGES_FAILED = (
        Exit.FAILED,
        "see /var/log/apt/term.log or /var/log/dnf.log; a node without network needs the packages "
        "in its image",
    )
    REPOSITORY_UNCHECKED = (
        Exit.FAILED,
        "set gpgcheck=1, and the gpgkey, of that repository in /etc/yum.repos.d",
    )
    DOWNLOAD_FAILED = (
        Exit.FAILED,
        "check the node's route to it, or name another place as install.source",
    )
    PACKAGE_BROKEN = (
        Exit.FAILED,
        "the file is incomplete or damaged: publish it again, or choose another release",
    )
    BUNDLE_INCOMPLETE = (
        Exit.FAILED,
        "make the bundle anew with `make bundle`, and copy it as a whole",
    )
    BUNDLE_REFUSED = (
        Exit.FAILED,
        "make the bundle anew with `make bundle`: nothing is taken from it that the distribution "
        "has not signed",
    )
    PACKAGE_OTHER = (Exit.FAILED, "publish the package of that version there, signed")
    SIGNATURE_BAD = (
        Exit.FAILED,
        "do not install this file; if it comes from a mirror, copy package and .asc there again",
    )
    SIGNING_KEY_UNKNOWN = (
        Exit.FAILED,
        "if you sign packages yourself, name the key in S3MOUNT_RELEASE_FINGERPRINTS",
    )
    VERIFIER_MISSING = (
        Exit.FAILED,
        "install gpgv, sqv or gpg on the node, or in its image; or bake mount-s3 into it",
    )
    BUCKET_MISSING = (
        Exit.FAILED,
        "check the bucket's name and its region; create it if it is meant to exist",
    )
    ACCESS_DENIED = (
        Exit.FAILED,
        "allow the node's role s3:ListBucket on the bucket and s3:GetObject on its objects",
    )
    CREDENTIALS_MISSING = (
        Exit.FAILED,
        "give the node an instance profile, and check that root may reach IMDS",
    )
    CREDENTIALS_EXPIRED = (
        Exit.FAILED,
        "renew the session token, or leave keys out: an instance profile renews its own",
    )
    CREDENTIALS_INVALID = (
        Exit.FAILED,
        "correct the access key ID or the session token: the key may have been deleted",
    )
    SIGNATURE_WRONG = (
        Exit.FAILED,
        "correct the secret access key: it does not belong to the access key ID",
    )
    PROFILE_INVALID = (
        Exit.FAILED,
        "correct --profile, or the profile in root's ~/.aws/config and ~/.aws/credentials",
    )
    CLOCK_WRONG = (
        Exit.FAILED,
        "set the node's clock: `timedatectl` and `chronyc tracking` tell whether it is kept",
    )
    REGION_WRONG = (
        Exit.FAILED,
        "leave --region and AWS_REGION out, or name the bucket's own region",
    )
    S3_UNREACHABLE = (
        Exit.FAILED,
        "check the route to S3: a NAT gateway, or a VPC endpoint, and the endpoint's address",
    )
    S3_ERRORS = (
        Exit.FAILED,
        "`journalctl _UID=0 -t mount-s3` has more; mount-s3 recovers when S3 does",
    )
    S3_THROTTLED = (Exit.FAILED, "too many requests at once: it will be tried again")
    LIBRARY_MISSING = (
        Exit.FAILED,
        "install mount-s3 with what it depends on: `s3mount-agent apply`, or libfuse2 in the image",
    )
    WRITE_LIMIT = (
        Exit.FAILED,
        "raise its memory_target, its weight or memory_percent; mount less; or open fewer files",
    )
    MOUNT_REFUSED = (
        Exit.FAILED,
        "mount-s3 refused its arguments: correct the options of this mount",
    )
    MOUNT_FAILED = (Exit.FAILED, "`journalctl _UID=0 -t mount-s3` has more")
    MOUNT_ENDED = (
        Exit.FAILED,
        "it is started again; if it ends often, `journalctl _UID=0 -t mount-s3` has more",
    )
    MOUNT_NOT_READY = (Exit.FAILED, "`journalctl _UID=0 -t mount-s3` tells how far it came")
    MOUNT_SILENT = (
        Exit.FAILED,
        "it is mounted but does not answer: `journalctl _UID=0 -t mount-s3` may say why",
    )
    MOUNT_BUSY = (Exit.FAILED, "end the programs that use it, then run again")
    MOUNT_ENDING = (
        Exit.FAILED,
        "nothing: mount-s3 may be emptying its cache, and the mount is made anew when it has ended",
    )
    PROGRAM_FAILED = (Exit.FAILED, "the program's own words are the cause")
    PROGRAM_TIMEOUT = (Exit.FAILED, "the node may be overloaded: try again")
    FILE_FAILED = (Exit.FAILED, "check the path's permissions and its file system")
    INTERNAL = (
        Exit.FAILED,
        "this is a fault of s3mount-agent: run again with --debug and report it",
    )

    def __init__(self, exit_code: Exit, hint: str) -> None:
        self.code = self.name.lower().replace("_", "-")
        self.exit_code = exit_code
        self.hint = hint


class AgentError(Exception):
    """One problem, as it is told to a user. A value: nobody changes it in flight.

    ``message`` is one plain sentence, ``cause`` what the world said (a program's own words),
    ``hint`` what to do about it, and ``retry_for`` for how many seconds from the first attempt it
    makes sense to try again quickly, where that is not as always with this problem (None:
    :mod:`core.retry_policy`): 0 for what cannot heal by itself, ``math.inf`` for what may.
    ``more`` are problems that were found along with it.
    """

    def __init__(
        self,
        problem: Problem,
        message: str,
        *,
        cause: str | None = None,
        hint: str | None = None,
        retry_for: float | None = None,
        more: Sequence[AgentError] = (),
    ) -> None:
        # It may quote a URL or a line of a file, and is told to everybody.
        message, cause = masked(message), masked(cause) if cause else cause
        super().__init__(message)
        self.problem: Final = problem
        self.message: Final = message
        self.cause: Final = cause
        self.hint: Final = hint or problem.hint
        self.retry_for: Final = retry_for
        self.more: Final = tuple(more)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            raise AttributeError(f"{name} of an error never changes")
        super().__setattr__(name, value)

    def saying(self, message: str) -> AgentError:
        """The same in another sentence."""
        return self._but(message=message)

    def caused_by(self, cause: str | None) -> AgentError:
        """The same with another cause."""
        return self._but(cause=cause)

    def retried_for(self, seconds: float) -> AgentError:
        """The same, tried again for so long."""
        return self._but(retry_for=seconds)

    def _but(self, **changes: Any) -> AgentError:
        names = ("message", "cause", "hint", "retry_for", "more")
        fields = {name: getattr(self, name) for name in names}
        return type(self)(self.problem, **{**fields, **changes})

    def lines(self) -> list[str]:
        """The error as lines for a terminal: the reason, its cause if known, and the hint."""
        lines = [f"s3mount-agent: error [{self.problem.code}]: {self.message}"]
        if self.cause:
            lines += [f"  cause: {line}" for line in self.cause.splitlines() if line.strip()]
        lines.append(f"  hint: {self.hint}")
        return lines


def together(errors: Sequence[AgentError]) -> AgentError:
    """The first of some errors, with the others in its company."""
    first, *others = [each for error in errors for each in (error, *error.more)]
    return first._but(more=others)
