"""The thin layer over Cyclone DDS: participants, endpoints that carry bytes, and one place to wait for all of them."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from cyclonedds._clayer import ddspy_take  # type: ignore[import-not-found]
from cyclonedds.core import DDSException, Entity, InstanceState, ReadCondition, SampleState, ViewState
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.internal import dds_c_t
from cyclonedds.pub import DataWriter
from cyclonedds.pub import Publisher as DDSPublisher
from cyclonedds.qos import Policy, Qos
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic

from real.errors import TransportError
from real.transport.dds_config import configuration
from real.transport.dds_drops import Drops

T = TypeVar("T")
_ANY = SampleState.Any | ViewState.Any | InstanceState.Any
_MOST_WAITING = 64
"""Subscriptions of which one wait can tell; the others are seen by the next."""


class _Sample(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_char_p), ("size", ctypes.c_size_t)]


# A handle of our own on the library that is loaded already: argument types set here do not change the package's, and
# ctypes gives the interpreter lock free during a call, which the package's own `write` does not.
_library = ctypes.CDLL(Entity._dll_handle._name)
_write = _library.dds_write
_write.argtypes = [dds_c_t.entity, ctypes.POINTER(_Sample)]
_write.restype = ctypes.c_int32
_wait = _library.dds_waitset_wait
_wait.argtypes = [dds_c_t.entity, ctypes.POINTER(ctypes.c_ssize_t), ctypes.c_size_t, ctypes.c_int64]
_wait.restype = ctypes.c_int32
_create_waitset = _library.dds_create_waitset
_create_waitset.argtypes = [dds_c_t.entity]
_create_waitset.restype = dds_c_t.entity
_attach = _library.dds_waitset_attach
_attach.argtypes = [dds_c_t.entity, dds_c_t.entity, ctypes.c_ssize_t]
_attach.restype = ctypes.c_int32
_detach = _library.dds_waitset_detach
_detach.argtypes = [dds_c_t.entity, dds_c_t.entity]
_detach.restype = ctypes.c_int32
_create_guard = _library.dds_create_guardcondition
_create_guard.argtypes = [dds_c_t.entity]
_create_guard.restype = dds_c_t.entity
_delete = _library.dds_delete
_delete.argtypes = [dds_c_t.entity]
_delete.restype = ctypes.c_int32


@dataclass
class _Open:
    domain: Domain
    configuration: str
    drops: Drops
    users: int = 1


class _Domains:
    """Cyclone has one configuration per domain id and process: the first makes it, the last to leave ends it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, _Open] = {}

    def enter(self, id: int) -> Drops:
        asked = configuration()
        with self._lock:
            if (there := self._open.get(id)) is not None:
                if there.configuration != asked:
                    raise TransportError(f"DDS domain {id} is open in this process with another discovery range")
                there.users += 1
                return there.drops
            drops = Drops()
            try:
                # What the user configured comes behind, and wins.
                domain = Domain(id, ",".join(part for part in (drops.configuration(), asked) if part))
            except DDSException as error:
                raise TransportError(
                    f"DDS domain {id} cannot be opened: is the network interface that ROS_AUTOMATIC_DISCOVERY_RANGE "
                    f"or CYCLONEDDS_URI asks for there and up? Cyclone DDS says: {error.msg.strip()}"
                ) from error
            finally:
                drops.start()
            self._open[id] = _Open(domain, asked, drops)
            return drops

    def leave(self, id: int) -> None:
        with self._lock:
            self._open[id].users -= 1
            if self._open[id].users == 0:
                _delete(self._open.pop(id).domain._ref)


_domains = _Domains()


class Writer:
    """Sends bytes to a topic.

    Attributes:
        gid: 16 bytes.
        dropped: samples given up because a reliable reader did not take them in time.
    """

    def __init__(self, wire: Wire, topic: str, type: type[IdlStruct], qos: Qos) -> None:
        self._wire = wire
        self._entity = wire.make(lambda: DataWriter(wire.publisher, wire.topic(topic, type), qos), topic)
        self._ref = self._entity._ref
        self.gid: bytes = self._entity.guid.bytes
        self.dropped = 0

    def write(self, cdr: bytes) -> None:
        """Send CDR. Raises TransportError where it is no CDR of the topic's type."""
        if len(cdr) % 4:
            cdr = cdr.ljust(len(cdr) + 4 - len(cdr) % 4, b"\0")
        result = _write(self._ref, ctypes.byref(_Sample(cdr, len(cdr))))
        if result == DDSException.DDS_RETCODE_TIMEOUT:
            self.dropped += 1
        elif result < 0:
            raise TransportError(
                f"{len(cdr)} bytes for {self._entity.topic.name} cannot be sent: they are no CDR of "
                f"{self._entity.topic.typename} (DDS error {result})"
            )

    def readers(self) -> int:
        """How many subscriptions are matched now."""
        return len(self._entity.get_matched_subscriptions())

    def reader_participants(self) -> set[str]:
        """The participants (first 12 bytes of their gid, hexadecimal) that have a matched subscription now."""
        found = (self._entity.get_matched_subscription_data(h) for h in self._entity.get_matched_subscriptions())
        return {endpoint.key.hex[:24] for endpoint in found if endpoint is not None}

    def close(self) -> None:
        """Leave the graph."""
        self._wire.delete(self._ref)


class Reader:
    """Receives bytes of a topic."""

    def __init__(self, wire: Wire, topic: str, type: type[IdlStruct], qos: Qos) -> None:
        self._wire = wire
        self._entity = wire.make(lambda: DataReader(wire.participant, wire.topic(topic, type), qos), topic)
        self._condition = ReadCondition(self._entity, SampleState.NotRead | ViewState.Any | InstanceState.Any)
        self.gid: bytes = self._entity.guid.bytes
        self._publishers: dict[int, str] = {}

    def take(self, most: int = 64) -> Iterator[tuple[bytes, str]]:
        """CDR and identity of the publisher (hexadecimal, ``""`` unknown) of what has come, oldest first."""
        for _ in range(most):
            # One at a time: where a callback raises, or is slow, what it has not seen stays with DDS and its history.
            samples = ddspy_take(self._entity._ref, _ANY, 1)
            if isinstance(samples, int):
                raise TransportError(f"nothing can be received from {self._entity.topic.name} (DDS error {samples})")
            if not samples:
                return
            data, info = samples[0]
            if info.valid_data:
                yield data, self._publisher(info.publication_handle)

    def _publisher(self, handle: int) -> str:
        if handle not in self._publishers:
            endpoint = self._entity.get_matched_publication_data(handle)
            if endpoint is None:
                return ""
            self._publishers[handle] = endpoint.key.hex
        return self._publishers[handle]

    def writers(self) -> int:
        """How many publishers are matched now."""
        return len(self._entity.get_matched_publications())

    def close(self) -> None:
        """Leave the graph."""
        self._wire.delete(self._condition._ref)
        self._wire.delete(self._entity._ref)


class Wire:
    """One participant of a domain, and a wait for all readers that it watches.

    Args:
        domain: id, 0..232.
        enclave: as ROS 2 participants announce it.

    Attributes:
        gid: 16 bytes.
        drops: what Cyclone throws away in this domain, for all participants of the process.
    """

    def __init__(self, domain: int, enclave: str = "/") -> None:
        self.domain = domain
        self.drops = _domains.enter(domain)
        try:
            self.participant = DomainParticipant(domain, Qos(Policy.Userdata(f"enclave={enclave};".encode())))
            self.publisher = DDSPublisher(self.participant)
        except DDSException as error:
            _domains.leave(domain)
            raise TransportError(f"no participant can be made in DDS domain {domain}: {error}") from error
        self.gid: bytes = self.participant.guid.bytes
        self._topics: dict[str, Topic] = {}
        self._watched: dict[int, tuple[Reader, Callable[[], None]]] = {}
        self._next = 1
        self._waitset = _create_waitset(self.participant._ref)
        # A wait for nothing at all would return at once: this is something, which never comes.
        _attach(self._waitset, _create_guard(self.participant._ref), 0)
        self._triggered = (ctypes.c_ssize_t * _MOST_WAITING)()
        self._closed = False

    def is_open(self) -> bool:
        """Whether `close` was not called yet."""
        return not self._closed

    def topic(self, name: str, type: type[IdlStruct]) -> Topic:
        """The topic of a DDS name; one a participant."""
        if name not in self._topics:
            self._topics[name] = Topic(self.participant, name, type)
        known = self._topics[name]
        if known.typename != type.__idl_typename__:
            raise TransportError(f"topic {name} carries {known.typename} in this node, not {type.__idl_typename__}")
        return known

    def make(self, make: Callable[[], T], topic: str) -> T:
        """Make an endpoint. Raises TransportError instead of Cyclone's exception."""
        try:
            return make()
        except DDSException as error:
            raise TransportError(f"no endpoint of {topic} can be made in DDS domain {self.domain}: {error}") from error

    def watch(self, reader: Reader, ready: Callable[[], None]) -> int:
        """Call ``ready`` from `wait` whenever ``reader`` has samples; the answer is for `unwatch`."""
        key, self._next = self._next, self._next + 1
        self._watched[key] = (reader, ready)
        _attach(self._waitset, reader._condition._ref, key)
        return key

    def unwatch(self, key: int) -> None:
        """Call no more."""
        reader, _ = self._watched.pop(key)
        _detach(self._waitset, reader._condition._ref)

    def wait(self, seconds: float) -> list[Callable[[], None]]:
        """Wait until a watched reader has samples, ``seconds`` at most, other threads running; what is to be called."""
        count = _wait(self._waitset, self._triggered, _MOST_WAITING, max(0, int(seconds * 1e9)))
        if count < 0:
            raise TransportError(f"waiting in DDS domain {self.domain} failed (DDS error {count})")
        keys = self._triggered[: min(count, _MOST_WAITING)]
        return [self._watched[k][1] for k in keys if k in self._watched]

    def delete(self, ref: int) -> None:
        """Delete an entity of this participant, if it is still there."""
        if not self._closed:
            _delete(ref)

    def close(self) -> None:
        """Leave the domain with everything made here; a second call does nothing."""
        if not self._closed:
            self._closed = True
            _delete(self._waitset)
            _delete(self.participant._ref)
            _domains.leave(self.domain)
