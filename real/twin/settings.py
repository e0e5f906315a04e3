"""Settings of the twin: what it is, and by how much its physics and sensors differ from training's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from real.errors import StackError
from real.stack_schema import build, setting
from robolearn.errors import unknown

RENDERING = ("process", "inline", "none")
PACES = ("end", "arrival")
TASKS = ("arm_pick_place", "arm_push", "arm_reach")
TRAJECTORY, FORWARD = "joint_trajectory", "float64_multi_array"


@dataclass(frozen=True)
class Controller:
    """One topic on which the twin takes commands; the keys are those of a stack's controllers."""

    type: str = setting(choices=(TRAJECTORY, FORWARD))
    """joint_trajectory (trajectory_msgs/JointTrajectory) or float64_multi_array (std_msgs/Float64MultiArray)."""
    topic: str = setting()
    """Where it listens."""
    joints: tuple[str, ...] = setting()
    """Actuated joints, in the order of a Float64MultiArray."""


ARM = tuple(f"joint{i}" for i in range(1, 8))
CONTROLLERS = (
    Controller(TRAJECTORY, "arm_controller/joint_trajectory", ARM),
    Controller(FORWARD, "gripper_controller/commands", ("finger_joint1",)),
)


@dataclass(frozen=True)
class TwinSettings:
    """Settings of a twin; lengths m, angles rad, times s. Pairs [low, high] are drawn from for each scene.

    The defaults from ``timestep_s`` to ``image_noise`` are those of the gap ``default``; `from_mapping` fills in
    those of another gap.
    """

    task: str = setting("arm_push", choices=TASKS)
    """Of the first scene."""
    seed: int = setting(0, at_least=0)
    """Of the noise, and of the first scene."""
    teleport: bool = False
    """Whether a new scene puts the arm at the start that is drawn for it; else only the things are moved.

    No robot does this: who commands it believes it elsewhere, so that its next command is far from the set point and
    trips the reflex, until it takes its command from the measured joints again. For tests of the twin alone."""
    gap: str = setting("default", choices=("none", "default", "large"))
    """A set of defaults for the differences below."""
    controllers: tuple[Controller, ...] = CONTROLLERS
    """What can be commanded."""
    cmd_timeout_s: float = setting(0.25, at_least=0)
    """After so long without a command a controller slows down and holds; 0 switches this off."""
    cmd_timeout_from: str = setting("arrival", choices=PACES)
    """Counted from the command's arrival, or, as in ros2_control, from the end of its trajectory."""
    command_period_s: float = setting(0.005, above=0)
    """Nominal time between commands, by which the monitor takes differences, and the unit of `discontinuity`."""
    discontinuity: float = setting(0.05, above=0)
    """rad by which the commanded position of an arm's joint may change in one period; more trips the reflex."""
    acceleration: tuple[float, ...] = setting((15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0, 10.0), above=0)
    """rad/s^2 and m/s^2 that the monitor allows, by actuated joint; the arm's are the published ones of the Panda."""
    stop_acceleration: float = setting(7.5, above=0)
    """rad/s^2 and m/s^2 at which it slows down after a time-out or a reflex."""
    joint_rate_hz: float = setting(500.0, above=0, at_most=1000)
    """Of joint_states; no more often than there are physics steps."""
    object_rate_hz: float = setting(50.0, above=0, at_most=1000)
    """Of the poses of objects and pads."""
    state_rate_hz: float = setting(10.0, above=0, at_most=100)
    """How often success is judged and scene/state published."""
    cameras: tuple[str, ...] = ("front", "wrist")
    """Cameras of the scene."""
    camera_rate_hz: float = setting(30.0, above=0, at_most=120)
    """Pictures a second."""
    width: int = setting(640, above=7, at_most=4096)
    """Pixels."""
    height: int = setting(480, above=7, at_most=4096)
    """Pixels."""
    render_width: int = setting(0, at_least=0, at_most=4096)
    """Pixels that are drawn before they are scaled up to `width`; 0: all of them."""
    rendering: str = setting("process", choices=RENDERING)
    """process: cameras are a node of their own, as camera drivers are; inline: drawn by the twin's node; or none."""
    max_catch_up_s: float = setting(0.05, above=0)
    """Physics that one tick may make up for; what is beyond is lost, and told as debt."""

    timestep_s: float = setting(0.001, above=0, at_most=0.005)
    """Physics step; training's is 5 ms."""
    integrator: str = setting("implicitfast", choices=("training", "implicitfast", "euler", "implicit"))
    """Of the physics; training's is MuJoCo's discrete one."""
    stiffness: tuple[float, ...] = setting((0.75, 1.1), above=0, length=2)
    """Factors on the motors' position gains."""
    damping: tuple[float, ...] = setting((0.8, 1.25), above=0, length=2)
    """Factors on the motors' velocity gains, and on the joints' damping."""
    joint_friction: tuple[float, ...] = setting((0.0, 0.02), at_least=0, at_most=0.5, length=2)
    """Dry friction in the joints, as a share of the motor's largest force."""
    armature: tuple[float, ...] = setting((0.8, 1.3), above=0, length=2)
    """Factors on the inertia of the rotors."""
    gravity_error: float = setting(0.02, at_least=0, at_most=0.5)
    """Largest share of a link's weight by which its compensation is wrong."""
    object_mass: tuple[float, ...] = setting((0.7, 1.5), above=0, length=2)
    """Factors on the objects' mass."""
    object_friction: tuple[float, ...] = setting((0.7, 1.3), above=0, length=2)
    """Factors on the friction between objects and the table."""
    command_latency_s: float = setting(0.008, at_least=0, at_most=1)
    """From the arrival of a command to its effect, at the least."""
    command_jitter_s: float = setting(0.003, at_least=0, at_most=1)
    """Up to so much more, drawn for every command; they stay in order."""
    joint_latency_s: float = setting(0.0, at_least=0, at_most=1)
    """Age of joint states when they are published."""
    joint_pos_noise: float = setting(0.0002, at_least=0)
    """Standard deviation, rad; a tenth of it in m for slides."""
    joint_vel_noise: float = setting(0.01, at_least=0)
    """Standard deviation, rad/s; a tenth of it in m/s for slides."""
    object_pos_noise: float = setting(0.001, at_least=0)
    """Standard deviation of poses, m."""
    object_rot_noise: float = setting(0.01, at_least=0)
    """Standard deviation of poses, rad."""
    object_latency_s: float = setting(0.02, at_least=0, at_most=1)
    """Age of poses when they are published."""
    camera_latency_s: float = setting(0.03, at_least=0, at_most=1)
    """Age of pictures when they are published, at the least."""
    image_noise: float = setting(1.0, at_least=0, at_most=64)
    """Standard deviation of pixels, grey levels of 255; 0 makes pictures of a scene at rest equal, as of a camera that
    froze."""

    def __post_init__(self) -> None:
        for name in ("stiffness", "damping", "joint_friction", "armature", "object_mass", "object_friction"):
            low, high = getattr(self, name)
            if low > high:
                raise StackError(f"twin.{name} is [low, high], not [{low:g}, {high:g}]")
        topics = [controller.topic for controller in self.controllers]
        joints = [joint for controller in self.controllers for joint in controller.joints]
        for what, given in (("topic", topics), ("joint", joints)):
            if len(set(given)) < len(given):
                raise StackError(f"twin.controllers: {what} {max(given, key=given.count)!r} is there twice")

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any] | None = None) -> TwinSettings:
        """Settings from plain data; what is not given comes from the gap's defaults.

        Raises:
            StackError: an unknown key, or a value of another type or out of bounds.
        """
        given = dict(data or {})
        gap = given.get("gap", "default")
        if gap not in GAPS:
            raise StackError(f"twin.gap: {unknown('gap', str(gap), GAPS)}")
        return build(cls, {**GAPS[gap], **given}, "twin")


_NO_GAP: dict[str, Any] = {
    "timestep_s": 0.005,
    "integrator": "training",
    **dict.fromkeys(("stiffness", "damping", "armature", "object_mass", "object_friction"), (1.0, 1.0)),
    "joint_friction": (0.0, 0.0),
    **dict.fromkeys(
        (
            *("gravity_error", "command_latency_s", "command_jitter_s", "joint_latency_s", "joint_pos_noise"),
            *("joint_vel_noise", "object_pos_noise", "object_rot_noise", "object_latency_s", "camera_latency_s"),
        ),
        0.0,
    ),
}
_LARGE_GAP: dict[str, Any] = {
    "stiffness": (0.5, 1.3),
    "damping": (0.6, 1.6),
    "armature": (0.6, 1.8),
    "joint_friction": (0.01, 0.06),
    "gravity_error": 0.06,
    "object_mass": (0.4, 2.5),
    "object_friction": (0.5, 1.8),
    "command_latency_s": 0.025,
    "command_jitter_s": 0.015,
    "joint_latency_s": 0.004,
    "joint_pos_noise": 0.001,
    "joint_vel_noise": 0.04,
    "object_pos_noise": 0.003,
    "object_rot_noise": 0.04,
    "object_latency_s": 0.06,
    "camera_latency_s": 0.08,
    "image_noise": 4.0,
}
GAPS: dict[str, dict[str, Any]] = {"none": _NO_GAP, "default": {}, "large": _LARGE_GAP}
"""Gap → what it sets."""
