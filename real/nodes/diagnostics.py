"""What a node says of itself on ``/diagnostics``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from real.msgs import MessageStore
from real.transport.handle import RELIABLE, NodeHandle

OK, WARN, ERROR = 0, 1, 2
"""Levels of a DiagnosticStatus."""


class Diagnostics:
    """Publishes a node's status under its full name."""

    def __init__(self, handle: NodeHandle, store: MessageStore) -> None:
        self._handle, self._store = handle, store
        self._publisher = handle.publisher("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", RELIABLE)

    def publish(self, level: int, message: str, values: Mapping[str, Any]) -> None:
        """One status; ``values`` are shown as text."""
        new = self._store.new
        pairs = [new("diagnostic_msgs/msg/KeyValue", key=key, value=str(value)) for key, value in values.items()]
        status = new(
            "diagnostic_msgs/msg/DiagnosticStatus",
            level=level,
            name=self._handle.full_name,
            message=message,
            values=pairs,
        )
        header = new("std_msgs/msg/Header", stamp=self._store.time(self._handle.clock.now()))
        self._publisher.publish(new("diagnostic_msgs/msg/DiagnosticArray", header=header, status=[status]))
