"""/var/lib/s3mount-agent/secrets.json: what only root may read of what the agent remembers."""

from __future__ import annotations

import os

from s3mount_agent.core.errors import AgentError
from s3mount_agent.core.masking import is_secret, masked
from s3mount_agent.filesystem import files, json_codec, paths

PATH = paths.STATE / "secrets.json"
_SOURCE, _KEY = "source", "key"


def load() -> dict[str, str]:
    """All of them by name; nothing for who may not read them."""
    try:
        return json_codec.read(PATH, json_codec.named_texts) or {}
    except AgentError:
        return {}


def keep(**values: str | None) -> None:
    """Keeps these, and forgets those that are None."""
    known = load()
    new = {name: value for name, value in {**known, **values}.items() if value is not None}
    if new:
        json_codec.write(PATH, new, exactly=0o600)
    elif known:
        files.remove(PATH)


def keep_source(url: str | None) -> None:
    """Keeps a source's URL, if there is anything in it that not everybody may see."""
    keep(**{_SOURCE: url if url and is_secret(url) else None})


def source(shown: str) -> str:
    """The URL of a source that others see masked."""
    url = load().get(_SOURCE, "")
    return url if masked(url) == shown else shown


def fingerprint(value: str) -> str:
    """Tells a secret from another one; says nothing of it to who has not the node's own key."""
    key = load().get(_KEY)
    if key is None:
        key = os.urandom(16).hex()
        keep(**{_KEY: key})
    import hashlib  # which loads all of OpenSSL
    import hmac

    return hmac.new(os.fsencode(key), os.fsencode(value), hashlib.sha256).hexdigest()[:8]
