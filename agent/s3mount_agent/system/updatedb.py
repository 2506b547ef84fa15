"""/etc/updatedb.conf: what `updatedb` (mlocate, plocate) keeps out of, once a day on each node.

It would walk every mount, which asks S3 for each directory. Its PRUNEFS= cannot help: all that the
mount table says of mount-s3 is "fuse".
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

CONF = Path("/etc/updatedb.conf")
_LINE = re.compile(r'^([ \t]*PRUNEPATHS[ \t]*=[ \t]*")([^"\n]*)(".*)$', re.MULTILINE)
_OURS = '# Added by s3mount-agent.\nPRUNEPATHS=""\n'


def pruned(text: str) -> tuple[str, ...]:
    """The directories that it keeps out of: updatedb.conf(5)."""
    match = _LINE.search(text)
    return tuple(match[2].split()) if match else ()


def can_name(directory: str) -> bool:
    """Whether the file can name a directory: it knows no escapes."""
    return re.search(r'[\s"]', directory) is None


def edited(text: str, *, add: Collection[str] = (), remove: Collection[str] = ()) -> str:
    """The text with some directories more and some less; all else stays as it is."""
    match = _LINE.search(text)
    if match is None:
        if not add:
            return text
        end = "" if text.endswith("\n") or not text else "\n"
        return edited(text + end + _OURS, add=add)
    value = match[2]
    for each in remove:
        value = re.sub(rf"(?:^|\s+){re.escape(each)}(?!\S)", "", value)
    value = " ".join([*filter(None, [value]), *add])
    changed = text[: match.start()] + match[1] + value + match[3] + text[match.end() :]
    return changed.replace(_OURS, "")
