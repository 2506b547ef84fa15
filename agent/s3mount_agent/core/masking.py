"""What must not be seen by everybody, wherever it may come from, and how it is shown instead.

Passwords stand in URLs (``http://user:password@proxy``, for a proxy also without the scheme), and
signatures and tokens in the query of a presigned one. Whatever the agent says, it says
:func:`masked`.
"""

from __future__ import annotations

import re

_MASK = "***"
_USERINFO = re.compile(r"(\w://)[^\s/'\"<>]*@")
_QUERY = re.compile(r"(https?://[^\s?]*)(\?\S*[^\s'\"<>])?")
# A word up to its last @, and where a user:password begins in it: of a URL, as a word of its own or
# as a value. A password may have anything in it, also quotes, / and @.
_BEFORE_HOST = re.compile(r"(?<!\S)\S*@(?=[\w\[])")
_USER = re.compile(r"(?<=\w://)[^\s/@:'\"<>]*:|(?<![^\s'\"<>=,(])(?!arn:)[^\s/@:'\"<>=,(]+:(?!//)")
# AWS_SECRET_ACCESS_KEY=…, aws_session_token: …, as in a line of a file that an error quotes; and
# what signs a request whose query is told without the rest of its URL. Not AWS's "ExpiredToken: …".
_WORDS = "SECRET|PASSWORD|TOKEN"
_VARIABLE = re.compile(
    rf"((?i:(?:{_WORDS}|X-AMZ-SIGNATURE|X-AMZ-CREDENTIAL)\w{{0,40}}['\"]?\s{{0,9}}=\s{{0,9}}"
    rf"|(?:{_WORDS})\w{{0,40}}['\"]\s{{0,9}}:\s{{0,9}})"
    rf"|(?:(?:{_WORDS})[A-Z0-9_]{{0,40}}|(?:{_WORDS.lower()})[a-z0-9_]{{0,40}})"
    r"\s{0,9}:\s{0,9})\S+",
    re.ASCII,
)


def masked(text: str) -> str:
    """The text without what is secret in it."""
    if "://" in text:
        text = _USERINFO.sub(rf"\1{_MASK}@", text)
        text = _QUERY.sub(lambda found: found[1] + (f"?{_MASK}" if found[2] else ""), text)
    if "@" in text:
        text = _BEFORE_HOST.sub(_without_user, text)
    return _VARIABLE.sub(rf"\1{_MASK}", text)


def is_secret(text: str) -> bool:
    """Whether there is something in it that not everybody may see."""
    return masked(text) != text


def _without_user(found: re.Match[str]) -> str:
    user = _USER.search(found[0])
    return f"{found[0][: user.start()]}{_MASK}@" if user else found[0]
