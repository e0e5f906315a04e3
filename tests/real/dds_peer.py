"""Another process on the embedded DDS transport, told what to do on its command line; it prints ``ready`` first.

Usage: python dds_peer.py DOMAIN talk COUNT HZ | hold | serve
"""

from __future__ import annotations

import sys
import threading
import time

from real.transport.dds import DDSNode
from real.transport.handle import LATCHED, RELIABLE, QoS
from real.transport.open import open_node

JOINTS = "sensor_msgs/msg/JointState"
TEXT = "std_msgs/msg/String"


def opened(name: str, domain: int, namespace: str = "/") -> DDSNode:
    """A node on embedded DDS."""
    node = open_node(name, namespace=namespace, transport="dds", domain=domain)
    assert isinstance(node, DDSNode)
    return node


def talk(domain: int, count: int, rate: float) -> None:
    """Publish numbered joint states at a rate, once somebody listens."""
    with opened("talker", domain) as node:
        out = node.publisher("joint_states", JOINTS, QoS(depth=10))
        print("ready", flush=True)
        node.spin(lambda: out.subscriptions() > 0)
        sent = 0

        def tick() -> None:
            nonlocal sent
            message = node.store.new(JOINTS, name=["sent", "at"], position=[float(sent), time.monotonic()])
            out.publish(message)
            sent += 1

        node.timer(1 / rate, tick)
        node.spin(lambda: sent >= count)
        sys.stdin.read()


def hold(domain: int) -> None:
    """Be in the graph with a publisher that has said something, and a subscription."""
    with opened("holder", domain, "/peer") as node:
        node.publisher("mode", TEXT, LATCHED).publish(node.store.new(TEXT, data="HOLD"))
        node.subscribe("commands", TEXT, lambda message, received: None, RELIABLE)
        print("ready", flush=True)
        sys.stdin.read()


def serve(domain: int) -> None:
    """Answer a service until standard input ends."""
    with opened("server", domain) as node:

        def answer(request: object) -> object:
            data = request.data  # type: ignore[attr-defined]
            return node.store.new("std_srvs/srv/SetBool_Response", success=data, message=f"got {data}")

        node.service("switch", "std_srvs/srv/SetBool", answer)
        ended = threading.Event()

        def follow() -> None:
            sys.stdin.read()
            ended.set()

        threading.Thread(target=follow, daemon=True).start()
        print("ready", flush=True)
        node.spin(ended.is_set)


if __name__ == "__main__":
    domain, what, *rest = sys.argv[1:]
    if what == "talk":
        talk(int(domain), int(rest[0]), float(rest[1]))
    else:
        {"hold": hold, "serve": serve}[what](int(domain))
