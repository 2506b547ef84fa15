"""Builds a bundle: all that nodes without internet install from, in one folder or S3 prefix.

    build_bundle.py --systems ubuntu2204,debian12:arm64 --to dist/bundle

A system without an architecture is one of x86_64. FUSE packages come from the repository that this
machine's own package manager asks, where it is of that system. For another one MIRROR_ubuntu2204 in
the environment (on make's command line) names it, as a URL or a folder, and MIRROR_ubuntu2204_arm64
where that architecture has another one. mount-s3 comes from AWS, or from where S3MOUNT_RELEASE_URL
says, as on nodes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import posixpath
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import apt_repository
import rpm_repository
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.versions import Install
from s3mount_agent.mountpoint import origin, releases
from s3mount_agent.mountpoint.bundle import MANIFEST, Manifest, Piece, fuse_folder
from s3mount_agent.mountpoint.releases import Release
from s3mount_agent.packages import systems
from s3mount_agent.packages.systems import System

DIST = Path(__file__).resolve().parent.parent / "dist"
AGENT = ("s3mount-bootstrap", "SHA256SUMS")
ARCHITECTURES = ("x86_64", "arm64")
# By what the packages are.
_REPOSITORIES = {"deb": apt_repository, "rpm": rpm_repository}
_LARGEST_BYTES = 100 << 20


class Target(NamedTuple):
    """A system and an architecture, as AWS names it, that a bundle is for."""

    system: System
    architecture: str

    def __str__(self) -> str:
        return f"{self.system.name}:{self.architecture}"


def main(words: list[str]) -> int:
    """Builds a bundle; returns the exit code."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--systems", required=True)
    parser.add_argument("--to", required=True)
    arguments = parser.parse_args(words)
    try:
        manifest = build(tuple(_targets(arguments.systems)), arguments.to)
    except AgentError as error:
        print("\n".join(error.lines()), file=sys.stderr)
        return error.problem.exit_code
    size = sum(piece.size for piece in manifest.files.values()) / 1e6
    print(f"{arguments.to}: {len(manifest.files)} files, {size:.1f} MB")
    print(f"for {', '.join(manifest.systems)}")
    return 0


def build(targets: tuple[Target, ...], place: str) -> Manifest:
    """Makes a bundle and puts it into a folder or at ``s3://bucket/prefix``, whole or not at all.

    Raises what the origins of its files raise, ``usage`` or ``file-failed``.
    """
    put = _to_s3 if place.startswith("s3://") else _to_folder
    DIST.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=DIST) as scratch:
        folder = Path(scratch) / "bundle"
        folder.mkdir()
        for name in AGENT:
            shutil.copyfile(DIST / name, folder / name)
        for target in targets:
            _add_fuse(target, folder)
        for kind, architecture in dict.fromkeys(
            (t.system.family.kind, t.architecture) for t in targets
        ):
            _add_mount_s3(kind, architecture, folder)
        manifest = Manifest(tuple(map(str, targets)), dict(_pieces(folder)))
        (folder / MANIFEST).write_text(f"{manifest.text()}\n", encoding="utf-8")
        put(folder, place)
    return manifest


def _targets(words: str) -> Iterator[Target]:
    """`ubuntu2204,debian12:arm64` as they are meant, each once."""
    known = {system.name: system for system in systems.SYSTEMS}
    named = dict.fromkeys(filter(None, words.replace(" ", "").split(",")))
    for word in named or [""]:
        name, _, architecture = word.partition(":")
        architecture = architecture or ARCHITECTURES[0]
        if name not in known or architecture not in ARCHITECTURES:
            raise AgentError(
                Problem.USAGE,
                f"SYSTEMS is to be a list of systems, and {word!r} is none",
                hint=f"give some of {', '.join(known)}, each with :x86_64 (which is meant without) "
                "or :arm64, as in `make bundle SYSTEMS=ubuntu2204,debian12:arm64`",
            )
        yield Target(known[name], architecture)


def _add_fuse(target: Target, folder: Path) -> None:
    mirror = _mirror(target)
    print(f"FUSE of {target}: {mirror}", flush=True)
    repository = _REPOSITORIES[target.system.family.kind]
    try:
        repository.copy(partial(_fetch, mirror), *target, folder / fuse_folder(str(target)))
    except origin.MissingError as error:
        raise AgentError(
            error.problem, error.message, cause=error.cause, hint=_say(target)
        ) from None


def _mirror(target: Target) -> str:
    system, architecture = target
    variables = [f"MIRROR_{system.name}_{architecture}", f"MIRROR_{system.name}"]
    named = next(filter(None, map(os.environ.get, variables)), None)
    repository = _REPOSITORIES[system.family.kind]
    mirror = named or repository.of_this_machine(system)
    if mirror is None:
        raise AgentError(
            Problem.USAGE,
            f"where the packages of {system.name} are, this machine does not know",
            hint=_say(target),
        )
    return mirror


def _say(target: Target) -> str:
    """How to say where a system's packages are."""
    system, architecture = target
    command = f"make bundle SYSTEMS={target} MIRROR_{system.name}_{architecture}=URL"
    return f"say it with `{command}`: {_REPOSITORIES[system.family.kind].named(system)}"


def _fetch(mirror: str, name: str, target: Path) -> None:
    """``name`` may lead out of the mirror, as Amazon Linux's do."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scheme, separator, path = mirror.rpartition("://")
    folder, file = posixpath.split(posixpath.normpath(f"{path}/{name}"))
    origin.fetch(f"{scheme}{separator}{folder}", file, target, limit=_LARGEST_BYTES)


def _add_mount_s3(kind: str, architecture: str, folder: Path) -> None:
    """Adds the package, its signature and the public keys, as AWS's release bucket has them."""
    release = Release.chosen(Install())
    name = release.package(architecture, kind)
    print(f"mount-s3 {release.version}:{architecture}, {kind}: {release.origin}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        package = releases.fetch(release, architecture, kind, Path(scratch))
        for file, place in (
            (package, name),
            (package.with_name(f"{package.name}.asc"), f"{name}.asc"),
            (package.with_name("KEYS"), releases.KEYS),
        ):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / place)


def _pieces(folder: Path) -> Iterator[tuple[str, Piece]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            yield (
                path.relative_to(folder).as_posix(),
                Piece(len(data), hashlib.sha256(data).hexdigest()),
            )


def _to_folder(folder: Path, place: str) -> None:
    """In the place of another bundle, but of nothing else."""
    target = Path(place)
    if target.exists() and any(target.iterdir()) and not (target / MANIFEST).exists():
        raise AgentError(
            Problem.USAGE,
            f"{place} is no bundle, and not empty",
            hint="name a folder of its own in TO, which is replaced as a whole",
        )
    shutil.rmtree(target, ignore_errors=True)
    shutil.move(folder, target)


def _to_s3(folder: Path, place: str) -> None:
    """The manifest last: what it lists is there."""
    import boto3
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, prefix = place[len("s3://") :].rstrip("/").partition("/")
    client = boto3.client("s3")
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: (path.name == MANIFEST, path)):
        key = "/".join(filter(None, [prefix, path.relative_to(folder).as_posix()]))
        try:
            client.upload_file(str(path), bucket, key)
        except (Boto3Error, BotoCoreError, ClientError) as error:
            raise AgentError(
                Problem.SOURCE_FAILED,
                f"s3://{bucket}/{key} could not be written",
                cause=" ".join(str(error).split()),
                hint="check the bucket's name, and that your credentials allow s3:PutObject there",
            ) from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
