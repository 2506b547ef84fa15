"""`mount.mount-s3 BUCKET DIR -o OPTIONS`, the way mount(8) calls it (upstream fstab.rs)."""

from __future__ import annotations

from .errors import UsageError

IGNORED = frozenset("auto noauto user nouser users _netdev nofail rw nodev nosuid".split())
REFUSED = {
    "foreground": "Cannot use 'foreground' flag when using fstab style arguments.",
    "read-only": ("Cannot use 'read-only' flag when using fstab style arguments. Use 'ro' instead"),
}


def is_fstab_style(argv: list[str]) -> bool:
    return len(argv) == 5 and argv[3] == "-o"


def to_flags(argv: list[str]) -> list[str]:
    """Turn the five words of an fstab-style call into an ordinary command line."""
    options = _split(argv[4])
    if any(option.startswith("-") for option in options):
        raise UsageError("Cannot prefix arguments with `--` when using fstab style arguments.")
    if {"ro", "rw"} <= set(options):
        raise UsageError("Cannot use 'ro' flag combined with 'rw' flag.")
    for option in options:
        if option in REFUSED:
            raise UsageError(REFUSED[option])
    kept = [o for o in options if o not in IGNORED and not o.startswith("x-")]
    return [argv[1], argv[2], *("--read-only" if o == "ro" else f"--{o}" for o in kept)]


def _split(text: str) -> list[str]:
    """Split at commas; a backslash escapes a comma, a double quote or a backslash."""
    options = [""]
    letters = iter(enumerate(text))
    for position, letter in letters:
        if letter == "\\":
            position, letter = next(letters, (position, ""))
            if letter not in (",", '"', "\\"):
                raise UsageError(f"Unexpected character after backslash escape at {position}")
            options[-1] += letter
        elif letter == ",":
            options.append("")
        elif letter == '"':
            raise UsageError(f"Unexpected '\"' found at index {position}")
        else:
            options[-1] += letter
    return options
