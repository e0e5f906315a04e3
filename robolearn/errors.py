"""Errors that reach a user: one line that names the thing, what was given, and the valid choices."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RobolearnError(Exception):
    """Base of every mistake a user can make; the command line prints it as one line and exits with code 2."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return ``"did you mean 'x'? "`` for the closest of ``choices``, or an empty string."""
    close = difflib.get_close_matches(str(name), [str(c) for c in choices], n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}? " if close else ""


def unknown(kind: str, name: str, choices: Iterable[str]) -> str:
    """Message for a name that is not one of ``choices``: the name, the closest match, and all of them."""
    names = sorted(str(c) for c in choices)
    plural = kind + ("es" if kind.endswith(("s", "x", "ch")) else "s")
    return f"unknown {kind} {name!r}; {did_you_mean(name, names)}{plural}: {', '.join(names) or 'none'}"
