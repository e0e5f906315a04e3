"""Clip sets made by geometry: reach, grasp, lift, carry and turn an object, or turn it within the hand.

The motions are kinematic: fingertips touch the object without pressing, and from then on the object moves
with the palm. A hand that merely replays them rarely holds the object; making them real is the policy's job.
`noise` adds the errors of a human recording to the hand, while the object's motion stays what is wanted.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from robolearn.errors import RobolearnError, unknown
from sim.objects import get_object, list_objects
from sim.references.format import MAX_RATE_HZ, MIN_RATE_HZ, Reference
from sim.references.grasp import GraspError, find_grasps
from sim.references.hand import Hand
from sim.references.in_hand import turn_in_hand
from sim.references.motion import Held, Motion, grasp_lift, pick_place, rotate_in_hand
from sim.robots import Robot, get_hand

FloatArray = NDArray[np.float64]

SPLITS = ("train", "heldout")
STARTS = 32
"""Grasps tried for each object."""
_IN_HAND_TURN = np.radians(40.0)
_KINDS = {"grasp_lift": grasp_lift, "pick_place": pick_place, "rotate_in_hand": rotate_in_hand}
_DURATION = {"grasp_lift": 2.5, "pick_place": 4.0, "rotate_in_hand": 2.5}


class GenerateError(RobolearnError):
    """A clip set that cannot be made: an unknown kind or split, an impossible number."""


@dataclass(frozen=True)
class Noise:
    """Errors of an estimated hand motion, standard deviations per axis or joint.

    Half of each variance is constant over a clip, the rest wanders smoothly over `smooth_s` seconds, except
    for the share `white` of the standard deviation, which is independent from frame to frame.
    """

    wrist_pos: float = 0.005
    """m."""
    wrist_rot: float = 0.04
    """rad."""
    fingers: float = 0.08
    """rad."""
    object_pos: float = 0.0
    """m."""
    object_rot: float = 0.0
    """rad."""
    smooth_s: float = 0.25
    white: float = 0.05


def generate(
    objects: Sequence[str] | None = None,
    clips: int = 48,
    seed: int = 0,
    kind: str = "grasp_lift",
    robot: Robot | str = "allegro",
    rate_hz: float = 60.0,
    noise: Noise | Mapping[str, float] | None = None,
    split: str = "train",
    duration: float | None = None,
) -> list[Reference]:
    """Make `clips` reference motions, going round `objects` in turn. One seed gives the same arrays.

    Args:
        objects: object names; None takes the training objects.
        kind: "grasp_lift" (approach, grasp, lift 15-22 cm, carry, turn 20-57 degrees), "pick_place" (the same, then put
            down, let go and retreat; turned about the vertical) or "rotate_in_hand" (held in the air, turned by 40
            degrees about the vertical by the fingers alone, the wrist at rest).
        robot: a hand on a floating base, or its name.
        rate_hz: frames per second, 30 to 120.
        noise: errors added to the hand's motion (`Noise` or some of its fields); None gives clean clips.
        split: "train" or "heldout"; the two never share a random draw.
        duration: seconds; by default 2.5, and 4 for "pick_place".

    Raises:
        GenerateError: an unknown kind, split or noise field, or an impossible number.
        ObjectError: an unknown object.
        GraspError: the hand finds no grasp of an object.
    """
    robot = get_hand(robot) if isinstance(robot, str) else robot
    names = list(objects) if objects is not None else list_objects("train")
    errors = _noise(noise)
    if kind not in _KINDS:
        raise GenerateError(unknown("kind", kind, _KINDS))
    if split not in SPLITS:
        raise GenerateError(unknown("split", split, SPLITS))
    if seed < 0:
        raise GenerateError(f"seed must be a whole number of at least 0, got {seed}")
    if clips < 1 or not names:
        raise GenerateError(
            f"a clip set needs at least one clip and one object, got {clips} clips, {len(names)} objects"
        )
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise GenerateError(f"rate_hz must lie between {MIN_RATE_HZ:g} and {MAX_RATE_HZ:g}, got {rate_hz:g}")
    if not robot.wrist_joints:
        raise GenerateError(f"clips move the wrist; {robot.name} has a fixed base, use base='floating'")
    length = duration if duration is not None else _DURATION[kind]
    if not 1.0 <= length <= 60.0:
        raise GenerateError(f"duration must lie between 1 and 60 s, got {length:g}")
    time = np.arange(round(length * rate_hz) + 1) / rate_hz

    def stream(*keys: object) -> np.random.Generator:
        return np.random.default_rng([seed, zlib.crc32("/".join(map(str, (kind, split, *keys))).encode())])

    hand = Hand(robot, STARTS)
    if "pinch" not in [hand.model.key(k).name for k in range(hand.model.nkey)]:
        raise GenerateError(f"grasps start from a keyframe 'pinch', which robot {robot.name!r} does not have")
    wrist = len(robot.wrist_joints)
    limits = robot.lower[wrist:], robot.upper[wrist:]
    held: dict[str, list[Held]] = {}
    for name in dict.fromkeys(names):
        uses = [i for i in range(clips) if names[i % len(names)] == name]
        if uses:
            held[name] = _hold(hand, name, len(uses), stream("grasp", name), kind)
    made = []
    for i in range(clips):
        name = names[i % len(names)]
        motion = _KINDS[kind](held[name][i // len(names)], time, length, stream("clip", i))
        if errors is not None:
            motion = _add_noise(motion, errors, rate_hz, stream("noise", i))
        made.append(
            Reference(
                name=f"{split}_{i:03d}_{name}",
                robot=robot.name,
                side=robot.side,
                rate_hz=rate_hz,
                object=name,
                joint_names=robot.finger_joints,
                joint_pos=np.clip(motion.fingers, *limits),
                wrist_pose=motion.wrist,
                object_pose=motion.object,
                table_height=0.0,
                split=split,
                source=f"generated: {kind}, seed {seed}, noise {errors if errors is not None else 'none'}",
            )
        )
    return made


def _hold(hand: Hand, name: str, count: int, generator: np.random.Generator, kind: str) -> list[Held]:
    """`count` grasps of an object, ready for motions of `kind`."""
    shape = get_object(name)
    if kind != "rotate_in_hand":
        grasps = find_grasps(hand, shape, count, generator)
        return [Held(hand.robot, shape.rest_height, g.joints, g.opened) for g in grasps]
    grasps = find_grasps(hand, shape, hand.size, generator)
    angles, joints, reached = turn_in_hand(hand, shape, grasps, _IN_HAND_TURN)
    good = np.flatnonzero(reached)
    if not len(good):
        raise GraspError(f"{hand.robot.name} ({hand.robot.side}) cannot turn object {name!r} within the hand")
    return [
        Held(hand.robot, shape.rest_height, grasps[b].joints, grasps[b].opened, (angles, joints[b]))
        for b in good[np.arange(count) % len(good)]
    ]


def _noise(noise: Noise | Mapping[str, float] | None) -> Noise | None:
    if noise is None or isinstance(noise, Noise):
        errors = noise
    else:
        known = [f.name for f in fields(Noise)]
        for name in noise:
            if name not in known:
                raise GenerateError(unknown("noise field", name, known))
        errors = Noise(**noise)
    if errors is not None:
        for f in fields(Noise):
            value = getattr(errors, f.name)
            if not (np.isfinite(value) and value >= 0):
                raise GenerateError(f"noise {f.name} must be a number of at least 0, got {value}")
        if errors.white > 1 or errors.smooth_s == 0:
            raise GenerateError("noise white must be at most 1 and smooth_s above 0")
    return errors


def _add_noise(motion: Motion, noise: Noise, rate_hz: float, generator: np.random.Generator) -> Motion:
    frames = len(motion.fingers)

    def draw(sigma: float, width: int) -> FloatArray:
        return sigma * _wander(frames, width, noise, rate_hz, generator)

    def disturb(pose: FloatArray, position: float, rotation: float) -> FloatArray:
        if position == rotation == 0:
            return pose
        turned = Rotation.from_quat(pose[:, 3:], scalar_first=True) * Rotation.from_rotvec(draw(rotation, 3))
        quat = turned.as_quat(scalar_first=True)
        quat *= np.where((quat * pose[:, 3:]).sum(axis=1) < 0, -1.0, 1.0)[:, None]
        return np.concatenate([pose[:, :3] + draw(position, 3), quat], axis=1)

    return Motion(
        disturb(motion.wrist, noise.wrist_pos, noise.wrist_rot),
        motion.fingers + draw(noise.fingers, motion.fingers.shape[1]),
        disturb(motion.object, noise.object_pos, noise.object_rot),
    )


def _wander(frames: int, width: int, noise: Noise, rate_hz: float, generator: np.random.Generator) -> FloatArray:
    """(frames, width) of unit variance: constant, smooth (through a Gaussian window) and white parts."""
    sigma = noise.smooth_s * rate_hz
    reach = int(np.ceil(3 * sigma))
    window = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    window /= np.linalg.norm(window)
    raw = generator.standard_normal((frames + 2 * reach, width))
    smooth = np.stack([np.convolve(raw[:, i], window, mode="valid") for i in range(width)], axis=1)
    constant = generator.standard_normal((1, width))
    white = generator.standard_normal((frames, width))
    rest = 1 - noise.white**2
    return np.sqrt(rest - 0.5 * rest) * (constant + smooth) + noise.white * white
