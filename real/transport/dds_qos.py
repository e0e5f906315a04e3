"""QoS between ROS 2's words and Cyclone DDS's."""

from __future__ import annotations

from cyclonedds.qos import Policy, Qos
from cyclonedds.util import duration

from real.transport.handle import QoS


def dds_qos(qos: QoS, user_data: str = "") -> Qos:
    """Cyclone's form of `QoS`, with the representation and user data that ROS 2 nodes announce."""
    policies = [
        # A reader that stands still must not hold a control loop for ever: such a sample is given up instead.
        Policy.Reliability.Reliable(duration(milliseconds=100)) if qos.reliable else Policy.Reliability.BestEffort,
        Policy.Durability.TransientLocal if qos.transient_local else Policy.Durability.Volatile,
        Policy.History.KeepLast(qos.depth) if qos.depth > 0 else Policy.History.KeepAll,
        Policy.DataRepresentation(use_cdrv0_representation=True),
        Policy.WriterDataLifecycle(autodispose=False),
        Policy.Userdata(user_data.encode()),
    ]
    if qos.transient_local:
        policies.append(Policy.DurabilityService(0, policies[2], -1, -1, -1))
    return Qos(*policies)


def ros_qos(qos: Qos) -> QoS:
    """`QoS` as an endpoint announces it; peers do not tell their depth (DDS discovery carries none): 0 then."""
    history = qos[Policy.History]
    return QoS(
        depth=history.depth if isinstance(history, Policy.History.KeepLast) else 0,
        reliable=isinstance(qos[Policy.Reliability], Policy.Reliability.Reliable),
        transient_local=qos[Policy.Durability] == Policy.Durability.TransientLocal,
    )
