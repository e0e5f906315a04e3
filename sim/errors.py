"""What can be wrong with an environment as a whole."""

from __future__ import annotations

from robolearn.errors import RobolearnError


class EnvError(RobolearnError):
    """An action that cannot be applied, or a task that gives its policy what no robot measures."""
