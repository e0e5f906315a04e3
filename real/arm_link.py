"""The arm's world on the wire: what the safety node says, and what it is asked; the place of the policy in a stack."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from real.core.limits import FloatArray
from real.core.modes import Mode
from real.msgs import MessageStore
from real.nodes.messages import interfaces, scene_of
from real.transport.handle import BEST_EFFORT, LATCHED, RELIABLE, SENSOR, NodeHandle, QoS, Received

HEARTBEAT_S = 0.2
SILENT_S = 0.5
"""Without a word of the safety node for so long it is gone."""
_SLICE_S = 0.02
"""Longest wait between two looks at what has come."""
_WHY = re.compile(rf"({'|'.join(mode.name for mode in Mode)}): ")
"""How the safety node's status begins."""


class ArmLink:
    """Hears and asks the safety node; commands go there as action chunks of one point, never to the robot.

    Args:
        handle: the open node.
        messages: its message types.
        joints: J names, the order of positions here.

    Attributes:
        mode: the safety node's, as last heard; why: of its last status.
        limited: (J,) rad or m, what was sent to the robot last; NaN before the first.
        scene: what a twin told of its scene last.
        held: somebody else asked to hold, and nobody has asked for motion since.
        humans, told: of the steps heard since `count` those in which a person drove, and all.
    """

    def __init__(self, handle: NodeHandle, messages: MessageStore, joints: Sequence[str]) -> None:
        self._handle, self._clock, self._store, self._joints = handle, handle.clock, messages, tuple(joints)
        self.mode, self.why = Mode.INIT, "nothing was heard of the safety node"
        self.limited: FloatArray = np.full(len(self._joints), np.nan)
        self.scene: dict[str, Any] = {}
        self.held = False
        self.humans, self.told = 0, 0
        self._heard = -np.inf
        self._session, self._sequence = secrets.token_hex(4), 0
        self._chunk = handle.publisher("policy/action_chunk", "trajectory_msgs/msg/JointTrajectory", QoS(depth=1))
        self._heartbeat = handle.publisher("policy/heartbeat", "std_msgs/msg/String", BEST_EFFORT)
        self._request = handle.publisher("safety/request", "std_msgs/msg/String", RELIABLE)
        self._pose = handle.publisher("safety/reset_pose", "sensor_msgs/msg/JointState", LATCHED)
        self._scene_request = handle.publisher("scene/request", "std_msgs/msg/String", RELIABLE)
        handle.subscribe("safety/mode", "std_msgs/msg/String", self._on_mode, LATCHED)
        handle.subscribe("safety/step", "control_msgs/msg/DynamicJointState", self._on_step, QoS(depth=50))
        handle.subscribe("safety/executed", "sensor_msgs/msg/JointState", self._on_executed, SENSOR)
        handle.subscribe("safety/request", "std_msgs/msg/String", self._on_request, RELIABLE)
        handle.subscribe("scene/state", "std_msgs/msg/String", self._on_scene, LATCHED)
        handle.subscribe("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", self._on_diagnostics, RELIABLE)
        handle.timer(HEARTBEAT_S, self.beat)

    @property
    def now(self) -> float:
        """Monotonic, s."""
        return self._clock.monotonic()

    @property
    def silent(self) -> bool:
        """Whether the safety node has not been heard for `SILENT_S`."""
        return self.now - self._heard > SILENT_S

    def spin(self, until: float, stop: Callable[[], bool] = lambda: False) -> bool:
        """Hear what comes until the monotonic time ``until``, s; True as soon as ``stop()`` is."""
        self._handle.spin_once(0.0)
        while not stop():
            remaining = until - self.now
            if remaining <= 1e-9:
                return False
            self._handle.spin_once(min(remaining, _SLICE_S))
        return True

    def ask(self, word: str) -> None:
        """Ask the safety node."""
        self._request.publish(self._store.new("std_msgs/msg/String", data=word))

    def beat(self) -> None:
        """Tell the session: at `HEARTBEAT_S`, and when it changes."""
        self._heartbeat.publish(self._store.new("std_msgs/msg/String", data=self._session))

    def lead(self, pose: FloatArray) -> None:
        """Where the next reset leads, (J,) rad or m."""
        position = np.array(pose, dtype=np.float64)
        self._pose.publish(self._store.new("sensor_msgs/msg/JointState", name=list(self._joints), position=position))

    def request_scene(self, text: str) -> None:
        """Ask a twin for a scene, in JSON."""
        self.scene = {}
        self._scene_request.publish(self._store.new("std_msgs/msg/String", data=text))

    def send(self, position: FloatArray, period_s: float, stamp_ns: int) -> None:
        """Propose where the joints (J,) are to be ``period_s`` after the observation of ``stamp_ns``."""
        new, store = self._store.new, self._store
        point = new(
            "trajectory_msgs/msg/JointTrajectoryPoint",
            positions=np.array(position, dtype=np.float64),
            time_from_start=store.duration(period_s),
        )
        stamp = store.time(stamp_ns or self._clock.now())
        header = new("std_msgs/msg/Header", stamp=stamp, frame_id=f"{self._session}/{self._sequence}")
        message = new("trajectory_msgs/msg/JointTrajectory", header=header, points=[point])
        message.joint_names = list(self._joints)
        self._chunk.publish(message)
        self._sequence += 1

    def count(self) -> None:
        """Begin to count the steps that are heard."""
        self.humans = self.told = 0

    def _on_mode(self, message: Any, received: Received) -> None:
        if message.data not in Mode.__members__:
            return
        left = self.mode == Mode.POLICY != Mode[message.data]
        self.mode, self._heard = Mode[message.data], received.monotonic
        if left:  # what is still under way belongs to a session that is over
            self._session, self._sequence = secrets.token_hex(4), 0
            self.beat()

    def _on_step(self, message: Any, received: Received) -> None:
        step = interfaces(message, "step")
        self._heard = received.monotonic
        self.told += 1
        self.humans += step.get("mode") == Mode.HUMAN

    def _on_executed(self, message: Any, received: Received) -> None:
        self._heard = received.monotonic
        if tuple(message.name) == self._joints and len(message.position) == len(self._joints):
            self.limited = np.array(message.position, dtype=np.float64)

    def _on_request(self, message: Any, received: Received) -> None:
        ours = {e.gid for e in self._handle.publishers("safety/request") if e.node == self._handle.full_name}
        if received.publisher in ours:
            return
        if message.data == "hold":
            self.held = True
        elif message.data in ("arm", "reset"):
            self.held = False

    def _on_scene(self, message: Any, received: Received) -> None:
        self.scene = scene_of(message)

    def _on_diagnostics(self, message: Any, received: Received) -> None:
        for status in message.status:
            if _WHY.match(status.message) and status.name.rpartition("/")[2].startswith("safety"):
                self.why = status.message.partition(": ")[2]
