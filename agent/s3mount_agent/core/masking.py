"""What must not be seen by everybody, wherever it may come from, and how it is shown instead.

Passwords stand in URLs (``http://user:password@proxy``), and so do signatures and tokens in the
query of a presigned one. Whatever the agent says, it says :func:`masked`.
"""

from __future__ import annotations

import re

_MASK = "***"
_USERINFO = re.compile(r"(\w://)[^\s/'\"<>]*@")
_QUERY = re.compile(r"(https?://[^\s?'\"<>]*)\?[^\s'\"<>]+")
# AWS_SECRET_ACCESS_KEY=…, AWS_SESSION_TOKEN: …, as in a line of a file that an error quotes.
_VARIABLE = re.compile(r"\b([A-Z0-9_]*(?:SECRET|PASSWORD|TOKEN)[A-Z0-9_]*['\"]?\s*[=:]\s*)\S+")


def masked(text: str) -> str:
    """The text without what is secret in it."""
    if "://" in text:
        text = _USERINFO.sub(rf"\1{_MASK}@", text)
        text = _QUERY.sub(rf"\1?{_MASK}", text)
    return _VARIABLE.sub(rf"\1{_MASK}", text)


def is_secret(text: str) -> bool:
    """Whether there is something in it that not everybody may see."""
    return masked(text) != text
