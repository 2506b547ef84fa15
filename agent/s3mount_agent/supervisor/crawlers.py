"""Keeping `updatedb` out of the mounts, where it is installed; taken back by `uninstall`."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from s3mount_agent.filesystem import files
from s3mount_agent.state import inventory
from s3mount_agent.state.inventory import Belongings
from s3mount_agent.system import updatedb


def are_kept_out(directories: Collection[str]) -> bool:
    """Whether nothing has to be changed."""
    before, after, _ = _edit(directories)
    return before == after


def keep_out(directories: Collection[str]) -> bool:
    """Has updatedb keep out of these directories, and no longer out of others that the agent had
    it keep out of; what stood there before stays. Returns whether anything had to change.

    Raises ``file-failed`` or ``no-space``.
    """
    before, after, made = _edit(directories)
    if before == after:
        return False
    known = inventory.load()
    # Whenever the power goes, all that was added is written down.
    both = tuple(sorted({*known.updatedb, *made.updatedb}))
    inventory.save(dataclasses.replace(known, updatedb=both))
    files.write(updatedb.CONF, after)
    inventory.save(dataclasses.replace(inventory.load(), updatedb=made.updatedb))
    return True


def _edit(directories: Collection[str]) -> tuple[str, str, Belongings]:
    """The file as it is and as it shall be ("" for both where there is none), and what the agent
    has then added to it."""
    made = inventory.load()
    text = files.read(updatedb.CONF)
    if text is None:
        return "", "", made
    there = updatedb.pruned(text)
    ours = [each for each in made.updatedb if each in there]
    wanted = sorted(filter(updatedb.can_name, directories))
    add = [each for each in wanted if each not in there]
    remove = [each for each in ours if each not in wanted]
    kept = [each for each in ours if each in wanted]
    after = updatedb.edited(text, add=add, remove=remove)
    return text, after, dataclasses.replace(made, updatedb=tuple(kept + add))
