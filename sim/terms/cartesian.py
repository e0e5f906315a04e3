"""Action decoder of tabletop manipulation: a policy moves an arm's tool, which keeps pointing as it does at home."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from robolearn.contract import Channel
from robolearn.errors import RobolearnError
from sim.channels import Channels
from sim.inverse_kinematics import ArmKinematics
from sim.robots import Robot

AXES = ("x", "y", "z")
ITERATIONS = 2
"""Steps of inverse kinematics in one control step: the last command is close to the next one."""
_STILL = 1e-6
"""rad, keeps an arm that stands still from a division by zero."""


class ToolTargets:
    """The tool's target moves in a box: target ← clamp(target + scale·clip(a, -1, 1)); joints follow it.

    The command is that of inverse kinematics from the last command, slowed where a joint would be faster than it can.
    What the arm does is not fed back: a zero action holds the target. An episode's first target is where the tool is
    then, moved into the box. The Panda's tool, pointing down, gets to every place over a table that is 0.29 m to 0.72 m
    away from the axis of its base; nearer to it the fourth joint is at its limit, and the tool stays behind.

    Args:
        robot: an arm; its home pose says how the tool points.
        scale: m per control step at an action of 1; scale / dt is the largest speed along an axis, m/s.
        lower, upper: (3,) m, corners of the box of targets. Equal heights hold the tool there.
        dt: control step, s.
        axes: those of "x", "y", "z" that the action moves, in its order; the target keeps its other coordinates.
        acceleration: m/s², by which the target's speed along an axis changes at most from one control step to the next;
            infinite: it may turn at once, which no arm can follow.
        gripper: whether a last action opens the gripper: -1 closes it, 1 opens it fully, and in between in proportion.
        held_gripper: without that action, the command to the gripper's joints, m; 0 is closed.
        yaw: rad, turn of the tool about the world's vertical against home.
        device: where the channels are.

    Attributes:
        num_actions: A = len(axes) + gripper.
        axes, gripper, scale: as given.
        command: the channel ``joint_pos_target`` (J,), limits and elements those of the robot.
        state: ``last_action`` (A,); ``last_target`` (J,), the last command; ``tool_target`` (3,), m in the world;
            ``begun`` (1,), 0 before an episode's first step and 1 after it; with a finite acceleration also
            ``tool_move`` (3,), m, the target's last step.

    Raises:
        ArmError: the robot is no arm.
        ToolTargetsError: axes or box make no sense.
    """

    def __init__(
        self,
        robot: Robot,
        *,
        scale: float,
        lower: Sequence[float],
        upper: Sequence[float],
        dt: float,
        axes: Sequence[str] = AXES,
        acceleration: float = math.inf,
        gripper: bool = False,
        held_gripper: float = 0.0,
        yaw: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        _check(axes, lower, upper)
        self.arm = ArmKinematics(robot, device)
        joints = robot.joint_names
        self.num_actions = len(axes) + gripper
        self.command = Channel(
            "joint_pos_target",
            (len(joints),),
            "rad or m",
            kind="target/joint/position",
            elements=joints,
            lower=tuple(robot.lower.tolist()),
            upper=tuple(robot.upper.tolist()),
        )
        names = (*axes, *(["gripper"] if gripper else []))
        self.state: tuple[Channel, ...] = (
            Channel("last_action", (self.num_actions,), "1", elements=names),
            Channel("last_target", (len(joints),), self.command.unit, elements=joints),
            Channel("tool_target", (3,), "m", "world", elements=AXES),
            Channel("begun", (1,), "1"),
        )
        self._turn_limit = acceleration * dt * dt
        if math.isfinite(acceleration):
            self.state = (*self.state, Channel("tool_move", (3,), "m", "world", elements=AXES))

        def tensor(values: object) -> torch.Tensor:
            return torch.as_tensor(values, dtype=torch.float32, device=device)

        self.axes, self.gripper, self.scale = tuple(axes), gripper, scale
        self._moves = scale * tensor([[float(a == axis) for a in AXES] for axis in axes])
        self._box = tensor(lower), tensor(upper)
        self._lower, self._upper = tensor(robot.lower.copy()), tensor(robot.upper.copy())
        largest = dt * tensor(robot.speed.copy())
        cosine, sine = torch.cos(tensor(yaw)), torch.sin(tensor(yaw))
        zero = torch.zeros_like(sine)
        turn = torch.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, zero + 1]).reshape(3, 3)
        self.rotation = turn @ self.arm.pose(self.arm.rest[None])[1][0]
        """(3, 3), how the tool is held."""
        arm = [joints.index(name) for name in self.arm.joint_names]
        fingers = [joints.index(name) for name in robot.gripper_joints]
        self._arm, self._fingers = torch.tensor(arm, device=device), torch.tensor(fingers, device=device)
        self._largest_arm, self._largest_fingers = largest[arm], largest[fingers]
        self._order = torch.tensor([[*arm, *fingers].index(j) for j in range(len(joints))], device=device)
        closed, opened = self._lower[fingers], self._upper[fingers]
        self._closed, self._half_open = closed, 0.5 * (opened - closed)
        self._held = torch.clamp(tensor([held_gripper] * len(fingers)), closed, opened)

    def decode(self, c: Channels, action: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Command (N, J) and next state; an episode's first step needs ``joint_pos`` and `arm_landmarks`."""
        begun = c["begun"] > 0.5
        clipped = torch.clamp(action, -1.0, 1.0)
        last = torch.where(begun, c["last_target"], torch.clamp(c["joint_pos"], self._lower, self._upper))
        before, move = self.target(c), clipped[:, : len(self._moves)] @ self._moves
        turning = math.isfinite(self._turn_limit)
        if turning:
            move = c["tool_move"] + torch.clamp(move - c["tool_move"], -self._turn_limit, self._turn_limit)
        target = torch.clamp(before + move, *self._box)
        change = self.arm.solve(last[:, self._arm], target, ITERATIONS, self.rotation) - last[:, self._arm]
        # One share for all arm joints, so that a slowed tool keeps to its way.
        slowed = torch.clamp(self._largest_arm / (change.abs() + _STILL), max=1.0).amin(dim=1, keepdim=True)
        opening = self._closed + (1.0 + clipped[:, -1:]) * self._half_open if self.gripper else self._held
        fingers = torch.clamp(opening - last[:, self._fingers], -self._largest_fingers, self._largest_fingers)
        command = last + torch.cat([slowed * change, fingers], dim=1)[:, self._order]
        command = torch.clamp(command, self._lower, self._upper)  # rounding
        state = {
            "last_action": action,
            "last_target": command,
            "tool_target": target,
            "begun": torch.ones_like(c["begun"]),
        }
        return command, {**state, "tool_move": target - before} if turning else state

    def target(self, c: Channels) -> torch.Tensor:
        """(N, 3) m: where the tool is told to be; before an episode's first step, where it is."""
        return torch.where(c["begun"] > 0.5, c["tool_target"], c["tool_pos"])

    def solve(self, joint_pos: torch.Tensor, position: torch.Tensor, iterations: int = 10) -> torch.Tensor:
        """Arm joints (N, 7) that put the tool at ``position`` (N, 3) m, pointing as the decoder holds it.

        Args:
            joint_pos: (N, 7) rad, where to begin.
            position: in the world.
            iterations: 10 from the home pose give 0.5 mm at every place that the arm reaches.
        """
        return self.arm.solve(joint_pos, position, iterations, self.rotation)


class ToolTargetsError(RobolearnError):
    """Axes or a box that do not say where a tool may move."""


def _check(axes: Sequence[str], lower: Sequence[float], upper: Sequence[float]) -> None:
    if not axes or len(set(axes)) != len(axes) or not set(axes) <= set(AXES):
        raise ToolTargetsError(f"axes are some of {', '.join(AXES)}, each once, not {', '.join(axes) or 'none'}")
    if len(lower) != 3 or len(upper) != 3 or any(a > b for a, b in zip(lower, upper, strict=False)):
        raise ToolTargetsError(f"the box from {tuple(lower)} to {tuple(upper)} m is empty or not of three axes")
