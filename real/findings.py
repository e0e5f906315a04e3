"""What a preflight finds."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what.
        state: ok, warn (it can run, but look) or fail (it must not).
        detail: what was found.
        advice: what to change; empty where nothing is to.
    """

    name: str
    state: str
    detail: str
    advice: str = ""
