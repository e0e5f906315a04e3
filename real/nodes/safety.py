"""The safety node: the only one that commands the robot.

    python -m real.nodes.safety --ros-args -p stack:=panda_twin

It decides once a tick who drives (`real.core.arbiter`), takes that one's target, limits it (`real.core.limiter`) and
sends it; a robot that nobody drives is held where it was commanded last. It imports no torch.

It is not safety-rated: a physical robot needs a hardware emergency stop that does not depend on it.
"""

from __future__ import annotations

import sys
from typing import Any

import mujoco
import numpy as np

from real.core.arbiter import Arbiter, ArbiterSettings, Decision, Inputs, Mode
from real.core.chunks import ChunkBuffer
from real.core.limiter import Limited
from real.core.limits import FloatArray
from real.errors import RealError
from real.msgs import MessageStore, store
from real.nodes.diagnostics import ERROR, OK, WARN, Diagnostics
from real.nodes.run import run_node
from real.nodes.safety_inputs import CameraFeed, JointFeed, PolicyFeed, ResetFeed, TeleopFeed
from real.nodes.safety_motion import Motion
from real.nodes.safety_outputs import Commands, Report
from real.stack import Stack
from real.stack_robot import StackRobot, open_robot
from real.transport.handle import BEST_EFFORT, LATCHED, RELIABLE, SENSOR, NodeHandle, QoS, Received

NOTICE = "the safety node is not safety-rated: a robot needs a hardware emergency stop"
_GRAPH_S = 0.5
"""Between two looks at who else commands the robot."""
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
        robot = open_robot(stack)
        joints, limits = robot.joints, robot.limits
        dt = 1.0 / settings.rate_hz
        self._motion = Motion(stack, robot, dt)
        self._buffer = ChunkBuffer(
            len(joints), limits, max_age_s=settings.chunk_age_s, max_jump=settings.max_jump, hold_s=settings.hold_s
        )
        self.arbiter = Arbiter(ArbiterSettings(max_bad_commands=settings.latch_after, auto_rearm=settings.auto_rearm))
        names = [stack.driver_name(joint) for joint in joints]
        self._joints = JointFeed(names, limits, _hinges(robot), settings.joint_age_s)
        self._cameras = CameraFeed(
            {name: stack.cameras[name] for name in settings.require_cameras}, settings.camera_frozen_after
        )
        self._teleop = TeleopFeed(settings.teleop_age_s)
        self._policy = PolicyFeed(joints, settings)
        self._reset = ResetFeed(robot.home, limits)
        self._estop, self._was_pressed, self._bad = False, False, 0
        self._requests: list[str] = []
        self._unplaced = "waiting for joint states"
        self._lapsed = False
        self._stamp_ns, self._sequence = 0, -1
        self._publishers, self._others_seen = 1, self._clock.monotonic() - _GRAPH_S
        self._ticked, self._patience = self._clock.monotonic(), min(one.time_out_s for one in stack.controllers)
        self._tick_count, self._every = 0, max(1, round(settings.rate_hz / _REPORT_HZ))
        self._commands = Commands(handle, self._store, stack, joints, dt)
        self._diagnostics = Diagnostics(handle, self._store)
        self._report = Report(handle, self._store, joints)
        self._mode = handle.publisher("safety/mode", "std_msgs/msg/String", LATCHED)
        self._say_mode()
        self._listen(stack)
        self._timer = handle.timer(dt, self._tick)
        handle.timer(1.0, self._every_second)

    @property
    def missed_ticks(self) -> int:
        """See above."""
        return self._timer.missed

    @property
    def commanded(self) -> FloatArray:
        """(J,) rad or m, what was sent last."""
        return self._motion.commanded

    def _listen(self, stack: Stack) -> None:
        subscribe = self._handle.subscribe
        subscribe("joint_states", "sensor_msgs/msg/JointState", self._joints.take, QoS(depth=10, reliable=False))
        subscribe("policy/action_chunk", "trajectory_msgs/msg/JointTrajectory", self._take_chunk, QoS(depth=1))
        subscribe("policy/heartbeat", "std_msgs/msg/String", self._policy.take_heartbeat, BEST_EFFORT)
        subscribe("teleop/twist", "geometry_msgs/msg/TwistStamped", self._teleop.take_twist, BEST_EFFORT)
        subscribe("teleop/deadman", "sensor_msgs/msg/Joy", self._teleop.take_deadman, BEST_EFFORT)
        subscribe("safety/request", "std_msgs/msg/String", self._take_request, RELIABLE)
        subscribe("safety/reset_pose", "sensor_msgs/msg/JointState", self._reset.take, LATCHED)
        subscribe("safety/estop", "std_msgs/msg/Bool", self._take_estop, RELIABLE)
        for name in self._settings.require_cameras:
            topic = stack.cameras[name].topic
            compressed = topic.endswith("/compressed")
            kind = "CompressedImage" if compressed else "Image"
            subscribe(topic, f"sensor_msgs/msg/{kind}", self._camera(name, compressed), SENSOR, raw=True)

    def _camera(self, name: str, compressed: bool) -> Any:
        return lambda cdr, received: self._cameras.take(name, cdr, compressed, received)

    def _take_chunk(self, message: Any, received: Received) -> None:
        now = self._clock.monotonic()
        chunk = self._policy.chunk(message, received, lambda stamp: self._joints.age_of(stamp, now))
        if chunk is None:
            self._bad += 1
            return
        bad = self._buffer.consecutive_bad
        if not self._buffer.push(chunk, now):
            self._stamp_ns, self._sequence = chunk.stamp_ns, chunk.sequence
        self._bad += self._buffer.consecutive_bad > bad

    def _take_request(self, message: Any, received: Received) -> None:
        self._requests.append(message.data)

    def _take_estop(self, message: Any, received: Received) -> None:
        self._estop = bool(message.data)
        self._was_pressed = self._was_pressed or self._estop

    def _tick(self) -> None:
        """One control cycle."""
        now, motion = self._clock.monotonic(), self._motion
        if now - self._ticked > self._patience and motion.placed:
            self._log(f"no command for {now - self._ticked:.2f} s: the robot's controllers have stopped it")
            motion.lose()
        self._ticked = now
        if not motion.placed:
            self._unplaced = motion.place(self._joints, now)
        inputs, before = self._inputs(now), self.arbiter.mode
        decision = self.arbiter.update(inputs)
        if decision.changed:
            self._change(decision, before, inputs)
        self._say(decision)
        if decision.mode == Mode.INIT or not motion.placed:
            return
        if decision.mode == Mode.HOLD:
            motion.settle(self._joints, now)
        proposed = self._buffer.sample(now) if decision.mode == Mode.POLICY else None
        target, limited = self._move(decision, proposed)
        self._commands.send(limited)
        self._report.note(limited)
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
            joints_fresh=self._joints.freshness.fresh(now) and self._motion.placed,
            policy_fresh=self._policy.freshness.fresh(now),
            cameras_fresh=self._cameras.fresh(now),
            has_target=self._buffer.sample(now) is not None,
            deadman=self._teleop.held,
            human_fresh=self._teleop.fresh(now),
            requests=requests,
            estop=estop,
            bad_commands=bad,
            aligned=self._motion.aligned(self._joints),
            publishers=self._publishers,
            reset_done=self.arbiter.mode == Mode.RESET and self._motion.arrived(self._reset.pose),
        )

    def _change(self, decision: Decision, before: Mode, inputs: Inputs) -> None:
        """What a new mode begins with."""
        if decision.flush:
            self._buffer.disarm()
        if decision.mode == Mode.POLICY:
            self._buffer.arm(self._policy.session, self._motion.commanded)
        self._motion.enter(decision.mode)
        self._stamp_ns, self._sequence = 0, -1
        # What stopped the policy though nobody asked for it spoils these steps, too.
        self._lapsed = before == Mode.POLICY and decision.mode == Mode.HOLD and "hold" not in inputs.requests
        self._say_mode()

    def _move(self, decision: Decision, proposed: FloatArray | None) -> tuple[FloatArray | None, Limited]:
        try:
            velocity = self._buffer.velocity(self._clock.monotonic())
            return self._motion.move(decision, proposed, velocity, self._reset.pose, self._teleop)
        except RealError as error:  # nothing that a message says may end this node
            self._bad += 1
            self._log(f"a target was refused: {error}")
            return None, self._motion.stop()

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
            "human": self._motion.human,
            "executed": target,
            "limited": limited.position,
            "measured": self._joints.position,
        }
        fresh = self._joints.freshness.fresh(now) and self._cameras.fresh(now)
        more = {
            "observation_stamp": 1e-9 * self._stamp_ns if self._sequence >= 0 else np.nan,
            "joint_age_s": self._joints.freshness.age(now),
            "chunk_sequence": float(self._sequence),
            "valid": float(fresh and not self._lapsed),
        }
        self._report.step(columns, limited, decision, more)

    def _say(self, decision: Decision) -> None:
        """Reasons to the log and, at a change, to diagnostics."""
        for reason in decision.reasons:
            self._log(reason)
        if decision.changed:
            self._diagnose()

    def _log(self, text: str) -> None:
        print(f"[safety] {self.arbiter.mode.name}: {text}", file=sys.stderr, flush=True)

    def _say_mode(self) -> None:
        self._mode.publish(self._store.new("std_msgs/msg/String", data=self.arbiter.mode.name))

    def _every_second(self) -> None:
        self._say_mode()  # again, for those who missed it
        self._diagnose()

    def _diagnose(self) -> None:
        now, mode = self._clock.monotonic(), self.arbiter.mode
        level = ERROR if mode in (Mode.FAULT, Mode.ESTOP) else OK if self._motion.placed else WARN
        joints = self._joints
        self._diagnostics.publish(
            level,
            f"{mode.name}: {self._unplaced or self.arbiter.why}",
            {
                "joint states": joints.freshness.why(now) or "fresh",
                "cameras": self._cameras.why(now) or "fresh",
                "policy": self._policy.freshness.why(now) or "fresh",
                "chunks accepted": self._buffer.accepted,
                "chunks refused": dict(self._buffer.counters + self._policy.refused),
                "joint states refused": f"{joints.refused}, the last: {joints.refusal}" if joints.refused else 0,
                "malformed": dict(self._handle.malformed),
                "malformed pictures": self._cameras.malformed,
                "unknown requests": self.arbiter.unknown_requests,
                "reset poses refused": self._reset.refused,
                "missed ticks": self._timer.missed,
                "worst lateness, s": f"{self._timer.worst_lateness_s:.4f}",
                "publishers of commands": self._publishers,
            },
        )


def _hinges(robot: StackRobot) -> Any:
    hinge = int(mujoco.mjtJoint.mjJNT_HINGE)
    return np.array([int(robot.model.joint(joint).type[0]) == hinge for joint in robot.joints])


def main() -> int:
    """Entry point."""
    print(f"[safety] {NOTICE}", file=sys.stderr, flush=True)
    return run_node("safety", SafetyNode)


if __name__ == "__main__":
    sys.exit(main())
