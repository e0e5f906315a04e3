"""The command line: ``robolearn <verb> ...``.

Each verb is a module of this package with ``SUMMARY``, ``add_arguments(parser)`` and ``main(args) -> int``
(the exit code). Modules are imported when their verb is called, so that help is instant.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from robolearn import __version__
from robolearn.errors import RobolearnError, unknown

VERBS = {
    "list": "robolearn.listing",
    "train": "robolearn.train",
    "eval": "robolearn.evaluate",
    "play": "robolearn.play",
    "export": "robolearn.export",
    "bench": "robolearn.bench",
    "reference": "robolearn.reference",
    "critic": "robolearn.critic",
    "real": "robolearn.real_verb",
    "teleop": "robolearn.teleop",
    "episodes": "robolearn.episodes_verb",
    "demo": "robolearn.demo",
    "doctor": "robolearn.doctor",
}

USER_ERROR = 2
INTERRUPTED = 130


class UsageError(RobolearnError):
    """A command line that cannot be understood."""


class _Parser(argparse.ArgumentParser):
    """Reports a mistake as one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return its exit code, 2 for a user's mistake, or 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except RobolearnError as error:
        print(f"robolearn: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("robolearn: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe has gone, as in `robolearn list | head -1`; Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def entry() -> NoReturn:
    """Console script."""
    sys.exit(main())


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb in ("-V", "--version"):
        print(f"robolearn {__version__}")
        return 0
    if verb not in VERBS:
        raise UsageError(unknown("verb", verb, VERBS))
    _log_to_stderr()
    module: Any = importlib.import_module(VERBS[verb])
    parser = _Parser(prog=f"robolearn {verb}", description=module.SUMMARY, allow_abbrev=False)
    module.add_arguments(parser)
    try:
        args = _parse(parser, rest)
    except SystemExit as finished:  # --help has been printed
        return int(finished.code or 0)
    return int(module.main(args))


def _parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """Flags may stand between settings, those of a sub-verb too: `robolearn train seed=1 --json num_envs=64`."""
    actions = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not actions:
        return parser.parse_intermixed_args(arguments)
    nested = actions[0]
    if not arguments or arguments[0] not in nested.choices:
        return parser.parse_args(arguments)  # help, or a mistake
    args: argparse.Namespace = nested.choices[arguments[0]].parse_intermixed_args(arguments[1:])
    setattr(args, nested.dest, arguments[0])
    return args


def _log_to_stderr() -> None:
    """Show what our own rooms report, such as repairs of a recording or a world that diverged."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
    for room in ("robolearn", "sim", "policies", "vlm_rewards", "real"):
        logging.getLogger(room).setLevel(logging.INFO)


def _help() -> str:
    lines = ["usage: robolearn <verb> [key=value ...] [--json]", "", "verbs:"]
    lines += [f"  {verb:<10} {summary(module)}" for verb, module in VERBS.items()]
    lines += ["", "robolearn <verb> --help tells more; robolearn --version prints the version."]
    return "\n".join(lines)


def summary(module: str) -> str:
    """``SUMMARY`` of a verb's module, read from its source: importing them all would take seconds."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    for node in ast.parse(Path(spec.origin).read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "SUMMARY":
            return str(ast.literal_eval(node.value))
    return ""
