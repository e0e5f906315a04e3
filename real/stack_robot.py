"""The robot that a stack names, from `sim.robots` or from an MJCF of the user's: joints, limits, home."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from real.core.limits import FloatArray, JointLimits
from real.errors import StackError
from real.stack import Stack
from robolearn.errors import RobolearnError, unknown
from sim.robots import get_robot, list_robots


@dataclass(frozen=True, eq=False)
class StackRobot:
    """A robot as one stack uses it.

    Attributes:
        name: as `sim.robots` or the MJCF calls it.
        mjcf: the model, MJCF text.
        model: compiled.
        joints: J names that are commanded, in the order of the actuators.
        limits: of these joints, scaled as the stack says, the margin taken off the ends.
        home: (J,) rad or m.
        tool_site: "" where there is none.
    """

    name: str
    mjcf: str
    model: Any
    joints: tuple[str, ...]
    limits: JointLimits
    home: FloatArray
    tool_site: str


def open_robot(stack: Stack) -> StackRobot:
    """The robot of a stack.

    Raises:
        StackError: no such robot, a joint, site or controller that does not fit it, lists of another length than it
            has joints, or a home outside the limits.
        RobolearnError: limits that nobody gives.
    """
    name, mjcf, model, tool = _model(stack)
    actuated = tuple(model.joint(int(j)).name for j in model.actuator_trnid[:, 0])
    joints = tuple(j for j in actuated if j in stack.robot.joints) if stack.robot.joints else actuated
    _check_names(stack, joints, actuated, model)
    limits = _limits(stack, model, name, joints)
    home = _home(stack, model, joints)
    outside = (home < limits.lower) | (home > limits.upper)
    if outside.any():
        i = int(np.argmax(outside))
        raise StackError(
            f"home of joint {joints[i]!r}, {home[i]:g}, is outside {limits.lower[i]:g} to {limits.upper[i]:g}"
        )
    return StackRobot(name, mjcf, model, joints, limits, home, tool)


def _model(stack: Stack) -> tuple[str, str, Any, str]:
    given = stack.robot.model
    if given.endswith((".xml", ".mjcf")):
        if not Path(given).is_file():
            raise StackError(f"robot.model: no file at {given}")
        try:
            spec = mujoco.MjSpec.from_file(given)
            model = spec.compile()
            mjcf = spec.to_xml()
        except ValueError as error:
            raise StackError(f"robot.model: {given} is no MJCF: {str(error).splitlines()[0]}") from error
        if model.nu == 0:
            raise StackError(f"robot.model: {given} has no actuators, so there is nothing to command")
        name, tool = spec.modelname, ""
    else:
        if given not in list_robots():
            raise StackError(
                f"robot.model: {unknown('robot', given, list_robots())}; or give the path of an MJCF (.xml)"
            )
        robot = get_robot(given)
        name, mjcf, model, tool = robot.name, robot.mjcf(), robot.spec().compile(), robot.tool_site
    return name, mjcf, model, stack.robot.tool_site or tool


def _check_names(stack: Stack, joints: tuple[str, ...], actuated: tuple[str, ...], model: Any) -> None:
    named = {"robot.joints": stack.robot.joints, "robot.driver_names": stack.robot.driver_names}
    for where, given in named.items():
        for joint in given:
            if joint not in actuated:
                raise StackError(f"{where}: {unknown('joint', joint, actuated)}")
    commanded = [joint for controller in stack.controllers for joint in controller.joints]
    for where, given in (("robot.gripper", stack.robot.gripper), ("controllers", commanded)):
        for joint in given:
            if joint not in joints:
                raise StackError(f"{where}: {unknown('joint', joint, joints)}")
    if idle := [joint for joint in joints if joint not in commanded]:
        raise StackError(f"no controller moves {', '.join(idle)}; list them under controllers, or not in robot.joints")
    sites = [model.site(i).name for i in range(model.nsite)]
    if stack.robot.tool_site and stack.robot.tool_site not in sites:
        raise StackError(f"robot.tool_site: {unknown('site', stack.robot.tool_site, sites)}")


def _limits(stack: Stack, model: Any, name: str, joints: tuple[str, ...]) -> JointLimits:
    section = stack.limits
    rates = {}
    for rate in ("velocity", "acceleration", "jerk"):
        given = getattr(section, f"max_{rate}")
        if given is not None and len(given) != len(joints):
            raise StackError(f"limits.max_{rate} has {len(given)} values for {len(joints)} joints: {', '.join(joints)}")
        rates[rate] = None if given is None else dict(zip(joints, given, strict=True))
    scale = {"velocity": section.velocity, "acceleration": section.acceleration, "jerk": section.jerk}
    actuated = [model.joint(int(j)).name for j in model.actuator_trnid[:, 0]]
    for rate, values in rates.items():
        if (
            values is not None
        ):  # joints that the stack leaves alone need no limit, but the model's limits are read whole
            rates[rate] = {joint: values.get(joint, 1.0) for joint in actuated}
    try:
        whole = JointLimits.from_model(model, scale=scale, **rates)
    except RobolearnError as error:
        raise StackError(f"{error}; give limits.max_velocity, max_acceleration and max_jerk") from error
    pick = [actuated.index(joint) for joint in joints]
    margin = section.margin
    lower, upper = whole.lower[pick], whole.upper[pick]
    shrink = np.minimum(margin, (upper - lower) / 4)  # a gripper's travel may be less than twice an arm's margin
    return JointLimits(
        joints, lower + shrink, upper - shrink, whole.velocity[pick], whole.acceleration[pick], whole.jerk[pick]
    )


def _home(stack: Stack, model: Any, joints: tuple[str, ...]) -> FloatArray:
    if stack.safety.home is not None:
        if len(stack.safety.home) != len(joints):
            raise StackError(f"safety.home has {len(stack.safety.home)} values for {len(joints)} joints")
        return np.array(stack.safety.home)
    keys = [model.key(i).name for i in range(model.nkey)]
    if "home" not in keys:
        raise StackError(f"the model has no keyframe 'home'; give safety.home, {len(joints)} values")
    at = [int(model.joint(joint).qposadr[0]) for joint in joints]
    return np.array(model.key("home").qpos[at])
