"""Messages as numbers in our order and conventions; a message with anything wrong in it is refused as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from real.errors import RealError
from robolearn.errors import did_you_mean

FloatArray = NDArray[np.float64]

UNIT_QUATERNION = 1e-3
"""A quaternion's length may differ from 1 by that much; it is normalised."""
_BEYOND = 2.0
"""A joint measured that many half ranges away from the middle of its range is no measurement of that joint."""
_SLACK_HINGE, _SLACK_SLIDE = 0.05, 0.005
"""rad and m beyond a limit that are always well, for joints with a tiny range."""
_SECOND = 1_000_000_000
_NAMES_SHOWN = 40
"""Of a message's joints in a refusal: a message may name thousands."""


class Refused(RealError):
    """A message that is not used; says why."""


class JointReader:
    """Reads joints by name out of JointState messages, whatever their order; other joints are ignored."""

    def __init__(
        self,
        names: Sequence[str],
        field: str = "position",
        lower: FloatArray | None = None,
        upper: FloatArray | None = None,
        hinge: NDArray[np.bool_] | None = None,
    ) -> None:
        """Prepare to read.

        Args:
            names: J joints, in the order wanted.
            field: position, velocity or effort.
            lower, upper: (J,) limits of position, by which degrees are told from radians; None: not looked at.
            hinge: (J,) which joints turn; None: all.
        """
        self.names = tuple(names)
        self.field = field
        self.lower, self.upper = lower, upper
        self.hinge = np.ones(len(self.names), bool) if hinge is None else hinge
        self._known: tuple[str, ...] = ()
        self._index = np.zeros(0, np.intp)

    def read(self, message: Any) -> FloatArray:
        """(J,) values of the field. Raises Refused."""
        names = tuple(message.name)
        values = np.asarray(getattr(message, self.field), dtype=np.float64)
        if values.shape != (len(names),):
            raise Refused(f"{values.size} values of {self.field} for {len(names)} joint names")
        if names != self._known:
            self._index = self._find(names)
            self._known = names
        finite = np.isfinite(values)
        if not finite.all():
            bad = int(np.argmin(finite))
            raise Refused(f"{self.field} of joint {names[bad][:40]!r} is {values[bad]}, not a finite number")
        chosen = values[self._index]
        if self.field == "position" and self.lower is not None and self.upper is not None:
            self._check_range(chosen, self.lower, self.upper)
        return chosen

    def _find(self, names: tuple[str, ...]) -> NDArray[np.intp]:
        if len(set(names)) < len(names):
            twice = Counter(names).most_common(1)[0][0]
            raise Refused(f"joint {twice[:40]!r} is named twice")
        missing = [name for name in self.names if name not in names]
        if missing:
            some = names[:_NAMES_SHOWN]
            given = ", ".join(name[:40] for name in some) or "none"
            given += f" and {len(names) - len(some)} more" * (len(names) > len(some))
            raise Refused(f"joints missing: {', '.join(missing)}; {did_you_mean(missing[0], some)}given: {given}")
        return np.array([names.index(name) for name in self.names], np.intp)

    def _check_range(self, values: FloatArray, lower: FloatArray, upper: FloatArray) -> None:
        half = (upper - lower) / 2
        slack = np.where(self.hinge, _SLACK_HINGE, _SLACK_SLIDE)
        far = np.isfinite(half) & (np.abs(values - (upper + lower) / 2) > np.maximum(_BEYOND * half, half + slack))
        if not far.any():
            return
        turned = np.deg2rad(values)
        inside = (turned >= lower - slack) & (turned <= upper + slack)
        worst = int(np.argmax(far))
        what = f"joint {self.names[worst]!r} at {values[worst]:.4g} is far outside its limits "
        what += f"[{lower[worst]:.4g}, {upper[worst]:.4g}]"
        if (far & self.hinge).any() and inside[self.hinge].all():
            raise Refused(f"{what}: looks like degrees; radians are expected")
        raise Refused(what)


def read_pose(message: Any, frame: str = "") -> FloatArray:
    """(7,) m + wxyz of a PoseStamped.

    Args:
        message: the message; ROS quaternions are xyzw.
        frame: the ``frame_id`` expected; empty: any.

    Raises:
        Refused: another frame, a number that is not finite, or a quaternion that is not of unit length.
    """
    given = message.header.frame_id.removeprefix("/")
    if frame and given != frame.removeprefix("/"):
        raise Refused(f"frame {given[:60]!r} given, {frame!r} expected")
    p, r = message.pose.position, message.pose.orientation
    pose = np.array([p.x, p.y, p.z, r.w, r.x, r.y, r.z], dtype=np.float64)
    if not np.isfinite(pose).all():
        raise Refused(f"{('x', 'y', 'z', 'qw', 'qx', 'qy', 'qz')[int(np.argmin(np.isfinite(pose)))]} is not finite")
    length = float(np.linalg.norm(pose[3:]))
    if abs(length - 1.0) > UNIT_QUATERNION:
        raise Refused(f"the quaternion's length is {length:.4g}, not 1")
    pose[3:] /= length
    return pose


def read_values(message: Any, shape: tuple[int, ...]) -> FloatArray:
    """Values of a Float64MultiArray in the shape wanted (C order). Raises Refused."""
    values = np.asarray(message.data, dtype=np.float64)
    size = int(np.prod(shape))
    if values.size != size:
        raise Refused(f"{values.size} values given, {size} expected")
    if not np.isfinite(values).all():
        index = int(np.argmin(np.isfinite(values)))
        raise Refused(f"value {index} is {values[index]}, not a finite number")
    return values.reshape(shape)


def stamp_ns(message: Any) -> int:
    """The header's stamp, ns since 1970; 0 for a message without a header or stamp, or with one that no Time is."""
    header = getattr(message, "header", None)
    if header is None or header.stamp.nanosec >= _SECOND:
        return 0
    return int(header.stamp.sec * _SECOND + header.stamp.nanosec)
