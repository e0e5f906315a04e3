"""How late, lossy and punctual the real side is: policy and safety as processes, over DDS on this machine.

This process is the robot's driver: it tells joint states at 500 Hz, and takes commands. A policy of 100 Hz moves one
joint to and fro by a step every 0.1 s. The latency of such a step is the arrival of the first command that moves, less
the stamp of the observation that its chunk was computed with. It holds three hops of transport (observation, chunk,
command), which an echo process measures alone; three times its median is taken off for what policy and safety add.

Two phases of ``--seconds`` each: without pictures, and with two cameras of 640x480 at 30 Hz, drawn by a process of
their own and required by the safety node. In both, a listener counts joint states that are lost, and the safety node's
own diagnostics tell the control ticks that it missed.

    python benchmarks/real_latency.py --seconds 60 --json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from real.launcher import NodeProcess, node_command
from real.msgs import store
from real.stack import FOLDER
from real.transport.handle import LATCHED, RELIABLE, SENSOR, NodeHandle, QoS
from real.transport.open import open_node
from robolearn.bundle import export
from robolearn.contract import Channel, Contract
from robolearn.versions import package_version, versions
from sim.robots import get_robot

RATE_HZ, JOINT_HZ, EVERY, STEP = 100.0, 500.0, 10, 0.002
"""Of the policy, of joint states; control steps and rad of one move."""
CAMERAS = ("front", "wrist")
JOINTS = tuple(get_robot("panda").joint_names)
HOME = np.array(get_robot("panda").home)
NEW = store().new
BEST_EFFORT_10 = QoS(depth=10, reliable=False)
TRAJECTORY, STATE, TEXT = "trajectory_msgs/msg/JointTrajectory", "sensor_msgs/msg/JointState", "std_msgs/msg/String"


class ToAndFro(torch.nn.Module):
    """Home, and every `EVERY` steps the other of two places of joint 7."""

    def forward(self, joint_pos: torch.Tensor, count: torch.Tensor) -> dict[str, torch.Tensor]:
        away = torch.remainder(torch.floor(count / EVERY), 2.0)
        where = torch.tensor(HOME, dtype=torch.float32) + 0.0 * joint_pos
        where = where + STEP * away * torch.eye(8)[6]
        return {"joint_pos_target": where, "count": torch.remainder(count + 1.0, 2.0 * EVERY)}


def bundle(folder: Path) -> Path:
    """The policy as a bundle."""
    robot = get_robot("panda")
    command = Channel(
        "joint_pos_target",
        (8,),
        "rad or m",
        kind="target/joint/position",
        elements=JOINTS,
        lower=tuple(robot.lower.tolist()),
        upper=tuple(robot.upper.tolist()),
    )
    contract = Contract(
        robot="panda",
        robot_hash="",
        inputs=(Channel("joint_pos", (8,), "rad or m", kind="state/joint/position", elements=JOINTS),),
        commands=(command,),
        state=(Channel("count", (1,)),),
        rate_hz=RATE_HZ,
    )
    return export(ToAndFro(), contract, folder / "bundle", mjcf=robot.mjcf(), provenance={"seed": 0})


def stack_file(folder: Path, cameras: bool, safety_hz: float) -> Path:
    """The shipped twin's stack without its twin."""
    data = yaml.safe_load((FOLDER / "panda_twin.yaml").read_text())
    del data["twin"]
    data["safety"] = {"rate_hz": safety_hz, "require_cameras": list(CAMERAS) if cameras else []}
    path = folder / f"stack_{cameras}.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


class Driver:
    """The robot's side: joint states out, commands in, and when the first one moves."""

    def __init__(self, handle: NodeHandle) -> None:
        self._handle = handle
        self.position, self.sent, self.mode = HOME.copy(), 0, ""
        self.latencies: list[float] = []
        self.echoes: list[float] = []
        self.lost, self.heard = 0, 0
        self.safety: dict[str, str] = {}
        self._asked: tuple[float, int] | None = None
        self._target = self._last = float(HOME[6])
        self._states = handle.publisher("joint_states", STATE, RELIABLE)
        self._ping = handle.publisher("latency/ping", STATE, QoS(depth=1))
        self.request = handle.publisher("safety/request", TEXT, RELIABLE)
        handle.subscribe("arm_controller/joint_trajectory", TRAJECTORY, self._command, QoS(depth=64))
        handle.subscribe("policy/action_chunk", TRAJECTORY, self._chunk, QoS(depth=64))
        handle.subscribe("latency/pong", STATE, self._pong, QoS(depth=1))
        handle.subscribe("latency/count", TEXT, self._count, RELIABLE)
        handle.subscribe("safety/mode", TEXT, self._mode, LATCHED)
        handle.subscribe("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", self._diagnosed, RELIABLE)
        handle.timer(1.0 / JOINT_HZ, self._tell)
        handle.timer(0.0103, lambda: self._ping.publish(self._state()))

    def _state(self) -> Any:
        stamp = store().time(self._handle.clock.now())
        header = NEW("std_msgs/msg/Header", stamp=stamp, frame_id=str(self.sent))
        return NEW(STATE, header=header, name=list(JOINTS), position=self.position.copy(), velocity=np.zeros(8))

    def _tell(self) -> None:
        self._states.publish(self._state())
        self.sent += 1

    def _chunk(self, message: Any, received: Any) -> None:
        target = float(message.points[0].positions[list(message.joint_names).index("joint7")])
        if abs(target - self._target) > STEP / 2:
            self._asked = target, store().ns(message.header.stamp)
        self._target = target

    def _command(self, message: Any, received: Any) -> None:
        now = self._handle.clock.now()
        joint7 = float(message.points[0].positions[-1])
        moves = abs(joint7 - self._last) > 1e-9
        self._last = joint7
        self.position[:7] = message.points[0].positions
        if moves and self._asked is not None:
            self.latencies.append(1e-9 * (now - self._asked[1]))
            self._asked = None

    def _pong(self, message: Any, received: Any) -> None:
        self.echoes.append(0.5e-9 * (self._handle.clock.now() - store().ns(message.header.stamp)))

    def _count(self, message: Any, received: Any) -> None:
        told = json.loads(message.data)
        self.lost, self.heard = told["lost"], told["heard"]

    def _mode(self, message: Any, received: Any) -> None:
        self.mode = message.data

    def _diagnosed(self, message: Any, received: Any) -> None:
        for status in message.status:
            if status.name == "/safety":
                self.safety = {pair.key: pair.value for pair in status.values}


def echo(handle: NodeHandle) -> None:
    """Send pings back, and count the joint states that never came."""
    pong = handle.publisher("latency/pong", STATE, QoS(depth=1))
    told = handle.publisher("latency/count", TEXT, RELIABLE)
    count = {"lost": 0, "heard": 0, "last": -1}

    def joint_state(message: Any, received: Any) -> None:
        number = int(message.header.frame_id)
        if count["last"] >= 0:
            count["lost"] += number - count["last"] - 1
        count["last"] = number
        count["heard"] += 1

    handle.subscribe("latency/ping", STATE, lambda message, _: pong.publish(message), QoS(depth=1))
    handle.subscribe("joint_states", STATE, joint_state, BEST_EFFORT_10)
    handle.timer(0.5, lambda: told.publish(NEW(TEXT, data=json.dumps(count))))


def cameras(handle: NodeHandle) -> None:
    """Two cameras with noise."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, 640 * 480 * 3, dtype=np.uint8) for _ in range(4)]
    shown = iter(range(10**9))
    for offset, name in enumerate(CAMERAS):
        publisher = handle.publisher(f"camera/{name}/image_raw", "sensor_msgs/msg/Image", SENSOR)

        def show(publisher: Any = publisher, offset: int = offset) -> None:
            header = NEW("std_msgs/msg/Header", stamp=store().time(handle.clock.now()))
            data = pictures[(next(shown) + offset) % len(pictures)]
            size = {"height": 480, "width": 640, "step": 1920, "encoding": "rgb8"}
            publisher.publish(NEW("sensor_msgs/msg/Image", header=header, data=data, **size))

        handle.timer(1.0 / 30, show)


def part(name: str, make: Callable[[NodeHandle], None], domain: int) -> int:
    """A helper's process."""
    with open_node(name, transport="dds", domain=domain) as handle:  # type: ignore[attr-defined]
        make(handle)
        print(f"[{name}] ready", file=sys.stderr, flush=True)
        handle.spin()
    return 0


def wait(handle: NodeHandle, ready: Callable[[], bool], seconds: float, what: str) -> None:
    """Spin until something is so; exit with a message where it does not become so."""
    until = time.monotonic() + seconds
    handle.spin(until=lambda: ready() or time.monotonic() > until)
    if not ready():
        raise SystemExit(f"no {what} within {seconds:g} s")


def phase(args: argparse.Namespace, folder: Path, pictures: bool, domain: int) -> dict[str, Any]:
    """One phase's figures; ms."""
    env = {**os.environ, "ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    os.environ.update(env)
    path = str(stack_file(folder, pictures, args.safety_hz))
    given = {"transport": "dds", "policy.bundle": str(folder / "bundle")}
    commands = {name: node_command(name, path, given) for name in ("safety", "policy")}
    for name in ("echo", *(("cameras",) if pictures else ())):
        commands[name] = [sys.executable, __file__, "--part", name, "--domain", str(domain)]
    handle = open_node("driver", transport="dds", domain=domain)
    driver = Driver(handle)
    processes = [
        NodeProcess(name, command, env, lambda node, line: print(f"{node}: {line}", file=sys.stderr))
        for name, command in commands.items()
    ]
    try:
        wait(handle, lambda: all(p.ready.is_set() for p in processes), 60, "nodes")
        wait(handle, lambda: driver.mode == "HOLD" and bool(driver.heard), 30, "mode HOLD")
        wait(handle, lambda: time.monotonic() % 1 < 0.01, 3, "second")
        again = handle.timer(1.0, lambda: driver.request.publish(NEW(TEXT, data="arm")))
        wait(handle, lambda: len(driver.latencies) > 5, 30, "motion")
        again.cancel()
        before, first = dict(driver.safety), {name: getattr(driver, name) for name in ("sent", "lost", "heard")}
        driver.latencies.clear()
        driver.echoes.clear()
        start = time.monotonic()
        handle.spin(until=lambda: time.monotonic() - start > args.seconds)
    finally:
        for process in processes:
            process.end()
        handle.close()
    hop = float(np.median(driver.echoes))
    latency = np.array(driver.latencies)
    added = 1e3 * (latency - 3 * hop)
    p50, p99 = np.percentile(added, [50, 99])
    return {
        "benchmark": "real_latency",
        "pictures": pictures,
        "moves": len(latency),
        "latency_p50_ms": round(1e3 * float(np.median(latency)), 3),
        "hop_p50_ms": round(1e3 * hop, 3),
        "added_p50_ms": round(float(p50), 3),
        "added_p99_ms": round(float(p99), 3),
        "added_most_ms": round(float(added.max()), 3),
        "joint_states_sent": driver.sent - first["sent"],
        "joint_states": driver.heard - first["heard"],
        "joint_states_lost": driver.lost - first["lost"],
        "safety_hz": args.safety_hz,
        "missed_ticks": int(driver.safety["missed ticks"]) - int(before["missed ticks"]),
        "worst_lateness_ms": 1e3 * float(driver.safety["worst lateness, s"]),
    }


def report(rows: Sequence[Mapping[str, Any]], out: Any) -> None:
    """Print the table to ``out``."""
    keys = ("pictures", "moves", "hop_p50_ms", "added_p50_ms", "added_p99_ms", "joint_states", "joint_states_lost")
    keys += ("missed_ticks", "worst_lateness_ms")
    print(" ".join(f"{key:>{len(key)}}" for key in keys), file=out)
    for row in rows:
        print(" ".join(f"{row[key]!s:>{len(key)}}" for key in keys), file=out)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; see ``--help``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each phase [60]")
    parser.add_argument("--safety-hz", type=float, default=200.0, help="rate of the safety node [200]")
    parser.add_argument("--domain", type=int, default=100 + os.getpid() % 100, help="[100..199]")
    parser.add_argument("--json", action="store_true", help="one JSON object per line on stdout, table on stderr")
    parser.add_argument("--part", choices=("echo", "cameras"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.part:
        return part(args.part, {"echo": echo, "cameras": cameras}[args.part], args.domain)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle(folder)
        rows = [phase(args, folder, pictures, args.domain) for pictures in (False, True)]
    report(rows, sys.stderr if args.json else sys.stdout)
    made = {**versions(), "cyclonedds": package_version("cyclonedds"), "rosbags": package_version("rosbags")}
    if args.json:
        for row in rows:
            print(json.dumps({**row, "versions": made}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
