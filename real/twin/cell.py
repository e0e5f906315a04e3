"""The whole cell, without a transport: physics in step with a clock, the driver, sensors and the scene."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from real.twin.arm import THINGS, Arm, Joints
from real.twin.clockwork import Clockwork
from real.twin.driver import Driver
from real.twin.dynamics import Varied, vary
from real.twin.scene import Scene, SceneError, Scenes
from real.twin.sensors import Sensors
from real.twin.settings import TwinSettings
from robolearn.errors import unknown
from sim.tasks.arm_scene import PADS

_KEYS = ("seed", "task", "teleport")
_PAD_HEIGHT = 0.0005
_UPRIGHT = (1.0, 0.0, 0.0, 0.0)


class Cell:
    """A robot cell that is simulated.

    Args:
        settings: of the twin.
        now: s of the monotonic clock, by which everything here goes.

    Attributes:
        arm: the physics; driver: what takes commands; clockwork: what keeps them in step.
        scene: what lies on the table; verdict: what its task makes of it.

    Raises:
        StackError, SceneError: settings that cannot work.
    """

    def __init__(self, settings: TwinSettings, now: float) -> None:
        self._settings = settings
        self._scenes = Scenes()
        self.scene = self._scenes.draw(settings.task, settings.seed)
        robot = self._scenes.robot(settings.task)
        position = self.scene.start if settings.teleport else robot.home
        self._varied = self._vary(self.scene)
        self.arm = Arm(robot, self._varied.model, position)
        self.driver = Driver(robot, settings, position)
        if not self.arm.load(self._varied.model, self.scene.qpos):
            raise SceneError(f"scene {settings.seed} of {settings.task} puts a thing where the arm is at home")
        self.clockwork = Clockwork(self.arm.timestep, settings.max_catch_up_s, now)
        model = self._varied.model
        slide = int(mujoco.mjtJoint.mjJNT_SLIDE)
        slides = [int(model.joint(name).type[0]) == slide for name in self.arm.joint_names]
        self._sensors = Sensors(settings, np.array(slides))
        self._judge = self._scenes.judge(self.scene)
        self.verdict = self._judge.look(self.arm)

    def advance(self, now: float) -> None:
        """Do the physics up to ``now`` s."""
        for moment in self.clockwork.due(now):
            self.arm.step(self.driver.advance(moment))

    def measured_joints(self) -> Joints:
        """What the encoders show, in the order of `Arm.joint_names`."""
        return self._sensors.joints(self.arm.joints())

    def poses(self) -> dict[str, np.ndarray]:
        """True poses (7,), m + wxyz, of both objects and both pads."""
        objects = dict(zip(THINGS, self.arm.objects()[0].copy(), strict=True))
        pads = {
            name: np.array([*place, _PAD_HEIGHT, *_UPRIGHT]) for name, place in zip(PADS, self.arm.pads(), strict=True)
        }
        return {**objects, **pads}

    def measured_poses(self) -> dict[str, np.ndarray]:
        """What the tracker shows of `poses`."""
        return {name: self._sensors.pose(pose) for name, pose in self.poses().items()}

    def change(self, request: dict[str, Any]) -> None:
        """Lay out another scene, and begin to judge it.

        Args:
            request: ``seed``, ``task`` and ``teleport``; what is missing stays as it is, teleport as in the settings.

        Raises:
            SceneError: an unknown key or value, or a thing would be put inside the robot; nothing has changed.
        """
        for key in request:
            if key not in _KEYS:
                raise SceneError(unknown("key of a scene request", str(key), _KEYS))
        teleport = request.get("teleport", self._settings.teleport)
        if not isinstance(teleport, bool):
            raise SceneError(f"teleport is true or false, not {teleport!r}")
        scene = self._scenes.draw(request.get("task", self.scene.task), request.get("seed", self.scene.seed))
        varied = self._vary(scene)
        if not self.arm.load(varied.model, scene.qpos, scene.start if teleport else None):
            raise SceneError(f"scene {scene.seed} of {scene.task} puts a thing where the robot is: move the arm away")
        if teleport:
            self.driver.hold_at(scene.start)
        self.scene, self._varied = scene, varied
        self._judge = self._scenes.judge(scene)
        self.verdict = self._judge.look(self.arm)

    def judge(self) -> None:
        """Measure success and progress now."""
        self.verdict = self._judge.look(self.arm)

    def physics_report(self) -> dict[str, Any]:
        """How this scene's physics and the sensors differ from training's, in numbers; pairs of a time step or
        integrator are [training's, the twin's], factors are by joint or by object."""
        return dict(self._varied.report)

    def monitor(self) -> dict[str, Any]:
        """What the driver counted."""
        driver = self.driver
        return {
            "commands": driver.commands,
            **{f"violations_{kind}": count for kind, count in driver.violations.items()},
            **{f"worst_{kind}": round(driver.worst[kind], 6) for kind in driver.worst},
            "unjudged_accelerations": driver.unjudged,
            "rejected": dict(driver.rejected),
            "reflexes": driver.reflexes,
            "reflex": driver.reflex,
            "timeouts": driver.timeouts,
            "foreign_commands": driver.foreign,
            "publishers": {topic: len(known) for topic, known in driver.publishers.items()},
            "diverged": self.arm.failures,
        }

    def state(self) -> dict[str, Any]:
        """What ``scene/state`` tells: plain data."""
        scene, verdict = self.scene, self.verdict
        return {
            "task": scene.task,
            "seed": scene.seed,
            "instruction": scene.instruction,
            "named": scene.named,
            "named_one_hot": [1 - scene.named, scene.named],
            "colors": list(scene.colors),
            "shapes": list(scene.shapes),
            "start": dict(zip(self.driver.joint_names, [round(q, 6) for q in scene.start.tolist()], strict=True)),
            "success": verdict.success,
            "ever_success": verdict.ever_success,
            "progress": round(verdict.progress, 3),
            "best_progress": round(verdict.best_progress, 3),
            "monitor": self.monitor(),
            "gap": self.physics_report(),
        }

    def _vary(self, scene: Scene) -> Varied:
        return vary(scene.model, self._settings, scene.seed)
