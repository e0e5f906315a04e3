"""What the safety node says: commands, and the record of every step. No torch, no policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from real.core.limiter import Clamped, Limited
from real.core.limits import FloatArray
from real.core.modes import Decision
from real.msgs import MessageStore
from real.stack import Stack
from real.transport.handle import SENSOR, NodeHandle, QoS

TYPES = {
    "joint_trajectory": "trajectory_msgs/msg/JointTrajectory",
    "float64_multi_array": "std_msgs/msg/Float64MultiArray",
}
"""Type of controller → type of its messages."""
JOINT_FIELDS = ("proposed", "human", "executed", "limited", "measured")
STEP_FIELDS = (
    "mode",
    "source",
    "clamp_position",
    "clamp_velocity",
    "clamp_acceleration",
    "clamp_jerk",
    "clamp_workspace",
    "observation_stamp",
    "joint_age_s",
    "chunk_sequence",
    "valid",
)
"""Interfaces of ``safety/step``: of each joint, and of "step"."""
_NEWEST = QoS(depth=1)


class Commands:
    """The robot's controllers. Each tick sends one message to each of them.

    Args:
        handle, store: the node's.
        stack: its controllers, and the driver's names of joints.
        joints: J names, the order of commands.
        dt: s between two commands.
    """

    def __init__(self, handle: NodeHandle, store: MessageStore, stack: Stack, joints: Sequence[str], dt: float) -> None:
        self._handle, self._store, self._dt = handle, store, dt
        self._targets = []
        for controller in stack.controllers:
            publisher = handle.publisher(controller.topic, TYPES[controller.type], _NEWEST)
            order = [joints.index(joint) for joint in controller.joints]
            names = [stack.driver_name(joint) for joint in controller.joints]
            self._targets.append((controller.type, publisher, order, names))

    def send(self, limited: Limited) -> None:
        """One tick: where each joint is to be in dt from now, and how fast."""
        stamp = self._store.time(self._handle.clock.now())
        for kind, publisher, order, names in self._targets:
            position = limited.position[order]
            if kind == "float64_multi_array":
                publisher.publish(self._store.new(TYPES[kind], data=position))
                continue
            point = self._store.new(
                "trajectory_msgs/msg/JointTrajectoryPoint",
                positions=position,
                velocities=limited.velocity[order],
                time_from_start=self._store.duration(self._dt),
            )
            header = self._store.new("std_msgs/msg/Header", stamp=stamp)
            publisher.publish(self._store.new(TYPES[kind], header=header, joint_names=names, points=[point]))

    def publishers(self) -> int:
        """How many publish to one of the command topics, at most; this node is one."""
        return max((len(self._handle.publishers(target[1].topic)) for target in self._targets), default=1)


class Report:
    """``safety/step`` and ``safety/executed``."""

    def __init__(self, handle: NodeHandle, store: MessageStore, joints: Sequence[str]) -> None:
        self._handle, self._store = handle, store
        self._joints = tuple(joints)
        self._clamped = Clamped()
        self._step = handle.publisher("safety/step", "control_msgs/msg/DynamicJointState", QoS(depth=50))
        self._executed = handle.publisher("safety/executed", "sensor_msgs/msg/JointState", SENSOR)

    def note(self, limited: Limited) -> None:
        """A tick: the limits that it met count for the step told next."""
        met = {name: value or getattr(self._clamped, name) for name, value in asdict(limited.clamped).items()}
        self._clamped = Clamped(**met)

    def step(
        self, columns: Mapping[str, FloatArray | None], limited: Limited, decision: Decision, more: Mapping[str, float]
    ) -> None:
        """One step: ``columns`` of `JOINT_FIELDS` (J,), None where there is none, and ``more`` of `STEP_FIELDS`."""
        store, stamp = self._store, self._store.time(self._handle.clock.now())
        header = store.new("std_msgs/msg/Header", stamp=stamp)
        nothing = np.full(len(self._joints), np.nan)
        table = np.stack([nothing if (c := columns[name]) is None else c for name in JOINT_FIELDS], axis=1)
        clamped, self._clamped = self._clamped, Clamped()
        facts = {
            "mode": float(decision.mode),
            "source": float(decision.source),
            **{name: float(getattr(clamped, name.removeprefix("clamp_"))) for name in STEP_FIELDS if "clamp" in name},
            **more,
        }
        values = [
            store.new("control_msgs/msg/InterfaceValue", interface_names=list(JOINT_FIELDS), values=row)
            for row in table
        ]
        step = np.array([facts[name] for name in STEP_FIELDS])
        values.append(store.new("control_msgs/msg/InterfaceValue", interface_names=list(STEP_FIELDS), values=step))
        self._step.publish(
            store.new(
                "control_msgs/msg/DynamicJointState",
                header=header,
                joint_names=[*self._joints, "step"],
                interface_values=values,
            )
        )
        self._executed.publish(
            store.new(
                "sensor_msgs/msg/JointState",
                header=header,
                name=list(self._joints),
                position=limited.position.copy(),
                velocity=limited.velocity.copy(),
            )
        )
