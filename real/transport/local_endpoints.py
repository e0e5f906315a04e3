"""Publishers, subscriptions, timers and services of the in-process transport."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from real.errors import MessageError, TransportError
from real.transport.handle import Callback, Endpoint, Handler, QoS, Received
from real.transport.virtual_clock import nanoseconds

if TYPE_CHECKING:
    from real.transport.local_node import LocalNode


class LocalPublisher:
    """Sends messages of one type to one topic.

    Attributes:
        history: what it keeps for late joiners, oldest first.
        matched: the subscriptions that it reaches.
    """

    def __init__(self, node: LocalNode, topic: str, type: str, qos: QoS, gid: str) -> None:
        self.node, self.topic, self.type, self.qos, self.gid = node, topic, type, qos, gid
        self.endpoint = Endpoint(node.full_name, topic, type, gid, qos)
        self.history: deque[bytes] = deque(maxlen=qos.depth if qos.transient_local else 0)
        self.matched: list[LocalSubscription] = []
        self._open = True

    def publish(self, message: Any) -> None:
        """Send a message. Raises MessageError for one of another type or that cannot be serialised."""
        store = self.node.bus.store
        if (given := store.type_of(message)) != self.type:
            raise MessageError(f"topic {self.topic!r} carries {self.type}, not {given}")
        self.publish_raw(store.serialize(message))

    def publish_raw(self, cdr: bytes) -> None:
        """Send bytes that are CDR already. Raises TransportError once the publisher or its node has ended."""
        if not self._open or not self.node.alive:
            raise TransportError(f"the publisher of {self.topic!r} of node {self.node.full_name!r} is closed")
        self.node.emit(self._send, bytes(cdr))

    def close(self) -> None:
        """Leave the graph."""
        if self._open and self.node.alive:
            self._open = False
            self.node.own_publishers.remove(self)
            self.node.bus.remove(self)

    def _send(self, data: bytes) -> None:
        self.history.append(data)
        if self.matched:
            self.node.bus.transmit(self, data, self.matched)


class LocalSubscription:
    """Receives from one topic.

    Attributes:
        latest: publisher's identity → when its last message in order arrives, ns.
        overrun: messages that newer ones pushed out of the full queue.
    """

    def __init__(
        self, node: LocalNode, topic: str, type: str, callback: Callback, qos: QoS, gid: str, raw: bool
    ) -> None:
        self.node, self.topic, self.type, self.qos, self.gid = node, topic, type, qos, gid
        self.endpoint = Endpoint(node.full_name, topic, type, gid, qos)
        self.latest: dict[str, int] = {}
        self.overrun = 0
        self._callback = callback
        self._raw = raw
        self._queue: deque[tuple[bytes, str]] = deque()
        self._open = True

    def arrive(self, data: bytes, publisher: str) -> None:
        """A message reaches the queue; the oldest one leaves it where it is full."""
        if not self._open or not self.node.alive:
            return
        self._queue.append((data, publisher))
        if len(self._queue) > self.qos.depth:
            self._queue.popleft()
            self.overrun += 1
        else:
            self.node.enqueue(self._take)

    def close(self) -> None:
        """Leave the graph."""
        if self._open and self.node.alive:
            self._open = False
            self._queue.clear()
            self.node.own_subscriptions.remove(self)
            self.node.bus.remove(self)

    def _take(self) -> None:
        if not self._queue:
            return
        data, publisher = self._queue.popleft()
        message: Any = data
        if not self._raw:
            try:
                message = self.node.bus.store.deserialize(data, self.type)
            except MessageError:
                self.node.malformed[self.topic] = self.node.malformed.get(self.topic, 0) + 1
                return
        # As on a wire, a message counts as received when its node gets round to it.
        self._callback(message, Received(self.topic, self.node.clock.monotonic(), publisher, len(data)))


class LocalTimer:
    """Calls back at a fixed rate; ticks that are over when the node gets round to one are left out.

    Attributes:
        missed: ticks left out.
        worst_lateness_s: the latest that a tick was, s.
    """

    def __init__(self, node: LocalNode, period_s: float, callback: Callable[[], None]) -> None:
        self._node, self._callback = node, callback
        self._period_ns = nanoseconds(period_s, "a timer's period")
        if self._period_ns == 0:
            raise TransportError(f"a timer's period is at least a nanosecond, not {period_s!r} s")
        self.missed = 0
        self.worst_lateness_s = 0.0
        self._cancelled = False
        self._due_ns = node.clock.ns + self._period_ns
        node.bus.schedule(self._due_ns, self._due)

    def cancel(self) -> None:
        """Call no more."""
        self._cancelled = True

    def _due(self) -> None:
        if not self._cancelled:
            self._node.enqueue(self._run)

    def _run(self) -> None:
        if self._cancelled:
            return
        late_ns = self._node.bus.clock.ns - self._due_ns
        over = late_ns // self._period_ns
        self.missed += over
        self.worst_lateness_s = max(self.worst_lateness_s, late_ns * 1e-9)
        self._due_ns += (over + 1) * self._period_ns
        self._node.bus.schedule(self._due_ns, self._due)
        self._callback()


@dataclass(frozen=True, eq=False)
class Answer:
    """A service of a node."""

    node: LocalNode
    name: str
    type: str
    handler: Handler

    def ask(self, request: bytes, reply: Callable[[bytes], None]) -> None:
        """A request arrives; ``reply`` gets the response's CDR after the way back."""
        self.node.enqueue(partial(self._run, request, reply))

    def _run(self, request: bytes, reply: Callable[[bytes], None]) -> None:
        bus = self.node.bus
        response = self.handler(bus.store.deserialize(request, f"{self.type}_Request"))
        if (given := bus.store.type_of(response)) != f"{self.type}_Response":
            raise MessageError(f"service {self.name!r} responds with {self.type}_Response, not {given}")
        self.node.emit(self._send, bus.store.serialize(response), reply)

    def _send(self, response: bytes, reply: Callable[[bytes], None]) -> None:
        bus = self.node.bus
        bus.schedule(bus.clock.ns + bus.travel_ns(self.name), reply, response)
