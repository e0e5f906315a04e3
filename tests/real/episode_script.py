"""A small stack that plays one known episode over any transport, for tests of the recorder.

Run as a program, it records episodes in its own process: ``python -m tests.real.episode_script <folder> <megabytes>``,
where no file may grow beyond so many megabytes.
"""

from __future__ import annotations

import json
import math
import resource
import sys
from pathlib import Path

import numpy as np

from real.msgs import MessageStore, store
from real.nodes.recorder import RecorderNode
from real.recording.recorder import RecorderSettings
from real.recording.topics import stack_topics
from real.stack import load
from real.transport.handle import LATCHED, RELIABLE, SENSOR, NodeHandle, QoS
from real.transport.local import LocalBus

JOINTS = [*(f"joint{i}" for i in range(1, 8)), "finger_joint1"]
STEP_HZ, IMAGE_HZ, SIZE = 100, 10, (48, 64)
HUMAN = range(60, 90)
"""Steps of an episode in which a person drives."""
INVALID = range(30, 40)
CRITIC_DELAY_S = 0.35
EVENTS = QoS(depth=10, transient_local=True)


def settings(folder: Path, **changes: object) -> RecorderSettings:
    """The recorder of the twin's stack."""
    info = {"task": "arm_push", "bundle_hash": "ab" * 32, "operator": "somebody"}
    values = {"min_free_mb": 0.0, "info": info, **changes}
    return RecorderSettings(folder=folder, topics=stack_topics(load("panda_twin")), **values)


class Script:
    """Publishes what a stack says in an episode; call `step` at `STEP_HZ`."""

    def __init__(self, node: NodeHandle, messages: MessageStore) -> None:
        self.node, self.messages = node, messages
        step, string = "control_msgs/msg/DynamicJointState", "std_msgs/msg/String"
        self.steps = node.publisher("safety/step", step, QoS(depth=50))
        self.critic = node.publisher("critic/value", step, QoS(depth=50))
        self.joints = node.publisher("joint_states", "sensor_msgs/msg/JointState", SENSOR)
        self.pose = node.publisher("objects/first/pose", "geometry_msgs/msg/PoseStamped", SENSOR)
        self.goal = node.publisher("episode/goal/named", "std_msgs/msg/Float64MultiArray", LATCHED)
        self.camera = node.publisher("camera/front/image_raw", "sensor_msgs/msg/Image", SENSOR)
        self.instruction = node.publisher("episode/instruction", string, LATCHED)
        self.mode = node.publisher("safety/mode", string, LATCHED)
        self.events = node.publisher("episode/event", string, EVENTS)
        self.request = node.publisher("episode/request", string, RELIABLE)
        self.late: list[tuple[float, object]] = []
        self.count = 0

    def introduce(self, instruction: str = "push the cube") -> None:
        """What latched topics say before any episode."""
        self._text(self.instruction, instruction)
        self._text(self.mode, "POLICY")
        self.goal.publish(self.messages.new("std_msgs/msg/Float64MultiArray", data=np.array([1.0, 0.0])))

    def event(self, event: str, episode: int, **more: object) -> None:
        self._text(self.events, json.dumps({"event": event, "episode": episode, **more}))

    def step(self, k: int) -> None:
        """Step k of an episode: of all topics what is due."""
        self.steps.publish(self._step(k))
        joints = self.messages.new("sensor_msgs/msg/JointState", name=JOINTS, position=q(k), velocity=np.full(8, 0.5))
        joints.header.stamp = self._now()
        self.joints.publish(joints)
        pose = self.messages.new("geometry_msgs/msg/PoseStamped")
        pose.pose.position.x, pose.pose.orientation.w = k / 100, 1.0
        self.pose.publish(pose)
        if k % (STEP_HZ // IMAGE_HZ) == 0:
            image = self._image(k)
            self.camera.publish(image)
            self.late.append((self.node.clock.monotonic() + CRITIC_DELAY_S, self._judged(image.header.stamp, k)))
        self.answer()
        self.count += 3

    def answer(self) -> None:
        """What the critic has to say by now."""
        while self.late and self.late[0][0] <= self.node.clock.monotonic():
            self.critic.publish(self.late.pop(0)[1])

    def _now(self) -> object:
        return self.messages.time(self.node.clock.now())

    def _text(self, publisher: object, text: str) -> None:
        publisher.publish(self.messages.new("std_msgs/msg/String", data=text))

    def _step(self, k: int) -> object:
        human = k in HUMAN
        nothing = np.full(8, math.nan)
        fields = {
            "proposed": nothing if human else q(k) + 0.1,
            "human": q(k) + 0.2 if human else nothing,
            "executed": q(k) + (0.2 if human else 0.1),
            "limited": q(k) + 0.05,
            "measured": q(k),
        }
        told = {
            "mode": 3.0 if human else 2.0,
            "source": 2.0 if human else 1.0,
            **{f"clamp_{name}": 0.0 for name in ("position", "acceleration", "jerk", "workspace")},
            "clamp_velocity": float(k == 25),
            "observation_stamp": self.node.clock.now() / 1e9 - 0.02,
            "joint_age_s": 0.002,
            "chunk_sequence": float(k // 10),
            "valid": float(k not in INVALID),
        }
        values = [self._values({name: field[i] for name, field in fields.items()}) for i in range(8)]
        return self._dynamic([*JOINTS, "step"], [*values, self._values(told)], self._now())

    def _judged(self, stamp: object, k: int) -> object:
        told = {"progress": k / 100, "p_done": k / 200, "confidence": 1.0, "latency_s": CRITIC_DELAY_S, "valid": 1.0}
        return self._dynamic(["critic"], [self._values(told)], stamp)

    def _dynamic(self, names: list[str], values: list[object], stamp: object) -> object:
        made = self.messages.new("control_msgs/msg/DynamicJointState", joint_names=names, interface_values=values)
        made.header.stamp = stamp
        return made

    def _values(self, told: dict[str, float]) -> object:
        kind = "control_msgs/msg/InterfaceValue"
        return self.messages.new(kind, interface_names=list(told), values=np.array(list(told.values())))

    def _image(self, k: int) -> object:
        height, width = SIZE
        pixels = np.full((height, width, 3), (k % 100 + 50, 20, 200), np.uint8)
        image = self.messages.new(
            "sensor_msgs/msg/Image",
            height=height,
            width=width,
            encoding="rgb8",
            step=3 * width,
            data=pixels.reshape(-1),
        )
        image.header.stamp = self._now()
        return image


def q(k: int) -> np.ndarray:
    """(8,) measured joints at step k."""
    return 0.01 * k + 0.1 * np.arange(8)


def play(bus: LocalBus, script: Script, episode: int, steps: int = 100, outcome: str = "success") -> None:
    """One episode on virtual time."""
    script.event("started", episode)
    bus.run(0.3)
    for k in range(steps):
        script.step(k)
        bus.run(1 / STEP_HZ)
    metrics = {"interventions": 1, "duration_s": steps / STEP_HZ}
    script.event("ended", episode, outcome=outcome, reason="because", metrics=metrics)
    for _ in range(8):
        bus.run(0.1)
        script.answer()


def record(folder: Path, episodes: int = 1, **changes: object) -> tuple[LocalBus, Script, RecorderNode]:
    """Some episodes, recorded."""
    bus = LocalBus()
    script = Script(bus.node("stack"), bus.store)
    recorder = RecorderNode(bus.node("recorder"), settings(folder, **changes), bus.store)
    script.introduce()
    bus.run(0.5)
    for episode in range(episodes):
        play(bus, script, episode)
    return bus, script, recorder


def main(folder: Path, megabytes: float) -> None:
    """Two long episodes and one short one with a limit on the size of files; what the recorder told goes to stdout."""
    limit = int(megabytes * 2**20)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    bus = LocalBus()
    heard: list[object] = []
    listener = bus.node("listener")
    listener.subscribe("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", lambda m, _: heard.append(m.status[0]))
    script = Script(bus.node("stack"), store())
    recorder = RecorderNode(bus.node("recorder"), settings(folder), store())
    script.introduce()
    bus.run(0.5)
    for episode, steps in enumerate((50, 400, 50)):
        play(bus, script, episode, steps)
        print(json.dumps({"trouble": recorder.recorder.trouble, "dropped": recorder.recorder.dropped}))
    errors = [status.message for status in heard if int.from_bytes(bytes([status.level]), "big") == 2]
    print(json.dumps({"errors": errors, "levels": [int(status.level) for status in heard]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
