"""The twin as a node: a robot driver, cameras and an object tracker, moved by physics instead of a robot.

    python -m real.nodes.twin --ros-args -p stack:=panda_twin -p twin.gap:=large -p twin.seed:=3

Beside a driver's topics it takes ``scene/request`` (JSON: ``{"seed": n, "task": name, "teleport": bool}``) and
``driver/reset`` (any text ends a reflex), and tells ``scene/state`` (JSON), what a real cell could not know.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from real.msgs import MessageStore
from real.msgs import store as message_store
from real.nodes.run import run_node
from real.stack import Stack
from real.transport.handle import LATCHED, RELIABLE, SENSOR, NodeHandle, QoS, Received
from real.twin.arm import Joints
from real.twin.camera_process import start_cameras
from real.twin.cell import Cell
from real.twin.delay import DelayLine
from real.twin.messages import Messages
from real.twin.pictures import Pictures, PictureSink
from real.twin.scene import SceneError
from real.twin.settings import FORWARD, TRAJECTORY, Controller, TwinSettings

_TYPES = {TRAJECTORY: "trajectory_msgs/msg/JointTrajectory", FORWARD: "std_msgs/msg/Float64MultiArray"}
_ALL = QoS(depth=64)
"""Commands that wait while the machine is busy: the monitor judges every one of them."""


class TwinNode:
    """A `Cell` on a transport. Works in real time and on virtual time alike.

    Args:
        handle: the node's place in the graph.
        settings: of the twin.
        pictures: what draws the cameras; None: this node does, unless the settings say ``none``.
        messages: the message types; None: those of `real.msgs.store`.

    Attributes:
        cell: the physics, the driver and the scene.

    Raises:
        StackError, SceneError: settings that cannot work.
    """

    def __init__(
        self,
        handle: NodeHandle,
        settings: TwinSettings,
        pictures: PictureSink | None = None,
        messages: MessageStore | None = None,
    ) -> None:
        self._handle, self._settings = handle, settings
        store = messages or message_store()
        self._messages = Messages(store)
        self.cell = Cell(settings, handle.clock.monotonic())
        if pictures is None and settings.rendering != "none" and settings.cameras:
            pictures = Pictures(handle, settings, store)
        self._pictures = pictures
        self._note = ""
        self._bad_requests = 0
        self._told = ""
        self._late_joints: DelayLine[tuple[int, Joints]] = DelayLine()
        self._late_poses: DelayLine[tuple[int, dict[str, np.ndarray]]] = DelayLine()
        self._advertise()
        self._listen()
        if self._pictures is not None:
            self._pictures.scene(self.cell.arm.model)
        self._judge()
        rate = min(settings.joint_rate_hz, 1.0 / self.cell.arm.timestep)
        self._timer = handle.timer(1.0 / rate, self._tick)
        handle.timer(1.0 / settings.object_rate_hz, self._track)
        handle.timer(1.0 / settings.state_rate_hz, self._judge)
        handle.timer(1.0, self._diagnose)
        if self._pictures is not None:
            handle.timer(1.0 / settings.camera_rate_hz, self._look)

    def close(self) -> None:
        """Free the cameras; the handle stays open."""
        if self._pictures is not None:
            self._pictures.close()

    def request_scene(self, request: dict[str, Any]) -> None:
        """Lay out another scene: keys seed, task and teleport; what is not given stays.

        Raises:
            SceneError: an unknown key or value, or an arm that stands where a thing is to be.
        """
        self.cell.change(request)
        if self._pictures is not None:
            self._pictures.scene(self.cell.arm.model)
        self._late_poses.clear()

    def _advertise(self) -> None:
        publisher = self._handle.publisher
        self._joints = publisher("joint_states", "sensor_msgs/msg/JointState", RELIABLE)
        self._poses = {
            name: publisher(f"objects/{name}/pose", "geometry_msgs/msg/PoseStamped", SENSOR)
            for name in self.cell.poses()
        }
        self._state = publisher("scene/state", "std_msgs/msg/String", LATCHED)
        self._diagnostics = publisher("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", RELIABLE)

    def _listen(self) -> None:
        for topic, controller in self.cell.driver.controllers.items():
            self._handle.subscribe(topic, _TYPES[controller.type], self._commanded(topic), _ALL)
        self._handle.subscribe("scene/request", "std_msgs/msg/String", self._requested)
        self._handle.subscribe("driver/reset", "std_msgs/msg/String", self._reset)

    def _commanded(self, topic: str) -> Any:
        def take(message: Any, received: Received) -> None:
            self.cell.driver.receive(topic, message, received.monotonic, received.publisher)

        return take

    def _reset(self, message: Any, received: Received) -> None:
        self.cell.driver.reset()
        self._judge()

    def _requested(self, message: Any, received: Received) -> None:
        try:
            request = json.loads(message.data)
            if not isinstance(request, dict):
                raise SceneError(f"a scene request is a JSON mapping, not {message.data[:80]!r}")
            self.request_scene(request)
            self._note = ""
        except (ValueError, RecursionError, SceneError) as error:
            self._bad_requests += 1
            self._note = str(error)
        self._judge()

    def _tick(self) -> None:
        """Physics up to now, then what the encoders show."""
        clock = self._handle.clock
        now, stamp = clock.monotonic(), clock.now()
        self.cell.advance(now)
        self._late_joints.push(now + self._settings.joint_latency_s, (stamp, self.cell.measured_joints()))
        for moment, joints in self._late_joints.pop(now):
            self._joints.publish(self._messages.joint_state(moment, self.cell.arm.joint_names, joints))
        if self._pictures is not None:
            self._pictures.tick(now)

    def _track(self) -> None:
        clock = self._handle.clock
        now = clock.monotonic()
        self._late_poses.push(now + self._settings.object_latency_s, (clock.now(), self.cell.measured_poses()))
        for moment, poses in self._late_poses.pop(now):
            for name, pose in poses.items():
                self._poses[name].publish(self._messages.pose(moment, pose))

    def _look(self) -> None:
        if self._pictures is not None:
            clock = self._handle.clock
            self._pictures.show(self.cell.arm.data.qpos, clock.now(), clock.monotonic())

    def _judge(self) -> None:
        """Tell the scene's state where it has changed."""
        self.cell.judge()
        state = {**self.cell.state(), "error": self._note, "bad_requests": self._bad_requests}
        text = json.dumps(state)
        if text != self._told:
            self._told = text
            self._state.publish(self._messages.text(text))

    def _diagnose(self) -> None:
        driver, works = self.cell.driver, self.cell.clockwork
        problems = {
            "in reflex": bool(driver.reflex),
            "commands beyond a limit": any(driver.violations.values()),
            "two publishers of commands": driver.foreign > 0,
            "slower than real time": works.debt_s > 0,
            "physics diverged": self.cell.arm.failures > 0,
        }
        pictures = {} if self._pictures is None else self._pictures.report()
        values = {
            **self.cell.monitor(),
            "debt_s": round(works.debt_s, 4),
            "tick_missed": self._timer.missed,
            "tick_worst_lateness_s": round(self._timer.worst_lateness_s, 5),
            **pictures,
        }
        self._diagnostics.publish(
            self._messages.diagnostics(
                self._handle.clock.now(),
                f"{self._handle.full_name}: driver",
                [what for what, is_so in problems.items() if is_so],
                values,
            )
        )


def settings_of(stack: Stack) -> TwinSettings:
    """The twin's settings in a stack: its section ``twin``, with the stack's controllers and timing where not given.

    Raises:
        StackError: as `TwinSettings.from_mapping`.
    """
    given = dict(stack.twin or {})
    if stack.controllers:
        found = tuple(Controller(item.type, item.topic, item.joints) for item in stack.controllers)
        given.setdefault("controllers", [vars(controller) for controller in found])
        given.setdefault("cmd_timeout_s", min(item.time_out_s for item in stack.controllers))
    given.setdefault("command_period_s", 1.0 / stack.safety.rate_hz)
    return TwinSettings.from_mapping(given)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the twin of a stack until it is told to stop."""

    def build(handle: NodeHandle, stack: Stack) -> TwinNode:
        settings = settings_of(stack)
        separate = settings.rendering == "process" and bool(settings.cameras)
        pictures = start_cameras(settings, stack, argv) if separate else None
        return TwinNode(handle, settings, pictures, message_store(stack.distro))

    return run_node("twin", build, argv)


if __name__ == "__main__":
    raise SystemExit(main())
