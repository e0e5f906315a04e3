"""The robot's driver: takes commands, checks them, and turns them into the motors' set points."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from real.errors import StackError
from real.twin.commands import Command, Rejected, read
from real.twin.delay import DelayLine
from real.twin.follower import Follower
from real.twin.monitor import KINDS, Bounds, Monitor
from real.twin.settings import Controller, TwinSettings
from robolearn.errors import unknown
from sim.robots import Robot

OWNER_S = 1.0
"""s for which a topic belongs to the publisher that spoke last on it."""


class Driver:
    """Every controller of the robot.

    A command is checked when it arrives, and takes effect after the driver's latency. A command that would move the
    set point of an arm's joint by more than the discontinuity limit in one period trips the reflex: the robot slows
    down, and ignores commands until `reset`.

    Args:
        robot: its names and limits.
        settings: the controllers, their time-outs and latency.
        position: (J,) where the joints are held at first, in the order of the robot's actuators.

    Attributes:
        joint_names: the actuated joints, in the order of every array here.
        reflex: why the robot takes no commands; empty while it does.
        reflexes: how often that happened.
        rejected: reason → commands that were not taken.
        foreign: commands of a publisher on a topic that belonged to another one.
        publishers: topic → every publisher that was heard on it.
        monitors: topic → what it counted, see `Monitor`.

    Raises:
        StackError: a controller of joints that the robot does not have, or a wrong number of limits.
    """

    def __init__(self, robot: Robot, settings: TwinSettings, position: np.ndarray) -> None:
        self._settings = settings
        self.joint_names = robot.joint_names
        self._rng = np.random.default_rng([settings.seed, 1])
        self.reflex = ""
        self.reflexes = 0
        self.foreign = 0
        self.rejected: Counter[str] = Counter()
        self.publishers: dict[str, set[str]] = {}
        self._owner: dict[str, tuple[str, float]] = {}
        self._heard: dict[str, float] = {}
        self._joints: dict[str, np.ndarray] = {}
        self._step: dict[str, np.ndarray] = {}
        self._controllers: dict[str, Controller] = {}
        self._followers: dict[str, Follower] = {}
        self._coming: dict[str, DelayLine[Command]] = {}
        self.monitors: dict[str, Monitor] = {}
        self._set_point = np.array(position, dtype=np.float64)
        for controller in settings.controllers:
            self._add(controller, robot)

    def _add(self, controller: Controller, robot: Robot) -> None:
        for joint in controller.joints:
            if joint not in robot.joint_names:
                raise StackError(f"controller {controller.topic}: {unknown('joint', joint, robot.joint_names)}")
        acceleration = np.array(self._settings.acceleration)
        if len(acceleration) != len(robot.joint_names):
            raise StackError(
                f"twin.acceleration has {len(acceleration)} values, {robot.name} has {len(robot.joint_names)} joints"
            )
        joints = np.array([robot.joint_names.index(joint) for joint in controller.joints])
        lower, upper = robot.lower[joints], robot.upper[joints]
        topic, settings = controller.topic, self._settings
        gripper = np.array([joint in robot.gripper_joints for joint in controller.joints])
        self._controllers[topic], self._joints[topic] = controller, joints
        self._step[topic] = np.where(gripper, np.inf, settings.discontinuity)
        self._followers[topic] = Follower(
            self._set_point[joints],
            lower,
            upper,
            settings.stop_acceleration,
            settings.cmd_timeout_s,
            settings.cmd_timeout_from == "end",
        )
        self._coming[topic] = DelayLine()
        bounds = Bounds(lower, upper, robot.speed[joints], acceleration[joints])
        self.monitors[topic] = Monitor(bounds, settings.command_period_s)

    @property
    def controllers(self) -> Mapping[str, Controller]:
        """Topic → controller."""
        return self._controllers

    @property
    def set_point(self) -> np.ndarray:
        """(J,) where the motors are told to be now."""
        return self._set_point.copy()

    @property
    def violations(self) -> dict[str, int]:
        """Kind → commands that were beyond a limit of it, of all controllers."""
        return {kind: sum(monitor.violations[kind] for monitor in self.monitors.values()) for kind in KINDS}

    @property
    def commands(self) -> int:
        """Commands that arrived in order, of all controllers."""
        return sum(monitor.commands for monitor in self.monitors.values())

    @property
    def worst(self) -> dict[str, float]:
        """Kind → the largest share of a limit that was commanded; of positions, the furthest beyond one, m or rad."""
        return {kind: max(monitor.worst[kind] for monitor in self.monitors.values()) for kind in KINDS}

    @property
    def unjudged(self) -> int:
        """Commands whose acceleration could not be judged."""
        return sum(monitor.unjudged for monitor in self.monitors.values())

    @property
    def modes(self) -> dict[str, str]:
        """Topic → holding, following or stopping."""
        return {topic: follower.mode for topic, follower in self._followers.items()}

    @property
    def timeouts(self) -> int:
        """How often commands stayed away while one was followed."""
        return sum(follower.timeouts for follower in self._followers.values())

    def receive(self, topic: str, message: Any, now: float, publisher: str = "") -> str:
        """Take a message that arrived at ``now`` s; the reason if it was rejected, else an empty string."""
        self._attribute(topic, publisher, now)
        try:
            command = read(self._controllers[topic], message)
        except Rejected as error:
            self.rejected[str(error)] += 1
            return str(error)
        follower, monitor = self._followers[topic], self.monitors[topic]
        if now - self._heard.get(topic, -np.inf) > max(self._settings.cmd_timeout_s, OWNER_S / 4):
            monitor.restart()
        self._heard[topic] = now
        monitor.judge(command, follower.position, follower.velocity, now)
        if self.reflex:
            self.rejected["reflex"] += 1
            return "reflex"
        latency = self._settings.command_latency_s + self._settings.command_jitter_s * self._rng.random()
        self._coming[topic].push(now + latency, command)
        return ""

    def advance(self, now: float, dt: float) -> np.ndarray:
        """Set points (J,) at ``now`` s, ``dt`` s after the last ones; read-only."""
        for topic, follower in self._followers.items():
            for command in self._coming[topic].pop(now):
                self._start(topic, follower, command, now)
            self._set_point[self._joints[topic]] = follower.advance(now, dt)
        return self._set_point

    def reset(self) -> None:
        """End a reflex: commands are taken again."""
        self.reflex = ""

    def hold_at(self, position: np.ndarray) -> None:
        """Forget every command, and hold the joints at ``position`` (J,)."""
        self._set_point[:] = position
        for topic, follower in self._followers.items():
            follower.hold_at(self._set_point[self._joints[topic]])
            self._coming[topic].clear()
            self.monitors[topic].restart()

    def _start(self, topic: str, follower: Follower, command: Command, now: float) -> None:
        if self.reflex:
            self.rejected["reflex"] += 1
            return
        points = np.concatenate([follower.position[None], command.positions])
        spans = np.maximum(np.diff(command.times, prepend=0.0), 1e-9)[:, None]
        change = np.abs(np.diff(points, axis=0)) * np.minimum(1.0, self._settings.command_period_s / spans)
        if (change > self._step[topic]).any():
            worst = int((change / self._step[topic]).max(axis=0).argmax())
            joint = self._controllers[topic].joints[worst]
            self._trip(f"{joint}: a command would move it by {change[:, worst].max():.3g} rad in one period")
        else:
            follower.follow(command, now)

    def _trip(self, reason: str) -> None:
        self.reflex = reason
        self.reflexes += 1
        for topic, follower in self._followers.items():
            follower.stop()
            self.monitors[topic].restart()

    def _attribute(self, topic: str, publisher: str, now: float) -> None:
        self.publishers.setdefault(topic, set()).add(publisher)
        owner, last = self._owner.get(topic, (publisher, now))
        if owner != publisher and now - last <= OWNER_S:
            self.foreign += 1
            return
        self._owner[topic] = (publisher, now)
