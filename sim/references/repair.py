"""Repair of recordings made by others: gaps, outliers, noise, rate, limits; and a record of every change.

Order: quaternions are made unit and continuous in sign; outliers become gaps; gaps are filled (PCHIP for
positions and joints, spherical interpolation for rotations); noise is smoothed (Savitzky-Golay); the clip is
resampled; joints are clipped to their limits. Every keypoint and every joint is a track of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import median_filter
from scipy.signal import savgol_filter
from scipy.spatial.transform import Rotation, Slerp

from sim.references.check import joint_limits, runs, streams
from sim.references.format import MAX_RATE_HZ, MIN_RATE_HZ, Reference, ReferenceError

_POSES = ("wrist_pose", "object_pose")
_SPIKE_SCALE = 6.0  # an outlier is this many robust standard deviations away from its neighbours …
_SPIKE_FLOOR = {"m": 0.02, "rad": 0.25}  # … and at least this far: a still clip has no spread to speak of


class RepairError(ReferenceError):
    """A recording that is too damaged to repair without inventing motion."""


@dataclass
class Repair:
    """What :func:`repair` changed; ``str()`` is one line, empty when nothing was changed."""

    trimmed: int = 0
    """frames without data cut off at the ends"""
    trimmed_before: int = 0
    """… of which before the first frame kept"""
    filled: dict[str, int] = field(default_factory=dict)
    """frames filled, by field"""
    longest_gap: float = 0.0
    """s, longest gap that was filled"""
    outliers: dict[str, int] = field(default_factory=dict)
    """frames replaced because they stood out from their neighbours, by field"""
    normalised: dict[str, int] = field(default_factory=dict)
    """frames whose quaternion was not of unit norm, by field"""
    smoothed: dict[str, float] = field(default_factory=dict)
    """largest change by smoothing, by field and unit: ``"wrist_pose (m)"``"""
    clipped: int = 0
    """joint values moved to their limit"""
    clipped_by: float = 0.0
    """rad, farthest a joint was beyond its limit"""
    resampled: tuple[float, float] | None = None
    """(rate before, rate after), Hz"""

    def __str__(self) -> str:
        parts = []
        if self.trimmed:
            parts.append(f"trimmed {self.trimmed} empty frames at the ends")
        if self.normalised:
            parts.append(f"normalised quaternions ({_counts(self.normalised)})")
        if self.outliers:
            parts.append(f"replaced outliers ({_counts(self.outliers)})")
        if self.filled:
            parts.append(f"filled gaps up to {self.longest_gap:.2f} s ({_counts(self.filled)})")
        if self.smoothed:
            change = ", ".join(f"{key} ≤ {value:.2g}" for key, value in self.smoothed.items())
            parts.append(f"smoothed ({change})")
        if self.resampled:
            parts.append(f"resampled {self.resampled[0]:g} → {self.resampled[1]:g} Hz")
        if self.clipped:
            parts.append(f"clipped {self.clipped} joint values to limits (≤ {self.clipped_by:.3g} rad)")
        return "; ".join(parts)


def repair(
    reference: Reference,
    rate_hz: float | None = None,
    *,
    max_gap_s: float = 0.25,
    smooth_s: float = 0.2,
    max_clip: float = 0.3,
) -> tuple[Reference, Repair]:
    """Return the repaired clip and what was changed; the clip carries the same text in ``repaired``.

    Args:
        reference: a clip whose frames may be missing, noisy, or at another rate; it is not changed.
        rate_hz: rate of the result (30 to 120 Hz); None keeps the rate.
        max_gap_s: longest gap to fill, s. :func:`split_gaps` cuts a clip at longer ones.
        smooth_s: window of the smoothing filter (third-order Savitzky-Golay), s; 0 does not smooth.
        max_clip: farthest a joint may be beyond its limit to be clipped, rad.

    Raises:
        RepairError: too few frames with data, a gap longer than ``max_gap_s``, or a joint farther beyond its
            limit than ``max_clip``.
    """
    rate = reference.rate_hz if rate_hz is None else float(rate_hz)
    if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
        raise RepairError(f"rate {rate:g} Hz; expected {MIN_RATE_HZ:g} to {MAX_RATE_HZ:g} Hz")
    if not (np.isfinite(max_gap_s) and max_gap_s >= 0 and np.isfinite(smooth_s) and smooth_s >= 0):
        raise RepairError(f"max_gap_s {max_gap_s:g} and smooth_s {smooth_s:g} must be finite and not negative")
    report = Repair()
    data: dict[str, Any] = {key: _normalised(key, values, report) for key, values in streams(reference).items()}
    for values in data.values():
        if reference.valid is not None:
            values[~reference.valid] = np.nan
    for key, values in data.items():
        _drop_outliers(key, values, reference.rate_hz, report)
    data = _trim(reference, data, report)
    times = np.arange(len(data["wrist_pose"])) / reference.rate_hz
    for key in data:
        data[key] = _fill(reference, key, data[key], times, max_gap_s, report)
        if smooth_s > 0:
            data[key] = _smooth(key, data[key], reference.rate_hz, smooth_s, report)
    if abs(rate - reference.rate_hz) > 1e-9:
        report.resampled = (reference.rate_hz, rate)
        at = np.arange(int(np.floor(times[-1] * rate + 1e-6)) + 1) / rate
        data = {key: _interpolate(key, values, times, np.minimum(at, times[-1])) for key, values in data.items()}
    if "joint_pos" in data:
        data["joint_pos"] = _clip(reference, data["joint_pos"], max_clip, report)
    text = "; ".join(part for part in (reference.repaired, str(report)) if part)
    return replace(reference, rate_hz=rate, valid=None, repaired=text, **data), report


def split_gaps(reference: Reference, max_gap_s: float = 0.25, min_length_s: float = 0.5) -> list[Reference]:
    """Cut a clip at gaps (in any field) longer than ``max_gap_s``; leave out pieces below ``min_length_s``.

    Pieces are named ``<name>_00``, ``<name>_01``, …; a clip without such a gap is returned as it is. Raises
    :class:`RepairError` when no piece is long enough.
    """
    from sim.references.check import missing_frames

    gaps = [g for g in runs(missing_frames(reference)) if (g[1] - g[0]) / reference.rate_hz > max_gap_s]
    if not gaps:
        return [reference]
    starts, stops = [0] + [b for _, b in gaps], [a for a, _ in gaps] + [reference.num_frames]
    kept = [(a, b) for a, b in zip(starts, stops, strict=True) if (b - a - 1) / reference.rate_hz >= min_length_s]
    if not kept:
        raise RepairError(f"reference {reference.name!r}: no piece between gaps lasts {min_length_s:g} s")
    pieces = []
    for number, (a, b) in enumerate(kept):
        data: dict[str, Any] = {key: values[a:b] for key, values in streams(reference).items()}
        valid = None if reference.valid is None else reference.valid[a:b]
        text = f"frames {a} to {b - 1} of {reference.name}, cut at gaps over {max_gap_s:g} s"
        text = "; ".join(part for part in (reference.repaired, text) if part)
        pieces.append(replace(reference, name=f"{reference.name}_{number:02d}", valid=valid, repaired=text, **data))
    return pieces


def _tracks(key: str, values: np.ndarray) -> np.ndarray:
    """View as (T, tracks, numbers): a pose is one track, each keypoint and each joint is one."""
    return values.reshape(len(values), 1 if key in _POSES else values.shape[1], -1)


def _gone(key: str, values: np.ndarray) -> np.ndarray:
    """(T, tracks) bool: no data, or numbers that no hand has in any unit."""
    return ~(np.abs(_tracks(key, values)) < 1e6).all(axis=2)


def _normalised(key: str, values: np.ndarray, report: Repair) -> np.ndarray:
    values = values.copy()
    _tracks(key, values)[_gone(key, values)] = np.nan
    if key in _POSES:
        norm = np.linalg.norm(values[:, 3:], axis=1)
        values[~((norm > 0.5) & (norm < 2.0))] = np.nan  # says nothing about a direction
        good = np.flatnonzero(~_gone(key, values)[:, 0])
        off = np.abs(norm[good] - 1) > 1e-4
        if off.any():
            report.normalised[key] = int(off.sum())
        values[good, 3:] = continuous(values[good, 3:] / norm[good, None])
    return values


def continuous(quaternions: np.ndarray) -> np.ndarray:
    """q and -q are the same rotation: pick the signs that make (T, 4) continuous."""
    flips = np.concatenate([[1.0], np.where((quaternions[1:] * quaternions[:-1]).sum(axis=1) < 0, -1.0, 1.0)])
    return quaternions * np.cumprod(flips)[:, None]


def _drop_outliers(key: str, values: np.ndarray, rate: float, report: Repair) -> None:
    """Hampel filter: values far from the running median, measured by the spread around it, become NaN."""
    if key in _POSES:
        floor = np.array([_SPIKE_FLOOR["m"]] * 3 + [_SPIKE_FLOOR["rad"] / 2] * 4)  # a quaternion turns half the angle
    else:
        floor = np.array(_SPIKE_FLOOR["rad" if key == "joint_pos" else "m"])
    window = 2 * max(2, round(0.05 * rate)) + 1
    tracks = _tracks(key, values)
    touched = np.zeros(len(values), dtype=bool)
    for track in range(tracks.shape[1]):
        good = np.flatnonzero(np.isfinite(tracks[:, track]).all(axis=1))
        if len(good) < window:
            continue
        extended = _extended(tracks[good, track], window // 2)
        middle = median_filter(extended, size=(window, 1))[window // 2 : -(window // 2)]
        residual = np.abs(tracks[good, track] - middle)
        spread = 1.4826 * np.median(residual, axis=0)
        wild = (residual > np.maximum(floor, _SPIKE_SCALE * spread)).any(axis=1)
        for start, stop in runs(wild):
            if stop - start > window // 2:  # a step that stays is a jump, not an outlier
                wild[start:stop] = False
        tracks[good[wild], track] = np.nan
        touched[good[wild]] = True
    if touched.any():
        report.outliers[key] = int(touched.sum())


def _extended(track: np.ndarray, half: int) -> np.ndarray:
    """(N, D) with ``half`` more samples at both ends, on a line through the end that no outlier tilts."""

    def before(end: np.ndarray) -> np.ndarray:
        slope = np.median(np.diff(end, axis=0), axis=0)
        level = np.median(end - slope * np.arange(len(end))[:, None], axis=0)
        return level + slope * np.arange(-half, 0)[:, None]

    count = 2 * half + 1
    return np.concatenate([before(track[:count]), track, before(track[::-1][:count])[::-1]])


def _trim(reference: Reference, data: dict[str, np.ndarray], report: Repair) -> dict[str, np.ndarray]:
    present = ~np.any([_gone(key, values).any(axis=1) for key, values in data.items()], axis=0)
    if present.sum() < 2:
        raise RepairError(f"reference {reference.name!r}: fewer than 2 frames have data in every field")
    first, last = int(present.argmax()), len(present) - int(present[::-1].argmax())
    report.trimmed = len(present) - (last - first)
    report.trimmed_before = first
    return {key: values[first:last] for key, values in data.items()}


def _fill(
    reference: Reference, key: str, values: np.ndarray, times: np.ndarray, max_gap_s: float, report: Repair
) -> np.ndarray:
    gone = _gone(key, values)
    tracks = _tracks(key, values)
    for track in np.flatnonzero(gone.any(axis=0)):
        for start, stop in runs(gone[:, track]):
            seconds = (stop - start) / reference.rate_hz
            if seconds > max_gap_s:
                what = f"field {key!r}" + ("" if key in _POSES else f" (column {track})")
                raise RepairError(
                    f"reference {reference.name!r}: {what} has no data for {seconds:.2f} s from frame "
                    f"{start + report.trimmed_before}; the longest gap to fill is {max_gap_s:g} s "
                    "(split there, or allow a longer gap)"
                )
            report.longest_gap = max(report.longest_gap, seconds)
        here = ~gone[:, track]
        tracks[:, track] = _interpolate(key, tracks[here, track], times[here], times)
    if gone.any():
        report.filled[key] = int(gone.any(axis=1).sum())
    return values


def _interpolate(key: str, values: np.ndarray, times: np.ndarray, at: np.ndarray) -> np.ndarray:
    if key not in _POSES:
        return PchipInterpolator(times, values, axis=0)(at)
    position = PchipInterpolator(times, values[:, :3], axis=0)(at)
    rotation = Slerp(times, Rotation.from_quat(values[:, 3:], scalar_first=True))(at)
    return np.concatenate([position, continuous(rotation.as_quat(scalar_first=True))], axis=1)


def _smooth(key: str, values: np.ndarray, rate: float, seconds: float, report: Repair) -> np.ndarray:
    window = min(2 * round(seconds * rate / 2) + 1, len(values) - 1 + len(values) % 2)
    if window < 5:  # a cubic through four points changes nothing
        return values
    smooth = savgol_filter(values, window, polyorder=3, axis=0, mode="interp")
    if key in _POSES:
        smooth[:, 3:] /= np.linalg.norm(smooth[:, 3:], axis=1, keepdims=True)
        apart = np.linalg.norm(smooth[:, 3:] - values[:, 3:], axis=1)  # a chord of the unit sphere
        change = {"m": np.linalg.norm(smooth[:, :3] - values[:, :3], axis=1), "rad": 4 * np.arcsin(apart / 2)}
    elif key == "keypoints":
        change = {"m": np.linalg.norm(smooth - values, axis=2)}
    else:
        change = {"rad": np.abs(smooth - values)}
    for unit, amount in change.items():
        if amount.max() > 1e-6:  # below that it is rounding
            report.smoothed[f"{key} ({unit})"] = float(amount.max())
    return smooth


def _clip(reference: Reference, joints: np.ndarray, max_clip: float, report: Repair) -> np.ndarray:
    limits = joint_limits(reference)
    if limits is None:
        return joints
    excess = np.maximum(limits[0] - joints, joints - limits[1])
    if excess.max() > max_clip:
        frame, joint = (int(i) for i in np.argwhere(excess > max_clip)[0])
        raise RepairError(
            f"reference {reference.name!r}: joint {reference.joint_names[joint]!r} is "
            f"{joints[frame, joint]:.3f} rad at frame {frame}; limits {limits[0][joint]:.3f} to "
            f"{limits[1][joint]:.3f}, and repair clips at most {max_clip:g} rad"
        )
    beyond = excess > 1e-6
    report.clipped, report.clipped_by = int(beyond.sum()), float(excess[beyond].max(initial=0.0))
    return np.clip(joints, *limits)


def _counts(frames: dict[str, int]) -> str:
    return ", ".join(f"{key} {count} frame{'s' if count > 1 else ''}" for key, count in frames.items())
