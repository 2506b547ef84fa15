"""What mount-s3's words mean."""

from __future__ import annotations

import re
from dataclasses import dataclass

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.text import last_lines


@dataclass(frozen=True)
class Reading:
    """What one of mount-s3's errors means; for how long it is tried again is said in
    :mod:`core.retry_policy`."""

    pattern: re.Pattern[str]
    problem: Problem
    sentence: str


def _reading(pattern: str, problem: Problem, sentence: str) -> Reading:
    return Reading(re.compile(pattern, re.IGNORECASE), problem, sentence)


# What a hook of the unit says of the node's own: see cli.
_OWN = re.compile(r"s3mount-agent: error \[(?P<code>[a-z-]+)\]: (?P<message>.+)")

# In the order in which they are tried. The texts are mount-s3's own, releases 1.4 to 1.24
# (mountpoint-s3/src/run.rs, s3-client error types, and clap). For every 403 it says "Forbidden:"
# and S3's own message, so that only the message tells them apart:
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_READINGS = (
    # ENOMEM, from 1.24 on: its memory target allows no more files that are open for writing.
    _reading(
        r"errno 12\b|write handle limit|open-for-write file handles",
        Problem.WRITE_LIMIT,
        "{directory} has as many files open for writing as its memory allows",
    ),
    _reading(
        r"No signing credentials (available|found)",
        Problem.CREDENTIALS_MISSING,
        "mount-s3 found no credentials",
    ),
    _reading(r"invalid AWS credentials", Problem.PROFILE_INVALID, "the profile cannot be used"),
    # RequestTimeTooSkewed and AccessDenied ("Request has expired"), and the CRT's name for it.
    _reading(
        r"difference between the request time and the (current|server'?s?) time"
        r"|RequestTimeTooSkewed|TIME_TOO_SKEWED|Request has expired|Signature (expired|not yet)",
        Problem.CLOCK_WRONG,
        "S3 refuses requests for {bucket} because of this node's clock",
    ),
    # SignatureDoesNotMatch.
    _reading(
        r"request signature (we calculated )?does not match|SignatureDoesNotMatch",
        Problem.SIGNATURE_WRONG,
        "S3 refuses the signature for {bucket}: the secret access key is wrong",
    ),
    # ExpiredToken, TokenRefreshRequired.
    _reading(
        r"token has expired|ExpiredToken|token (must be|needs to be) refreshed",
        Problem.CREDENTIALS_EXPIRED,
        "the credentials for {bucket} have expired",
    ),
    # InvalidToken, InvalidAccessKeyId.
    _reading(
        r"token is malformed|InvalidToken|does not exist in our records|InvalidAccessKeyId",
        Problem.CREDENTIALS_INVALID,
        "S3 does not know the credentials for {bucket}",
    ),
    _reading(r"Forbidden|Access ?Denied", Problem.ACCESS_DENIED, "S3 denies access to {bucket}"),
    _reading(
        r"The bucket does not exist|NoSuchBucket",
        Problem.BUCKET_MISSING,
        "the bucket {bucket} does not exist",
    ),
    _reading(
        r"Wrong region \(expecting (?P<detail>[a-z0-9-]+)\)",
        Problem.REGION_WRONG,
        "the bucket {bucket} is in the region {detail}",
    ),
    _reading(r"throttled|SlowDown", Problem.S3_THROTTLED, "S3 throttles requests"),
    _reading(r"mountpoint is not empty", Problem.DIRECTORY_NOT_EMPTY, "{directory} is not empty"),
    _reading(
        r"mount point .* is already mounted",
        Problem.MOUNT_FAILED,
        "something is mounted on {directory}",
    ),
    _reading(
        r"mount point .* (does not exist|is not a directory)",
        Problem.MOUNT_FAILED,
        "{directory} cannot be used as a directory",
    ),
    _reading(
        r"fuse: device not found|/dev/fuse", Problem.FUSE_MISSING, "this node has no /dev/fuse"
    ),
    _reading(
        r"error while loading shared libraries: (?P<detail>[\w.]+)",
        Problem.LIBRARY_MISSING,
        "mount-s3 lacks the library {detail}",
    ),
    _reading(
        r"For more information, try '--help'|part size must be|exceeds the memory available",
        Problem.MOUNT_REFUSED,
        "mount-s3 refuses its arguments",
    ),
    _reading(
        # The second one stands before what mount-s3 could not make sense of, such as XML.
        r"internal server error|Internal S3 client error|Unknown response error",
        Problem.S3_ERRORS,
        "S3 answers with errors for {bucket}",
    ),
    _reading(
        r"dns|socket|connection|unreachable|timed? ?out|Client error|CRT error",
        Problem.S3_UNREACHABLE,
        "S3 cannot be reached for {bucket}",
    ),
)

# Where these are wrong, no other place and no other policy would help.
OF_THE_NODE = (
    Problem.CLOCK_WRONG,
    Problem.SIGNATURE_WRONG,
    Problem.CREDENTIALS_EXPIRED,
    Problem.CREDENTIALS_INVALID,
)


def explain(words: str, *, bucket: str, directory: str) -> AgentError:
    """What mount-s3's last words mean; words that nobody has read before are kept as they are."""
    own = next(iter(_OWN.finditer(words)), None)
    if own and own["code"].startswith(("directory-", "path-")):
        return AgentError(
            next(each for each in Problem if each.code == own["code"]), own["message"]
        )
    cause = last_lines(words)
    # A bucket may be called "forbidden": names are no reasons.
    name = bucket.partition("/")[0] if not bucket.startswith("arn:") else bucket
    plain = words.replace(f"bucket {name} in region", "").replace(directory, "")
    for reading in _READINGS:
        match = reading.pattern.search(plain)
        if match:
            fields = {"bucket": bucket, "directory": directory, **match.groupdict()}
            return AgentError(
                reading.problem,
                reading.sentence.format(**fields),
                cause=cause or None,
            )
    return AgentError(
        Problem.MOUNT_FAILED,
        f"mount-s3 could not mount {directory}",
        cause=cause or None,
    )


def explain_refusal(words: str, status: int | None, place: str) -> AgentError:
    """What it means that S3 refused a request of the agent's own: mount-s3 says "Forbidden:" where
    the SDK has the HTTP ``status`` 403."""
    says = "Forbidden: " if status == 403 else ""
    return explain(f"{says}{words}", bucket=place, directory=place)
