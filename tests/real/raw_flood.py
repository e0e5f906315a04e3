"""A process that floods topics with bytes that are no messages; see `raw_writer`, which sends a few chosen ones.

Usage: python raw_flood.py DOMAIN SEED COUNT TOPIC=TYPE [TOPIC=TYPE …], all of them ROS names; COUNT payloads a topic.
"""

from __future__ import annotations

import ctypes
import sys
import time

import numpy as np
from cyclonedds.core import Entity
from cyclonedds.domain import Domain, DomainParticipant

from real.msgs import store
from real.transport.dds_config import configuration
from tests.real.hostile import Payloads
from tests.real.raw_writer import ARRAY_OF_OCTETS, END, Descriptor

SIZES = (0, 4, 16, 60, 200, 1000)
"""Bytes of payloads; a DDS topic of raw bytes has one size, and a participant one type for a topic."""
_PAUSE_S = 0.0005


def main(domain: int, seed: int, count: int, topics: list[tuple[str, str]]) -> None:
    """Write, then wait for standard input to end."""
    library = ctypes.CDLL(Entity._dll_handle._name)
    library.dds_create_qos.restype = ctypes.c_void_p
    own = Domain(domain, configuration())
    random = np.random.default_rng(seed)
    payloads = Payloads(store(), [f"joint{i}" for i in range(1, 8)] + ["finger_joint1"], seed, lambda: "deadbeef")
    sent = 0
    for size in SIZES[1:]:
        participant = DomainParticipant(domain)
        writers = [_writer(library, participant, topic, type, size) for topic, type in topics]
        time.sleep(1.0)  # discovery: what is written to nobody tests nothing
        for (topic, type), writer in zip(topics, writers, strict=True):
            for _ in range(count // (len(SIZES) - 1)):
                data = random.bytes(size)
                if random.random() < 0.5:
                    data = payloads._any(topic, type)[4:][:size].ljust(size, b"\0")
                assert library.dds_write(writer, data) == 0
                sent += 1
                time.sleep(_PAUSE_S)
        time.sleep(0.5)
        library.dds_delete(participant._ref)
    print(f"sent {sent}", flush=True)
    sys.stdin.read()
    del own


def _writer(library: ctypes.CDLL, participant: DomainParticipant, topic: str, type: str, size: int) -> int:
    package, _, name = type.split("/")
    ops = (ctypes.c_uint32 * 4)(ARRAY_OF_OCTETS, 0, size, END)
    dds_type = f"{package}::msg::dds_::{name}_".encode()
    descriptor = Descriptor(size=size, align=1, type_name=dds_type, op_count=2, ops=ops, meta=b"", representations=1)
    made = library.dds_create_topic(participant._ref, ctypes.byref(descriptor), f"rt{topic}".encode(), None, None)
    assert made > 0, made
    qos = ctypes.c_void_p(library.dds_create_qos())
    library.dds_qset_reliability(qos, 1, ctypes.c_int64(10**9))
    library.dds_qset_durability(qos, 1)
    library.dds_qset_history(qos, 0, 50)
    writer = int(library.dds_create_writer(participant._ref, made, qos, None))
    assert writer > 0, writer
    return writer


if __name__ == "__main__":
    main(*(int(a) for a in sys.argv[1:4]), [tuple(a.split("=")) for a in sys.argv[4:]])  # type: ignore[arg-type, misc]
