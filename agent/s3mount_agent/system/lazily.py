"""Modules that are loaded when they are first used, if ever.

For the commands that must answer at once: the import of ``dataclasses`` alone takes as long as that
of everything else it needs, for modules that it nearly never uses.
https://docs.python.org/3/library/importlib.html#implementing-lazy-imports
"""

from __future__ import annotations

import sys
from importlib import util


def load(*names: str) -> None:
    """Puts modules in place that load themselves at the first use; not for who has threads."""
    for name in names:
        spec = None if name in sys.modules else util.find_spec(name)
        if spec is None or spec.loader is None:
            continue
        spec.loader = util.LazyLoader(spec.loader)
        module = sys.modules[name] = util.module_from_spec(spec)
        spec.loader.exec_module(module)
