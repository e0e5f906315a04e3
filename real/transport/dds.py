"""A node on embedded DDS: ROS 2's names, types, QoS and graph information on the wire, without a ROS 2 installation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from real.errors import MessageError, TransportError
from real.msgs import MessageStore
from real.transport.dds_graph import Graph
from real.transport.dds_qos import dds_qos
from real.transport.dds_services import Client, Server
from real.transport.dds_types import idl_type
from real.transport.dds_wire import Reader, Wire, Writer
from real.transport.handle import RELIABLE, Callback, Clock, Endpoint, Handler, QoS, Received
from real.transport.names import Remaps, check_namespace, check_node_name, join
from real.transport.system_clock import SystemClock
from real.transport.timers import Tick, TimerQueue


class DDSPublisher:
    """A `Publisher`.

    Attributes:
        gid: identity (hexadecimal), as `Received.publisher` gives it.
    """

    def __init__(self, node: DDSNode, topic: str, type: str, qos: QoS) -> None:
        self.topic, self.type = topic, type
        self._node = node
        self._store = node.store
        self._writer = Writer(node.wire, "rt" + topic, idl_type(node.store, type), node.dds_qos(type, qos))
        self.gid = self._writer.gid.hex()
        node.graph.add(self._writer.gid, "writer")
        node.endpoints.add(self)
        self._closed = False

    @property
    def dropped(self) -> int:
        """Messages given up because a reliable subscription did not take them within 0.1 s."""
        return self._writer.dropped

    def publish(self, message: Any) -> None:
        """Send a message. Raises MessageError where it is of another type or cannot be serialised."""
        if (type := self._store.type_of(message)) != self.type:
            raise MessageError(f"{self.topic} carries {self.type}, not {type}")
        self.publish_raw(self._store.serialize(message))

    def publish_raw(self, cdr: bytes) -> None:
        """Send CDR. Raises TransportError where the publisher is closed or the bytes are no CDR of its type."""
        if self._closed or not self._node.wire.is_open():
            raise TransportError(f"the publisher of {self.topic} is closed")
        self._writer.write(cdr)

    def subscriptions(self) -> int:
        """How many subscriptions are matched now."""
        return self._writer.readers()

    def close(self) -> None:
        """Leave the graph."""
        if not self._closed and self._node.wire.is_open():
            self._node.endpoints.discard(self)
            self._node.graph.remove(self._writer.gid)
            self._writer.close()
        self._closed = True


class DDSSubscription:
    """A `Subscription`."""

    def __init__(self, node: DDSNode, topic: str, type: str, callback: Callback, qos: QoS, raw: bool) -> None:
        self.topic, self.type = topic, type
        self._node, self._callback, self._raw = node, callback, raw
        # What a history holds in one go, then the other subscriptions have their turn.
        self._most = min(max(qos.depth, 1), 64)
        self._reader = Reader(node.wire, "rt" + topic, idl_type(node.store, type), node.dds_qos(type, qos))
        self._key = node.wire.watch(self._reader, self._ready)
        node.graph.add(self._reader.gid, "reader")
        node.subscribed.add(topic)
        node.endpoints.add(self)
        self._closed = False

    def _ready(self) -> None:
        node = self._node
        for data, publisher in self._reader.take(self._most):
            received = Received(self.topic, node.clock.monotonic(), publisher, len(data))
            try:
                message = node.store.deserialize(data, self.type)
            except MessageError:
                node.malformed[self.topic] = node.malformed.get(self.topic, 0) + 1
                continue
            self._callback(data if self._raw else message, received)
            node.run_timers()
            if self._closed or not node.wire.is_open():
                return

    def publishers(self) -> int:
        """How many publishers are matched now."""
        return self._reader.writers()

    def close(self) -> None:
        """Leave the graph."""
        if not self._closed and self._node.wire.is_open():
            self._node.endpoints.discard(self)
            self._node.graph.remove(self._reader.gid)
            self._node.wire.unwatch(self._key)
            self._reader.close()
        self._closed = True


class DDSNode:
    """A `NodeHandle` on embedded DDS; `real.transport.open.open_node` makes it.

    Args:
        name, namespace: before remapping.
        domain: DDS domain id, 0..232.
        remaps, parameters, enclave: as ``--ros-args`` gave them.

    Raises:
        TransportError: an impossible name, or a domain that cannot be opened.
    """

    def __init__(
        self,
        name: str,
        *,
        store: MessageStore,
        domain: int,
        namespace: str = "/",
        remaps: Remaps | None = None,
        parameters: Mapping[str, Any] | None = None,
        enclave: str = "/",
    ) -> None:
        self.remaps = remaps or Remaps()
        self.namespace, self.name = self.remaps.identity(check_namespace(namespace), check_node_name(name))
        self.full_name = join(self.namespace, self.name)
        self.clock: Clock = SystemClock()
        self.parameters: Mapping[str, Any] = dict(parameters or {})
        self.malformed: dict[str, int] = {}
        self.store = store
        self.services = 0
        self._clients: dict[tuple[str, str], Client] = {}
        self._timers = TimerQueue(time.monotonic)
        self.wire = Wire(domain, enclave)
        # Cyclone ends an endpoint that Python no longer refers to; a node's last until they are closed.
        self.endpoints: set[DDSPublisher | DDSSubscription | Server] = set()
        self.subscribed: set[str] = set()
        self._dropped_total = self.wire.drops.total
        self._dropped = dict(self.wire.drops.counts)
        self.graph = Graph(self.wire, store, self.namespace, self.name)

    def __enter__(self) -> DDSNode:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def dds_qos(self, type: str, qos: QoS, user_data: str = "") -> Any:
        """Cyclone's QoS for an endpoint of a type. Raises TransportError for a history of nothing."""
        if qos.depth < 1:
            raise TransportError(f"the depth of a history is {qos.depth}; it must be 1 or more")
        return dds_qos(qos, f"{user_data}typehash={self.store.type_hash(type)};")

    def resolve(self, name: str) -> str:
        """The full name of a topic, remaps applied."""
        return self.remaps.resolve(name, self.namespace, self.name)

    def publisher(self, topic: str, type: str, qos: QoS = RELIABLE) -> DDSPublisher:
        """Publish to ``topic``."""
        return DDSPublisher(self, self.resolve(topic), type, qos)

    def subscribe(
        self, topic: str, type: str, callback: Callback, qos: QoS = RELIABLE, *, raw: bool = False
    ) -> DDSSubscription:
        """Call back with every message of ``topic``."""
        return DDSSubscription(self, self.resolve(topic), type, callback, qos, raw)

    def timer(self, period_s: float, callback: Callable[[], None]) -> Tick:
        """Call back every ``period_s`` seconds, first after one period."""
        return self._timers.add(period_s, callback)

    def run_timers(self) -> bool:
        """Run the timers that are due; a burst of messages must not hold up a control loop."""
        return self._timers.run()

    def nodes(self) -> list[str]:
        """Full names of the nodes in the graph, sorted; a name in use twice comes twice."""
        return self.graph.nodes()

    def publishers(self, topic: str) -> list[Endpoint]:
        """Who publishes to a topic now."""
        full = self.resolve(topic)
        return self.graph.endpoints("writer", "rt" + full, full)

    def subscriptions(self, topic: str) -> list[Endpoint]:
        """Who subscribes to a topic now."""
        full = self.resolve(topic)
        return self.graph.endpoints("reader", "rt" + full, full)

    def spin_once(self, timeout_s: float = 0.1) -> None:
        """Run what is due; wait at most ``timeout_s`` for something to be."""
        if not self.wire.is_open():
            raise TransportError(f"node {self.full_name} is closed")
        ready = self.wire.wait(self._timers.wait_s(timeout_s))
        self._count_drops()
        self.run_timers()
        for call in ready:
            if self.wire.is_open():
                call()

    def _count_drops(self) -> None:
        if (total := self.wire.drops.total) == self._dropped_total:
            return
        self._dropped_total = total
        for dds_topic, count in list(self.wire.drops.counts.items()):
            new = count - self._dropped.get(dds_topic, 0)
            self._dropped[dds_topic] = count
            topic = dds_topic[2:]
            if new and dds_topic.startswith("rt/") and topic in self.subscribed:
                self.malformed[topic] = self.malformed.get(topic, 0) + new

    def spin(self, until: Callable[[], bool] | None = None) -> None:
        """Run callbacks until ``until()`` is true or the node is closed."""
        while self.wire.is_open() and not (until and until()):
            self.spin_once()

    def service(self, name: str, type: str, handler: Handler) -> None:
        """Answer requests of a service, from and to nodes on Cyclone DDS only."""
        self.endpoints.add(Server(self, self._service(name), type, handler))

    def call(self, name: str, type: str, request: Any, timeout_s: float = 1.0) -> Any:
        """Ask a service and wait for the response, spinning meanwhile. Raises TransportError where none comes."""
        key = (self._service(name), type)
        if key not in self._clients:
            self._clients[key] = Client(self, *key)
        return self._clients[key].call(request, timeout_s, self.spin_once)

    def _service(self, name: str) -> str:
        return self.remaps.resolve(name, self.namespace, self.name, service=True)

    def close(self) -> None:
        """Leave the graph; a second call does nothing."""
        self._timers.clear()
        self.wire.close()
