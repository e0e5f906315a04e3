"""A whole stack on a bus with virtual time, an operator who talks to it, and a policy that needs no training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from real.nodes.episode import EpisodeNode
from real.nodes.policy import PolicyNode
from real.nodes.recorder import RecorderNode
from real.nodes.recorder import settings_of as recorder_settings
from real.nodes.safety import SafetyNode
from real.nodes.twin import TwinNode
from real.nodes.twin import settings_of as twin_settings
from real.stack import Stack, load
from real.transport.handle import BEST_EFFORT, LATCHED, RELIABLE, QoS
from real.transport.local import LocalBus
from robolearn.bundle import export
from robolearn.contract import Channel, Contract
from sim.robots import get_robot

ARM, GRIPPER = "/arm_controller/joint_trajectory", "/gripper_controller/commands"
RATE = 20.0
DYNAMIC = "control_msgs/msg/DynamicJointState"
STRING = "std_msgs/msg/String"


def write_bundle(path: Path, swing: float = 0.25, shift: float = 0.0, rate_hz: float = RATE) -> Path:
    """A policy that swings all joints of the arm by ``swing`` rad around ``shift`` from home, once in two seconds."""
    robot = get_robot("panda")
    low, high, home = (torch.tensor(np.array(v, np.float32)) for v in (robot.lower, robot.upper, robot.home))
    arm = torch.tensor([0.0 if joint in robot.gripper_joints else 1.0 for joint in robot.joint_names])

    class Swing(torch.nn.Module):
        def forward(self, joint_pos: torch.Tensor, object_poses: torch.Tensor, phase: torch.Tensor) -> Any:
            seen = 1e-6 * torch.tanh(joint_pos.sum(-1, keepdim=True) + object_poses.flatten(-2).sum(-1, keepdim=True))
            target = home + arm * (shift + swing * torch.sin(np.pi * phase) + seen)
            return {"joint_target": torch.clamp(target, low, high), "phase": phase + 1.0 / rate_hz}

    joints = robot.joint_names
    contract = Contract(
        robot="panda",
        robot_hash="",
        inputs=(
            Channel("joint_pos", (8,), "rad or m", kind="state/joint/position", elements=joints),
            Channel("object_poses", (2, 7), "m", kind="state/object/pose"),
        ),
        commands=(
            Channel(
                "joint_target",
                (8,),
                "rad or m",
                kind="target/joint/position",
                elements=joints,
                lower=tuple(low.tolist()),
                upper=tuple(high.tolist()),
            ),
        ),
        state=(Channel("phase", (1,), "1"),),
        rate_hz=rate_hz,
    )
    provenance = {"seed": 0, "commit": "test", "metrics": {}}
    return Path(export(Swing(), contract, path, mjcf=robot.mjcf(), provenance=provenance))


class StackOnBus:
    """Twin, safety, policy, episode and recorder nodes, and what an operator hears of them.

    Attributes:
        steps: of ``safety/step``, each a dict of the joints' fields (J,) and the step's scalars.
        modes: (monotonic s, mode) at changes; events: of the episode node.
    """

    def __init__(self, bundle: Path, folder: Path, nodes: str = "twin safety policy episode recorder", **more: Any):
        settings = {
            **{"bundle": str(bundle), "record": str(folder), "recorder.min_free_mb": 0, "twin.rendering": "none"},
            **{"episode.judge": "operator", "instruction": "swing", **more},
        }
        self.stack: Stack = load("panda_twin", settings)
        self.bus = LocalBus()
        self.operator = self.bus.node("operator")
        self.store = self.bus.store
        self.steps: list[dict[str, Any]] = []
        self.modes: list[tuple[float, str]] = []
        self.events: list[dict[str, Any]] = []
        self.driving = False
        self.twist = np.zeros(6)
        self.buttons = [0, 0, 0, 0]
        self._out: dict[str, Any] = {}
        self.operator.subscribe("safety/step", DYNAMIC, self._on_step, QoS(depth=1000))
        self.operator.subscribe("safety/mode", STRING, self._on_mode, LATCHED)
        self.operator.subscribe("episode/event", STRING, self._on_event, QoS(depth=100, transient_local=True))
        self.operator.timer(0.02, self._drive)
        for name in nodes.split():
            getattr(self, f"start_{name}")()

    def start_twin(self) -> None:
        self.twin = TwinNode(self.bus.node("twin"), twin_settings(self.stack))

    def start_safety(self) -> None:
        self.safety = SafetyNode(self.bus.node("safety"), self.stack)

    def start_policy(self) -> None:
        self.policy = PolicyNode(self.bus.node("policy"), self.stack)

    def start_episode(self) -> None:
        self.episode = EpisodeNode(self.bus.node("episode"), self.stack)

    def start_recorder(self) -> None:
        self.recorder = RecorderNode(self.bus.node("recorder"), recorder_settings(self.stack))

    @property
    def mode(self) -> str:
        return self.safety.arbiter.mode.name

    @property
    def why(self) -> str:
        return self.safety.arbiter.why

    def until(self, mode: str, seconds: float = 5.0) -> float:
        """Run until the safety node is in a mode; the time that took, s."""
        begin = self.bus.clock.monotonic()
        assert self.bus.run_until(lambda: self.mode == mode, seconds), f"{self.mode} ({self.why}), not {mode}"
        return self.bus.clock.monotonic() - begin

    def say(self, topic: str, type: str, qos: QoS = RELIABLE, **fields: Any) -> None:
        self._publisher(topic, type, qos).publish(self.store.new(type, **fields))

    def raw(self, topic: str, type: str, data: bytes, qos: QoS = RELIABLE) -> None:
        self._publisher(topic, type, qos).publish_raw(data)

    def ask(self, word: str) -> None:
        self.say("safety/request", STRING, data=word)

    def judge(self, word: str) -> None:
        self.say("episode/request", STRING, data=word)

    def estop(self, pressed: bool = True) -> None:
        self.say("safety/estop", "std_msgs/msg/Bool", data=pressed)

    def arm(self) -> None:
        """To mode POLICY, whatever it takes."""
        self.until("HOLD")
        self.bus.run(0.5)
        self.ask("arm")
        self.until("POLICY")

    def running(self, seconds: float = 1.0) -> None:
        """In mode POLICY, in an episode that is being recorded."""
        self.arm()
        self.judge("start")
        self.bus.run(seconds)
        assert self.mode == "POLICY", self.why

    def take_over(self, *twist: float) -> None:
        self.driving, self.twist = True, np.array(twist or [0.1, 0, 0, 0, 0, 0])
        self.buttons = [1, 0, 0, 0]

    def let_go(self) -> None:
        self.buttons, self.twist = [0, 0, 0, 0], np.zeros(6)

    def check_limits(self) -> None:
        """What every test ends with: nothing beyond a limit was ever sent to the robot."""
        driver = self.twin.cell.driver
        assert driver.commands > 50, "the robot was commanded at all"
        assert not any(driver.violations.values()), (driver.violations, driver.worst)
        assert not driver.reflexes and not driver.rejected, (driver.reflex, driver.rejected)

    def column(self, name: str) -> np.ndarray:
        return np.array([step[name] for step in self.steps])

    def _publisher(self, topic: str, type: str, qos: QoS) -> Any:
        if topic not in self._out:
            self._out[topic] = self.operator.publisher(topic, type, qos)
        return self._out[topic]

    def _drive(self) -> None:
        if not self.driving:
            return
        self.say("teleop/deadman", "sensor_msgs/msg/Joy", BEST_EFFORT, buttons=list(self.buttons))
        message = self.store.new("geometry_msgs/msg/TwistStamped")
        names = [(part, axis) for part in (message.twist.linear, message.twist.angular) for axis in "xyz"]
        for (part, axis), value in zip(names, self.twist, strict=True):
            setattr(part, axis, float(value))
        self._publisher("teleop/twist", "geometry_msgs/msg/TwistStamped", BEST_EFFORT).publish(message)

    def _on_step(self, message: Any, received: Any) -> None:
        rows = {
            name: dict(zip(row.interface_names, row.values, strict=True))
            for name, row in zip(message.joint_names, message.interface_values, strict=True)
        }
        step = {**rows.pop("step"), "at": received.monotonic, "stamp": self.store.ns(message.header.stamp)}
        for field in ("proposed", "human", "executed", "limited", "measured"):
            step[field] = np.array([row[field] for row in rows.values()])
        self.steps.append(step)

    def _on_mode(self, message: Any, received: Any) -> None:
        if not self.modes or self.modes[-1][1] != message.data:
            self.modes.append((received.monotonic, message.data))

    def _on_event(self, message: Any, received: Any) -> None:
        self.events.append(json.loads(message.data))
