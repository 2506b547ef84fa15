"""From the command line to an exit status."""

from __future__ import annotations

import sys

from . import VERSION, cli, fstab
from .errors import MountError, UsageError
from .mounting import load_libfuse, take_name
from .process import run


def main(argv: list[str]) -> int:
    try:
        # First of all, as the dynamic linker would: without libfuse2 not even --version works.
        libfuse = load_libfuse()
    except OSError as error:
        print(f"{argv[0]}: error while loading shared libraries: {error}", file=sys.stderr)
        return 127
    take_name()
    try:
        run(_arguments(argv), libfuse)
    except cli.Wanted as wanted:
        print(cli.help_text() if wanted.args[0] == "--help" else f"mount-s3 {VERSION}")
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except MountError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _arguments(argv: list[str]) -> cli.Arguments:
    if not fstab.is_fstab_style(argv):
        return cli.parse(argv[1:])
    # Flushed, because a forked child would write it once more.
    print("Using 'fstab' style options as detected use of `-o` argument.", flush=True)
    return cli.parse(fstab.to_flags(argv))
