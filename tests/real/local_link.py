"""Two nodes of an in-process graph that talk."""

from __future__ import annotations

from typing import Any

from real.transport.handle import QoS, Received
from real.transport.local import LocalBus
from real.transport.local_node import LocalNode

STRING = "std_msgs/msg/String"
DEEP = QoS(depth=1000)


class Link:
    """A publisher and a subscription of two nodes, and what arrived."""

    def __init__(
        self,
        bus: LocalBus | None = None,
        send: QoS = DEEP,
        receive: QoS = DEEP,
        raw: bool = False,
    ) -> None:
        self.bus = LocalBus() if bus is None else bus
        self.sender, self.receiver = self.bus.node("sender"), self.bus.node("receiver")
        self.publisher = self.sender.publisher("word", STRING, send)
        self.got: list[Any] = []
        self.how: list[Received] = []
        self.subscription = self.receiver.subscribe("word", STRING, self._take, receive, raw=raw)

    def _take(self, message: Any, received: Received) -> None:
        self.got.append(getattr(message, "data", message))
        self.how.append(received)

    def say(self, *words: str) -> None:
        for word in words:
            self.publisher.publish(self.bus.store.new(STRING, data=word))


def say(node: LocalNode, publisher: Any, word: str) -> None:
    publisher.publish(node.bus.store.new(STRING, data=word))


def numbers(n: int) -> list[str]:
    return [str(i) for i in range(n)]
