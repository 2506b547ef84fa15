"""AWS's own services, asked through boto3 with the node's own role."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

TIMEOUT_SECONDS = 20.0


def client(service: str) -> Any:
    """A client of a service ("s3", "ssm"): slow to make, and so is what it brings with it."""
    from boto3.session import Session
    from botocore.config import Config
    from botocore.session import get_session
    from botocore.utils import IMDSRegionProvider

    config = Config(
        connect_timeout=5,
        read_timeout=TIMEOUT_SECONDS,
        retries={"max_attempts": 3, "mode": "standard"},
    )
    session = Session()
    region = session.region_name or os.environ.get("AWS_REGION")
    if region is None and service != "s3":  # S3 tells by itself where a bucket is
        region = IMDSRegionProvider(get_session()).provide()
    # The typed stubs want a literal name.
    create: Callable[..., Any] = session.client
    return create(service, region_name=region, config=config)


def status(error: Exception) -> int | None:
    """The HTTP status of a service's refusal; None where it was not the service that refused."""
    code = _answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return code if isinstance(code, int) else None


def reason(error: Exception) -> str:
    """AWS's own reason, such as "403 AccessDenied"; empty where it was not AWS that refused."""
    answer = _answer(error)
    if not answer:
        return ""
    return f"{status(error) or ''} {answer.get('Error', {}).get('Code', '')}".strip()


def _answer(error: Exception) -> dict[str, Any]:
    answer = getattr(error, "response", None)
    return answer if isinstance(answer, dict) else {}
