"""Do the numbers of a reference make sense? Each finding names the field, the value, and the first bad frame.

Shapes are checked when a clip is built (``sim.references.format``); this is about what the numbers say:
missing frames, units, quaternions, joint limits, jumps, and names that exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from robolearn.errors import did_you_mean, unknown
from sim.references.format import HUMAN, KEYPOINT_NAMES, MAX_RATE_HZ, MIN_RATE_HZ, Reference, ReferenceError
from sim.robots import get_hand, list_hands

MIN_SECONDS = 0.25
UNIT_TOLERANCE = 1e-3
"""how far the norm of a quaternion may be from 1"""
LIMIT_TOLERANCE = 0.02
"""rad, how far a joint may be beyond its limit (calibration and rounding)"""

# A jump is a step between neighbouring frames larger than noise plus the fastest hand: floor + speed · dt.
_JUMP = {"m": (0.05, 5.0), "rad": (0.4, 25.0)}
_FAR = 5.0  # m; a table-top scene is smaller
_HAND = (0.05, 0.15)  # m, wrist to middle knuckle of a human hand


@dataclass(frozen=True)
class Problem:
    """One finding about one field; ``frame`` and ``time`` (s) tell where it begins, None: everywhere."""

    field: str
    message: str
    frame: int | None = None
    time: float | None = None

    def __str__(self) -> str:
        where = "" if self.frame is None else f" at frame {self.frame} ({self.time:.3f} s)"
        return f"field {self.field!r}{where}: {self.message}"


def check(reference: Reference) -> None:
    """Raise :class:`ReferenceError` with the first finding of :func:`problems` and the number of others."""
    found = problems(reference)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ReferenceError(f"reference {reference.name!r}: {found[0]}{more}")


def problems(reference: Reference) -> list[Problem]:
    """Everything that is wrong with a clip, names first; at most one finding a field and kind."""
    with np.errstate(over="ignore", invalid="ignore"):  # absurd numbers are findings, not warnings
        return list(_problems(reference))


def missing_frames(reference: Reference) -> np.ndarray:
    """(T,) bool: frames without data, by ``valid`` or by NaN in any field."""
    return np.any(list(_missing(reference).values()), axis=0)


def streams(reference: Reference) -> dict[str, np.ndarray]:
    """The arrays over time that a clip has, by field name: (T, …)."""
    fields = {key: getattr(reference, key) for key in ("wrist_pose", "object_pose", "joint_pos", "keypoints")}
    return {key: values for key, values in fields.items() if values is not None}


def _problems(reference: Reference) -> Iterator[Problem]:
    yield from _names(reference)
    if not MIN_RATE_HZ <= reference.rate_hz <= MAX_RATE_HZ:
        yield Problem("rate_hz", f"{reference.rate_hz:g} Hz; expected {MIN_RATE_HZ:g} to {MAX_RATE_HZ:g} Hz")
    if reference.duration < MIN_SECONDS:
        yield Problem(
            "wrist_pose",
            f"{reference.num_frames} frames last {reference.duration:.3f} s; expected ≥ {MIN_SECONDS} s",
        )
    missing = missing_frames(reference)
    if missing.all():
        yield Problem("valid", "every frame is missing")
        return
    for field, gone in _missing(reference).items():
        if gone.any():
            longest = max(stop - start for start, stop in runs(gone))
            message = (
                f"{gone.sum()} of {len(gone)} frames are missing, at most {longest} "
                f"({longest / reference.rate_hz:.2f} s) in a row; short gaps can be repaired"
            )
            yield _at(reference, field, gone, message)
    yield from _units(reference)
    yield from _quaternions(reference)
    yield from _limits(reference)
    yield from _jumps(reference, ~missing)
    yield from _scene(reference)


def _missing(reference: Reference) -> dict[str, np.ndarray]:
    gone = {} if reference.valid is None else {"valid": ~reference.valid}
    for field, values in streams(reference).items():
        gone[field] = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
    return gone


def _names(reference: Reference) -> Iterator[Problem]:
    from sim.objects import list_objects

    if reference.object not in list_objects():
        yield Problem("object", unknown("object", reference.object, list_objects()))
    if reference.joint_pos is None:
        return
    if reference.robot not in list_hands():
        yield Problem("robot", unknown("robot", reference.robot, list_hands()))
        return
    robot = get_hand(reference.robot, side=reference.side)
    given, expected = reference.joint_names, robot.finger_joints
    for name in given:
        if name not in expected:
            hint = did_you_mean(name, expected)
            yield Problem(
                "joint_names",
                f"{robot.name} ({robot.side}) has no joint {name!r}; {hint}joints: {', '.join(expected)}",
            )
            return
    if set(given) != set(expected) or len(set(given)) != len(given):
        left_out = [name for name in expected if name not in given]
        twice = sorted({name for name in given if given.count(name) > 1})
        yield Problem(
            "joint_names",
            f"{len(given)} names, expected the {len(expected)} finger joints of {robot.name}; "
            f"missing: {', '.join(left_out) or 'none'}; twice: {', '.join(twice) or 'none'}",
        )


def _units(reference: Reference) -> Iterator[Problem]:
    for field, values in streams(reference).items():
        if field == "joint_pos":
            high = np.nanmax(np.abs(values), initial=0.0)
            if high > 2 * np.pi:
                message = f"joints up to {high:.0f} rad; degrees? expected radians within ±2π"
                yield _at(reference, field, np.abs(values) > 2 * np.pi, message)
            continue
        distance = np.abs(values[..., :3])
        if np.nanmax(distance, initial=0.0) > _FAR:
            unit = "millimetres" if np.nanmedian(distance.max(axis=-1)) > 50 else "centimetres"
            message = f"positions up to {np.nanmax(distance):.0f} m; {unit}? expected metres within ±{_FAR:g}"
            yield _at(reference, field, distance > _FAR, message)
    if reference.keypoints is None or reference.robot != HUMAN:
        return
    knuckle = reference.keypoints[:, KEYPOINT_NAMES.index("middle_mcp")] - reference.keypoints[:, 0]
    length = np.linalg.norm(knuckle, axis=1)
    palm = np.median(length[np.isfinite(length)])
    if not _HAND[0] <= palm <= _HAND[1]:
        expected = f"expected {_HAND[0]} to {_HAND[1]} m: another unit, or another keypoint order?"
        yield Problem("keypoints", f"wrist to middle knuckle is {palm:.3f} m; {expected}")
    offset = np.linalg.norm(reference.wrist_pose[:, :3] - reference.keypoints[:, 0], axis=1)
    if np.nanmax(offset, initial=0.0) > 0.25:
        message = f"{np.nanmax(offset):.2f} m from the wrist keypoint; are both in the world frame?"
        yield _at(reference, "wrist_pose", offset > 0.25, message)


def _quaternions(reference: Reference) -> Iterator[Problem]:
    for field in ("wrist_pose", "object_pose"):
        norm = np.linalg.norm(getattr(reference, field)[:, 3:], axis=1)
        bad = np.abs(norm - 1) > UNIT_TOLERANCE
        if bad.any():
            worst = norm[bad][0]
            message = f"quaternion norm {worst:.4f}; expected 1 ± {UNIT_TOLERANCE:g} ({bad.sum()} frames)"
            yield _at(reference, field, bad, message)
    present = np.isfinite(reference.object_pose).all(axis=1)
    if not present.any():
        return
    # One rotation does not show its order of components, but most clips begin with an upright object.
    w, x, y, z = reference.object_pose[present][0, 3:]
    upright_as_wxyz = 1 - 2 * (x * x + y * y)  # z component of the object's z axis
    upright_as_xyzw = 1 - 2 * (w * w + x * x)
    given = f"quaternion ({w:.3f}, {x:.3f}, {y:.3f}, {z:.3f})"
    if upright_as_xyzw > 0.999 and upright_as_wxyz < 0.9:
        message = f"{given} stands upright only when read as xyzw; expected wxyz"
        yield _at(reference, "object_pose", present, message)
    elif np.allclose([w, x, y], 0, atol=1e-3):
        message = f"{given} is no rotation in xyzw but half a turn in wxyz; expected wxyz"
        yield _at(reference, "object_pose", present, message)


def _limits(reference: Reference) -> Iterator[Problem]:
    limits = joint_limits(reference)
    if limits is None or reference.joint_pos is None:
        return
    lower, upper = limits
    excess = np.maximum(lower - reference.joint_pos, reference.joint_pos - upper)
    bad = excess > LIMIT_TOLERANCE
    if bad.any():
        frame, joint = (int(i) for i in np.argwhere(bad)[0])
        message = (
            f"joint {reference.joint_names[joint]!r} is {reference.joint_pos[frame, joint]:.3f} rad; "
            f"limits {lower[joint]:.3f} to {upper[joint]:.3f} ± {LIMIT_TOLERANCE} "
            f"({bad.any(axis=1).sum()} frames beyond, worst by {np.nanmax(excess):.3f} rad)"
        )
        yield _at(reference, "joint_pos", bad, message)


def joint_limits(reference: Reference) -> tuple[np.ndarray, np.ndarray] | None:
    """Lower and upper limits (J,), rad, in the order of ``reference.joint_names``; None: unknown names."""
    if reference.joint_pos is None or reference.robot not in list_hands():
        return None
    robot = get_hand(reference.robot, side=reference.side)
    if any(name not in robot.joint_names for name in reference.joint_names):
        return None
    index = [robot.joint_names.index(name) for name in reference.joint_names]
    return np.asarray(robot.lower)[index], np.asarray(robot.upper)[index]


def _jumps(reference: Reference, present: np.ndarray) -> Iterator[Problem]:
    here = np.flatnonzero(present)
    dt = np.diff(here) / reference.rate_hz
    for field, values in streams(reference).items():
        for unit, step in _steps(field, values[here]):
            floor, speed = _JUMP[unit]
            allowed = floor + speed * dt
            late = np.flatnonzero(step > allowed)
            if len(late):
                frame, worst = int(here[late[0] + 1]), late[0]
                message = (
                    f"jumps by {step[worst]:.3f} {unit} from the frame before; "
                    f"expected at most {allowed[worst]:.3f} {unit} ({len(late)} such frames)"
                )
                yield Problem(field, message, frame, frame / reference.rate_hz)


def _steps(field: str, values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    if len(values) < 2:
        return
    change = np.diff(values, axis=0)
    if field == "joint_pos":
        yield "rad", np.abs(change).max(axis=1, initial=0.0)
    elif field == "keypoints":
        yield "m", np.linalg.norm(change, axis=2).max(axis=1)
    else:
        yield "m", np.linalg.norm(change[:, :3], axis=1)
        unit = values[:, 3:] / np.maximum(np.linalg.norm(values[:, 3:], axis=1, keepdims=True), 1e-9)
        yield "rad", 2 * np.arccos(np.clip(np.abs((unit[1:] * unit[:-1]).sum(axis=1)), 0, 1))


def _scene(reference: Reference) -> Iterator[Problem]:
    if reference.table_height is None:
        return
    below = reference.table_height - reference.object_pose[:, 2]
    if np.nanmax(below, initial=-np.inf) > 0.05:
        table = f"the table top ({reference.table_height:.2f} m)"
        message = f"object centre {np.nanmax(below):.2f} m below {table}; is z up?"
        yield _at(reference, "object_pose", below > 0.05, message)


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """[start, stop) of every run of True in ``flags`` (T,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _at(reference: Reference, field: str, bad: np.ndarray, message: str) -> Problem:
    frame = int(bad.reshape(len(bad), -1).any(axis=1).argmax())
    return Problem(field, message, frame, frame / reference.rate_hz)
