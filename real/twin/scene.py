"""Scenes: what the task itself draws, and whether it is done by the task's own measure."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np
import torch

from real.errors import RealError
from real.twin.arm import Arm
from real.twin.settings import TASKS
from robolearn.errors import unknown
from sim.channels import Channels
from sim.engines import Engine
from sim.env import Env
from sim.robots import Robot, get_robot
from sim.tasks import config_class, make_env
from sim.tasks.arm_scene import layout
from sim.tasks.arm_things import COLORS, Assignment


class SceneError(RealError):
    """A scene that cannot be drawn or laid out as asked."""


@dataclass(frozen=True, eq=False)
class Scene:
    """One drawn scene.

    Attributes:
        task, seed: of which it is.
        instruction: what is to be done, in words.
        named: 0 or 1, which object the instruction names.
        colors, shapes: of the first and the second object.
        model: training's compiled model of it, colours included.
        qpos: (nq,) its start, the arm's included.
        start: (J,) where the task starts the arm, in the order of the robot's actuators.
        goal: the channels of the goal process, name → (1, ...), as they stand at the start.
    """

    task: str
    seed: int
    instruction: str
    named: int
    colors: tuple[str, str]
    shapes: tuple[str, str]
    model: mujoco.MjModel
    qpos: np.ndarray
    start: np.ndarray
    goal: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Verdict:
    """What the task makes of a state: done now, or ever since the scene began; progress now and at its best."""

    success: bool
    ever_success: bool
    progress: float
    best_progress: float


@dataclass
class Scenes:
    """Draws scenes with the tasks' own environments, one world each, and judges with their own metrics.

    Args:
        settings: task → settings of it that differ from its defaults.
    """

    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    _envs: dict[tuple[str, tuple[str, str]], Env] = field(default_factory=dict)

    def draw(self, task: str, seed: int) -> Scene:
        """The scene of a task and seed.

        Raises:
            SceneError: an unknown task, or no seed.
        """
        if task not in TASKS:
            raise SceneError(unknown("task", task, TASKS))
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
            raise SceneError(f"seed is a whole number from 0 to {2**31 - 1}, not {seed!r}")
        config = config_class(task)(**self.settings.get(task, {}))
        pairs = [pair for pair, _ in layout(config.shapes, 2**16, config.distinct)]
        shapes = pairs[int(np.random.default_rng(seed).integers(len(pairs)))]
        env = self._env(task, shapes)
        env.reset(seed=seed)
        shard = env.world.shards[0]
        model = copy.copy(shard.physics.model)
        env.world.write_model(0, model)
        assignment = env.task.randomizers["assignment"]
        assert isinstance(assignment, Assignment)
        colors = [list(COLORS)[i] for i in assignment.colors[0].tolist()]
        return Scene(
            task=task,
            seed=seed,
            instruction=env.instructions()[0],
            named=int(assignment.named[0]),
            colors=(colors[0], colors[1]),
            shapes=shapes,
            model=model,
            qpos=shard.physics.bind("qpos")[0].double().numpy().copy(),
            start=shard.physics.bind("ctrl")[0].double().numpy().copy(),
            goal={name: value.clone() for name, value in env.task.goal.read().items()},
        )

    def robot(self, task: str) -> Robot:
        """The robot of a task."""
        return get_robot(config_class(task)(**self.settings.get(task, {})).robot)

    def judge(self, scene: Scene) -> Judge:
        """A judge of one scene."""
        return Judge(self._env(scene.task, scene.shapes), scene)

    def _env(self, task: str, shapes: tuple[str, str]) -> Env:
        if (task, shapes) not in self._envs:
            settings = {**self.settings.get(task, {}), "shapes": list(dict.fromkeys(shapes))}
            self._envs[task, shapes] = make_env(task, 1, engine=Engine("cpu", threads=1), **settings)
        return self._envs[task, shapes]


class Judge:
    """Measures a scene with the judge of its task, `sim.terms.table`, on true channels.

    Progress in reaching counts from where the task would start the arm, wherever it is.
    """

    def __init__(self, env: Env, scene: Scene) -> None:
        self._env, self._scene = env, scene
        self._ever, self._best = False, 0.0

    def look(self, arm: Arm) -> Verdict:
        """Judge the arm's true state."""
        position, velocity = arm.actuated()
        poses, moving = arm.objects()
        raw = {
            "joint_pos": position,
            "joint_vel": velocity,
            "object_poses": poses,
            "object_vels": moving,
            "pad_pos": arm.pads(),
        }
        with torch.inference_mode():
            measured = {name: torch.from_numpy(np.array(value, np.float32))[None] for name, value in raw.items()}
            c = Channels({**measured, **self._scene.goal}, self._env.task.derived)
            progress, success = float(c["progress"][0]), bool(c["done"][0] > 0.5)
        self._ever, self._best = self._ever or success, max(self._best, progress)
        return Verdict(success, self._ever, progress, self._best)
