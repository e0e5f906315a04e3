"""The environment of a task on an arm: the task of the simulation, in the one world that a robot is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import torch

from real.arm import ArmWorld
from real.arm_goal import MeasuredTable, tool_pos
from real.arm_reset import ArmWorldError, Operator
from real.stack import Stack
from real.transport.handle import NodeHandle
from robolearn.contract import robot_hash
from robolearn.errors import unknown
from sim.engines import Engine
from sim.env import Env
from sim.step import Step
from sim.task import Task
from sim.tasks import make_env
from sim.tasks.arm import KINDS
from sim.terms.cartesian import ToolTargets
from sim.world import World

_OF_SIMULATION: dict[str, Any] = {"randomize": {}, "sensor_noise": False, "command_delay": [0, 0], "command_parts": 1}
"""Settings that make a simulation as uncertain as a robot is by itself → what they are on the robot."""


class ArmEnv(Env):
    """An `Env` of one arm. A person may take over at any time; what was done then is told by `executed_action`.

    After a step in which a person drove, the action decoder begins anew from where the arm is, as at the start of an
    episode: the policy goes on from there and does not go back.
    """

    world: Any

    def reset(self, seed: int | None = None) -> dict[str, torch.Tensor]:
        """As of an `Env`; right after a reset and without a seed, it looks again and lays nothing out anew."""
        if seed is not None or not self.world.fresh:
            return super().reset(seed)
        self.world.look()
        self._senses.read()
        self.task.metrics.finish(self._all)
        self._obs = self._senses.observe()
        if self.watcher is not None:
            self.watcher.begun(self._all, reset=True)
        return self._obs

    def step(self, action: torch.Tensor) -> Step:
        """As of an `Env`; the log tells ``real/human``, the share in which a person drove, and ``real/late`` steps."""
        step = super().step(action)
        step.log |= {"real/human": self.world.drove.human, "real/late": float(self.world.late)}
        return step

    @property
    def executed_action(self) -> torch.Tensor:
        """(1, A) the action of the last step: the policy's or, where a person took over, what leads where they led.

        It is bounded by 1 as a policy's actions are: a person may be faster.
        """
        if not self.world.drove.human:
            return self._action.clone()
        return _action_between(self.task.action, self.world.drove)

    def _sense(self) -> torch.Tensor | None:
        if self.world.drove.human:
            for value in self._decoder_state.values():
                value.zero_()
        return super()._sense()


def make_arm_env(
    task: str,
    handle: NodeHandle,
    stack: Stack,
    seed: int = 0,
    *,
    evaluation: bool = True,
    operator: Operator | None = None,
    patience: Mapping[str, float] | None = None,
    **settings: Any,
) -> ArmEnv:
    """A task of `sim.tasks.arm` on the arm of a stack.

    Observations, action decoder, rewards, success and metrics are those of the simulation. Randomisation, noise and
    delays of training are left out: the robot has its own.

    Args:
        task: its name.
        handle: an open node that takes the policy's place in the graph.
        stack: see `ArmWorld`; a twin in it draws the scenes.
        seed: of the scenes.
        evaluation: an episode ends when its task is done, whatever ``ends`` says.
        operator: lays the table out, and says which object is named; see `real.arm_reset.Layout`.
        patience: ``motion_s`` and ``operator_s``: how long a motion and a person may take in a reset.
        settings: of the task.

    Raises:
        ArmWorldError: no such task, a robot that is not the task's, or a first reset that does not come to its end.
        RobolearnError: settings, stack or channels that cannot work.
    """
    if task not in KINDS:
        raise ArmWorldError(unknown("task on an arm", task, KINDS))
    given = {key: value for key, value in settings.items() if key != "name"}
    simulated = make_env(task, 1, engine=Engine("cpu", threads=1), evaluation=evaluation, **given | _OF_SIMULATION)
    declared = simulated.task
    timestep = simulated.step_dt / declared.decimation
    world = ArmWorld(handle, stack, declared.measured, timestep, task, operator, patience)
    _check_robot(declared, world)
    goal = MeasuredTable(world, declared.max_episode_steps, declared.instruction, tool_pos(dict(declared.derived)))
    measured = dataclasses.replace(
        declared,
        goal=goal,
        randomizers={},
        noise={},
        command_parts=1,
        command_lag=(0, 0),
        instructions=goal.instructions,
    )
    return ArmEnv(measured, cast(World, world), seed)


def _check_robot(task: Task, world: ArmWorld) -> None:
    given, needed = world.robot_hash, robot_hash(task.robot_mjcf)
    if given != needed or world.joints != task.action.command.elements:
        raise ArmWorldError(
            f"task {task.name!r} is for robot {task.robot!r}; the stack's {world.shards[0].label!r} is another one"
        )


def _action_between(decoder: Any, drove: Any) -> torch.Tensor:
    """The action (1, A) of a decoder that leads the tool from one commanded pose to another."""
    if not isinstance(decoder, ToolTargets):
        raise ArmWorldError(f"nobody knows the action of {type(decoder).__name__} that a motion stands for")
    names = decoder.command.elements
    joints = torch.tensor([drove.start.tolist(), drove.end.tolist()])
    arm = [names.index(joint) for joint in decoder.arm.joint_names]
    fingers = [k for k in range(len(names)) if k not in arm]
    place = decoder.arm.pose(joints[:, arm])[0]
    moved = ((place[1] - place[0]) / decoder.scale)[["xyz".index(axis) for axis in decoder.axes]]
    if not decoder.gripper:
        return moved.clamp(-1.0, 1.0)[None]
    lower, upper = (torch.tensor(limit)[fingers] for limit in (decoder.command.lower, decoder.command.upper))
    opening = (2.0 * (joints[1, fingers] - lower) / (upper - lower) - 1.0).mean()
    return torch.cat([moved, opening[None]]).clamp(-1.0, 1.0)[None]
