"""The safety node: the only one that commands the robot.

    python -m real.nodes.safety --ros-args -p stack:=panda_twin

It decides once a tick who drives (`real.core.arbiter`), takes that one's target, limits it (`real.core.limiter`) and
sends it; a robot that nobody drives is held where it was commanded last. It imports no torch.

It is not safety-rated: a physical robot needs a hardware emergency stop that does not depend on it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from real.core.arbiter import Arbiter, ArbiterSettings, Decision, Inputs, Mode, Source
from real.core.chunks import ChunkBuffer
from real.core.kinematics import ToolKinematics
from real.core.limiter import Limited, Limiter
from real.core.limits import FloatArray, Workspace
from real.msgs import MessageStore, store
from real.nodes.diagnostics import ERROR, OK, WARN, Diagnostics
from real.nodes.run import run_node
from real.nodes.safety_inputs import CameraFeed, JointFeed, PolicyFeed, TeleopFeed
from real.nodes.safety_outputs import Commands, Report
from real.stack import Stack
from real.stack_robot import StackRobot, open_robot
from real.transport.handle import BEST_EFFORT, LATCHED, RELIABLE, SENSOR, NodeHandle, QoS, Received

NOTICE = "the safety node is not safety-rated: a robot needs a hardware emergency stop"
_GRAPH_S = 0.5
"""Between two looks at who else commands the robot."""
_LEAD = 0.05
"""rad or m: a person's target is at most so far ahead of what the limiter has made of it."""
_REPORT_HZ = 100.0
"""Steps are told at most so often."""


class SafetyNode:
    """See above.

    Args:
        handle: the open node.
        stack: robot, limits, controllers and the section ``safety``.

    Attributes:
        arbiter: who drives.
        missed_ticks: control ticks left out because the machine was late.

    Raises:
        StackError: a robot or limits that do not fit.
    """

    def __init__(self, handle: NodeHandle, stack: Stack, messages: MessageStore | None = None) -> None:
        settings = stack.safety
        self._handle, self._clock, self._settings = handle, handle.clock, settings
        self._store = messages or store(stack.distro)
        self._robot: StackRobot = open_robot(stack)
        joints, limits = self._robot.joints, self._robot.limits
        self._dt = 1.0 / settings.rate_hz
        self._kinematics = self._tool(stack)
        self._limiter = Limiter(limits, self._dt, self._workspace(stack))
        self._buffer = ChunkBuffer(
            len(joints), limits, max_age_s=settings.chunk_age_s, max_jump=settings.max_jump, hold_s=settings.hold_s
        )
        self._buffer.disarm()
        self.arbiter = Arbiter(ArbiterSettings(max_bad_commands=settings.latch_after, auto_rearm=settings.auto_rearm))
        self._gripper = np.array([joint in stack.robot.gripper for joint in joints])
        self._joints = JointFeed([stack.driver_name(joint) for joint in joints], settings.joint_age_s)
        self._cameras = CameraFeed(
            {name: stack.cameras[name] for name in settings.require_cameras}, settings.camera_frozen_after
        )
        self._teleop = TeleopFeed(settings.teleop_age_s)
        self._policy = PolicyFeed(joints, settings)
        self._estop, self._was_pressed, self._bad = False, False, 0
        self._requests: list[str] = []
        self._human: FloatArray | None = None
        self._settle: FloatArray | None = None
        self._placed = False
        self._reset_pose, self._reset_refused = self._robot.home, 0
        self._stamp_ns, self._sequence = 0, -1
        self._publishers, self._others_seen = 1, -_GRAPH_S
        self._tick_count, self._every = 0, max(1, round(settings.rate_hz / _REPORT_HZ))
        self._commands = Commands(handle, self._store, stack, joints, self._dt)
        self._diagnostics = Diagnostics(handle, self._store)
        self._report = Report(handle, self._store, joints)
        self._mode = handle.publisher("safety/mode", "std_msgs/msg/String", LATCHED)
        self._say_mode()
        self._listen(stack)
        self._timer = handle.timer(self._dt, self._tick)
        handle.timer(1.0, self._diagnose)

    @property
    def missed_ticks(self) -> int:
        """See above."""
        return self._timer.missed

    @property
    def commanded(self) -> FloatArray:
        """(J,) rad or m, what was sent last."""
        return self._limiter.position

    def _tool(self, stack: Stack) -> ToolKinematics | None:
        robot = self._robot
        return ToolKinematics(robot.mjcf, robot.joints, robot.tool_site) if robot.tool_site else None

    def _workspace(self, stack: Stack) -> Workspace | None:
        box = stack.limits.workspace
        if box is None or self._kinematics is None:
            return None
        return Workspace(np.array(box.lower), np.array(box.upper), self._kinematics.position)

    def _listen(self, stack: Stack) -> None:
        subscribe = self._handle.subscribe
        subscribe("joint_states", "sensor_msgs/msg/JointState", self._joints.take, QoS(depth=10, reliable=False))
        subscribe("policy/action_chunk", "trajectory_msgs/msg/JointTrajectory", self._take_chunk, QoS(depth=1))
        subscribe("policy/heartbeat", "std_msgs/msg/String", self._policy.take_heartbeat, BEST_EFFORT)
        subscribe("teleop/twist", "geometry_msgs/msg/TwistStamped", self._teleop.take_twist, BEST_EFFORT)
        subscribe("teleop/deadman", "sensor_msgs/msg/Joy", self._teleop.take_deadman, BEST_EFFORT)
        subscribe("safety/request", "std_msgs/msg/String", self._take_request, RELIABLE)
        subscribe("safety/reset_pose", "sensor_msgs/msg/JointState", self._take_reset_pose, LATCHED)
        subscribe("safety/estop", "std_msgs/msg/Bool", self._take_estop, RELIABLE)
        for name in self._settings.require_cameras:
            topic = stack.cameras[name].topic
            kind = "CompressedImage" if topic.endswith("/compressed") else "Image"
            subscribe(topic, f"sensor_msgs/msg/{kind}", self._camera(name), SENSOR, raw=True)

    def _camera(self, name: str) -> Any:
        return lambda cdr, received: self._cameras.take(name, cdr, received)

    def _take_chunk(self, message: Any, received: Received) -> None:
        chunk = self._policy.chunk(message, received, self._clock.now())
        if chunk is None:
            self._bad += 1
            return
        bad = self._buffer.consecutive_bad
        if not self._buffer.push(chunk, self._clock.monotonic()):
            self._stamp_ns, self._sequence = chunk.stamp_ns, chunk.sequence
        self._bad += self._buffer.consecutive_bad > bad

    def _take_request(self, message: Any, received: Received) -> None:
        self._requests.append(message.data)

    def _take_reset_pose(self, message: Any, received: Received) -> None:
        """Where "reset" leads from now on: all joints, by our names, within the limits."""
        limits, names = self._robot.limits, list(message.name)
        if sorted(names) != sorted(self._robot.joints) or len(message.position) != len(names):
            self._reset_refused += 1
            return
        pose = np.array([float(message.position[names.index(joint)]) for joint in self._robot.joints])
        if not np.isfinite(pose).all() or (pose < limits.lower).any() or (pose > limits.upper).any():
            self._reset_refused += 1
            return
        self._reset_pose = pose

    def _take_estop(self, message: Any, received: Received) -> None:
        self._estop = bool(message.data)
        self._was_pressed = self._was_pressed or self._estop

    def _tick(self) -> None:
        """One control cycle."""
        now = self._clock.monotonic()
        decision = self.arbiter.update(self._inputs(now))
        if decision.changed:
            self._change(decision)
        self._say(decision)
        if decision.mode == Mode.INIT:
            return
        proposed = self._buffer.sample(now) if decision.mode == Mode.POLICY else None
        target, limited = self._move(decision, proposed)
        self._commands.send(limited)
        self._tick_count += 1
        if self._tick_count % self._every == 0 or decision.changed:
            self._tell(decision, now, proposed, target, limited)

    def _inputs(self, now: float) -> Inputs:
        requests, self._requests = tuple(self._requests), []
        estop, self._was_pressed = self._estop or self._was_pressed or self._teleop.take_estop(), False
        bad, self._bad = self._bad + self._teleop.take_bad(), 0
        if now - self._others_seen >= _GRAPH_S:
            self._publishers, self._others_seen = self._commands.publishers(), now
        return Inputs(
            now=now,
            joints_fresh=self._joints.freshness.fresh(now),
            policy_fresh=self._policy.freshness.fresh(now),
            cameras_fresh=self._cameras.fresh(now),
            has_target=self._buffer.sample(now) is not None,
            deadman=self._teleop.held,
            human_fresh=self._teleop.fresh(now),
            requests=requests,
            estop=estop,
            bad_commands=bad,
            aligned=self._aligned(),
            publishers=self._publishers,
            reset_done=self.arbiter.mode == Mode.RESET and self._has_reset(),
        )

    def _aligned(self) -> bool:
        """Whether the robot is where it was commanded: else a driver of its own moved or stopped it."""
        apart = np.abs(self._joints.position - self._limiter.position)[~self._gripper]
        return bool((apart <= self._settings.align_tolerance).all())

    def _has_reset(self) -> bool:
        return not self._limiter.moving and bool(np.allclose(self._limiter.position, self._reset_pose, atol=1e-3))

    def _change(self, decision: Decision) -> None:
        """What a new mode begins with."""
        if decision.flush:
            self._buffer.disarm()
        if decision.mode == Mode.POLICY:
            self._buffer.arm(self._policy.session, self._limiter.position)
        if decision.mode == Mode.HOLD and not self._placed:
            self._limiter.reset(self._joints.position)
            self._placed = True
        # Where a driver's reflex or a person's hand put it: the command goes there, as slowly as any other.
        moved = decision.mode == Mode.HOLD and not self._limiter.moving and not self._aligned()
        self._settle = self._joints.position.copy() if moved else None
        self._human = self._limiter.position.copy() if decision.mode == Mode.HUMAN else None
        self._say_mode()

    def _move(self, decision: Decision, proposed: FloatArray | None) -> tuple[FloatArray | None, Limited]:
        """The target of this tick, if any, and what is made of it."""
        if decision.source == Source.POLICY and proposed is not None:
            return proposed, self._limiter.step(proposed)
        if decision.source == Source.HUMAN and self._human is not None:
            velocity = self._human_velocity()
            lead = np.clip(self._human - self._limiter.position, -_LEAD, _LEAD)
            self._human = self._with_gripper(self._limiter.position + lead + velocity * self._dt)
            return self._human, self._limiter.step(self._human, velocity)
        if decision.source == Source.RESET:
            return self._reset_pose, self._limiter.step(self._reset_pose)
        if self._settle is not None and decision.mode == Mode.HOLD:
            return None, self._limiter.step(self._settle)
        return None, self._limiter.stop()

    def _human_velocity(self) -> FloatArray:
        if self._kinematics is None:
            return np.zeros(len(self._gripper))
        velocity = self._kinematics.twist_to_velocity(self._limiter.position, self._teleop.twist, self._robot.limits)
        return np.where(self._gripper, 0.0, velocity)

    def _with_gripper(self, target: FloatArray) -> FloatArray:
        if not self._teleop.gripper:
            return target
        limits = self._robot.limits
        return np.where(self._gripper, limits.upper if self._teleop.gripper > 0 else limits.lower, target)

    def _tell(
        self,
        decision: Decision,
        now: float,
        proposed: FloatArray | None,
        target: FloatArray | None,
        limited: Limited,
    ) -> None:
        columns = {
            "proposed": proposed,
            "human": self._human if decision.mode == Mode.HUMAN else None,
            "executed": target,
            "limited": limited.position,
            "measured": self._joints.position,
        }
        more = {
            "observation_stamp": 1e-9 * self._stamp_ns,
            "joint_age_s": self._joints.freshness.age(now),
            "chunk_sequence": float(self._sequence),
            "valid": float(self._joints.freshness.fresh(now) and self._cameras.fresh(now)),
        }
        self._report.step(columns, limited, decision, more)

    def _say(self, decision: Decision) -> None:
        """Reasons to the log and, at a change, to diagnostics."""
        for reason in decision.reasons:
            print(f"[safety] {decision.mode.name}: {reason}", file=sys.stderr, flush=True)
        if decision.changed:
            self._diagnose()

    def _say_mode(self) -> None:
        self._mode.publish(self._store.new("std_msgs/msg/String", data=self.arbiter.mode.name))

    def _diagnose(self) -> None:
        now, mode = self._clock.monotonic(), self.arbiter.mode
        level = ERROR if mode in (Mode.FAULT, Mode.ESTOP) else WARN if mode == Mode.INIT else OK
        self._diagnostics.publish(
            level,
            f"{mode.name}: {self.arbiter.why}",
            {
                "joint states": self._joints.freshness.why(now) or "fresh",
                "cameras": self._cameras.why(now) or "fresh",
                "policy": self._policy.freshness.why(now) or "fresh",
                "chunks accepted": self._buffer.accepted,
                "chunks refused": dict(self._buffer.counters + self._policy.refused),
                "joint states refused": dict(self._joints.refused),
                "malformed": dict(self._handle.malformed),
                "unknown requests": self.arbiter.unknown_requests,
                "reset poses refused": self._reset_refused,
                "missed ticks": self._timer.missed,
                "worst lateness, s": f"{self._timer.worst_lateness_s:.4f}",
                "publishers of commands": self._publishers,
            },
        )


def main() -> int:
    """Entry point."""
    print(f"[safety] {NOTICE}", file=sys.stderr, flush=True)
    return run_node("safety", SafetyNode)


if __name__ == "__main__":
    sys.exit(main())
