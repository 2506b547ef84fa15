"""Builds all that a release consists of into dist/: the bootstrap file, wheel, sdist, a bill of
materials (CycloneDX), and SHA256SUMS of them.

With ``--check-tag TAG`` only checks that a tag is the package's version.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
DIST = REPOSITORY / "dist"
_BILL = "s3mount-agent.cdx.json"


def main(words: list[str]) -> str | None:
    """Builds, or checks a tag; returns what is wrong."""
    if words[:1] == ["--check-tag"]:
        wanted = f"v{version()}"
        return (
            None if words[1:] == [wanted] else f"the tag of this version is {wanted}: {words[1:]}"
        )
    DIST.mkdir(exist_ok=True)
    for old in DIST.iterdir():
        old.unlink()
    _run("packaging/build_bootstrap.py")
    _run("-m", "build", "--quiet", "--outdir", str(DIST))
    # The wheel's own dependencies are named in it; this is what nodes get.
    bill = ["--output-reproducible", "--of", "JSON", "-o", str(DIST / _BILL)]
    _run("-m", "cyclonedx_py", "requirements", "packaging/payload.txt", *bill)
    files = sorted(path for path in DIST.iterdir() if path.name != "SHA256SUMS")
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (DIST / "SHA256SUMS").write_text("".join(sums), encoding="ascii")
    print("".join(sums), end="")
    return None


def version() -> str:
    """The package's version."""
    text = (REPOSITORY / "agent/s3mount_agent/__init__.py").read_text(encoding="utf-8")
    (found,) = re.findall(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    return str(found)


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
