"""What mount-s3's words mean."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.text import last_lines


@dataclass(frozen=True)
class Reading:
    """What one of mount-s3's errors means.

    ``patience`` is that of :class:`AgentError`, in seconds.
    """

    pattern: re.Pattern[str]
    problem: Problem
    patience: float
    sentence: str


def _reading(pattern: str, problem: Problem, patience: float, sentence: str) -> Reading:
    return Reading(re.compile(pattern, re.IGNORECASE), problem, patience, sentence)


# In the order in which they are tried. The texts are mount-s3's own, releases 1.4 to 1.23
# (mountpoint-s3/src/run.rs, s3-client error types, and clap).
_READINGS = (
    _reading(
        r"No signing credentials (available|found)",
        Problem.CREDENTIALS_MISSING,
        math.inf,
        "mount-s3 found no credentials",
    ),
    _reading(
        r"invalid AWS credentials", Problem.CREDENTIALS_MISSING, 0, "the profile cannot be used"
    ),
    # S3's own words: ExpiredToken, InvalidToken, InvalidAccessKeyId.
    _reading(
        r"token has expired|token is malformed|does not exist in our records",
        Problem.CREDENTIALS_MISSING,
        math.inf,
        "the credentials have expired or are not valid",
    ),
    # A role that was just attached takes a while until S3 knows it.
    _reading(
        r"Forbidden|Access ?Denied", Problem.ACCESS_DENIED, 20, "S3 denies access to {bucket}"
    ),
    _reading(
        r"The bucket does not exist|NoSuchBucket",
        Problem.BUCKET_MISSING,
        0,
        "the bucket {bucket} does not exist",
    ),
    _reading(
        r"Wrong region \(expecting (?P<detail>[a-z0-9-]+)\)",
        Problem.REGION_WRONG,
        0,
        "the bucket {bucket} is in the region {detail}",
    ),
    _reading(r"throttled|SlowDown", Problem.S3_THROTTLED, math.inf, "S3 throttles requests"),
    _reading(
        r"mountpoint is not empty", Problem.DIRECTORY_NOT_EMPTY, 0, "{directory} is not empty"
    ),
    _reading(
        r"mount point .* is already mounted",
        Problem.MOUNT_FAILED,
        math.inf,
        "something is mounted on {directory}",
    ),
    _reading(
        r"mount point .* (does not exist|is not a directory)",
        Problem.MOUNT_FAILED,
        math.inf,
        "{directory} cannot be used as a directory",
    ),
    _reading(
        r"fuse: device not found|/dev/fuse", Problem.FUSE_MISSING, 0, "this node has no /dev/fuse"
    ),
    _reading(
        r"error while loading shared libraries: (?P<detail>[\w.]+)",
        Problem.MOUNT_FAILED,
        0,
        "mount-s3 lacks the library {detail}",
    ),
    _reading(
        r"For more information, try '--help'|part size must be",
        Problem.MOUNT_REFUSED,
        0,
        "mount-s3 refuses its arguments",
    ),
    _reading(
        # The second one stands before what mount-s3 could not make sense of, such as XML.
        r"internal server error|Internal S3 client error|Unknown response error",
        Problem.S3_ERRORS,
        math.inf,
        "S3 answers with errors for {bucket}",
    ),
    _reading(
        r"dns|socket|connection|unreachable|timed? ?out|Client error|CRT error",
        Problem.S3_UNREACHABLE,
        math.inf,
        "S3 cannot be reached for {bucket}",
    ),
)


def explain(words: str, *, bucket: str, directory: str) -> AgentError:
    """What mount-s3's last words mean; words that nobody has read before are kept as they are."""
    cause = last_lines(words)
    # A bucket may be called "forbidden": names are no reasons.
    name = bucket.partition("/")[0] if not bucket.startswith("arn:") else bucket
    plain = words.replace(f"bucket {name} in region", "").replace(directory, "")
    for reading in _READINGS:
        match = reading.pattern.search(plain)
        if match:
            told = {"bucket": bucket, "directory": directory, **match.groupdict()}
            return AgentError(
                reading.problem,
                reading.sentence.format(**told),
                cause=cause or None,
                patience=reading.patience,
            )
    return AgentError(
        Problem.MOUNT_FAILED,
        f"mount-s3 could not mount {directory}",
        cause=cause or None,
        patience=math.inf,
    )
