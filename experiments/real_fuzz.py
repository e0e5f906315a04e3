"""Random and mutated payloads over every topic that a node of the room listens to: no crash, no command.

Every mode of the robot is brought about on a bus with virtual time, and held, while a hostile peer fires at each topic
in turn: random bytes, mutated messages, and well-formed messages with values that nobody should send. A twin room in
peace runs beside it; what the robot is commanded must be equal in both, wherever a topic may not matter (everywhere
but where sensors lie to a running policy, or a person's own messages are falsified while they drive), and nothing may
be beyond a limit anywhere. Payloads that ask for a thing in so many words ("arm", a held deadman) are no garbage and
are not sent::

    python experiments/real_fuzz.py --payloads 100000 --seed 0
    python experiments/real_fuzz.py --dds --payloads 4000

With ``--dds`` the safety node and the twin are processes, and the bytes go over a real network.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from real.errors import MessageError
from real.launcher import NodeProcess, node_command
from real.stack_robot import open_robot
from real.transport.open import open_node
from tests.real import raw_flood
from tests.real.fuzz_room import COMMANDS, SETTINGS, Result, fuzz, fuzz_driver, quiet, room_stack
from tests.real.hostile import ASKED, Payloads
from tests.real.small_bundle import write_bundle

TOPICS = (
    ("/joint_states", "sensor_msgs/msg/JointState"),
    ("/policy/action_chunk", "trajectory_msgs/msg/JointTrajectory"),
    ("/policy/heartbeat", "std_msgs/msg/String"),
    ("/teleop/twist", "geometry_msgs/msg/TwistStamped"),
    ("/teleop/deadman", "sensor_msgs/msg/Joy"),
    ("/safety/request", "std_msgs/msg/String"),
    ("/safety/reset_pose", "sensor_msgs/msg/JointState"),
    ("/safety/estop", "std_msgs/msg/Bool"),
)
"""What the safety node listens to."""
PATIENCE_S = 60.0


def main(argv: list[str] | None = None) -> int:
    """Entry point; 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--payloads", type=int, default=100_000, help="in total")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bundle", type=Path, help="a policy; by default one that leads the arm to and fro")
    parser.add_argument("--settings", nargs="*", choices=(*SETTINGS, "DRIVER"), default=[*SETTINGS, "DRIVER"])
    parser.add_argument("--dds", action="store_true", help="over a real network, at processes")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args(argv)
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = given.bundle or write_bundle(folder / "bundle")
        if given.dds:
            results = [over_dds(given.payloads, given.seed, folder)]
        else:
            results = [in_process(s, given, bundle, folder / s) for s in given.settings]
    show(results, time.monotonic() - began, given.json)
    return 0 if all(result.good for result in results) else 1


def in_process(setting: str, given: argparse.Namespace, bundle: Path, folder: Path) -> Result:
    """One setting's share of the payloads."""
    share = -(-given.payloads // len(given.settings))
    began = time.monotonic()
    with quiet():
        run = fuzz_driver if setting == "DRIVER" else lambda *rest: fuzz(setting, *rest)
        result = run(share, given.seed + len(setting), bundle, folder)
    sent, took = sum(result.sent.values()), time.monotonic() - began
    print(f"{setting}: {sent} payloads, {'well' if result.good else 'NOT WELL'}, {took:.0f} s", file=sys.stderr)
    return result


def over_dds(payloads: int, seed: int, folder: Path) -> Result:
    """Flood a safety node's process: raw bytes under the names of types, and well-formed hostile messages."""
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    domain, result = 100 + os.getpid() % 100, Result("DDS")
    overrides = {"domain": domain, "transport": "dds", "twin.rendering": "none", "safety.latch_after": 10**6}
    lines: list[str] = []
    nodes = [
        NodeProcess(name, node_command(name, "panda_twin", overrides), os.environ, lambda n, line: lines.append(line))
        for name in ("twin", "safety")
    ]
    probe = open_node("probe", transport="dds", domain=domain)
    modes: list[str] = []
    states: list[dict[str, Any]] = []
    commands: list[tuple[str, tuple[float, ...]]] = []
    latched = {"qos": raw_flood_qos(latched=True)}
    probe.subscribe("/safety/mode", "std_msgs/msg/String", lambda m, r: modes.append(m.data), **latched)
    probe.subscribe("/scene/state", "std_msgs/msg/String", lambda m, r: states.append(json.loads(m.data)), **latched)
    probe.subscribe(
        COMMANDS[0],
        "trajectory_msgs/msg/JointTrajectory",
        lambda m, r: commands.append(("arm", tuple(m.points[0].positions))),
    )
    probe.subscribe(
        COMMANDS[1], "std_msgs/msg/Float64MultiArray", lambda m, r: commands.append(("gripper", tuple(m.data)))
    )
    try:
        wait(probe, lambda: "HOLD" in modes and len(commands) > 100, "the robot held")
        before = dict(commands[-20:])
        commands.clear()
        flood(domain, seed, payloads // 2, probe, result)
        fire(payloads - sum(result.sent.values()), seed, folder, probe, result)
        spin(probe, 2.0)
        for what, position in commands:
            result.moved[what] += position != before[what]
        for node in nodes:
            if node.code is not None:
                result.crashes[node.describe_end()] += 1
        result.violations = {k: v for k, v in states[-1]["monitor"].items() if k.startswith("violations")}
        result.modes.update(modes[:1] if len(set(modes)) == 1 else set(modes))
        result.crashes.update(line for line in lines if "Traceback" in line or "Error" in line)
    finally:
        probe.close()
        for node in reversed(nodes):
            node.end()
    result.moved += Counter()  # drops zeros
    return result


def raw_flood_qos(latched: bool = False) -> Any:
    """Reliable, deep, for late joiners where asked."""
    from real.transport.handle import QoS

    return QoS(depth=1 if latched else 50, transient_local=latched)


def flood(domain: int, seed: int, payloads: int, probe: Any, result: Result) -> None:
    """Bytes that are no messages, from another process."""
    count = -(-payloads // len(TOPICS))
    command = [sys.executable, raw_flood.__file__, str(domain), str(seed), str(count), *(f"{t}={k}" for t, k in TOPICS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        end = time.monotonic() + 4 * PATIENCE_S
        os.set_blocking(process.stdout.fileno(), False)
        said = ""
        while "sent" not in said and process.poll() is None and time.monotonic() < end:
            probe.spin_once(0.05)
            said += process.stdout.read() or ""
        process.stdin.close()
    sent = int(said.split()[1]) if "sent" in said else 0
    if not sent:
        raise SystemExit(f"the flood did not end well: {said!r}")
    for topic, _ in TOPICS:
        result.sent[topic] += sent // len(TOPICS)


def fire(payloads: int, seed: int, folder: Path, probe: Any, result: Result) -> None:
    """Well-formed messages with hostile values."""
    from real.msgs import store

    robot, messages = open_robot(room_stack(folder, folder)), store()
    source = Payloads(messages, robot.joints, seed, lambda: "deadbeef")
    publishers = {
        topic: probe.publisher(topic, type, raw_flood_qos()) for topic, type in TOPICS if "reset" not in topic
    }
    publishers["/safety/reset_pose"] = probe.publisher(TOPICS[6][0], TOPICS[6][1], raw_flood_qos(latched=True))
    spin(probe, 1.0)
    for index in range(payloads):
        topic, type = TOPICS[index % len(TOPICS)]
        while True:
            data = source.draw(topic, type, asks)
            try:
                publishers[topic].publish(messages.deserialize(data, type))
                break
            except MessageError:
                continue
        result.sent[topic] += 1
        probe.spin_once(0.0005)
    result.skipped = source.skipped


def asks(topic: str, message: Any) -> bool:
    """As `tests.real.fuzz_room.Asks`, for what the safety node listens to."""
    if topic == "/safety/request":
        return message.data in ASKED
    if topic == "/teleop/deadman":
        return 1 in list(message.buttons)[:4] and set(list(message.buttons)[:4]) <= {0, 1}
    return topic == "/safety/estop" and bool(message.data)


def spin(probe: Any, seconds: float) -> None:
    """Let callbacks run for so long."""
    end = time.monotonic() + seconds
    probe.spin(until=lambda: time.monotonic() > end)


def wait(probe: Any, ready: Callable[[], bool], what: str) -> None:
    """Until ``ready``."""
    end = time.monotonic() + PATIENCE_S
    probe.spin(until=lambda: ready() or time.monotonic() > end)
    if not ready():
        raise SystemExit(f"{what}: not within {PATIENCE_S:g} s")


def show(results: list[Result], seconds: float, as_json: bool) -> None:
    """A table by topic, and what was found."""
    if as_json:
        print(json.dumps({"seconds": round(seconds, 1), "results": [result.to_dict() for result in results]}, indent=1))
        return
    topics = sorted({topic for result in results for topic in result.sent})
    print(f"{'topic':38}" + "".join(f"{result.setting:>8}" for result in results) + f"{'total':>9}")
    for topic in topics:
        counts = [result.sent[topic] for result in results]
        print(f"{topic:38}" + "".join(f"{count:8}" for count in counts) + f"{sum(counts):9}")
    total = [sum(result.sent.values()) for result in results]
    print(f"{'payloads':38}" + "".join(f"{count:8}" for count in total) + f"{sum(total):9}")
    for name, of in (
        ("no message of their type", lambda r: r.malformed),
        ("requests not sent", lambda r: r.skipped),
        ("crashes", lambda r: sum(r.crashes.values())),
        ("commands that differed", lambda r: sum(r.moved.values())),
        ("beyond a limit", lambda r: sum(r.violations.values())),
    ):
        counts = [of(result) for result in results]
        print(f"{name:38}" + "".join(f"{count:8}" for count in counts) + f"{sum(counts):9}")
    for result in results:
        print(f"{result.setting}: modes {dict(result.modes)}")
        for what, count in (*result.crashes.items(), *((f"moved by {t}", n) for t, n in result.moved.items())):
            print(f"  {count} x {what}")
    print(f"{seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
