"""Deserialising is the border to the network: whatever comes is a message or a MessageError."""

from __future__ import annotations

import struct
import time
import tracemalloc

import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

from real.errors import MessageError
from real.msgs import MessageStore, store
from tests.real.message_samples import DISTROS, WIRE, Sampler, golden, u32

TEXT = "std_msgs/msg/String"
FLOATS = "std_msgs/msg/Float64MultiArray"


@pytest.mark.parametrize(
    ("type", "data", "reason"),
    [
        (TEXT, b"", "0 bytes"),
        (TEXT, b"\0\1\0", "3 bytes"),
        (TEXT, b"\0\1\0\0", "data: truncated"),
        (TEXT, b"\0\3\0\0" + u32(1) + b"\0", "encapsulation 0003 is a parameter list"),
        (TEXT, b"\0\7\0\0" + u32(1) + b"\0", "encapsulation 0007 is XCDR version 2"),
        (TEXT, b"\1\1\0\0" + u32(1) + b"\0", "encapsulation 0101 is unknown"),
        (TEXT, b"\0\1\0\0" + u32(0), "data: text without its terminating zero"),
        (TEXT, b"\0\1\0\0" + u32(2) + b"ab", "data: text without its terminating zero"),
        (TEXT, b"\0\1\0\0" + u32(2) + b"\xff\0", "data: text that is no UTF-8"),
        (TEXT, b"\0\1\0\0" + u32(2**32 - 1) + b"a\0", "data: text of 4294967295 bytes; 2 are left"),
        (TEXT, b"\0\1\0\0" + u32(2) + b"a\0" + b"\0\0\0\0", "4 bytes follow the message"),
        ("std_msgs/msg/Bool", b"\0\1\0\0\2", "data: 2 is no truth value"),
        ("std_msgs/msg/Bool", b"\0\1\0\0", "data: truncated"),
        ("std_msgs/msg/Strin", b"\0\1\0\0", "unknown message type"),
        (FLOATS, b"\0\1\0\0" + u32(2**31), "layout.dim: 2147483648 elements; at most 2147483647 fit"),
        (FLOATS, b"\0\1\0\0" + u32(2**31 - 1, 0), "layout.dim: 2147483647 elements; 4 bytes are left"),
        (FLOATS, b"\0\1\0\0" + u32(0, 0, 2**29), "data: 536870912 values of float64; 0 bytes are left"),
        (
            "rmw_dds_common/msg/NodeEntitiesInfo",
            b"\0\1\0\0" + u32(258) + b"n" * 257 + b"\0",
            "node_namespace: 257 bytes of text; at most 256",
        ),
        ("rcl_interfaces/msg/ParameterDescriptor", None, "floating_point_range: 2 elements; at most 1 fit"),
    ],
)
def test_deserialize_refuses(type: str, data: bytes | None, reason: str) -> None:
    if data is None:  # name, type, description, constraints, two booleans, then the sequence that holds at most one
        data = b"\0\1\0\0" + u32(1, 0, 1, 0) + u32(1, 0) + u32(2) + bytes(64)
    with pytest.raises(MessageError, match=reason):
        store().deserialize(data, type)


def test_an_array_with_a_byte_that_is_no_truth_value_is_refused() -> None:
    messages, type = store(), "rcl_interfaces/msg/ParameterValue"
    data = bytearray(messages.serialize(messages.new(type, bool_array_value=[True, False])))
    # type and bool 2, padding to 8, integer and double to 24, empty text to 29, counts of bytes and booleans to 40.
    assert data[4 + 36 : 4 + 42] == u32(2) + b"\1\0"
    assert messages.deserialize(data, type).bool_array_value.tolist() == [True, False]
    data[4 + 41] = 7
    with pytest.raises(MessageError, match="bool_array_value: a byte that is no truth value"):
        messages.deserialize(data, type)


def test_every_truncation_is_refused_and_padding_is_not() -> None:
    messages = store()
    for message, body in golden(messages):
        type, data = messages.type_of(message), b"\0\1\0\0" + body
        for length in range(len(data)):
            with pytest.raises(MessageError):
                messages.deserialize(data[:length], type)
        for padding in range(1, 4):
            assert messages.serialize(messages.deserialize(data + bytes(padding), type)) == data
        with pytest.raises(MessageError, match="follow the message"):
            messages.deserialize(data + bytes(4), type)


def test_absurd_counts_allocate_nothing() -> None:
    messages = store()
    hostile = [
        (type, b"\0\1\0\0" + bytes(offset) + struct.pack("<I", count) + bytes(64))
        for type in WIRE
        for offset in range(0, 40, 4)
        for count in (2**16, 2**28, 2**31 - 1, 2**32 - 1)
    ]
    for type in WIRE:
        messages.new(type)
    tracemalloc.start()
    for type, data in hostile:
        try:
            messages.deserialize(data, type)
        except MessageError:
            pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_arrays_are_own_aligned_and_read_only() -> None:
    messages = store()
    message = messages.new("sensor_msgs/msg/JointState", position=[1.0, 2.0])
    buffer = bytearray(b"\xff\xff\xff" + messages.serialize(message))
    for little_endian in (True, False):
        if not little_endian:
            other = get_typestore(Stores.ROS2_JAZZY)
            buffer[3:] = other.serialize_cdr(message, "sensor_msgs/msg/JointState", little_endian=False)
        received = messages.deserialize(memoryview(buffer)[3:], "sensor_msgs/msg/JointState")
        buffer[3:] = bytes(len(buffer) - 3)
        assert received.position.tolist() == [1.0, 2.0]
        assert received.position.flags.aligned and not received.position.flags.writeable


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """One to four of: a bit flipped, a word set to an extreme, a piece cut out, doubled, or random."""
    out = bytearray(data)
    for _ in range(random.integers(1, 5)):
        at = int(random.integers(0, max(len(out), 1)))
        match int(random.integers(5)):
            case 0 if out:
                out[at] ^= 1 << int(random.integers(8))
            case 1:
                at -= at % 4
                out[at : at + 4] = struct.pack("<I", random.choice([0, 1, 2, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1]))
            case 2:
                del out[at : at + int(random.integers(1, 12))]
            case 3:
                out[at:at] = out[at : at + int(random.integers(1, 64))]
            case _:
                out[at : at + 8] = random.bytes(int(random.integers(0, 9)))
    return bytes(out)


def fuzz(messages: MessageStore, seed: int, payloads: int, seconds: float) -> tuple[int, int]:
    """Decode hostile payloads over all types of `WIRE`, in turn; how many were refused, and how many were messages.

    Whatever is no message must be refused by MessageError; whatever is must survive a round trip.
    """
    random, sampler = np.random.default_rng(seed), Sampler(messages, seed)
    valid = {type: [messages.serialize(sampler.message(type)) for _ in range(8)] for type in WIRE}
    refused = accepted = 0
    deadline = time.monotonic() + seconds
    for index in range(payloads):
        type = WIRE[index % len(WIRE)]
        data = mutate(valid[type][random.integers(8)], random)
        if index % 4 == 0:
            data = (b"\0\0\0\0", b"\0\1\0\0")[index % 8 // 4] + random.bytes(int(random.integers(0, 200)))
        try:
            message = messages.deserialize(data, type)
        except MessageError:
            refused += 1
        else:
            again = messages.serialize(message)
            assert messages.serialize(messages.deserialize(again, type)) == again
            accepted += 1
        if time.monotonic() > deadline:
            break
    return refused, accepted


@pytest.mark.parametrize("distro", DISTROS)
def test_fuzz(distro: str) -> None:
    refused, accepted = fuzz(store(distro), seed=5, payloads=3000, seconds=5.0)
    assert refused > 100 and accepted > 10
