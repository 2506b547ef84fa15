"""A stand-in for Mountpoint for Amazon S3, in Python 3.9+ and its standard library only.

Pointers such as "run.rs" or "SEMANTICS.md" name files of github.com/awslabs/mountpoint-s3,
whose public behaviour is imitated here; none of its code is used.
"""

from __future__ import annotations

VERSION = "1.24.0"
"""As which release it behaves; ../package.py builds others, too."""

RELEASE = tuple(map(int, VERSION.partition("+")[0].split(".")))
