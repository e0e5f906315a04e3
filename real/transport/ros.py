"""A node on rclpy, where ROS 2 is sourced: the same messages and the same bytes as on the other transports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from real.errors import MessageError, TransportError
from real.msgs import MessageStore
from real.transport.arguments import RosArguments
from real.transport.dds_config import domain_id
from real.transport.handle import RELIABLE, Callback, Clock, Endpoint, Handler, QoS, Received
from real.transport.names import check_namespace, check_node_name, join
from real.transport.ros_support import endpoint, initialisation, interface, load, one_line, policies
from real.transport.system_clock import SystemClock
from real.transport.timers import Tick, TimerQueue

_MOST_AT_ONCE = 64
"""Messages that one `RosNode.spin_once` passes on; rclpy's own passes on one."""


class RosPublisher:
    """A `Publisher`."""

    def __init__(self, node: RosNode, topic: str, type: str, qos: QoS) -> None:
        self.topic, self.type = topic, type
        self._node = node
        self._handle = node.handle.create_publisher(interface(type), topic, node.profile(qos))

    def publish(self, message: Any) -> None:
        """Send a message. Raises MessageError where it is of another type or cannot be serialised."""
        if (given := self._node.store.type_of(message)) != self.type:
            raise MessageError(f"{self.topic} carries {self.type}, not {given}")
        self.publish_raw(self._node.store.serialize(message))

    def publish_raw(self, cdr: bytes) -> None:
        """Send CDR. Raises TransportError where the publisher is closed."""
        if self._handle is None or not self._node.is_open():
            raise TransportError(f"the publisher of {self.topic} is closed")
        self._handle.publish(cdr)

    def close(self) -> None:
        """Leave the graph."""
        handle, self._handle = self._handle, None
        if handle is not None and self._node.is_open():
            self._node.handle.destroy_publisher(handle)


class RosSubscription:
    """A `Subscription`."""

    def __init__(self, node: RosNode, topic: str, type: str, callback: Callback, qos: QoS, raw: bool) -> None:
        self.topic, self.type = topic, type
        self._node, self._callback, self._raw = node, callback, raw
        self._handle = node.handle.create_subscription(
            interface(type), topic, self._arrived, node.profile(qos), raw=True
        )

    def _arrived(self, data: bytes) -> None:
        node = self._node
        node.worked += 1
        # rclpy does not tell who published.
        received = Received(self.topic, node.clock.monotonic(), "", len(data))
        try:
            message = node.store.deserialize(data, self.type)
        except MessageError:
            node.malformed[self.topic] = node.malformed.get(self.topic, 0) + 1
            return
        self._callback(data if self._raw else message, received)

    def close(self) -> None:
        """Leave the graph."""
        handle, self._handle = self._handle, None
        if handle is not None and self._node.is_open():
            self._node.handle.destroy_subscription(handle)


class RosNode:
    """A `NodeHandle` on rclpy; `real.transport.open.open_node` makes it.

    Raises:
        TransportError: rclpy is missing or does not work, or an impossible name.
    """

    def __init__(
        self,
        name: str,
        *,
        store: MessageStore,
        arguments: RosArguments,
        namespace: str = "/",
        domain: int | None = None,
    ) -> None:
        self.remaps = arguments.remaps
        self.namespace, self.name = self.remaps.identity(check_namespace(namespace), check_node_name(name))
        self.full_name = join(self.namespace, self.name)
        self.clock: Clock = SystemClock()
        self.parameters: Mapping[str, Any] = arguments.parameters(self.full_name)
        self.malformed: dict[str, int] = {}
        self.store = store
        self.worked = 0
        self._timers = TimerQueue(time.monotonic)
        self._clients: dict[tuple[str, str], Any] = {}
        self._rclpy = load("rclpy")
        self._qos = load("rclpy.qos")
        self._serialization = load("rclpy.serialization")
        executors = load("rclpy.executors")
        # A context of its own: this module leaves what the process does with rclpy otherwise alone.
        self._context = load("rclpy.context").Context()
        try:
            self._rclpy.init(args=initialisation(arguments), context=self._context, domain_id=domain_id(domain))
            self.handle = load("rclpy.node").Node(
                self.name, namespace=self.namespace, context=self._context, use_global_arguments=False
            )
            self._executor = executors.SingleThreadedExecutor(context=self._context)
            self._executor.add_node(self.handle)
        except TransportError:
            self._context.try_shutdown()
            raise
        except Exception as error:  # A missing middleware, for one, is a RuntimeError or an RCLError of the C layer.
            self._context.try_shutdown()
            raise TransportError(
                f"ROS 2 is sourced but broken: opening node {self.full_name} fails with "
                f"{type(error).__name__}: {one_line(error)}"
            ) from error
        self._open = True

    def __enter__(self) -> RosNode:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def is_open(self) -> bool:
        """Whether `close` was not called yet."""
        return self._open

    def profile(self, qos: QoS) -> Any:
        """rclpy's QoSProfile."""
        named = policies(qos)
        return self._qos.QoSProfile(
            history=self._qos.HistoryPolicy[named["history"]],
            depth=named["depth"],
            reliability=self._qos.ReliabilityPolicy[named["reliability"]],
            durability=self._qos.DurabilityPolicy[named["durability"]],
        )

    def resolve(self, name: str) -> str:
        """The full name of a topic, remaps applied."""
        return self.remaps.resolve(name, self.namespace, self.name)

    def publisher(self, topic: str, type: str, qos: QoS = RELIABLE) -> RosPublisher:
        """Publish to ``topic``."""
        return RosPublisher(self, self.resolve(topic), type, qos)

    def subscribe(
        self, topic: str, type: str, callback: Callback, qos: QoS = RELIABLE, *, raw: bool = False
    ) -> RosSubscription:
        """Call back with every message of ``topic``."""
        return RosSubscription(self, self.resolve(topic), type, callback, qos, raw)

    def timer(self, period_s: float, callback: Callable[[], None]) -> Tick:
        """Call back every ``period_s`` seconds, first after one period."""
        return self._timers.add(period_s, callback)

    def service(self, name: str, type: str, handler: Handler) -> None:
        """Answer requests of a service."""
        service_type = interface(type)

        def answer(request: Any, response: Any) -> Any:
            self.worked += 1
            return self._to_ros(handler(self._from_ros(request, f"{type}_Request")), service_type.Response)

        self.handle.create_service(service_type, self._service(name), answer)

    def call(self, name: str, type: str, request: Any, timeout_s: float = 1.0) -> Any:
        """Ask a service and wait for the response, spinning meanwhile; not from within a callback.

        Raises:
            TransportError: nobody answers in time.
        """
        full, service_type = self._service(name), interface(type)
        if (full, type) not in self._clients:
            self._clients[full, type] = self.handle.create_client(service_type, full)
        client = self._clients[full, type]
        until = time.monotonic() + timeout_s
        while not client.service_is_ready():
            if time.monotonic() >= until:
                raise TransportError(f"service {full} is not there after {timeout_s:g} s")
            self.spin_once(0.01)
        future = client.call_async(self._to_ros(request, service_type.Request))
        while not future.done():
            if time.monotonic() >= until:
                client.remove_pending_request(future)
                raise TransportError(f"service {full} did not answer within {timeout_s:g} s")
            self.spin_once(0.01)
        return self._from_ros(future.result(), f"{type}_Response")

    def nodes(self) -> list[str]:
        """Full names of the nodes in the graph, sorted; a name in use twice comes twice."""
        found = self.handle.get_node_names_and_namespaces()
        return sorted(join(check_namespace(namespace), name) for name, namespace in found)

    def publishers(self, topic: str) -> list[Endpoint]:
        """Who publishes to a topic now."""
        return self._endpoints(self.handle.get_publishers_info_by_topic, topic)

    def subscriptions(self, topic: str) -> list[Endpoint]:
        """Who subscribes to a topic now."""
        return self._endpoints(self.handle.get_subscriptions_info_by_topic, topic)

    def spin_once(self, timeout_s: float = 0.1) -> None:
        """Run what is due; wait at most ``timeout_s`` for something to be."""
        if not self._open:
            raise TransportError(f"node {self.full_name} is closed")
        wait = self._timers.wait_s(timeout_s)
        for _ in range(_MOST_AT_ONCE):
            before = self.worked
            self._executor.spin_once(timeout_sec=wait)
            self._timers.run()
            wait = 0.0
            if self.worked == before or not self._open:
                return

    def spin(self, until: Callable[[], bool] | None = None) -> None:
        """Run callbacks until ``until()`` is true or the node is closed."""
        while self._open and not (until and until()):
            self.spin_once()

    def close(self) -> None:
        """Leave the graph; a second call does nothing."""
        if self._open:
            self._open = False
            self._timers.clear()
            self._executor.shutdown(timeout_sec=0)
            self.handle.destroy_node()
            self._context.try_shutdown()

    def _service(self, name: str) -> str:
        return self.remaps.resolve(name, self.namespace, self.name, service=True)

    def _endpoints(self, ask: Callable[[str], Iterable[Any]], topic: str) -> list[Endpoint]:
        full = self.resolve(topic)
        return [endpoint(info, full) for info in ask(full)]

    def _to_ros(self, message: Any, ros_type: Any) -> Any:
        return self._serialization.deserialize_message(self.store.serialize(message), ros_type)

    def _from_ros(self, message: Any, type: str) -> Any:
        return self.store.deserialize(self._serialization.serialize_message(message), type)
