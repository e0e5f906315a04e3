"""Mistakes of a user of the real side; each is one line that names the thing, what was given, and the choices."""

from __future__ import annotations

from robolearn.errors import RobolearnError


class RealError(RobolearnError):
    """Base of the mistakes below."""


class TransportError(RealError):
    """A transport that cannot be opened, a topic or type that does not exist, or a node name already in use."""


class MessageError(RealError):
    """Bytes that are no message of their type, a message with unknown fields, or an unknown type."""


class StackError(RealError):
    """A stack file that cannot be read, or settings in it that cannot work."""
