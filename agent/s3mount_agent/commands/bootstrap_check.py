"""``bootstrap --check``: whether the arguments are good, and what they would mount."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from s3mount_agent.config import config_file
from s3mount_agent.config.arguments import parse_arguments
from s3mount_agent.config.configuration import Configuration, of_mounts
from s3mount_agent.console import mount_list
from s3mount_agent.core.errors import AgentError
from s3mount_agent.core.masking import masked

if TYPE_CHECKING:
    from s3mount_agent.console.parser import Given
    from s3mount_agent.core.versions import Version
    from s3mount_agent.reconcile.context import Context


def as_user(given: Given, overrides: dict[str, str]) -> None:
    """Checks what can be checked on any computer, by anybody. Raises what is wrong."""
    from s3mount_agent.config.desired import overridden

    configuration = overridden(_read(given), overrides)
    _say(given, mount_list.every_node(configuration), configuration)
    print("This computer itself was not checked: on a node, run it as root.")


def on_node(given: Given, context: Context) -> None:
    """Says what the node, which has been checked, would mount."""
    from s3mount_agent.mountpoint import choice

    conduct = context.conduct
    who = f"this node (role {conduct.role.value}, mode {conduct.mode.value})"
    version = choice.version_to_be(context.configuration.install)
    _say(given, mount_list.lines(context.mounts, ""), context.configuration, who, version)


def _read(given: Given) -> Configuration:
    url = given.value("--config")
    if url is None:
        mounts = parse_arguments(given.words)
        configuration = of_mounts(mounts)
        config_file.render(configuration, mounts)  # which refuses what could not be read again
        return configuration
    from s3mount_agent.config import desired
    from s3mount_agent.console.output import say_aside

    answer = desired.ask(url, say_aside)
    if isinstance(answer, AgentError):
        raise answer
    return config_file.parse(answer.text, url)


def _say(
    given: Given,
    rows: Iterable[str],
    configuration: Configuration,
    who: str = "a node",
    version: Version | None = None,
) -> None:
    what = masked(given.value("--config") or "The arguments")
    are = "is" if given.has("--config") else "are"
    print(f"{what} {are} good. Nothing was changed; {who} would mount:")
    print("\n".join(rows))
    for note in mount_list.notes(configuration, version):
        print(f"  note: {note}")
