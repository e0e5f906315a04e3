"""ROS 2 messages without ROS 2: their types, their bytes on the wire, their type hashes and their texts."""

from __future__ import annotations

from real.msgs.store import MessageStore, store

__all__ = ["MessageStore", "store"]
