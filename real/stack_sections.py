"""The sections of a stack file; every field is a key, the string under it is its meaning.

Angles are radians, lengths metres, times seconds; joints are in the order of the robot's actuators.
"""

from __future__ import annotations

from dataclasses import dataclass

from real.stack_schema import setting

CONTROLLERS = ("joint_trajectory", "float64_multi_array")
DEVICES = ("keyboard", "gamepad", "joy")
JUDGES = ("critic", "scene", "operator")


@dataclass(frozen=True)
class RobotSection:
    """Which robot, and how its driver calls it."""

    model: str = setting()
    """A name of `sim.robots`, or the path of an MJCF; a relative one counts from the stack file."""
    joints: tuple[str, ...] = ()
    """Joints that this stack commands; empty: all that the model has actuators for, in that order."""
    tool_site: str = ""
    """Site of the model that is the tool; empty: the robot's own."""
    gripper: tuple[str, ...] = ()
    """Those of the joints that open the gripper; a robot may have none."""
    driver_names: dict[str, str] = setting({})
    """Joint -> what the driver calls it, where that differs."""


@dataclass(frozen=True)
class ControllerSection:
    """One topic that the safety node commands."""

    type: str = setting(choices=CONTROLLERS)
    """joint_trajectory (trajectory_msgs/JointTrajectory, one point) or float64_multi_array (std_msgs/...)."""
    topic: str = setting()
    """Where the controller listens."""
    joints: tuple[str, ...] = setting()
    """What it moves, in the order in which it is told."""
    time_out_s: float = setting(0.1, above=0)
    """What its own command time-out is set to; the preflight looks for it."""


@dataclass(frozen=True)
class CameraSection:
    """One camera."""

    topic: str = setting()
    """sensor_msgs/Image, or sensor_msgs/CompressedImage where it ends in /compressed."""
    width: int = setting(above=0)
    """Pixels."""
    height: int = setting(above=0)
    """Pixels."""
    max_age_s: float = setting(0.5, above=0)
    """Older frames are stale."""
    rate_hz: float = setting(30.0, above=0)
    """What the driver promises; the preflight measures it."""


@dataclass(frozen=True)
class WorkspaceSection:
    """A box in the world that the tool does not leave."""

    lower: tuple[float, ...] = setting(length=3)
    """Corner x, y, z, m."""
    upper: tuple[float, ...] = setting(length=3)
    """The opposite corner."""

    def __post_init__(self) -> None:
        if not all(low < high for low, high in zip(self.lower, self.upper, strict=True)):
            raise ValueError(f"the corner lower {list(self.lower)} must be below upper {list(self.upper)}")


@dataclass(frozen=True)
class LimitsSection:
    """How much of what the robot can do is allowed."""

    velocity: float = setting(0.5, above=0, at_most=1)
    """Share of the joint speeds below."""
    acceleration: float = setting(0.5, above=0, at_most=1)
    """Share of the joint accelerations below."""
    jerk: float = setting(0.5, above=0, at_most=1)
    """Share of the joint jerks below."""
    max_velocity: tuple[float, ...] | None = setting(None, above=0)
    """rad/s or m/s by joint; null: the model's."""
    max_acceleration: tuple[float, ...] | None = setting(None, above=0)
    """rad/s^2 or m/s^2 by joint; null: what the robot's maker publishes, which is known here of the Panda alone."""
    max_jerk: tuple[float, ...] | None = setting(None, above=0)
    """rad/s^3 or m/s^3 by joint; null: as above."""
    margin: float = setting(0.0, at_least=0)
    """rad or m kept from the ends of every joint."""
    workspace: WorkspaceSection | None = None
    """null: only the joints' limits hold."""


@dataclass(frozen=True)
class SafetySection:
    """The node that alone commands the robot. It is not safety-rated."""

    rate_hz: float = setting(200.0, above=0, at_most=1000)
    """Ticks a second."""
    joint_age_s: float = setting(0.1, above=0)
    """T_obs: with older joint states it holds."""
    chunk_age_s: float = setting(0.5, above=0)
    """Chunks whose observation is older are refused."""
    hold_s: float = setting(0.2, at_least=0)
    """T_cmd: how long the last point of a chunk is held before the arm is stopped."""
    heartbeat_age_s: float = setting(1.0, above=0)
    """Without a sign of life of the policy for so long it is gone."""
    teleop_age_s: float = setting(0.15, above=0)
    """A deadman or twist that is older counts as let go."""
    camera_frozen_after: int = setting(10, above=0)
    """Equal frames in a row that make a camera frozen."""
    require_cameras: tuple[str, ...] = ()
    """Cameras without which the policy may not move the arm."""
    latch_after: int = setting(5, above=0)
    """Bad commands within 5 s that make a FAULT."""
    max_jump: float = setting(0.5, above=0)
    """Chunks that begin further from where the arm is are refused, rad or m."""
    align_tolerance: float = setting(0.05, above=0)
    """rad or m between measured and commanded joints when a takeover or the policy begins."""
    home: tuple[float, ...] | None = None
    """Joints of the RESET motion; null: the model's home."""
    auto_rearm: bool = False
    """Whether a policy that comes back moves the arm again without an operator."""


@dataclass(frozen=True)
class PolicySection:
    """The node that runs a bundle, at the bundle's own rate."""

    bundle: str = ""
    """Folder of the bundle; a relative one in a stack file counts from that file."""
    chunk_steps: int = setting(5, above=0, at_most=1000)
    """Points of an action chunk."""
    max_age_s: float = setting(0.2, above=0)
    """Channels that are older give no chunk."""
    threads: int = setting(1, above=0)
    """Of onnxruntime."""


@dataclass(frozen=True)
class TeleopSection:
    """A person's hand on the robot."""

    device: str = setting("keyboard", choices=DEVICES)
    """keyboard (this terminal), gamepad (/dev/input/js*), or joy (a sensor_msgs/Joy topic)."""
    path: str = "/dev/input/js0"
    """The gamepad."""
    joy_topic: str = "joy"
    """Where device joy listens."""
    rate_hz: float = setting(50.0, above=0, at_most=200)
    """Messages a second."""
    speed_linear: float = setting(0.1, above=0, at_most=1)
    """m/s of the tool."""
    speed_angular: float = setting(0.5, above=0, at_most=3)
    """rad/s of the tool."""
    key_hold_s: float = setting(0.25, above=0, at_most=0.6)
    """A movement key that has not come for so long is let go."""
    deadman_s: float = setting(1.0, above=0, at_most=5)
    """A takeover on the keyboard ends when no key has come for so long."""


@dataclass(frozen=True)
class CriticSection:
    """The node that judges progress."""

    critic: str = ""
    """A critic's folder, model, address or baseline; empty: no critic runs."""
    rate_hz: float = setting(2.0, above=0, at_most=100)
    """Judgements a second."""
    cameras: tuple[str, ...] = ()
    """What it looks at; empty: all of the stack's cameras."""
    threshold: float = setting(0.9, at_least=0, at_most=0.999)
    """p_done above which an answer says done."""
    debounce: int = setting(3, at_least=0)
    """Answers in a row that must say done; 0: the critic ends no episode."""
    time_out_s: float = setting(5.0, above=0)
    """A judgement that takes longer is given up; control is not affected."""


@dataclass(frozen=True)
class EpisodeSection:
    """The node that starts and ends episodes."""

    task: str = ""
    """Name of the task, for the record."""
    instruction: str = ""
    """What the robot is told, until somebody says otherwise."""
    time_out_s: float = setting(20.0, above=0)
    """Length of an episode at most."""
    episodes: int = setting(0, at_least=0)
    """How many to run; 0: until somebody stops."""
    auto_start: bool = False
    """Reset and begin by itself, else wait for episode/request."""
    judge: str = setting("critic", choices=JUDGES)
    """Who ends an episode with success beside the operator: critic, scene (a twin's truth), or operator (nobody)."""
    goal: dict[str, tuple[float, ...]] = setting({})
    """Channel -> values, sent on episode/goal/<channel>, such as which object is named; a twin's scene counts more."""
    start: tuple[float, ...] | None = None
    """Joints where an episode starts; null: a twin's scene says it, else safety.home."""
    first_seed: int = setting(0, at_least=0)
    """Seed of a twin's first scene; the next episode has the next one."""


@dataclass(frozen=True)
class RecorderSection:
    """The node that writes episodes to disk."""

    folder: str = ""
    """Where episodes go; empty: nothing is recorded."""
    topics: tuple[str, ...] = ("all",)
    """What is recorded: names of topics, or all."""
    chunk_kb: int = setting(16, above=0, at_most=65536)
    """Size of a chunk: what a kill can lose."""
    min_free_mb: int = setting(500, at_least=0)
    """With less space on the disk, recording ends."""
