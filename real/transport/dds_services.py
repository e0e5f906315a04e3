"""Services as rmw_cyclonedds has them on the wire: two topics, and 16 bytes that relate a response to its request.

Other ROS 2 middleware relates them otherwise, so that services reach nodes on Cyclone DDS only: for convenience, never
for control.
"""

from __future__ import annotations

import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from real.errors import MessageError, TransportError
from real.transport.dds_types import idl_type
from real.transport.dds_wire import Reader, Wire, Writer
from real.transport.handle import RELIABLE, Handler

if TYPE_CHECKING:
    from real.transport.dds import DDSNode

_HEADER = struct.Struct("<Qq")
_BODY = 4
"""Bytes of CDR's own header, which the relation follows."""
_PATIENCE_S = 1.0
"""How long a response waits for the reader that asked to be found."""


def _wrap(cdr: bytes, client: int, sequence: int) -> bytes:
    return cdr[:_BODY] + _HEADER.pack(client, sequence) + cdr[_BODY:]


def _unwrap(data: bytes) -> tuple[int, int, bytes]:
    if len(data) < _BODY + _HEADER.size or data[1] not in (0, 1):
        raise MessageError(f"{len(data)} bytes hold no service header")
    order = "<Qq" if data[1] else ">Qq"
    client, sequence = struct.unpack_from(order, data, _BODY)
    return client, sequence, data[:_BODY] + data[_BODY + _HEADER.size :]


class _Side(ABC):
    """One side of a service: the topic it writes and the topic it reads."""

    def __init__(self, node: DDSNode, name: str, type: str, *, server: bool) -> None:
        self.node, self.name = node, name
        parts = {"rq": (f"{type}_Request", "Request"), "rr": (f"{type}_Response", "Reply")}
        sends, hears = ("rr", "rq") if server else ("rq", "rr")
        self.hears = parts[hears][0]
        identity = "serviceid" if server else "clientid"
        user_data = f"{identity}={'.'.join(f'{byte:x}' for byte in _identity(node))};"

        def endpoint(prefix: str) -> tuple[Wire, str, Any, Any]:
            part, suffix = parts[prefix]
            idl = idl_type(node.store, part, service=True)
            return node.wire, prefix + name + suffix, idl, node.dds_qos(part, RELIABLE, user_data)

        self.writer = Writer(*endpoint(sends))
        self.reader = Reader(*endpoint(hears))
        node.wire.watch(self.reader, self._ready)
        node.graph.add(self.writer.gid, "writer")
        node.graph.add(self.reader.gid, "reader")

    def _ready(self) -> None:
        for data, publisher in self.reader.take():
            try:
                client, sequence, cdr = _unwrap(data)
                message = self.node.store.deserialize(cdr, self.hears)
            except MessageError:
                self.node.malformed[self.name] = self.node.malformed.get(self.name, 0) + 1
                continue
            self.take(client, sequence, message, publisher)

    @abstractmethod
    def take(self, client: int, sequence: int, message: Any, publisher: str) -> None:
        """A request or a response has come."""


def _identity(node: DDSNode) -> bytes:
    """16 bytes that no other side of a service has."""
    node.services += 1
    return node.wire.gid[:12] + node.services.to_bytes(4, "big")


class Server(_Side):
    """Answers requests in the thread that spins the node."""

    def __init__(self, node: DDSNode, name: str, type: str, handler: Handler) -> None:
        self._handler = handler
        self._type = f"{type}_Response"
        self._waiting: list[tuple[float, str, bytes]] = []
        super().__init__(node, name, type, server=True)
        node.timer(0.02, self._send)

    def take(self, client: int, sequence: int, message: Any, publisher: str) -> None:
        """Answer one request."""
        response = self._handler(message)
        if (given := self.node.store.type_of(response)) != self._type:
            raise MessageError(f"service {self.name} answers with {self._type}, not {given}")
        cdr = _wrap(self.node.store.serialize(response), client, sequence)
        self._waiting.append((time.monotonic() + _PATIENCE_S, publisher[:24], cdr))
        self._send()

    def _send(self) -> None:
        """Send the responses whose asker can hear; the two halves of a service are found independently."""
        if not self._waiting:
            return
        hearing = self.writer.reader_participants()
        now = time.monotonic()
        kept = []
        for until, participant, cdr in self._waiting:
            if participant in hearing or not participant:
                self.writer.write(cdr)
            elif now < until:
                kept.append((until, participant, cdr))
        self._waiting = kept


class Client(_Side):
    """Asks, and waits for the response."""

    def __init__(self, node: DDSNode, name: str, type: str) -> None:
        self._answers: dict[int, Any] = {}
        self._sequence = 0
        self._type = f"{type}_Request"
        super().__init__(node, name, type, server=False)
        self._client = int.from_bytes(self.writer.gid[8:], "little")

    def take(self, client: int, sequence: int, message: Any, publisher: str) -> None:
        """Keep the response that is waited for."""
        if client == self._client and sequence in self._answers:
            self._answers[sequence] = message

    def call(self, request: Any, timeout_s: float, spin_once: Callable[[float], None]) -> Any:
        """The response to ``request``. Raises TransportError where none comes, MessageError for another type."""
        if (given := self.node.store.type_of(request)) != self._type:
            raise MessageError(f"service {self.name} takes {self._type}, not {given}")
        until = time.monotonic() + timeout_s
        while not (self.writer.readers() and self.reader.writers()):
            if time.monotonic() >= until:
                raise TransportError(f"service {self.name} is not there after {timeout_s:g} s")
            spin_once(0.01)
        self._sequence += 1
        sequence = self._sequence
        self._answers[sequence] = None
        try:
            self.writer.write(_wrap(self.node.store.serialize(request), self._client, sequence))
            while self._answers[sequence] is None:
                left = until - time.monotonic()
                if left <= 0:
                    raise TransportError(f"service {self.name} did not answer within {timeout_s:g} s")
                spin_once(min(left, 0.1))
            return self._answers[sequence]
        finally:
            del self._answers[sequence]
