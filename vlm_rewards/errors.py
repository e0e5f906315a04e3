"""What can go wrong with a critic."""

from __future__ import annotations

from robolearn.errors import RobolearnError


class CriticError(RobolearnError):
    """A critic that cannot be used as asked: missing, of another kind, or given what it cannot judge."""


class MissingCapability(CriticError):
    """A critic was asked for a kind of judgement that it does not make."""
