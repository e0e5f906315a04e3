"""The whole room on a bus, brought into a mode and kept there by an operator, under fire from a hostile peer."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from real.nodes.critic import CriticNode
from real.nodes.episode import EpisodeNode
from real.nodes.policy import PolicyNode
from real.nodes.recorder import RecorderNode
from real.nodes.recorder import settings_of as recorder_settings
from real.nodes.safety import SafetyNode
from real.nodes.teleop import TeleopNode
from real.nodes.twin import TwinNode
from real.nodes.twin import settings_of as twin_settings
from real.stack import Stack, load
from real.stack_robot import open_robot
from real.transport.handle import QoS
from real.transport.local import LocalBus
from real.twin.settings import TASKS
from tests.real.hostile import ASKED, Payloads

MODES = ("INIT", "HOLD", "POLICY", "HUMAN", "RESET", "FAULT", "ESTOP")
SETTINGS = (*MODES, "ROUNDS")
"""Modes that the robot is held in, and an episode node that goes round by itself."""
COMMANDS = ("/arm_controller/joint_trajectory", "/gripper_controller/commands")
_LIES = ("/joint_states", "/safety/mode", "/episode/goal/named", "/scene/state", "/diagnostics")
"""Topics whose well-formed messages may rightly change what the policy does."""
_SPACING_S = 0.00025
_AFTER_S = 0.1
_SETTLED_S = 1.5
_EVERYONE = QoS(depth=50, transient_local=True)
_PICTURE = 96


def room_stack(bundle: Path, folder: Path, **more: Any) -> Stack:
    """The stack of a room that can be fuzzed: everything of it runs, and no number of bad commands ends a mode."""
    return load(
        "panda_twin",
        {
            **{"bundle": str(bundle), "task": "arm_reach", "record": str(folder), "critic": "elapsed_time"},
            **{"twin.rendering": "none", "recorder.min_free_mb": 0, "teleop.device": "joy"},
            **{
                "limits.velocity": 0.1,
                "safety.latch_after": 10**6,
                "episode.judge": "critic",
                "episode.time_out_s": 3.0,
            },
            **{"critic.cameras": ["front"], "critic.rate_hz": 5.0, "safety.require_cameras": ["front"], **more},
        },
    )


@dataclass
class Result:
    """What came of fuzzing in one setting.

    Attributes:
        sent: full topic → payloads; skipped: well-formed requests that were not sent.
        crashes: exception and place → how often; moved: topic → commands that differed from those of a room in peace.
        violations: the twin's; refused: payloads that no node could decode.
        modes: the modes that the robot was in while payloads came.
    """

    setting: str
    sent: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    malformed: int = 0
    crashes: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)
    violations: dict[str, int] = field(default_factory=dict)
    modes: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}

    @property
    def good(self) -> bool:
        """No crash, no command, nothing beyond a limit."""
        return not self.crashes and not self.moved and not any(self.violations.values())


class Room:
    """One bus with all nodes, in one of `SETTINGS`.

    Attributes:
        topics: (full topic, type) of everything that any node listens to, commands to the robot left out.
        commands: of the arm and the gripper so far, and the safety node's mode at each.
    """

    def __init__(self, setting: str, bundle: Path, folder: Path, seed: int) -> None:
        self.setting = setting
        rounds = {"episode.auto_start": True, "episode.judge": "scene"} if setting == "ROUNDS" else {}
        if setting == "ROUNDS":
            rounds |= {"limits.velocity": 0.8}
        self.stack = room_stack(bundle, folder, **rounds)
        self.bus = LocalBus(seed=seed)
        if setting == "INIT":  # as if the driver had not come up
            self.bus.faults.cut("/joint_states", "/twin")
        node = self.bus.node
        self.twin = TwinNode(node("twin"), twin_settings(self.stack))
        self.safety = SafetyNode(node("safety"), self.stack)
        self.policy = PolicyNode(node("policy"), self.stack)
        self.episode = EpisodeNode(node("episode"), self.stack)
        self.critic = CriticNode(node("critic"), self.stack)
        self.recorder = RecorderNode(node("recorder"), recorder_settings(self.stack))
        self.teleop = TeleopNode(node("teleop"), self.stack.teleop)
        self.operator, self.peer = node("operator"), node("peer")
        self.commands: list[tuple[str, list[float]]] = []
        self.topics = self._heard()
        self._peer = {topic: self.peer.publisher(topic, type, _EVERYONE) for topic, type in self.topics}
        for topic, type in zip(
            COMMANDS, ("trajectory_msgs/msg/JointTrajectory", "std_msgs/msg/Float64MultiArray"), strict=True
        ):
            self.operator.subscribe(topic, type, self._command)
        self._operate()
        self.crashes: Counter[str] = Counter()
        self.run(0.2)
        self._enter()

    @property
    def mode(self) -> str:
        """The safety node's."""
        return self.safety.arbiter.mode.name

    def run(self, seconds: float) -> None:
        """Let time pass; exceptions of callbacks are kept in `crashes`."""
        end = self.bus.clock.ns + round(seconds * 1e9)
        while True:
            try:
                while self.bus.step(end):
                    pass
                return
            except Exception as error:  # whatever a node let out is what we are looking for
                where = traceback.extract_tb(error.__traceback__)[-1]
                ours = [f for f in traceback.extract_tb(error.__traceback__) if "/real/" in f.filename]
                at = ours[-1] if ours else where
                self.crashes[f"{type(error).__name__} {str(error)[:80]} at {Path(at.filename).name}:{at.lineno}"] += 1

    def fire(self, topic: str, payloads: list[bytes]) -> None:
        """Send payloads, many in one control cycle."""
        for data in payloads:
            self._peer[topic].publish_raw(data)
            self.run(_SPACING_S)

    def close(self) -> None:
        """End the recorder's file."""
        self.recorder.close()

    def _heard(self) -> list[tuple[str, str]]:
        nodes = [
            self.bus._nodes[name]
            for name in ("/twin", "/safety", "/policy", "/episode", "/critic", "/recorder", "/teleop")
        ]
        found = {s.topic: s.type for node in nodes for s in node.own_subscriptions if s.topic not in COMMANDS}
        return sorted(found.items())

    def _command(self, message: Any, received: Any) -> None:
        values = message.data if hasattr(message, "data") else message.points[0].positions
        self.commands.append((self.mode, np.asarray(values).tolist()))

    def _operate(self) -> None:
        new, operator = self.operator.bus.store.new, self.operator
        self._joy = operator.publisher("joy", "sensor_msgs/msg/Joy")
        self._ask = operator.publisher("safety/request", "std_msgs/msg/String")
        self._press = operator.publisher("safety/estop", "std_msgs/msg/Bool")
        self._lead = operator.publisher("safety/reset_pose", "sensor_msgs/msg/JointState", _EVERYONE)
        self._say = operator.publisher("episode/request", "std_msgs/msg/String")
        self._image = operator.publisher("camera/front/image_raw", "sensor_msgs/msg/Image", _EVERYONE)
        self._count = 0

        def show() -> None:
            self._count += 1
            picture = np.full(_PICTURE * _PICTURE * 3, self._count % 256, np.uint8)
            header = new("std_msgs/msg/Header", stamp=operator.bus.store.time(operator.clock.now()))
            size = {"height": _PICTURE, "width": _PICTURE, "step": 3 * _PICTURE}
            self._image.publish(new("sensor_msgs/msg/Image", header=header, encoding="rgb8", data=picture, **size))

        def hold_deadman() -> None:
            buttons = [0, 0, 0, 0, 0, int(self.setting == "HUMAN"), 0, 0]
            self._joy.publish(new("sensor_msgs/msg/Joy", axes=np.zeros(6, np.float32), buttons=buttons))

        operator.timer(0.1, show)
        operator.timer(0.05, hold_deadman)
        if self.setting != "ROUNDS":
            operator.timer(4.0, lambda: self._say.publish(new("std_msgs/msg/String", data="start")))
        if self.setting in ("POLICY", "RESET"):
            operator.timer(0.5, self._keep)

    def ask(self, word: str) -> None:
        """As an operator."""
        self._ask.publish(self.bus.store.new("std_msgs/msg/String", data=word))

    def _keep(self) -> None:
        """Bring the mode back where it ended by itself."""
        if self.mode != "HOLD":
            return
        if self.setting == "POLICY":
            return self.ask("arm")
        robot = open_robot(self.stack)
        self._turn = not getattr(self, "_turn", False)
        pose = robot.home + (0.3 if self._turn else 0.0) * np.array([1, 0, 0, 0, 0, 1, 0, 0])
        self._lead.publish(
            self.bus.store.new("sensor_msgs/msg/JointState", name=list(robot.joints), position=pose.astype(float))
        )
        self.ask("reset")

    def _enter(self) -> None:
        new = self.bus.store.new
        if self.setting == "FAULT":
            self.bus.faults.cut("/joint_states", "/twin")
            self.run(2.0)
            self.bus.faults.heal("/joint_states", "/twin")
        elif self.setting == "ESTOP":
            for pressed in (True, False):
                self._press.publish(new("std_msgs/msg/Bool", data=pressed))
                self.run(0.1)
        self.run(_SETTLED_S)


def order(setting: str, topics: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those first that must not matter, so that what follows cannot be blamed on them."""
    return sorted(topics, key=lambda item: not inert(setting, item[0]))


def inert(setting: str, topic: str) -> bool:
    """Whether no payload on a topic, requests aside, may change what the robot is commanded."""
    if setting == "ROUNDS":
        return False
    if topic == "/joint_states":
        return setting not in ("INIT", "POLICY", "RESET")
    if topic.startswith("/objects/") or topic in _LIES:
        return setting != "POLICY"
    if topic in ("/teleop/twist", "/teleop/deadman", "/joy"):
        return setting != "HUMAN"
    return not (topic.startswith("/camera/") and setting == "POLICY")


class Asks:
    """Whether a well-formed message asks for something that its sender may ask for; those are not garbage."""

    def __init__(self, room: Room) -> None:
        self._room, self._robot = room, open_robot(room.stack)

    def __call__(self, topic: str, message: Any) -> bool:
        handler = getattr(self, "_" + topic.strip("/").replace("/", "_"), None)
        return bool(handler(message)) if handler is not None else False

    def _safety_request(self, message: Any) -> bool:
        return message.data in ASKED

    def _safety_estop(self, message: Any) -> bool:
        return bool(message.data)

    def _teleop_deadman(self, message: Any) -> bool:
        pressed = set(np.asarray(message.buttons)[:4].tolist())
        return 1 in pressed and pressed <= {0, 1}

    def _joy(self, message: Any) -> bool:
        return bool(np.any(np.asarray(message.buttons)))

    def _safety_reset_pose(self, message: Any) -> bool:
        names, limits = list(message.name), self._robot.limits
        if sorted(names) != sorted(self._robot.joints) or len(message.position) != len(names):
            return False
        pose = np.asarray(message.position)[[names.index(joint) for joint in self._robot.joints]]
        return bool((pose >= limits.lower).all() and (pose <= limits.upper).all())

    def _policy_action_chunk(self, message: Any) -> bool:
        session = self._room.policy._session
        if not message.header.frame_id.startswith(f"{session}/"):
            return False
        positions = [np.asarray(point.positions) for point in message.points]
        right = sorted(message.joint_names) == sorted(self._robot.joints) and bool(positions)
        return right and all(len(p) == len(self._robot.joints) and np.isfinite(p).all() for p in positions)

    def _scene_request(self, message: Any) -> bool:
        try:
            request = json.loads(message.data)
        except (ValueError, RecursionError):
            return False
        if not isinstance(request, dict) or not set(request) <= {"seed", "task", "teleport"}:
            return False
        seed, task = request.get("seed", 0), request.get("task", TASKS[0])
        drawn = isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**31
        return drawn and isinstance(request.get("teleport", False), bool) and isinstance(task, str) and task in TASKS


def fuzz(setting: str, payloads: int, seed: int, bundle: Path, folder: Path, after_s: float = _AFTER_S) -> Result:
    """Fire ``payloads`` at one setting, spread over all topics, and hold its commands against those of peace.

    After each topic, what it did is watched for ``after_s``.
    """
    room = Room(setting, bundle, folder / "fuzzed", seed)
    result = Result(setting)
    # A fixed session: what is nearly a chunk must be nearly one of the session that is armed.
    source = Payloads(room.bus.store, open_robot(room.stack).joints, seed, lambda: room.policy._session)
    asks = Asks(room)
    topics = order(setting, room.topics)
    share = -(-payloads // len(topics))
    peace: Room | None = None
    if setting != "ROUNDS":
        peace = Room(setting, bundle, folder / "peace", seed)
    for topic, type in topics:
        first = len(room.commands)
        drawn = [source.draw(topic, type, asks) for _ in range(share)]
        room.fire(topic, drawn)
        room.run(after_s)
        result.sent[topic] += share
        result.modes[room.mode] += share
        if peace is not None and inert(setting, topic):
            peace.run(share * _SPACING_S + after_s)
            result.moved[topic] += _differ(room.commands[first:], peace.commands[first:])
        for crash, count in room.crashes.items():
            result.crashes[f"{topic}: {crash}"] += count
        room.crashes.clear()
    result.moved = Counter({topic: count for topic, count in result.moved.items() if count})
    result.skipped = source.skipped
    result.malformed = sum(sum(node.malformed.values()) for node in room.bus._nodes.values())
    result.violations = dict(room.twin.cell.driver.violations)
    room.close()
    if peace is not None:
        peace.close()
    return result


def fuzz_driver(payloads: int, seed: int, bundle: Path, folder: Path) -> Result:
    """Fire at the twin's own command topics, where no safety node stands between; only sane set points may follow."""
    stack = room_stack(bundle, folder)
    bus = LocalBus(seed=seed)
    twin = TwinNode(bus.node("twin"), twin_settings(stack))
    robot, result = open_robot(stack), Result("DRIVER")
    peer = bus.node("peer")
    types = dict(zip(COMMANDS, ("trajectory_msgs/msg/JointTrajectory", "std_msgs/msg/Float64MultiArray"), strict=True))
    source = Payloads(bus.store, robot.joints[:7], seed, lambda: "")
    for topic, type in types.items():
        publisher = peer.publisher(topic, type, _EVERYONE)
        for _ in range(payloads // len(types)):
            publisher.publish_raw(source.draw(topic, type, lambda topic, message: False))
            try:
                bus.run(0.002)
            except Exception as error:  # see Room.run
                result.crashes[f"{topic}: {type_name(error)}"] += 1
            result.sent[topic] += 1
            point = twin.cell.driver.set_point
            sane = np.isfinite(point).all() and np.isfinite(twin.cell.arm.data.qpos).all()
            result.moved[topic] += not sane
            twin.cell.driver.reset()
    result.moved = Counter({topic: count for topic, count in result.moved.items() if count})
    result.modes["no safety node"] = sum(result.sent.values())
    result.violations = {"diverged": twin.cell.arm.failures}
    return result


def type_name(error: Exception) -> str:
    """An exception in one line."""
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} {str(error)[:80]} at {Path(at.filename).name}:{at.lineno}"


def _differ(given: list[tuple[str, list[float]]], wanted: list[tuple[str, list[float]]]) -> int:
    return abs(len(given) - len(wanted)) + sum(a[1] != b[1] for a, b in zip(given, wanted, strict=False))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nodes tell of every refused request on standard error; not here."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
        yield
    sys.stderr.flush()
