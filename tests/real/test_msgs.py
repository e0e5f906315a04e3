"""Bytes of messages against the rules of CDR and two other implementations, and type hashes against ROS 2's."""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np
import pytest
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from real.errors import MessageError
from real.msgs import MessageStore, store
from tests.real.message_samples import DISTROS, WIRE, Sampler, golden


@pytest.fixture(params=DISTROS)
def messages(request: pytest.FixtureRequest) -> MessageStore:
    return store(request.param)


def test_golden_bytes(messages: MessageStore) -> None:
    for message, body in golden(messages):
        data = b"\0\1\0\0" + body
        assert messages.serialize(message) == data
        assert messages.serialize(messages.deserialize(data, messages.type_of(message))) == data


def test_big_endian() -> None:
    body = struct.pack(">iI", -1, 2) + struct.pack(">I", 1) + b"\0" + b"\0\0\0"  # 16
    body += struct.pack(">II", 1, 2) + b"j\0" + b"\0\0"  # 28
    body += struct.pack(">I", 2) + struct.pack(">dd", 1.0, -2.5) + struct.pack(">II", 0, 0)  # the count ends at 32
    message = store().deserialize(b"\0\0\0\0" + body, "sensor_msgs/msg/JointState")
    assert (message.header.stamp.sec, message.header.stamp.nanosec, message.name) == (-1, 2, ["j"])
    assert message.position.tolist() == [1.0, -2.5] and message.position.dtype == np.dtype(np.float64)


def test_bytes_equal_those_of_rosbags(messages: MessageStore) -> None:
    sampler = Sampler(messages, seed=1)
    other = get_typestore(Stores[f"ROS2_{messages.distro.upper()}"])
    for type in sorted(other.fielddefs):
        message = sampler.message(type)
        data = messages.serialize(message)
        assert data == bytes(other.serialize_cdr(message, type, little_endian=True)), type
        swapped = bytes(other.serialize_cdr(message, type, little_endian=False))
        assert messages.serialize(messages.deserialize(swapped, type)) == data, type


class Cyclone:
    """The same types in Cyclone DDS's Python binding, whose serialiser shares nothing with ours or rosbags'."""

    def __init__(self, sampler: Sampler) -> None:
        self.idl = pytest.importorskip("cyclonedds.idl")
        self.support = pytest.importorskip("cyclonedds.idl._support")
        self.sampler, self.structs = sampler, dict[str, Any]()

    def bytes_of(self, message: Any, type: str, little_endian: bool) -> bytes:
        order = self.support.Endianness.Little if little_endian else self.support.Endianness.Big
        return bytes(self.convert(message, type).serialize(endianness=order, use_version_2=False))

    def fields(self, type: str) -> list[tuple[str, Any]]:
        return self.sampler.fields(type) or [("structure_needs_at_least_one_member", (Nodetype.BASE, ("uint8", 0)))]

    def struct(self, type: str) -> Any:
        if type not in self.structs:
            fields = {name: self.kind(kind) for name, kind in self.fields(type)}
            name = type.replace("/", "_")
            self.structs[type] = self.idl.make_idl_struct(name, type.replace("/", "::"), fields)
        return self.structs[type]

    def kind(self, kind: Any) -> Any:
        types = self.idl.types
        if kind[0] == Nodetype.NAME:
            return self.struct(kind[1])
        if kind[0] == Nodetype.BASE:
            name, bound = kind[1]
            if name == "string":
                return types.bounded_str[bound] if bound else str
            return bool if name == "bool" else getattr(types, {"byte": "int8", "char": "uint8"}.get(name, name))
        item, length = kind[1]
        if kind[0] == Nodetype.ARRAY:
            return types.array[self.kind(item), length]
        return types.sequence[self.kind(item), length] if length else types.sequence[self.kind(item)]

    def convert(self, message: Any, type: str) -> Any:
        return self.struct(type)(*(self.plain(getattr(message, name), kind) for name, kind in self.fields(type)))

    def plain(self, value: Any, kind: Any) -> Any:
        if kind[0] == Nodetype.NAME:
            return self.convert(value, kind[1])
        if kind[0] == Nodetype.BASE:
            return value
        return value.tolist() if isinstance(value, np.ndarray) else [self.plain(entry, kind[1][0]) for entry in value]


def test_bytes_equal_those_of_cyclone() -> None:
    messages = store("jazzy")
    sampler = Sampler(messages, seed=2)
    cyclone = Cyclone(sampler)
    for type in messages.types:
        message = sampler.message(type)
        data = messages.serialize(message)
        assert data == cyclone.bytes_of(message, type, little_endian=True), type
        swapped = cyclone.bytes_of(message, type, little_endian=False)
        assert messages.serialize(messages.deserialize(swapped, type)) == data, type


HASHES = {
    "builtin_interfaces/msg/Time": "b106235e25a4c5ed35098aa0a61a3ee9c9b18d197f398b0e4206cea9acf9c197",
    "std_msgs/msg/String": "df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18",
    "std_msgs/msg/Header": "f49fb3ae2cf070f793645ff749683ac6b06203e41c891e17701b1cb597ce6a01",
    "std_msgs/msg/Float64MultiArray": "1025ddc6b9552d191f89ef1a8d2f60f3d373e28b283d8891ddcc974e8c55397f",
    "sensor_msgs/msg/JointState": "a13ee3a330e346c9d87b5aa18d24e11690752bd33a0350f11c5882bc9179260e",
    "sensor_msgs/msg/Image": "d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47",
    "sensor_msgs/msg/CameraInfo": "b3dfd68ff46c9d56c80fd3bd4ed22c7a4ddce8c8348f2f59c299e73118e7e275",
    "sensor_msgs/msg/Joy": "0d356c79cad3401e35ffeb75a96a96e08be3ef896b8b83841d73e890989372c5",
    "geometry_msgs/msg/PoseStamped": "10f3786d7d40fd2b54367835614bff85d4ad3b5dab62bf8bca0cc232d73b4cd8",
    "trajectory_msgs/msg/JointTrajectory": "179b33eba59d676f6d967ac71fe35e7ca2f64b2f3928f4a018cec115e213796e",
    "diagnostic_msgs/msg/DiagnosticArray": "5a8a36efb05fb25070fa0fb3810290c0e6cd4862b54a8fb975a1ee8dc55a333e",
    "control_msgs/msg/DynamicJointState": "18024c98a62697680f581108eeed40b28fb4542fa0ac5a8e36f56c62b6813d26",
    "control_msgs/msg/GripperCommand": "57eb8f326c9889ca8bb34ead82cc94cc09bf6bc5c3b6c09546dca3a00b589890",
    "rmw_dds_common/msg/ParticipantEntitiesInfo": "91a0593bacdcc50ea9bdcf849a938b128412cc1ea821245c663bcd26f83c295e",
    "std_srvs/srv/SetBool": "abe9e4bb6b41b40e6789712c00ec8871923e089af3f667a79992a428cff2da0a",
    "std_srvs/srv/SetBool_Event": "3c4c20015afb4303eafd347b1d6a786f171a89c814726961a9593ef10df878cf",
    "std_srvs/srv/SetBool_Response": "d0814e7f7b4880ab77e9c57426c7aa1562ab69f11eef8e2e968812f9cbd0b059",
    "std_srvs/srv/Trigger": "eeff2cd6fa5ad9d27cdf4dec64818317839b62f212a91e6b5304b634b2062c5f",
    "std_srvs/srv/Trigger_Request": "d010825374ce8918e72bfd826c82603e60f45419e932ea976f807b74a863a199",
    "std_srvs/srv/Trigger_Event": "ec4a1d26b0575e61906890342aba9523a2360e9845857c5590fa6e23bc39e1c2",
    "std_srvs/srv/Empty": "5888399dedec5ccc85ea6451949fd2c9f97bfdf963f9a588821639fcd31b5d19",
}
"""What ROS 2 itself announces (`ros2 topic info -v`) or generates for these types."""


@pytest.mark.parametrize("distro", ["jazzy", "kilted"])
def test_type_hashes(distro: str) -> None:
    messages = store(distro)
    assert {type: messages.type_hash(type) for type in HASHES} == {k: f"RIHS01_{v}" for k, v in HASHES.items()}


def test_type_hashes_equal_those_of_rosbags_but_for_char(messages: MessageStore) -> None:
    other = get_typestore(Stores[f"ROS2_{messages.distro.upper()}"])
    differ = {type for type in other.fielddefs if other.hash_rihs01(type) != messages.type_hash(type)}
    with_char = {type for type in other.fielddefs if re.search(r"\bchar\b", messages.definition(type))}
    assert differ == with_char


def test_hash_of_a_service_needs_a_distribution_that_has_them() -> None:
    with pytest.raises(MessageError, match="unknown message type 'std_srvs/srv/Trigger'"):
        store("humble").type_hash("std_srvs/srv/Trigger")


def test_definitions_parse_back_to_the_same_fields(messages: MessageStore) -> None:
    other = get_typestore(Stores[f"ROS2_{messages.distro.upper()}"])
    for type in (type for type in WIRE if type in other.fielddefs):
        parsed = get_types_from_msg(messages.definition(type), type)
        assert parsed == {name: other.fielddefs[name] for name in parsed}, type


def test_definition_has_the_form_of_ros2msg() -> None:
    line = "=" * 80
    assert store().definition("control_msgs/msg/DynamicJointState") == (
        "std_msgs/Header header\nstring[] joint_names\ncontrol_msgs/InterfaceValue[] interface_values\n"
        f"{line}\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n"
        f"{line}\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n"
        f"{line}\nMSG: control_msgs/InterfaceValue\nstring[] interface_names\nfloat64[] values\n"
    )
