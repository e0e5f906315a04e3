"""The ROS graph as DDS shows it: endpoints from discovery, and whose they are from ``ros_discovery_info``."""

from __future__ import annotations

from typing import Any

import numpy as np
from cyclonedds.builtin import (
    BuiltinDataReader,
    BuiltinTopicDcpsParticipant,
    BuiltinTopicDcpsPublication,
    BuiltinTopicDcpsSubscription,
)
from cyclonedds.core import InstanceState
from cyclonedds.qos import Policy, Qos

from real.errors import MessageError
from real.msgs import MessageStore
from real.transport.dds_qos import dds_qos, ros_qos
from real.transport.dds_types import idl_type, ros_type_name
from real.transport.dds_wire import Reader, Wire, Writer
from real.transport.handle import LATCHED, Endpoint, QoS
from real.transport.names import join

_TOPIC = "ros_discovery_info"
_TYPE = "rmw_dds_common/msg/ParticipantEntitiesInfo"
_BATCH = 256


class Graph:
    """Who is there, and telling others who is here: one node of one participant."""

    def __init__(self, wire: Wire, store: MessageStore, namespace: str, name: str) -> None:
        self._store = store
        self._own = wire.gid
        self._namespace, self._name = namespace, name
        self._mine: dict[bytes, str] = {}
        user_data = f"typehash={store.type_hash(_TYPE)};"
        idl = idl_type(store, _TYPE)
        self._writer = Writer(wire, _TOPIC, idl, dds_qos(LATCHED, user_data))
        # Every participant writes here: a history of one sample would keep one participant.
        self._reader = Reader(wire, _TOPIC, idl, dds_qos(QoS(depth=0, transient_local=True), user_data))
        keep_all = Qos(Policy.History.KeepAll)
        self._discovery = {
            kind: BuiltinDataReader(wire.participant, topic, keep_all)
            for kind, topic in (
                ("participant", BuiltinTopicDcpsParticipant),
                ("writer", BuiltinTopicDcpsPublication),
                ("reader", BuiltinTopicDcpsSubscription),
            )
        }
        self._alive: dict[str, dict[bytes, Any]] = {kind: {} for kind in self._discovery}
        self._told: dict[bytes, dict[str, set[bytes]]] = {}
        self._announce()

    def add(self, gid: bytes, kind: str) -> None:
        """Tell others that the endpoint ``gid`` (kind ``"reader"`` or ``"writer"``) is this node's."""
        self._mine[gid] = kind
        self._announce()

    def remove(self, gid: bytes) -> None:
        """Tell others that the endpoint is gone."""
        if self._mine.pop(gid, None):
            self._announce()

    def nodes(self) -> list[str]:
        """Full names of the nodes, sorted; a name that two nodes have comes twice."""
        self._update()
        there = self._alive["participant"]
        others = [node for participant, nodes in self._told.items() if participant in there for node in nodes]
        return sorted([*others, join(self._namespace, self._name)])

    def endpoints(self, kind: str, dds_topic: str, topic: str) -> list[Endpoint]:
        """The endpoints of a kind (``"reader"`` or ``"writer"``) of a DDS topic, which ROS calls ``topic``."""
        self._update()
        return [
            Endpoint(self._owner(gid, found), topic, ros_type_name(found.type_name), gid.hex(), ros_qos(found.qos))
            for gid, found in self._alive[kind].items()
            if found.topic_name == dds_topic
        ]

    def _owner(self, gid: bytes, endpoint: Any) -> str:
        if gid in self._mine:
            return join(self._namespace, self._name)
        told = self._told.get(endpoint.participant_key.bytes, {})
        return next((node for node, gids in told.items() if gid in gids), "")

    def _update(self) -> None:
        for kind, reader in self._discovery.items():
            while samples := reader.take(_BATCH):
                for sample in samples:
                    if sample.sample_info.instance_state == InstanceState.Alive:
                        self._alive[kind][sample.key.bytes] = sample
                    else:
                        self._alive[kind].pop(sample.key.bytes, None)
        for data, _ in self._reader.take(_BATCH):
            try:
                message = self._store.deserialize(data, _TYPE)
            except MessageError:
                continue
            participant = _gid(message.gid)
            if participant != self._own:
                self._told[participant] = {
                    join(info.node_namespace or "/", info.node_name): {
                        _gid(g) for g in (*info.reader_gid_seq, *info.writer_gid_seq)
                    }
                    for info in message.node_entities_info_seq
                }
        for gone in self._told.keys() - self._alive["participant"].keys():
            del self._told[gone]

    def _announce(self) -> None:
        def message(gid: bytes) -> Any:
            new = self._store.new("rmw_dds_common/msg/Gid")
            new.data[:16] = np.frombuffer(gid, np.uint8)
            return new

        info = self._store.new(
            "rmw_dds_common/msg/NodeEntitiesInfo",
            node_namespace=self._namespace,
            node_name=self._name,
            reader_gid_seq=[message(gid) for gid, kind in self._mine.items() if kind == "reader"],
            writer_gid_seq=[message(gid) for gid, kind in self._mine.items() if kind == "writer"],
        )
        told = self._store.new(_TYPE, gid=message(self._own), node_entities_info_seq=[info])
        self._writer.write(self._store.serialize(told))


def _gid(message: Any) -> bytes:
    return bytes(bytearray(message.data))[:16]
