"""The door to /etc/s3mount-agent/config.yaml, the one truth about what shall be mounted."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TypeVar

from s3mount_agent.doors import files
from s3mount_agent.model.configuration import Configuration
from s3mount_agent.model.errors import AgentError, Problem
from s3mount_agent.model.mounts import parse_mount, require_consistent
from s3mount_agent.model.roles import Mode, OnFailure, Role

PATH = Path("/etc/s3mount-agent/config.yaml")
_HEADER = "# What s3mount-agent mounts on this node. Written by `s3mount-agent bootstrap`.\n"
_Choice = TypeVar("_Choice", bound=Enum)


def load(path: Path = PATH) -> Configuration:
    """Reads the desired state; raises ``not-configured`` or ``config-invalid``, and the problems
    of a mount's own arguments."""
    import yaml

    text = files.read(path)
    if text is None:
        raise AgentError(Problem.NOT_CONFIGURED, f"this node has no {path}")
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise AgentError(Problem.CONFIG_INVALID, f"{path} is not YAML", cause=str(error)) from None
    if not isinstance(document, Mapping) or not isinstance(document.get("mounts"), list):
        raise AgentError(Problem.CONFIG_INVALID, f"{path} has no list 'mounts'")
    rows = document["mounts"]
    keys = ("bucket", "directory", "options")
    if not all(
        isinstance(row, Mapping) and all(isinstance(row.get(k), str) for k in keys) for row in rows
    ):
        raise AgentError(
            Problem.CONFIG_INVALID, f"{path} has a mount without bucket, directory and options"
        )
    return Configuration(
        mounts=require_consistent(tuple(parse_mount(*(row[k] for k in keys)) for row in rows)),
        role=_choice(Role, document, path),
        mode=_choice(Mode, document, path),
        on_failure=_choice(OnFailure, document, path),
    )


def save(configuration: Configuration, path: Path = PATH) -> bool:
    """Writes the desired state; returns whether it differs from what the file said."""
    import yaml

    document: dict[str, object] = {
        "mounts": [
            {
                "bucket": f"s3://{mount.bucket}" if mount.bucket.prefix else mount.bucket.name,
                "directory": mount.directory,
                "options": shlex.join(mount.options.arguments()),
            }
            for mount in configuration.mounts
        ]
    }
    for name in ("role", "mode", "on_failure"):
        value = getattr(configuration, name)
        if value is not None:
            document[name] = value.value
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000)
    return files.write(path, _HEADER + text)


def _choice(kind: type[_Choice], document: Mapping[str, object], path: Path) -> _Choice | None:
    name = {Role: "role", Mode: "mode", OnFailure: "on_failure"}[kind]
    value = document.get(name)
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError:
        raise AgentError(
            Problem.CONFIG_INVALID, f"{path} has the unknown {name} {value!r}"
        ) from None
