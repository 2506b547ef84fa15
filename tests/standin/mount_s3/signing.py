"""AWS credentials, and Signature Version 4 for S3 with an unsigned payload."""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from .errors import MountError

UNSIGNED = "UNSIGNED-PAYLOAD"


class Credentials(NamedTuple):
    """A key pair, with a session token where the credentials are temporary."""

    key_id: str
    secret: str
    token: str = ""


def find_credentials(profile: str | None) -> Credentials | None:
    """Look in the environment, then in the shared credentials file. IMDS is never asked."""
    environment = os.environ
    key_id, secret = (environment.get(f"AWS_{n}") for n in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"))
    if key_id and secret and profile is None:
        return Credentials(key_id, secret, environment.get("AWS_SESSION_TOKEN", ""))
    home = environment.get("HOME", "/")
    path = environment.get("AWS_SHARED_CREDENTIALS_FILE", f"{home}/.aws/credentials")
    found = _from_file(Path(path), profile or environment.get("AWS_PROFILE", "default"))
    if profile is not None and found is None:
        raise MountError("Failed to create S3 client", "invalid AWS credentials")
    return found


def _from_file(path: Path, profile: str) -> Credentials | None:
    if not path.is_file():
        return None
    import configparser  # only here: most mounts take their credentials from the environment

    file = configparser.ConfigParser(interpolation=None, default_section="")
    file.read(path)
    if not file.has_section(profile):
        return None
    section = file[profile]
    key_id, secret = section.get("aws_access_key_id"), section.get("aws_secret_access_key")
    token = section.get("aws_session_token", "")
    return Credentials(key_id, secret, token) if key_id and secret else None


def canonical_query(parameters: dict[str, str]) -> str:
    pairs = sorted((quote(k, safe=""), quote(v, safe="")) for k, v in parameters.items())
    return "&".join(f"{key}={value}" for key, value in pairs)


def sign(
    credentials: Credentials,
    region: str,
    request: tuple[str, str, str],
    headers: dict[str, str],
) -> dict[str, str]:
    """Give back the headers with a signature for a request of (method, path, query)."""
    method, path, query = request
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    headers = {**headers, "x-amz-date": moment, "x-amz-content-sha256": UNSIGNED}
    if credentials.token:
        headers["x-amz-security-token"] = credentials.token
    names = sorted(headers, key=str.lower)
    canonical = "".join(f"{name.lower()}:{headers[name].strip()}\n" for name in names)
    signed = ";".join(name.lower() for name in names)
    whole = "\n".join([method, path, query, canonical, signed, UNSIGNED])
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    digest = hashlib.sha256(whole.encode()).hexdigest()
    to_sign = "\n".join(["AWS4-HMAC-SHA256", moment, scope, digest])
    key = f"AWS4{credentials.secret}".encode()
    for part in [*scope.split("/"), to_sign]:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.key_id}/{scope}, "
        f"SignedHeaders={signed}, Signature={key.hex()}"
    )
    return headers
