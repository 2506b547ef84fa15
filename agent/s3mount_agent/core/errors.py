"""Every problem that a user can meet: one row each, with a stable code, an exit code and a hint."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, IntEnum
from typing import Any, Final

from s3mount_agent.core.masking import masked


class Exit(IntEnum):
    """The exit codes, frozen. Never 194: SSM Run Command reads it as a request to reboot."""

    OK = 0
    FAILED = 1
    USAGE = 2
    DEGRADED = 3
    PENDING = 4


class Problem(Enum):
    """One row each: code, exit code, default hint. Codes are stable: people search for them."""

    # What was asked for cannot be right: nothing on the node is changed.
    USAGE = ("usage", Exit.USAGE, "run `s3mount-agent --help` for the commands and their options")
    ARGS_NOT_TRIPLES = (
        "args-not-triples",
        Exit.USAGE,
        "give BUCKET DIRECTORY OPTIONS for each mount; no options are an empty string",
    )
    ARGUMENT_NOT_TEXT = (
        "argument-not-text",
        Exit.USAGE,
        "use plain UTF-8 text without line breaks or control characters",
    )
    MOUNTS_TOO_MANY = (
        "mounts-too-many",
        Exit.USAGE,
        "mount a common prefix once instead of many below it",
    )
    BUCKET_INVALID = (
        "bucket-invalid",
        Exit.USAGE,
        "give a bucket name, an access point alias or ARN, or s3://bucket/prefix/",
    )
    DIRECTORY_INVALID = ("directory-invalid", Exit.USAGE, "give an absolute path such as /mnt/s3")
    DIRECTORY_RESERVED = (
        "directory-reserved",
        Exit.USAGE,
        "choose a directory of its own, for example /mnt/s3",
    )
    PATH_UNSAFE = (
        "path-unsafe",
        Exit.USAGE,
        "have root make one where nobody else may rename anything, such as /mnt/s3 or /fsx/s3",
    )
    PATH_MISSING = (
        "path-missing",
        Exit.FAILED,
        "make it, or mount the disk that it is on; it is tried again",
    )
    PATH_SILENT = (
        "path-silent",
        Exit.FAILED,
        "the file system that it is on does not answer: see `dmesg`; it is tried again",
    )
    DIRECTORY_TWICE = (
        "directory-twice",
        Exit.USAGE,
        "one directory belongs to one mount: give each mount a directory of its own",
    )
    DIRECTORY_NOT_EMPTY = (
        "directory-not-empty",
        Exit.USAGE,
        "move its files away first: a mount would hide them, and mount-s3 refuses it",
    )
    DIRECTORY_NOT_A_DIRECTORY = (
        "directory-not-a-directory",
        Exit.USAGE,
        "choose a directory, or a path that does not exist yet",
    )
    DIRECTORY_IN_USE = (
        "directory-in-use",
        Exit.USAGE,
        "unmount what is there, or choose another directory; the agent never touches "
        "a mount that it did not make",
    )
    UNIT_FOREIGN = (
        "unit-foreign",
        Exit.USAGE,
        "a unit of this name was made by something else: stop and remove it, then run again",
    )
    OPTIONS_UNBALANCED = (
        "options-unbalanced",
        Exit.USAGE,
        "close every quote in the options string",
    )
    OPTION_UNKNOWN = ("option-unknown", Exit.USAGE, "`mount-s3 --help` lists what it knows")
    OPTION_VALUE = ("option-value", Exit.USAGE, "see `mount-s3 --help` for the values it takes")
    OPTION_CONFLICT = ("option-conflict", Exit.USAGE, "keep one of the two")
    OPTION_RESERVED = (
        "option-reserved",
        Exit.USAGE,
        "leave it out: the agent runs and watches mount-s3 itself",
    )
    NODE_TYPE = (
        "node-type",
        Exit.USAGE,
        "correct the file, or say what this node is with --role head|compute|login|standalone",
    )
    MODE = ("mode", Exit.USAGE, "leave --mode out, or use --mode direct")
    CONFIG_INVALID = (
        "config-invalid",
        Exit.USAGE,
        "docs/configuration.md has all keys; `s3mount-agent validate FILE` checks a file",
    )
    ENVIRONMENT_INVALID = (
        "environment-invalid",
        Exit.USAGE,
        "write one NAME=value a line, as EnvironmentFile= in systemd.exec(5) has it",
    )
    SHARES_IMPOSSIBLE = (
        "shares-impossible",
        Exit.USAGE,
        "mount less on this node, raise memory_percent, or take a larger instance",
    )
    MOUNT_UNKNOWN = (
        "mount-unknown",
        Exit.USAGE,
        "`s3mount-agent status` lists the mounts of this node",
    )

    # What was asked for is right, but it could not be done.
    NOT_ROOT = ("not-root", Exit.FAILED, "run it as root, for example with sudo")
    NOT_CONFIGURED = (
        "not-configured",
        Exit.FAILED,
        "run s3mount-bootstrap with the node's mounts first",
    )
    NODE_UNSUPPORTED = (
        "node-unsupported",
        Exit.FAILED,
        "bake mount-s3 and libfuse2 into the image: a node that has them needs no package manager",
    )
    FOREIGN_MACHINE = (
        "foreign-machine",
        Exit.FAILED,
        "run s3mount-bootstrap on this machine; until then the agent does nothing here",
    )
    LOCKED = ("locked", Exit.FAILED, "wait for it to end, then run again")
    SOURCE_FAILED = (
        "source-failed",
        Exit.FAILED,
        "check that the configuration is there and that the node's role may read it",
    )
    OWNER_UNKNOWN = (
        "owner-unknown",
        Exit.FAILED,
        "name a user that this node knows (`id NAME`), or leave owner out",
    )
    NO_SPACE = ("no-space", Exit.FAILED, "free some space (`df -h`), then run again")
    FUSE_MISSING = (
        "fuse-missing",
        Exit.FAILED,
        "load the kernel module with `modprobe fuse`; a container needs the device /dev/fuse",
    )
    MOUNT_S3_MISSING = (
        "mount-s3-missing",
        Exit.FAILED,
        "bake mount-s3 into the image, or leave install.version out and have it installed",
    )
    PACKAGES_FAILED = (
        "packages-failed",
        Exit.FAILED,
        "see /var/log/apt/term.log; a node without network needs the packages in its image",
    )
    DOWNLOAD_FAILED = (
        "download-failed",
        Exit.FAILED,
        "check the node's route to it, or name another place as install.source",
    )
    PACKAGE_BROKEN = (
        "package-broken",
        Exit.FAILED,
        "the file is incomplete or damaged: publish it again, or choose another release",
    )
    PACKAGE_OTHER = (
        "package-other",
        Exit.FAILED,
        "publish the package of that version there, signed",
    )
    SIGNATURE_BAD = (
        "signature-bad",
        Exit.FAILED,
        "do not install this file; if it comes from a mirror, copy package and .asc there again",
    )
    SIGNING_KEY_UNKNOWN = (
        "signing-key-unknown",
        Exit.FAILED,
        "if you sign packages yourself, name the key in S3MOUNT_RELEASE_FINGERPRINTS",
    )
    VERIFIER_MISSING = (
        "verifier-missing",
        Exit.FAILED,
        "install gpgv, sqv or gpg on the node, or in its image; or bake mount-s3 into it",
    )
    BUCKET_MISSING = (
        "bucket-missing",
        Exit.FAILED,
        "check the bucket's name and its region; create it if it is meant to exist",
    )
    ACCESS_DENIED = (
        "access-denied",
        Exit.FAILED,
        "allow the node's role s3:ListBucket on the bucket and s3:GetObject on its objects",
    )
    CREDENTIALS_MISSING = (
        "credentials-missing",
        Exit.FAILED,
        "give the node an instance profile, and check that root may reach IMDS",
    )
    CREDENTIALS_EXPIRED = (
        "credentials-expired",
        Exit.FAILED,
        "renew the session token, or leave keys out: an instance profile renews its own",
    )
    CREDENTIALS_INVALID = (
        "credentials-invalid",
        Exit.FAILED,
        "correct the access key ID or the session token: the key may have been deleted",
    )
    SIGNATURE_WRONG = (
        "signature-wrong",
        Exit.FAILED,
        "correct the secret access key: it does not belong to the access key ID",
    )
    PROFILE_INVALID = (
        "profile-invalid",
        Exit.FAILED,
        "correct --profile, or the profile in root's ~/.aws/config and ~/.aws/credentials",
    )
    CLOCK_WRONG = (
        "clock-wrong",
        Exit.FAILED,
        "set the node's clock: `timedatectl` and `chronyc tracking` tell whether it is kept",
    )
    REGION_WRONG = (
        "region-wrong",
        Exit.FAILED,
        "leave --region and AWS_REGION out, or name the bucket's own region",
    )
    S3_UNREACHABLE = (
        "s3-unreachable",
        Exit.FAILED,
        "check the route to S3: a NAT gateway, or a VPC endpoint, and the endpoint's address",
    )
    S3_ERRORS = (
        "s3-errors",
        Exit.FAILED,
        "`journalctl _UID=0 -t mount-s3` has more; mount-s3 recovers when S3 does",
    )
    S3_THROTTLED = (
        "s3-throttled",
        Exit.FAILED,
        "too many requests at once: it will be tried again",
    )
    LIBRARY_MISSING = (
        "library-missing",
        Exit.FAILED,
        "install mount-s3 with what it depends on: `s3mount-agent apply`, or libfuse2 in the image",
    )
    WRITE_LIMIT = (
        "write-limit",
        Exit.FAILED,
        "raise its memory_target, its weight or memory_percent; mount less; or open fewer files",
    )
    MOUNT_REFUSED = (
        "mount-refused",
        Exit.FAILED,
        "mount-s3 refused its arguments: correct the options of this mount",
    )
    MOUNT_FAILED = ("mount-failed", Exit.FAILED, "`journalctl _UID=0 -t mount-s3` has more")
    MOUNT_ENDED = (
        "mount-ended",
        Exit.FAILED,
        "it is started again; if it ends often, `journalctl _UID=0 -t mount-s3` has more",
    )
    MOUNT_NOT_READY = (
        "mount-not-ready",
        Exit.FAILED,
        "`journalctl _UID=0 -t mount-s3` tells how far it came",
    )
    MOUNT_SILENT = (
        "mount-silent",
        Exit.FAILED,
        "it is mounted but does not answer: `journalctl _UID=0 -t mount-s3` may say why",
    )
    MOUNT_BUSY = ("mount-busy", Exit.FAILED, "end the programs that use it, then run again")
    MOUNT_ENDING = (
        "mount-ending",
        Exit.FAILED,
        "nothing: mount-s3 may be emptying its cache, and the mount is made anew when it has ended",
    )
    PROGRAM_FAILED = ("program-failed", Exit.FAILED, "the program's own words are the cause")
    PROGRAM_TIMEOUT = ("program-timeout", Exit.FAILED, "the node may be overloaded: try again")
    FILE_FAILED = ("file-failed", Exit.FAILED, "check the path's permissions and its file system")
    INTERNAL = (
        "internal",
        Exit.FAILED,
        "this is a fault of s3mount-agent: run again with --debug and report it",
    )

    def __init__(self, code: str, exit_code: Exit, hint: str) -> None:
        self.code = code
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
