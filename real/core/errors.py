"""Mistakes that the core refuses; each is one line."""

from __future__ import annotations

from real.errors import RealError


class CommandError(RealError):
    """A command with a wrong size, a wrong type, or a number that is not finite; nothing has moved."""


class LimitError(RealError):
    """Limits of joints or of the workspace that contradict each other, are missing, or cannot be kept."""
