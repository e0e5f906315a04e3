"""A process that writes bytes of one's choice under the name of a ROS type, as a broken or hostile peer would.

Usage: python raw_writer.py DOMAIN DDS_TOPIC DDS_TYPE HEX [HEX …]; each HEX is a payload without CDR's header.
"""

from __future__ import annotations

import ctypes
import sys

from cyclonedds.core import Entity
from cyclonedds.domain import Domain, DomainParticipant

from real.transport.dds_config import configuration

ARRAY_OF_OCTETS = 1 << 24 | 8 << 16 | 1 << 8
END = 0


class Descriptor(ctypes.Structure):
    """``dds_topic_descriptor_t``, without the type information by which peers would find out."""

    _fields_ = [
        ("size", ctypes.c_uint32),
        ("align", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("key_count", ctypes.c_uint32),
        ("type_name", ctypes.c_char_p),
        ("keys", ctypes.c_void_p),
        ("op_count", ctypes.c_uint32),
        ("ops", ctypes.POINTER(ctypes.c_uint32)),
        ("meta", ctypes.c_char_p),
        ("type_information", ctypes.c_void_p),
        ("type_information_size", ctypes.c_uint32),
        ("type_mapping", ctypes.c_void_p),
        ("type_mapping_size", ctypes.c_uint32),
        ("representations", ctypes.c_uint32),
    ]


def main(domain: int, topic: str, type: str, payloads: list[bytes]) -> None:
    library = ctypes.CDLL(Entity._dll_handle._name)
    keep = Domain(domain, configuration())
    for payload in payloads:
        # One participant a size, because a topic of a participant has one type.
        participant = DomainParticipant(domain)
        ops = (ctypes.c_uint32 * 4)(ARRAY_OF_OCTETS, 0, len(payload), END)
        descriptor = Descriptor(
            size=len(payload), align=1, type_name=type.encode(), op_count=2, ops=ops, meta=b"", representations=1
        )
        made = library.dds_create_topic(participant._ref, ctypes.byref(descriptor), topic.encode(), None, None)
        assert made > 0, made
        qos = library.dds_create_qos
        qos.restype = ctypes.c_void_p
        reliable = qos()
        library.dds_qset_reliability(ctypes.c_void_p(reliable), 1, ctypes.c_int64(10**9))
        library.dds_qset_durability(ctypes.c_void_p(reliable), 1)
        writer = library.dds_create_writer(participant._ref, made, ctypes.c_void_p(reliable), None)
        assert writer > 0, writer
        result = library.dds_write(writer, payload)
        assert result == 0, result
        keep.__dict__.setdefault("alive", []).append(participant)
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], [bytes.fromhex(h) for h in sys.argv[4:]])
