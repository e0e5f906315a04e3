"""What the safety node has the robot do in each mode: targets, and what the limiter makes of them. No torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from real.core.kinematics import ToolKinematics
from real.core.limiter import Limited, Limiter
from real.core.limits import FloatArray, Workspace
from real.core.modes import Decision, Mode, Source
from real.nodes.safety_inputs import JointFeed, TeleopFeed
from real.stack import Stack
from real.stack_robot import StackRobot

LEAD = 0.05
"""rad or m: a person's target is at most so far ahead of what the limiter has made of it."""
REST_S = 0.1
"""Joints that have not moved for so long are at rest."""


class Motion:
    """From who drives to the next command.

    It begins once the joints are at rest within their limits: a command that does not start from where the robot is
    would be a jump. Who lost sight of the robot for longer than its controllers wait (`lose`) begins anew.

    Args:
        stack, robot: limits and tool.
        dt: s between two commands.

    Attributes:
        placed: it knows where the robot is commanded; before, nothing may be sent.
        human: (J,) where a person leads the arm; None unless one does.
    """

    def __init__(self, stack: Stack, robot: StackRobot, dt: float) -> None:
        self._limits, self._dt = robot.limits, dt
        self._kinematics = ToolKinematics(robot.mjcf, robot.joints, robot.tool_site) if robot.tool_site else None
        self._limiter = Limiter(robot.limits, dt, self._workspace(stack))
        self._gripper: NDArray[np.bool_] = np.array([joint in stack.robot.gripper for joint in robot.joints])
        self._tolerance = stack.safety.align_tolerance
        self.placed = False
        self.human: FloatArray | None = None
        self._settle: FloatArray | None = None
        self._settles = False

    def _workspace(self, stack: Stack) -> Workspace | None:
        box = stack.limits.workspace
        if box is None or self._kinematics is None:
            return None
        return Workspace(np.array(box.lower), np.array(box.upper), self._kinematics.position)

    @property
    def commanded(self) -> FloatArray:
        """(J,) rad or m, what was made last."""
        return self._limiter.position

    def place(self, joints: JointFeed, now: float) -> str:
        """Begin where the robot is; why that cannot be, in words, else ""."""
        if why := joints.freshness.why(now):
            return why
        if not joints.resting_s(now) >= REST_S:
            return "the robot moves by itself"
        at = joints.within()
        if at is None:
            limits, position = self._limits, joints.position
            joint = int(np.argmax(np.maximum(limits.lower - position, position - limits.upper)))
            return (
                f"joint {limits.names[joint]!r} is at {position[joint]:.4g}, outside its limits "
                f"{limits.lower[joint]:.4g} to {limits.upper[joint]:.4g}; move it inside by hand"
            )
        self._limiter.reset(at)
        self.placed = True
        return ""

    def lose(self) -> None:
        """No command was sent for so long that the robot has stopped by itself, somewhere."""
        self.placed = False

    def enter(self, mode: Mode) -> None:
        """What a new mode begins with."""
        self._settle, self._settles = None, mode == Mode.HOLD
        self.human = self.commanded.copy() if mode == Mode.HUMAN else None

    def aligned(self, joints: JointFeed) -> bool:
        """Whether the robot is where it was commanded: else a driver of its own moved or stopped it."""
        apart = np.abs(joints.position - self.commanded)[~self._gripper]
        return self.placed and bool((apart <= self._tolerance).all())

    def arrived(self, pose: FloatArray) -> bool:
        """Whether the command rests at a pose (J,)."""
        return not self._limiter.moving and bool(np.allclose(self.commanded, pose, atol=1e-3))

    def move(
        self,
        decision: Decision,
        proposed: FloatArray | None,
        velocity: FloatArray,
        reset: FloatArray,
        teleop: TeleopFeed,
    ) -> tuple[FloatArray | None, Limited]:
        """The target (J,) of this tick, None where nobody drives, and what is made of it.

        Args:
            decision: who drives.
            proposed: (J,) by the policy, which moves with ``velocity``: followed as a point at rest, it would lag.
            reset: (J,) where a RESET leads.
            teleop: the person.

        Raises:
            RealError: a target that is none; nothing has moved.
        """
        if decision.source == Source.POLICY and proposed is not None:
            return proposed, self._limiter.step(proposed, velocity)
        if decision.source == Source.HUMAN and self.human is not None:
            return self._led(self.human, teleop)
        if decision.source == Source.RESET:
            return reset, self._limiter.step(reset)
        if decision.mode == Mode.HOLD and self._settle is not None:
            return None, self._limiter.step(self._settle)
        return None, self._limiter.stop()

    def stop(self) -> Limited:
        """One tick of the fastest stop."""
        return self._limiter.stop()

    def settle(self, joints: JointFeed, now: float) -> None:
        """Once in a HOLD, when all has come to rest: lead the command to where the robot is, if it is elsewhere.

        That is where a driver's reflex or a person's hand put it. A gripper keeps its command, and so its grip.
        """
        if not self._settles or self._limiter.moving or not joints.resting_s(now) >= REST_S:
            return
        self._settles = False
        at = joints.within()
        if at is not None and not self.aligned(joints):
            self._settle = np.where(self._gripper, self.commanded, at)

    def _led(self, human: FloatArray, teleop: TeleopFeed) -> tuple[FloatArray, Limited]:
        at = self.commanded
        velocity = np.zeros(len(at))
        if self._kinematics is not None:
            led = self._kinematics.twist_to_velocity(at, teleop.twist, self._limits)
            velocity = np.where(self._gripper, 0.0, led)
        target = at + np.clip(human - at, -LEAD, LEAD) + velocity * self._dt
        if teleop.gripper:
            wide = self._limits.upper if teleop.gripper > 0 else self._limits.lower
            target = np.where(self._gripper, wide, target)
        limited = self._limiter.step(target, velocity)
        self.human = target
        return target, limited
