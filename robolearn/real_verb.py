"""`robolearn real up|check`: bring a stack up on this machine, or look whether it could be."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from robolearn.cli import summary

SUMMARY = "run a policy on a robot or its twin, or check that it could run"

ACTIONS = {"up": "robolearn.real_up", "check": "robolearn.real_check"}
"""Sub-verb -> its module, which is made like that of a verb."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-command for each of `ACTIONS`; the chosen one is ``args.action``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="|".join(ACTIONS))
    for name, module in ACTIONS.items():
        about = summary(module)
        action = actions.add_parser(name, help=about, description=about, allow_abbrev=False)
        _module(name).add_arguments(action)


def main(args: argparse.Namespace) -> int:
    """Run the chosen sub-command."""
    return int(_module(args.action).main(args))


def _module(action: str) -> Any:
    return importlib.import_module(ACTIONS[action])
