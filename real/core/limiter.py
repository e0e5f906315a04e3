"""From wild targets to a motion that a robot may be sent: position, velocity, acceleration, jerk, workspace.

Two stages, both exact in discrete time (tick dt, v' = v + a dt, p' = p + v' dt), so that finite differences of the
positions sent are the velocities, accelerations and jerks that are limited:

1. A time-optimal generator under velocity and acceleration limits. With d = A dt, who leaves a tick with speed v and
   then brakes has covered dt (v + (v - d) + (v - 2d) + ...) = dt ((n + 1) v - d n (n + 1) / 2), n = floor(v / d), at
   rest. The inverse of that increasing, piecewise linear function is the highest speed that can still stop at a
   target; a distance below d dt is covered in one tick and ends at rest, so the generator settles exactly.
2. A mean of each joint's last M generator states. A mean keeps bounds of position, velocity and acceleration, and
   the jerk of a mean over M ticks is (a[k] - a[k-M]) / (M dt) <= 2A / (M dt), so M = ceil(2A / (J dt)) keeps J. It
   costs A / J more than a jerk-optimal motion. M is 1, no filter, where J allows a reversal of A within a tick.

Whatever the targets, the invariants follow by induction and convexity; nothing has to be predicted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from real.core.errors import CommandError, LimitError
from real.core.limits import FloatArray, JointLimits, Workspace

LONGEST_FILTER_S = 5.0
"""s: jerk limits that take longer than this to reverse the acceleration are refused."""
_TRAVEL = 0.02
"""rad or m: the braking path is checked against the workspace about that often, up to `_CHECKS` times."""
_CHECKS = 24
_SLACK = 1e-9
"""Relative: differences below it are rounding, not a limit at work."""


@dataclass
class Clamped:
    """Which limits stood between a target and what was sent, in this tick, for any joint.

    Attributes:
        position: the target was beyond a position limit.
        velocity: the target could not be reached in this tick at the velocity limit.
        acceleration: nor by the acceleration limit: speeding up, or braking in time.
        jerk: the jerk limit has the motion lag behind what the other limits allow.
        workspace: the tool would have left its box.
    """

    position: bool = False
    velocity: bool = False
    acceleration: bool = False
    jerk: bool = False
    workspace: bool = False


@dataclass(frozen=True, eq=False)
class Limited:
    """What to send: (J,) each, read-only, in rad or m and their derivatives by time."""

    position: FloatArray
    velocity: FloatArray
    acceleration: FloatArray
    clamped: Clamped = field(default_factory=Clamped)

    def __post_init__(self) -> None:
        for array in (self.position, self.velocity, self.acceleration):
            array.setflags(write=False)


class Limiter:
    """Moves J joints to targets, one tick at a time; every output keeps every limit, for any sequence of calls.

    A joint that starts outside its position limits moves back in only. Targets of a tool outside the workspace stop
    the whole arm short of its side: on the way to rest the tool does not leave the box by more than the bow of its
    path between two checks, below 2 mm for an arm of 1 m; a tool that starts outside never gets further out.

    Attributes:
        limits, dt, workspace: as given; dt in s.

    Raises:
        LimitError: dt is not a positive number, or the jerk limits are too small (`LONGEST_FILTER_S`).
    """

    def __init__(self, limits: JointLimits, dt: float, workspace: Workspace | None = None) -> None:
        if not isinstance(dt, (int, float)) or not math.isfinite(dt) or dt <= 0:
            raise LimitError(f"the limiter's dt is a number of seconds above 0, not {dt!r}")
        self.limits, self.dt, self.workspace = limits, float(dt), workspace
        # A higher acceleration would cost more in smoothing, 2A/J, than it gains in speeding up, V/A.
        acceleration = np.minimum(limits.acceleration, np.sqrt(limits.velocity * limits.jerk / 2))
        window = np.maximum(np.ceil(2 * acceleration / (limits.jerk * dt) - _SLACK), 1).astype(int)
        if (window * dt > LONGEST_FILTER_S).any():
            joint = int(np.argmax(window))
            raise LimitError(
                f"joint {limits.names[joint]!r}: jerk limit {limits.jerk[joint]} takes {window[joint] * dt:.1f} s to "
                f"reverse the acceleration; at most {LONGEST_FILTER_S} s"
            )
        self._window = window
        self._step = np.minimum(acceleration, limits.jerk * dt * window / 2) * dt
        rows = np.arange(window.max())[:, None]
        self._weight = (rows < window) / window
        self._age = np.minimum(rows, window - 1)
        middle = (self.limits.lower + self.limits.upper) / 2
        self.reset(middle)

    @property
    def position(self) -> FloatArray:
        """(J,) the positions last sent."""
        return self._sent.position

    @property
    def moving(self) -> bool:
        """Whether a further tick of `stop` would change what is sent."""
        drained = (self._positions == self._position) | (self._weight == 0)
        return bool(self._velocity.any() or not drained.all() or self._sent.velocity.any())

    def reset(self, position: ArrayLike, velocity: ArrayLike | None = None) -> None:
        """Start from a command without acceleration.

        Args:
            position: (J,) where the robot is commanded now; may be outside the limits.
            velocity: (J,) at rest if None; reduced to what can still be stopped before a position limit.

        Raises:
            CommandError: as `step`; the state has not moved.
        """
        start = self._checked("position", position)
        speed = np.zeros_like(start) if velocity is None else self._checked("velocity", velocity)
        speed = self._stoppable(start, speed)
        # The mean over the window is `start`: the generator is ahead by half a window.
        ahead = (self._window - 1) / 2 - self._age
        self._positions = start + ahead * (speed * self.dt)
        self._velocities = np.tile(speed, (len(ahead), 1))
        self._position, self._velocity = self._positions[0].copy(), speed
        self._sent = Limited(start.copy(), speed.copy(), np.zeros_like(start))

    def step(self, target: ArrayLike, velocity: ArrayLike | None = None) -> Limited:
        """One tick towards a target.

        Args:
            target: (J,) where to be, to rest there; it may lie anywhere.
            velocity: (J,) of a target that moves: it is then followed without lag, for the price of overshooting
                where it stops faster than the limits allow.

        Raises:
            CommandError: naming the joint, for a wrong size or type or a number that is not finite; the state has
                not moved.
        """
        target = self._checked("target", target)
        goal = np.minimum(np.maximum(target, self.limits.lower), self.limits.upper)
        clamped = Clamped(position=bool((goal != target).any()))
        away = (goal - self._position) / self.dt
        if velocity is not None:
            goal = self._where_it_stops(goal, self._checked("velocity", velocity))
        wish = self._towards(goal)
        if self.workspace is not None and not self._stays(self.workspace, wish):
            clamped.workspace = True
            wish = self._straight(goal)
            if not self._stays(self.workspace, wish):
                wish = self._braked()
        most = self.limits.velocity
        clamped.velocity = bool((np.abs(away) > most * (1 + _SLACK)).any())
        best = np.minimum(np.maximum(away, -most), most)
        clamped.acceleration = bool((np.abs(wish - best) > most * _SLACK).any())
        return self._advance(wish, clamped)

    def stop(self) -> Limited:
        """One tick of the fastest stop; `moving` tells when it has ended."""
        return self._advance(self._braked(), Clamped())

    def _checked(self, what: str, value: ArrayLike) -> FloatArray:
        names = self.limits.names
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise CommandError(f"{what} is no array of {len(names)} numbers: {error}") from error
        if array.shape != (len(names),):
            raise CommandError(
                f"{what}: shape {array.shape} given, ({len(names)},) expected for {names[0]} ... {names[-1]}"
            )
        if array.dtype.kind != "f":
            raise CommandError(f"{what}: {array.dtype} given for {names[0]} ... {names[-1]}, floating point expected")
        array = array.astype(np.float64)
        if not np.isfinite(array).all():
            joint = int(np.argmax(~np.isfinite(array)))
            raise CommandError(f"{what} of joint {names[joint]!r} is {array[joint]}, not a finite number")
        return array

    def _highest(self, distance: FloatArray) -> FloatArray:
        """Highest speed of a tick after which braking ends within ``distance`` (J,) >= 0, counted from before it."""
        s, step = distance / self.dt, self._step * (1 - _SLACK)  # braking has a bit to spare, against rounding
        n = np.floor((np.sqrt(1 + 8 * s / step) - 1) / 2)
        return s / (n + 1) + step * (n / 2)

    def _braking(self, speed: FloatArray) -> FloatArray:
        """Distance covered from the next tick on by braking from ``speed`` (J,) >= 0."""
        n = np.floor(speed / self._step)
        return self.dt * (n * speed - self._step * (n * (n + 1) / 2))

    def _reachable(self, velocity: FloatArray) -> FloatArray:
        """The velocity closest to ``velocity`` that one tick of acceleration allows."""
        return np.minimum(np.maximum(velocity, self._velocity - self._step), self._velocity + self._step)

    def _towards(self, goal: FloatArray) -> FloatArray:
        away = goal - self._position
        speed = np.minimum(self._highest(np.abs(away)), self.limits.velocity)
        return self._reachable(np.copysign(speed, away))

    def _straight(self, goal: FloatArray) -> FloatArray:
        """As `_towards`, but slower where that keeps to the straight line of joints; from rest it does."""
        away = goal - self._position
        speed = np.minimum(self._highest(np.abs(away)), self.limits.velocity)
        speed = np.minimum(speed, np.abs(self._velocity) + self._step)
        far = np.abs(away) > _SLACK
        share = np.min(speed[far] / np.abs(away[far]), initial=1 / self.dt)
        return self._reachable(share * away)

    def _braked(self) -> FloatArray:
        return self._velocity - np.minimum(np.maximum(self._velocity, -self._step), self._step)

    def _where_it_stops(self, goal: FloatArray, velocity: FloatArray) -> FloatArray:
        """The point where a target at ``goal`` could stop: who can stop there can follow the target until then."""
        speed = np.minimum(np.abs(velocity), self.limits.velocity)
        ahead = goal + np.copysign(self._braking(speed), velocity)
        return np.minimum(np.maximum(ahead, self.limits.lower), self.limits.upper)

    def _stoppable(self, start: FloatArray, velocity: FloatArray) -> FloatArray:
        room = np.where(velocity > 0, self.limits.upper - start, start - self.limits.lower)
        room = np.maximum(room, 0)
        speed = np.minimum(np.minimum(np.abs(velocity), self.limits.velocity), self._highest(room))
        # Half a window lies between what is sent and the generator; the first tick of it is in `_highest` already.
        lead = np.maximum((self._window - 1) / 2 - 1, 0) * speed * self.dt
        return np.copysign(np.minimum(speed, self._highest(np.maximum(room - lead, 0))), velocity)

    def _stays(self, workspace: Workspace, velocity: FloatArray) -> bool:
        """Whether the tool stays in the box, or gets no further out, in a tick with ``velocity`` and in a stop then."""
        allowed = workspace.excess(self._position) + _SLACK
        speed = np.abs(velocity)
        ticks = np.floor(speed / self._step)
        checks = min(max(math.ceil(float(self._braking(speed).max()) / _TRAVEL), 1), _CHECKS)
        after = np.minimum(np.linspace(0, ticks.max(), checks + 1)[:, None], ticks)
        covered = (after + 1) * speed - self._step * (after * (after + 1) / 2)
        path = self._position + np.copysign(covered, velocity) * self.dt
        return all((workspace.excess(joints) <= allowed).all() for joints in path)

    def _advance(self, velocity: FloatArray, clamped: Clamped) -> Limited:
        before, last = self._position, self._sent
        position = before + velocity * self.dt
        # Rounding may carry a joint past a limit that it is to stop at; who starts outside is left there.
        position = np.maximum(position, np.minimum(self.limits.lower, before))
        position = np.minimum(position, np.maximum(self.limits.upper, before))
        self._position, self._velocity = position, velocity
        if len(self._weight) == 1:
            sent, speed = position, velocity
            self._positions[0], self._velocities[0] = position, velocity
        else:
            sent = self._mean(self._positions, position)
            speed = self._mean(self._velocities, velocity)
            sent = np.maximum(sent, np.minimum(self.limits.lower, last.position))
            sent = np.minimum(sent, np.maximum(self.limits.upper, last.position))
            clamped.jerk = bool((np.abs(speed - velocity) > self.limits.velocity * _SLACK).any())
        self._sent = Limited(sent.copy(), speed.copy(), (speed - last.velocity) / self.dt, clamped)
        return self._sent

    def _mean(self, history: FloatArray, newest: FloatArray) -> FloatArray:
        """Put ``newest`` (J,) first in ``history`` (M, J), and return the mean; it is exact where all are equal."""
        history[1:] = history[:-1]
        history[0] = newest
        result: FloatArray = newest + np.einsum("ij,ij->j", self._weight, history - newest)
        return result
