"""Nodes on the wire: one `NodeHandle` over rclpy, over embedded DDS, or in process with a virtual clock."""

from real.transport.handle import (
    BEST_EFFORT,
    LATCHED,
    RELIABLE,
    SENSOR,
    Clock,
    Endpoint,
    NodeHandle,
    Publisher,
    QoS,
    Received,
    Subscription,
    Timer,
)

__all__ = [
    "BEST_EFFORT",
    "LATCHED",
    "RELIABLE",
    "SENSOR",
    "Clock",
    "Endpoint",
    "NodeHandle",
    "Publisher",
    "QoS",
    "Received",
    "Subscription",
    "Timer",
]
