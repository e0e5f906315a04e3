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
LULL_S = 0.25
"""s without a command after which a stream has ended: the next command begins another one, from rest."""
MOST_GAP_S = 0.1
"""s of missing commands, at most, whose travel at the joints' speed a command may make up for."""


class Driver:
    """Every controller of the robot.

    A command is checked when it arrives, and takes effect at its arrival plus the driver's latency, whatever the
    moments at which `advance` is called. A command of an arm's joint that jumps by more than the discontinuity limit in
    one period, seen from the command before it, trips the reflex: the robot slows down, and ignores commands until
    `reset`. Where commands of a stream were lost or late, a joint may have gone on at its highest speed meanwhile: the
    limit grows by that, for up to `MOST_GAP_S`. By more than the limit with all of this growth no command is ever away
    from the set point.

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
        self._joints: dict[str, np.ndarray] = {}
        self._step: dict[str, np.ndarray] = {}
        self._speed: dict[str, np.ndarray] = {}
        self._took: dict[str, float] = {}
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
        self._speed[topic] = robot.speed[joints]
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
        self.monitors[topic] = Monitor(bounds, settings.command_period_s, max(settings.cmd_timeout_s, LULL_S))

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
        follower = self._followers[topic]
        self.monitors[topic].judge(command, follower.position, follower.velocity, now)
        if self.reflex:
            self.rejected["reflex"] += 1
            return "reflex"
        latency = self._settings.command_latency_s + self._settings.command_jitter_s * self._rng.random()
        self._coming[topic].push(now + latency, command)
        return ""

    def advance(self, now: float) -> np.ndarray:
        """Set points (J,) at ``now`` s; read-only."""
        for topic, follower in self._followers.items():
            for due, command in self._coming[topic].due(now):
                follower.advance(due)
                self._start(topic, follower, command)
            self._set_point[self._joints[topic]] = follower.advance(now)
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
            self._took.pop(topic, None)
            self.monitors[topic].restart()

    def _start(self, topic: str, follower: Follower, command: Command) -> None:
        if self.reflex:
            self.rejected["reflex"] += 1
            return
        now, period = follower.time, self._settings.command_period_s
        gap = now - self._took.get(topic, -np.inf)
        grown = 0.0 if gap > max(self._settings.cmd_timeout_s, LULL_S) else float(np.clip(gap - period, 0, MOST_GAP_S))
        allowed, most = (self._step[topic] + self._speed[topic] * seconds for seconds in (grown, MOST_GAP_S))
        # commands that come in one go, after a stall of the network, are held against each other
        change = self._change(follower.target(2 * period), command)
        away = self._change(follower.position, command)
        if (change > allowed).any() or (away > most).any():
            worst = int(np.maximum(change / allowed, away / most).argmax())
            joint = self._controllers[topic].joints[worst]
            self._trip(f"{joint}: a command would move it by {max(change[worst], away[worst]):.3g} rad in one period")
        else:
            follower.follow(command, now)
            self._took[topic] = now

    def _change(self, start: np.ndarray, command: Command) -> np.ndarray:
        """(J,) the most that a command moves each joint in one period, from ``start`` (J,) on."""
        spans = np.maximum(np.diff(command.times, prepend=0.0), 1e-9)[:, None]
        moved = np.abs(np.diff(command.positions, axis=0, prepend=start[None]))
        return np.asarray((moved * np.minimum(1.0, self._settings.command_period_s / spans)).max(axis=0))

    def _trip(self, reason: str) -> None:
        self.reflex = reason
        self.reflexes += 1
        for follower in self._followers.values():
            follower.stop()

    def _attribute(self, topic: str, publisher: str, now: float) -> None:
        self.publishers.setdefault(topic, set()).add(publisher)
        owner, last = self._owner.get(topic, (publisher, now))
        if owner != publisher and now - last <= OWNER_S:
            self.foreign += 1
            return
        self._owner[topic] = (publisher, now)
