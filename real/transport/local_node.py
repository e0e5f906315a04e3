"""The `NodeHandle` of the in-process transport."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from real.errors import MessageError, TransportError
from real.transport.handle import RELIABLE, Callback, Endpoint, Handler, NodeHandle, QoS
from real.transport.local_endpoints import Answer, LocalPublisher, LocalSubscription, LocalTimer
from real.transport.names import Remaps, join
from real.transport.virtual_clock import VirtualClock, nanoseconds

if TYPE_CHECKING:
    from real.transport.local import LocalBus


class NodeClock:
    """The bus's time as one node lives it: ahead of the bus by the work that `LocalNode.busy` stands for."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.busy_until_ns = 0

    @property
    def ns(self) -> int:
        """The node's monotonic time, nanoseconds."""
        return max(self._clock.ns, self.busy_until_ns)

    def monotonic(self) -> float:
        """Seconds since some moment; never jumps."""
        return self.ns * 1e-9

    def now(self) -> int:
        """Nanoseconds since 1970; may jump."""
        return self._clock.wall(self.ns)


class LocalNode(NodeHandle):
    """One node of a `LocalBus`.

    Its callbacks run one at a time; while it spins in one of them, others may run, as in an executor that spins.

    Attributes:
        bus: where it lives.
        alive: neither closed nor killed.
    """

    def __init__(
        self,
        bus: LocalBus,
        name: str,
        namespace: str,
        parameters: Mapping[str, Any],
        remaps: Remaps,
        number: int,
    ) -> None:
        self.bus = bus
        self.name, self.namespace, self.full_name = name, namespace, join(namespace, name)
        self.clock: NodeClock = NodeClock(bus.clock)
        self.parameters = parameters
        self.malformed: dict[str, int] = {}
        self.alive = True
        self.own_publishers: list[LocalPublisher] = []
        self.own_subscriptions: list[LocalSubscription] = []
        self._remaps = remaps
        self._number, self._endpoints = number, 0
        self._ready: deque[Callable[[], None]] = deque()
        self._idle = True
        self._ran = 0
        self._killed = False
        self._paused_ns: int | None = None
        self._wake_ns = 0
        self._held: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def publisher(self, topic: str, type: str, qos: QoS = RELIABLE) -> LocalPublisher:
        """Publish to ``topic``. Raises TransportError for an impossible name, MessageError for an unknown type."""
        made = LocalPublisher(self, self._check(topic, type, qos), type, qos, self._gid())
        self.own_publishers.append(made)
        self.bus.add_publisher(made)
        return made

    def subscribe(
        self, topic: str, type: str, callback: Callback, qos: QoS = RELIABLE, *, raw: bool = False
    ) -> LocalSubscription:
        """Call back with every message of ``topic``; malformed ones are dropped and counted, never passed on."""
        made = LocalSubscription(self, self._check(topic, type, qos), type, callback, qos, self._gid(), raw)
        self.own_subscriptions.append(made)
        self.bus.add_subscription(made)
        return made

    def timer(self, period_s: float, callback: Callable[[], None]) -> LocalTimer:
        """Call back every ``period_s`` seconds, first after one period."""
        self._require_alive()
        return LocalTimer(self, period_s, callback)

    def service(self, name: str, type: str, handler: Handler) -> None:
        """Answer requests of a service."""
        self._require_alive()
        self.bus.store.new(f"{type}_Request")
        self.bus.add_service(Answer(self, self._service_name(name), type, handler))

    def call(self, name: str, type: str, request: Any, timeout_s: float = 1.0) -> Any:
        """Ask a service and wait for the response, spinning meanwhile. Raises TransportError: no answer in time."""
        self._require_alive()
        store, full_name = self.bus.store, self._service_name(name)
        if (given := store.type_of(request)) != f"{type}_Request":
            raise MessageError(f"service {full_name!r} is asked with {type}_Request, not {given}")
        data, answers = store.serialize(request), list[bytes]()
        end, asked = self.clock.ns + nanoseconds(timeout_s, "a timeout"), False
        with self._spinning():
            while not answers:
                servers = [] if asked else self.bus.services(full_name, type)
                for server in servers:
                    asked = True
                    self.emit(self._ask, server, data, answers.append)
                if not self.bus.step(end):
                    break
        if not answers:
            raise TransportError(f"service {full_name!r} did not answer within {timeout_s} s")
        return store.deserialize(answers[0], f"{type}_Response")

    def busy(self, seconds: float) -> None:
        """Compute for ``seconds``: the node's time goes on, its other callbacks wait until the bus's has followed."""
        self.clock.busy_until_ns = self.clock.ns + nanoseconds(seconds, "work")

    def resolve(self, name: str) -> str:
        """The full name of a topic."""
        return self._remaps.resolve(name, self.namespace, self.name)

    def nodes(self) -> list[str]:
        """Full names of the nodes in the graph, this one included, sorted."""
        return self.bus.nodes()

    def publishers(self, topic: str) -> list[Endpoint]:
        """Who publishes to a topic now, this node included."""
        return self.bus.publishers(self.resolve(topic))

    def subscriptions(self, topic: str) -> list[Endpoint]:
        """Who subscribes to a topic now, this node included."""
        return self.bus.subscriptions(self.resolve(topic))

    def spin_once(self, timeout_s: float = 0.1) -> None:
        """Let virtual time pass until a callback of this node has run, ``timeout_s`` seconds at most."""
        end, before = self.clock.ns + nanoseconds(timeout_s, "a timeout"), self._ran
        with self._spinning():
            while self._ran == before and self.bus.step(end):
                pass

    def spin(self, until: Callable[[], bool] | None = None) -> None:
        """Run callbacks until ``until()`` is true or the node has ended.

        Raises:
            TransportError: there is no ``until``, and nothing is left that could end it.
        """
        while self.alive and not (until is not None and until()):
            if until is None and self.bus.quiet:
                raise TransportError(f"node {self.full_name!r} would spin for ever: nothing is going to happen")
            self.spin_once()

    def close(self) -> None:
        """Leave the graph; every publisher, subscription and timer of the node ends."""
        if not self.alive:
            return
        for publisher in list(self.own_publishers):
            publisher.close()
        for subscription in list(self.own_subscriptions):
            subscription.close()
        self._end()
        self.bus.remove_node(self)

    def kill(self) -> None:
        """End without leaving the graph; for `LocalBus.kill`, which sees to the graph."""
        self._killed = True
        self._end()

    def pause(self) -> None:
        """Stop; for `LocalBus.pause`."""
        if self._paused_ns is None:
            self._paused_ns = self.bus.clock.ns

    def resume(self) -> None:
        """Go on; for `LocalBus.resume`. Work that the pause interrupted takes that much longer."""
        if self._paused_ns is None:
            return
        if self.clock.busy_until_ns > self._paused_ns:
            self.clock.busy_until_ns += self.bus.clock.ns - self._paused_ns
        self._paused_ns = None
        held, self._held = self._held, []
        for action, arguments in held:
            action(*arguments)
        self._drain()

    def emit(self, action: Callable[..., None], *arguments: Any) -> None:
        """Do what shows outside of the node when its own time has come; never where it is killed before."""
        if self.clock.ns > self.bus.clock.ns:
            self.bus.schedule(self.clock.ns, self._emit, action, arguments)
        else:
            action(*arguments)

    def enqueue(self, work: Callable[[], None]) -> None:
        """Have a callback run as soon as the node is free."""
        if self.alive:
            self._ready.append(work)
            self._drain()

    def _emit(self, action: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if self._paused_ns is not None:
            self._held.append((action, arguments))
        elif not self._killed:
            action(*arguments)

    def _ask(self, server: Answer, data: bytes, reply: Callable[[bytes], None]) -> None:
        self.bus.schedule(self.bus.clock.ns + self.bus.travel_ns(server.name), server.ask, data, reply)

    def _drain(self) -> None:
        while self._ready and self._idle and self._paused_ns is None:
            if (free_ns := self.clock.busy_until_ns) > self.bus.clock.ns:
                if self._wake_ns != free_ns:
                    self._wake_ns = free_ns
                    self.bus.schedule(free_ns, self._drain)
                return
            self._run(self._ready.popleft())

    def _run(self, work: Callable[[], None]) -> None:
        self._idle = False
        self._ran += 1
        try:
            work()
        except Exception as error:
            # What add_note does, which Python 3.10 does not have.
            error.__notes__ = [*getattr(error, "__notes__", []), f"in a callback of node {self.full_name}"]  # type: ignore[attr-defined]
            if self._ready:
                self.bus.schedule(self.bus.clock.ns, self._drain)
            raise
        finally:
            self._idle = True

    @contextmanager
    def _spinning(self) -> Iterator[None]:
        was_idle, self._idle = self._idle, True
        try:
            self._drain()
            yield
        finally:
            self._idle = was_idle

    def _end(self) -> None:
        self.alive = False
        self._ready.clear()

    def _require_alive(self) -> None:
        if not self.alive:
            raise TransportError(f"node {self.full_name!r} has been {'killed' if self._killed else 'closed'}")

    def _check(self, topic: str, type: str, qos: QoS) -> str:
        self._require_alive()
        if qos.depth < 1:
            raise TransportError(f"topic {topic!r}: a queue keeps at least 1 message, not {qos.depth}")
        self.bus.store.new(type)
        return self.resolve(topic)

    def _service_name(self, name: str) -> str:
        return self._remaps.resolve(name, self.namespace, self.name, service=True)

    def _gid(self) -> str:
        self._endpoints += 1
        return f"{self._number:016x}{self._endpoints:016x}"
