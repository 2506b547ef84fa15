"""The tests in several processes: which comes first, and what is the same for all of them."""

from __future__ import annotations

import os

import pytest

from mount_s3_package import VARIABLE
from node.conftest import chosen

_LONGEST = "test_unreachable.py"
_SENTENCE = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """All processes use one mount-s3; a worker knows it from its parent."""
    if _is_parent(config):
        config.stash[_SENTENCE] = chosen().sentence
        os.environ[VARIABLE] = str(chosen().path)


def pytest_report_header(config: pytest.Config) -> str | None:
    """Says which, where no single process can (see node/conftest.py)."""
    return config.stash.get(_SENTENCE, None)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits for minutes comes first, then all other nodes, then what needs none, so that all
    processes have enough to do until the end."""
    items.sort(
        key=lambda item: (
            item.path.name != _LONGEST,
            item.get_closest_marker("node") is None,
        )
    )


def _is_parent(config: pytest.Config) -> bool:
    return bool(config.getoption("numprocesses", None)) and not hasattr(config, "workerinput")
