"""What a node sees of a transport, whichever it is.

All callbacks of one node run in one thread, the one that spins it, so that a node needs no locks. Messages are the
dataclasses of `real.msgs`; on every transport the bytes are the same CDR.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class QoS:
    """The part of a DDS endpoint's quality of service that ROS 2 users set.

    Attributes:
        depth: samples kept (KEEP_LAST).
        reliable: RELIABLE, else BEST_EFFORT.
        transient_local: late subscribers get the last ``depth`` samples, else VOLATILE.
    """

    depth: int = 10
    reliable: bool = True
    transient_local: bool = False


RELIABLE = QoS()
BEST_EFFORT = QoS(depth=1, reliable=False)
"""Only the newest counts: commands of a teleoperator."""
SENSOR = QoS(depth=5, reliable=False)
"""What ROS 2 calls sensor data."""
LATCHED = QoS(depth=1, transient_local=True)


class Clock(Protocol):
    """Two times, which must not be mixed: deadlines use `monotonic`, headers use `now`."""

    def monotonic(self) -> float:
        """Seconds since some moment; never jumps, and means nothing on another machine."""

    def now(self) -> int:
        """Nanoseconds since 1970, as ROS 2 stamps messages; may jump."""


@dataclass(frozen=True)
class Received:
    """How a message came.

    Attributes:
        topic: its full name.
        monotonic: when it arrived, seconds of the receiver's `Clock.monotonic`.
        publisher: identity of its publisher (hexadecimal), ``""`` where the transport does not tell.
        size: bytes of its CDR.
    """

    topic: str
    monotonic: float
    publisher: str
    size: int


@dataclass(frozen=True)
class Endpoint:
    """A publisher or subscription that a node sees in the graph.

    Attributes:
        node: full name of its node, such as ``/safety``; ``""`` where unknown.
        topic: full name; type: such as ``sensor_msgs/msg/JointState``.
        gid: its identity (hexadecimal).
        qos: as it announces it.
    """

    node: str
    topic: str
    type: str
    gid: str
    qos: QoS


Callback = Callable[[Any, Received], None]
"""Gets a message, or its CDR bytes where the subscription is raw."""
Handler = Callable[[Any], Any]
"""Gets a service's request, returns its response."""


class Publisher(Protocol):
    """Sends messages of one type to one topic."""

    topic: str
    type: str

    def publish(self, message: Any) -> None:
        """Send a message of `type`.

        Raises:
            MessageError: it is of another type or cannot be serialised.
        """

    def publish_raw(self, cdr: bytes) -> None:
        """Send bytes that are CDR already, encapsulation header included."""

    def close(self) -> None:
        """Leave the graph."""


class Subscription(Protocol):
    """Receives from one topic."""

    topic: str
    type: str

    def close(self) -> None:
        """Leave the graph."""


class Timer(Protocol):
    """Calls back at a fixed rate of the monotonic clock. A late tick is not made up for.

    Attributes:
        missed: ticks left out because a callback or the machine was late.
        worst_lateness_s: the latest that a tick was, s.
    """

    missed: int
    worst_lateness_s: float

    def cancel(self) -> None:
        """Call no more."""


class NodeHandle(Protocol):
    """One node of the graph.

    Names are ROS 2's: ``/absolute``, ``relative`` to the namespace, ``~/private`` to the node; remaps apply.

    Attributes:
        name: such as ``safety``; namespace: such as ``/`` or ``/left``; full_name: such as ``/left/safety``.
        clock: its times.
        parameters: what ``--ros-args -p`` and ``--params-file`` gave, dotted name → value.
        malformed: full topic → messages dropped because they are no CDR of their type.
    """

    name: str
    namespace: str
    full_name: str
    clock: Clock
    parameters: Mapping[str, Any]
    malformed: dict[str, int]

    def publisher(self, topic: str, type: str, qos: QoS = RELIABLE) -> Publisher:
        """Publish to ``topic``. Raises TransportError for an impossible name, MessageError for an unknown type."""

    def subscribe(
        self, topic: str, type: str, callback: Callback, qos: QoS = RELIABLE, *, raw: bool = False
    ) -> Subscription:
        """Call back with every message of ``topic``; malformed ones are dropped and counted, never passed on."""

    def timer(self, period_s: float, callback: Callable[[], None]) -> Timer:
        """Call back every ``period_s`` seconds, first after one period."""

    def service(self, name: str, type: str, handler: Handler) -> None:
        """Answer requests of a service."""

    def call(self, name: str, type: str, request: Any, timeout_s: float = 1.0) -> Any:
        """Ask a service and wait for the response, spinning meanwhile.

        Raises:
            TransportError: nobody answers in time.
        """

    def resolve(self, name: str) -> str:
        """The full name of a topic or service."""

    def nodes(self) -> list[str]:
        """Full names of the nodes in the graph, this one included, sorted."""

    def publishers(self, topic: str) -> list[Endpoint]:
        """Who publishes to a topic now, this node included."""

    def subscriptions(self, topic: str) -> list[Endpoint]:
        """Who subscribes to a topic now, this node included."""

    def spin_once(self, timeout_s: float = 0.1) -> None:
        """Run what is due; wait at most ``timeout_s`` for something to be."""

    def spin(self, until: Callable[[], bool] | None = None) -> None:
        """Run callbacks until ``until()`` is true or the handle is closed."""

    def close(self) -> None:
        """Leave the graph; every publisher, subscription and timer of the node ends."""
