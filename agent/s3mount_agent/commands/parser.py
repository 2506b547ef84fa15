"""argparse, with errors in the form that all errors have."""

from __future__ import annotations

import argparse
from typing import NoReturn

from s3mount_agent.core.errors import AgentError, Problem


class Parser(argparse.ArgumentParser):
    """An argument parser that raises ``usage`` instead of ending the program."""

    def error(self, message: str) -> NoReturn:
        """Called by argparse with what is wrong."""
        raise AgentError(Problem.USAGE, message, hint=f"see `{self.prog} --help`")
