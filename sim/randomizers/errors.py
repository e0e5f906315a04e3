"""The mistake that this package reports."""

from __future__ import annotations

from robolearn.errors import RobolearnError


class RandomizeError(RobolearnError):
    """A randomiser that does not exist, an impossible range, or one that would change nothing in these models."""
