"""/etc/s3mount-agent/config.yaml, the one truth about what shall be mounted."""

from __future__ import annotations

import shlex
from pathlib import Path

from s3mount_agent.config.configuration import Configuration
from s3mount_agent.config.document import Source
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.mounts import Mount
from s3mount_agent.filesystem import files, paths

PATH = paths.CONFIG
_HEADER = "# What s3mount-agent mounts on this node. Written by `s3mount-agent bootstrap`.\n"


def parse(text: str, name: str) -> Configuration:
    """Reads a configuration; raises ``config-invalid`` or a mount's own problem, with the place."""
    from s3mount_agent.config import yaml_text
    from s3mount_agent.config.keys import read_configuration

    source = Source(name, text)
    return read_configuration(yaml_text.read(source), source)


def read(path: Path | None = None) -> str:
    """The text of config.yaml; raises ``not-configured`` where there is none."""
    path = path or PATH
    text = files.read(path)
    if text is None:
        raise AgentError(Problem.NOT_CONFIGURED, f"this node has no {path}")
    return text


def damaged() -> Path:
    """Where one that is no configuration any more is kept when a good one takes its place."""
    return PATH.with_name(f"{PATH.name}.bad")


def render(configuration: Configuration, mounts: tuple[Mount, ...]) -> str:
    """The text of a configuration that was given as arguments; raises ``config-invalid`` where it
    would be larger than what is read."""
    import yaml

    from s3mount_agent.config import yaml_text

    document: dict[str, object] = {
        "mounts": [
            {
                "bucket": f"s3://{mount.bucket}" if mount.bucket.prefix else mount.bucket.name,
                "directory": mount.directory,
                "options": shlex.join(mount.options.arguments()),
            }
            for mount in mounts
        ]
    }
    for name in ("role", "mode", "on_failure"):
        value = getattr(configuration, name)
        if value is not None:
            document[name] = value.value
    if configuration.install.family is not None:
        document["install"] = {"family": configuration.install.family}
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000)
    yaml_text.require_small(_HEADER + text, "the configuration of these arguments")
    return _HEADER + text
