"""Does a policy that was trained in simulation succeed on the digital twin? The same bundle, unchanged.

    python experiments/twin_transfer.py --bundle runs/push/bundle --task arm_push --episodes 50 --command-parts 5

Each scene is drawn by its seed, once for training's own physics, where the bundle drives the joints directly, and once
for the twin, where it runs as a node among the others: drivers, tracker, safety and episode node. ``--transport local``
has them in one process on virtual time, ``dds`` as processes over the wire in real time. Success is the task's own
measure, seen ten times a second, within the same time. A gap tells by how much the twin's physics, latencies and
sensors differ from training's. ``--command-parts`` is training's setting of how a control step's command is reached.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from real.launcher import Launcher, environment
from real.nodes.episode import EpisodeNode
from real.nodes.policy import PolicyNode
from real.nodes.safety import SafetyNode
from real.nodes.twin import TwinNode, settings_of
from real.stack import load
from real.transport.handle import LATCHED, QoS
from real.transport.local import LocalBus
from real.transport.open import open_node
from real.twin.arm import Arm
from real.twin.scene import Scene, Scenes
from robolearn.bundle import Bundle
from robolearn.statistics import wilson
from robolearn.versions import versions
from sim.tasks import config_class

PATIENCE_S = 60.0
"""For one episode, with the motions before and after it."""
EVENTS = QoS(depth=10, transient_local=True)


def simulated(scenes: Scenes, scene: Scene, bundle: Bundle, parts: int, seconds: float) -> bool:
    """Whether the bundle succeeds in a scene with training's physics, without nodes and without a gap."""
    arm = Arm(scenes.robot(scene.task), scene.model, scene.start)
    arm.load(scene.model, scene.qpos, scene.start)
    judge, contract = scenes.judge(scene), bundle.contract
    steps = round(1.0 / (contract.rate_hz * arm.timestep))
    last = scene.start
    bundle.reset()
    for _ in range(round(seconds * contract.rate_hz)):
        position, velocity = arm.actuated()
        named = np.array([1.0 - scene.named, scene.named])
        known = {
            "joint_pos": position,
            "joint_vel": velocity,
            "object_poses": arm.objects()[0],
            "pad_pos": arm.pads(),
            "named": named,
        }
        inputs = {name: np.asarray(known[name], np.float32) for name in contract.names("inputs")}
        [command] = bundle.step(inputs).values()
        for k in range(steps):
            part = (k * parts // steps + 1) / parts
            arm.step(last + part * (command - last))
        last = command
        if judge.look(arm).success:
            return True
    return False


def overrides(args: argparse.Namespace, gap: str, seconds: float) -> dict[str, Any]:
    """What the nodes are told beside the stack."""
    return {
        "bundle": str(args.bundle.resolve()),
        "task": args.task,
        "twin.task": args.task,
        "twin.gap": gap,
        "twin.rendering": "none",
        "episode.judge": "scene",
        "episode.auto_start": True,
        "episode.episodes": args.episodes,
        "episode.first_seed": args.first_seed,
        "episode.time_out_s": seconds,
        **dict(item.split("=", 1) for item in args.set),
    }


class Ear:
    """Hears how episodes end, and what the twin's monitor counts."""

    def __init__(self, handle: Any) -> None:
        self.ended: dict[int, str] = {}
        self.state: dict[str, Any] = {}
        handle.subscribe("episode/event", "std_msgs/msg/String", self._event, EVENTS)
        handle.subscribe("scene/state", "std_msgs/msg/String", self._scene, LATCHED)

    def _event(self, message: Any, received: Any) -> None:
        event = json.loads(message.data)
        if event["event"] == "ended":
            self.ended[int(event["metrics"]["true_seed"])] = event["outcome"]

    def _scene(self, message: Any, received: Any) -> None:
        self.state = json.loads(message.data)


def local(stack_name: str, given: Mapping[str, Any], episodes: int) -> Ear:
    """All nodes in this process, on virtual time."""
    stack, bus = load(stack_name, given), LocalBus()
    ear = Ear(bus.node("ear"))
    TwinNode(bus.node("twin"), settings_of(stack))
    SafetyNode(bus.node("safety"), stack)
    PolicyNode(bus.node("policy"), stack)
    episode = EpisodeNode(bus.node("episode"), stack)
    bus.run_until(lambda: episode.finished, PATIENCE_S * episodes)
    bus.run(0.5)
    return ear


def dds(stack_name: str, given: Mapping[str, Any], episodes: int) -> Ear:
    """Every node a process, over DDS on this machine."""
    given = {"transport": "dds", **given}
    stack = load(stack_name, given)
    env = environment(stack)
    os.environ.update({key: env[key] for key in env if key.startswith("ROS_")})
    handle = open_node("transfer", transport="dds", domain=int(env["ROS_DOMAIN_ID"]))
    ear = Ear(handle)
    launcher = Launcher(stack, given, lambda name, line: print(f"{name}: {line}", file=sys.stderr), env=env)
    launcher.start()
    try:
        until = time.monotonic() + PATIENCE_S * episodes
        episode = launcher.processes["episode"]
        handle.spin(until=lambda: episode.code is not None or time.monotonic() > until)
    finally:
        launcher.stop()
        handle.close()
    return ear


def row(args: argparse.Namespace, gap: str, reference: Mapping[int, bool], seconds: float) -> dict[str, Any]:
    """One gap's result."""
    start = time.monotonic()
    run = local if args.transport == "local" else dds
    ear = run(args.stack, overrides(args, gap, seconds), args.episodes)
    n = args.episodes
    hits = sum(outcome == "success" for outcome in ear.ended.values())
    trained = sum(reference.values())
    low, high = wilson(hits / n, n)
    return {
        "experiment": "twin_transfer",
        "task": args.task,
        "gap": gap,
        "transport": args.transport,
        "episodes": n,
        "ended": len(ear.ended),
        "success": hits / n,
        "low": low,
        "high": high,
        "simulated": trained / n,
        "ratio": hits / trained if trained else None,
        "failed_seeds": [seed for seed in reference if ear.ended.get(seed) != "success"],
        "failed_simulated": [seed for seed, success in reference.items() if not success],
        "monitor": ear.state.get("monitor", {}),
        "wall_s": round(time.monotonic() - start, 1),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run all gaps, print a table, and lines of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--task", default="arm_push", help="[arm_push]")
    parser.add_argument("--episodes", type=int, default=50, help="[50]")
    parser.add_argument("--first-seed", type=int, default=1000, help="[1000]")
    parser.add_argument("--gaps", nargs="+", default=["none", "default", "large"], help="[none default large]")
    parser.add_argument("--transport", choices=("local", "dds"), default="local", help="[local]")
    parser.add_argument("--stack", default="panda_twin", help="[panda_twin]")
    parser.add_argument("--command-parts", type=int, default=1, help="training's task.command_parts [1]")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the stack")
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout, the table on stderr")
    args = parser.parse_args(argv)
    seconds = float(config_class(args.task)().episode_s)
    scenes, bundle = Scenes(), Bundle.load(args.bundle)
    seeds = range(args.first_seed, args.first_seed + args.episodes)
    reference = {
        seed: simulated(scenes, scenes.draw(args.task, seed), bundle, args.command_parts, seconds) for seed in seeds
    }
    table = sys.stderr if args.json else sys.stdout
    columns = ("gap", "success", "95% interval", "simulated", "ratio", "violations", "reflexes", "wall s")
    print("{:>8} {:>8} {:>14} {:>10} {:>6} {:>10} {:>9} {:>7}".format(*columns), file=table)
    for gap in args.gaps:
        found = row(args, gap, reference, seconds)
        monitor = found["monitor"]
        beyond = sum(count for key, count in monitor.items() if key.startswith("violations_"))
        interval = f"{found['low']:.3f}..{found['high']:.3f}"
        ratio = "-" if found["ratio"] is None else f"{found['ratio']:.3f}"
        line = f"{gap:>8} {found['success']:>8.3f} {interval:>14} {found['simulated']:>10.3f} {ratio:>6} {beyond:>10}"
        print(f"{line} {monitor.get('reflexes', '-'):>9} {found['wall_s']:>7}", file=table, flush=True)
        if args.json:
            print(json.dumps({**found, "versions": versions()}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
