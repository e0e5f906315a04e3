"""A ROS graph in one process on virtual time: a deterministic simulation of nodes, messages, timers and faults.

The same seed and the same nodes give the same callbacks at the same times, byte for byte.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from real.errors import TransportError
from real.msgs import MessageStore
from real.msgs import store as default_store
from real.transport.faults import Faults
from real.transport.handle import Endpoint
from real.transport.local_endpoints import Answer, LocalPublisher, LocalSubscription
from real.transport.local_node import LocalNode
from real.transport.names import Remaps, join
from real.transport.virtual_clock import VirtualClock, nanoseconds
from robolearn.errors import unknown


class LocalBus:
    """The network, the graph and the time of a set of nodes.

    Messages are serialised when they are published and deserialised by each subscriber, so nodes share no objects
    and malformed bytes do what they do on a wire. They arrive after a latency, in their order for each publisher and
    subscription. Endpoints match as in DDS: of the same type, a best-effort publisher not with a reliable subscriber,
    a volatile publisher not with a transient-local subscriber. What does not match is not delivered; `Endpoint.qos`
    tells why.

    An exception of a callback comes out of `run` as it is, with the node's name among its notes.

    Args:
        store: the messages' types; by default those of `real.msgs.store`.
        clock: the time; by default a new one.
        seed: of all random draws.
        latency_s, jitter_s: a message takes ``latency_s`` plus a uniform draw from [0, ``jitter_s``), seconds.
        lease_s: how long the graph shows a killed node, s of virtual time.

    Attributes:
        faults: what to do to messages; see `Faults`.
    """

    def __init__(
        self,
        store: MessageStore | None = None,
        clock: VirtualClock | None = None,
        seed: int = 0,
        *,
        latency_s: float = 0.0002,
        jitter_s: float = 0.0,
        lease_s: float = 9.0,
    ) -> None:
        self.store = default_store() if store is None else store
        self.clock = VirtualClock() if clock is None else clock
        self.faults = Faults(seed)
        self._random = Random(f"{seed} latency")
        self._default_latency = _latency(latency_s, jitter_s)
        self._latencies: dict[str, tuple[int, int]] = {}
        self._lease_ns = nanoseconds(lease_s, "a lease")
        self._events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = itertools.count()
        self._nodes: dict[str, LocalNode] = {}
        self._killed: list[LocalNode] = []
        self._created = 0
        self._publishers: dict[str, list[LocalPublisher]] = {}
        self._subscriptions: dict[str, list[LocalSubscription]] = {}
        self._services: dict[str, list[Answer]] = {}

    def node(
        self,
        name: str,
        namespace: str = "/",
        parameters: Mapping[str, Any] | None = None,
        remaps: Remaps | None = None,
    ) -> LocalNode:
        """A new node of the graph.

        Raises:
            TransportError: an impossible name, or a living node has it.
        """
        remaps = Remaps() if remaps is None else remaps
        namespace, name = remaps.identity(namespace, name)
        full_name = join(namespace, name)
        if full_name in self._nodes:
            raise TransportError(f"node name {full_name!r} is already in use")
        self._created += 1
        node = LocalNode(self, name, namespace, dict(parameters or {}), remaps, self._created)
        self._nodes[full_name] = node
        return node

    def latency(self, topic: str, latency_s: float, jitter_s: float = 0.0) -> None:
        """Set the latency of a topic or service (full name): ``latency_s`` plus a draw from [0, ``jitter_s``), s."""
        self._latencies[topic] = _latency(latency_s, jitter_s)

    def run(self, seconds: float) -> None:
        """Let ``seconds`` of virtual time pass."""
        end = self.clock.ns + nanoseconds(seconds, "a run")
        while self.step(end):
            pass

    def run_until(self, predicate: Callable[[], bool], timeout_s: float) -> bool:
        """Run until ``predicate()`` is true, ``timeout_s`` of virtual time at most; tell whether it became true."""
        end = self.clock.ns + nanoseconds(timeout_s, "a timeout")
        while not predicate():
            if not self.step(end):
                return predicate()
        return True

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something ``seconds`` from now that is no node's work, such as setting a fault."""
        self.schedule(self.clock.ns + nanoseconds(seconds), action)

    def pause(self, node: LocalNode | str) -> None:
        """SIGSTOP: its queues fill up to their depth, its timers are late, until `resume`."""
        self._find(node).pause()

    def resume(self, node: LocalNode | str) -> None:
        """SIGCONT."""
        self._find(node).resume()

    def kill(self, node: LocalNode | str) -> None:
        """SIGKILL: gone without goodbye, its latched samples too; the graph shows it until its lease is over."""
        found = self._find(node)
        del self._nodes[found.full_name]
        self._killed.append(found)
        self._drop_services(found)
        found.kill()
        for topic in self._topics(found):
            self._match(topic)
        self.schedule(self.clock.ns + self._lease_ns, self._forget, found)

    def step(self, end_ns: int) -> bool:
        """Do what happens next up to ``end_ns``; where nothing does, let time pass until then and return False."""
        if not self._events or self._events[0][0] > end_ns:
            self.clock.advance(end_ns)
            return False
        at, _, action, arguments = heapq.heappop(self._events)
        self.clock.advance(at)
        action(*arguments)
        return True

    @property
    def quiet(self) -> bool:
        """Whether nothing is going to happen any more."""
        return not self._events

    def schedule(self, at_ns: int, action: Callable[..., None], *arguments: Any) -> None:
        """Call ``action(*arguments)`` at ``at_ns`` of the monotonic time; what is due together runs in this order."""
        heapq.heappush(self._events, (at_ns, next(self._order), action, arguments))

    def transmit(self, publisher: LocalPublisher, data: bytes, targets: list[LocalSubscription]) -> None:
        """Send a message on its way to subscriptions, through latency and faults."""
        topic, gid = publisher.topic, publisher.gid
        copies = self.faults.apply(topic, publisher.node.full_name, data)
        for target in targets:
            for copy in copies:
                arrival = self.clock.ns + self.travel_ns(topic) + copy.late_ns
                if copy.ordered:
                    arrival = target.latest[gid] = max(arrival, target.latest.get(gid, 0))
                self.schedule(arrival, target.arrive, copy.data, gid)

    def travel_ns(self, topic: str) -> int:
        """Draw how long a message of a topic or service takes, nanoseconds."""
        latency, jitter = self._latencies.get(topic, self._default_latency)
        return latency + int(self._random.random() * jitter) if jitter else latency

    def add_publisher(self, publisher: LocalPublisher) -> None:
        """Enter the graph."""
        self._publishers.setdefault(publisher.topic, []).append(publisher)
        self._match(publisher.topic)

    def add_subscription(self, subscription: LocalSubscription) -> None:
        """Enter the graph, and get what matching publishers keep for late joiners."""
        self._subscriptions.setdefault(subscription.topic, []).append(subscription)
        self._match(subscription.topic)
        if subscription.qos.transient_local:
            for publisher in self._publishers.get(subscription.topic, []):
                if subscription in publisher.matched:
                    for data in list(publisher.history)[-subscription.qos.depth :]:
                        self.transmit(publisher, data, [subscription])

    def add_service(self, answer: Answer) -> None:
        """Enter the graph."""
        self._services.setdefault(answer.name, []).append(answer)

    def services(self, name: str, type: str) -> list[Answer]:
        """Who answers a service."""
        return [answer for answer in self._services.get(name, []) if answer.type == type]

    def remove(self, endpoint: LocalPublisher | LocalSubscription) -> None:
        """Leave the graph."""
        if isinstance(endpoint, LocalPublisher):
            self._publishers[endpoint.topic].remove(endpoint)
        else:
            self._subscriptions[endpoint.topic].remove(endpoint)
        self._match(endpoint.topic)

    def remove_node(self, node: LocalNode) -> None:
        """Leave the graph; the node's endpoints have left it before."""
        del self._nodes[node.full_name]
        self._drop_services(node)

    def nodes(self) -> list[str]:
        """Full names of the nodes in the graph, sorted; a name twice where a killed node's lease is not over."""
        return sorted([*self._nodes, *(node.full_name for node in self._killed)])

    def publishers(self, topic: str) -> list[Endpoint]:
        """Who publishes to a topic (full name), in the order they came."""
        return [endpoint.endpoint for endpoint in self._publishers.get(topic, [])]

    def subscriptions(self, topic: str) -> list[Endpoint]:
        """Who subscribes to a topic (full name), in the order they came."""
        return [endpoint.endpoint for endpoint in self._subscriptions.get(topic, [])]

    def _find(self, node: LocalNode | str) -> LocalNode:
        name = node if isinstance(node, str) else node.full_name
        full_name = name if name.startswith("/") else "/" + name
        found = self._nodes.get(full_name)
        if found is None or (isinstance(node, LocalNode) and found is not node):
            raise TransportError(unknown("living node", full_name, self._nodes))
        return found

    def _topics(self, node: LocalNode) -> set[str]:
        return {p.topic for p in node.own_publishers} | {s.topic for s in node.own_subscriptions}

    def _drop_services(self, node: LocalNode) -> None:
        for name, answers in self._services.items():
            self._services[name] = [answer for answer in answers if answer.node is not node]

    def _forget(self, node: LocalNode) -> None:
        self._killed.remove(node)
        for topic in self._topics(node):
            self._publishers[topic] = [p for p in self._publishers.get(topic, []) if p.node is not node]
            self._subscriptions[topic] = [s for s in self._subscriptions.get(topic, []) if s.node is not node]

    def _match(self, topic: str) -> None:
        """Find anew which subscriptions of a topic each of its publishers reaches."""
        subscriptions = [s for s in self._subscriptions.get(topic, []) if s.node.alive]
        for publisher in self._publishers.get(topic, []):
            alive = publisher.node.alive
            publisher.matched = [s for s in subscriptions if _fits(publisher, s)] if alive else []


def _fits(publisher: LocalPublisher, subscription: LocalSubscription) -> bool:
    offered, asked = publisher.qos, subscription.qos
    return (
        publisher.type == subscription.type
        and (offered.reliable or not asked.reliable)
        and (offered.transient_local or not asked.transient_local)
    )


def _latency(latency_s: float, jitter_s: float) -> tuple[int, int]:
    return nanoseconds(latency_s, "a latency"), nanoseconds(jitter_s, "a latency's jitter")
