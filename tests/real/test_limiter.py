"""The limiter keeps every limit, whatever it is told, and is still quick to get where it is sent."""

from __future__ import annotations

import time
from functools import cache

import mujoco
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from real.core.errors import CommandError, LimitError
from real.core.limiter import Limited, Limiter
from real.core.limits import JointLimits, Workspace
from sim.robots import get_robot

DT = 0.004
SETTINGS = [
    pytest.param(1.0, id="published"),
    pytest.param({"velocity": 0.5, "acceleration": 0.3, "jerk": 0.1}, id="gentle"),
    pytest.param({"jerk": 0.02}, id="low_jerk"),
]


def panda(scale=1.0) -> JointLimits:
    return JointLimits.from_robot(get_robot("panda"), scale=scale)


def assert_within(limits: JointLimits, dt: float, start, outputs: list[Limited], *, at_speed=None) -> None:
    """Finite differences of the positions sent, from ``start`` (at ``at_speed``) on, keep every limit."""
    positions = np.array([start, *(o.position for o in outputs)])
    first = np.zeros_like(start) if at_speed is None else at_speed
    velocity = np.diff(positions, axis=0) / dt
    acceleration = np.diff(np.concatenate([[first], velocity]), axis=0) / dt
    jerk = np.diff(np.concatenate([np.zeros_like(acceleration[:1]), acceleration]), axis=0) / dt
    # A position near 3 rad is known to 4e-16 rad, so its differences are known to that over dt, dt^2, dt^3.
    ulp = 8 * np.finfo(float).eps * max(1.0, np.abs(positions).max())
    assert (positions >= np.minimum(limits.lower, start)).all() and (positions <= np.maximum(limits.upper, start)).all()
    for value, limit, rounding in (
        (velocity, limits.velocity, ulp / dt),
        (acceleration, limits.acceleration, ulp / dt**2),
        (jerk, limits.jerk, ulp / dt**3),
    ):
        assert (np.abs(value) <= limit * (1 + 1e-9) + rounding).all(), np.max(np.abs(value) / limit)
    told = np.array([o.velocity for o in outputs])
    assert np.allclose(told, velocity, rtol=0, atol=ulp / dt + 1e-9 * limits.velocity.max())
    told = np.array([o.acceleration for o in outputs])
    assert np.allclose(told, acceleration, rtol=0, atol=ulp / dt**2 + 1e-9 * limits.acceleration.max())


def bring_to_rest(limiter: Limiter) -> list[Limited]:
    outputs = []
    bound = 10 + np.max(limiter.limits.velocity / (limiter._step / limiter.dt)) / limiter.dt + limiter._window.max()
    while limiter.moving:
        outputs.append(limiter.stop())
        assert len(outputs) < 2 * bound, "the stop does not end"
    outputs.append(limiter.stop())
    assert not outputs[-1].velocity.any()
    return outputs


@st.composite
def joint_limits(draw):
    n = draw(st.integers(1, 3))

    def numbers(low: float, high: float) -> list[float]:
        return [10.0**e for e in draw(st.lists(st.floats(low, high), min_size=n, max_size=n))]

    lower = np.array(draw(st.lists(st.floats(-3, 3), min_size=n, max_size=n)))
    velocity = np.array(numbers(-2, 1))
    acceleration = velocity * numbers(0.3, 3)
    jerk = acceleration * numbers(0.5, 3.5)
    names = tuple(f"j{i}" for i in range(n))
    return JointLimits(names, lower, lower + numbers(-3, 0.8), velocity, acceleration, jerk)


anything = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.floats(-4, 4), st.sampled_from([-1e308, 1e308, 0.0, -0.0])
)


class TestInvariants:
    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(joint_limits(), st.sampled_from([0.001, 0.004, 0.005, 0.01]), st.data())
    def test_any_targets_any_start(self, limits, dt, data):
        n = len(limits.names)
        vector = st.lists(anything, min_size=n, max_size=n).map(lambda v: np.array(v, float))
        share = data.draw(st.lists(st.floats(0, 1), min_size=n, max_size=n))
        start = np.clip(limits.lower + share * (limits.upper - limits.lower), limits.lower, limits.upper)
        limiter = Limiter(limits, dt)
        limiter.reset(start, data.draw(vector))
        speed = limiter._sent.velocity
        outputs = []
        for _ in range(data.draw(st.integers(1, 8))):
            kind = data.draw(st.sampled_from(["rest", "moving", "stop"]))
            target, velocity = data.draw(vector), data.draw(vector)
            for _ in range(data.draw(st.integers(1, 40))):
                if kind == "stop":
                    outputs.append(limiter.stop())
                else:
                    outputs.append(limiter.step(target, velocity if kind == "moving" else None))
        outputs += bring_to_rest(limiter)
        assert_within(limits, dt, start, outputs, at_speed=speed)

    def test_rounding_does_not_add_up_over_a_long_brake(self):
        limits = JointLimits(("a",), [0.0], [1.0], 1.0, 0.1, 10.0)
        limiter = Limiter(limits, 0.001)
        limiter.reset([1.0], [-1.0])
        speed = limiter._sent.velocity
        outputs = [limiter.step(np.zeros(1)) for _ in range(5000)]
        assert outputs[-1].position == 0.0 and not limiter.moving
        assert_within(limits, 0.001, np.ones(1), outputs, at_speed=speed)

    @pytest.mark.parametrize("scale", SETTINGS)
    @pytest.mark.parametrize("dt", [0.004, 0.005, 0.01])
    def test_long_adversarial_runs(self, scale, dt):
        limits, rng = panda(scale), np.random.default_rng(1)
        limiter = Limiter(limits, dt)
        start = get_robot("panda").home
        limiter.reset(start)
        outputs, target, span = [], start, limits.upper - limits.lower
        for tick in range(6000):
            state = limiter._sent
            if tick % 500 < 250:  # reversed whenever it is fastest, nearest to a limit, or at random
                flip = (np.abs(state.velocity) > 0.99 * limits.velocity) | (rng.random(8) < 0.02)
                target = np.where(
                    flip, state.position - np.sign(state.velocity) * span * 10.0 ** rng.uniform(-4, 3), target
                )
            else:  # noise of every size around where it is
                target = state.position + rng.normal(size=8) * 10.0 ** rng.uniform(-12, 2, 8)
            outputs.append(limiter.stop() if rng.random() < 0.01 else limiter.step(target))
        assert_within(limits, dt, start, outputs + bring_to_rest(limiter))
        reached = np.abs([o.velocity for o in outputs]).max(0) / limits.velocity
        assert (reached > 0.9).any(), "the run never got near a limit"

    @pytest.mark.parametrize("scale", SETTINGS)
    def test_a_stop_starts_anywhere_and_ends(self, scale):
        limits, rng = panda(scale), np.random.default_rng(2)
        limiter = Limiter(limits, DT)
        limiter.reset(get_robot("panda").home)
        for _ in range(60):
            start, outputs = limiter.position, []
            target = rng.uniform(limits.lower, limits.upper)
            before = limiter.position
            for _ in range(int(rng.integers(1, 120))):
                before = limiter.position
                outputs.append(limiter.step(target))
            assert outputs[-1].position.shape == before.shape
            outputs += bring_to_rest(limiter)
            assert_within(limits, DT, start, outputs)
            still = limiter.position
            assert (limiter.stop().position == still).all()

    def test_velocity_of_a_start_is_reduced_to_what_can_be_stopped(self):
        limits = panda()
        limiter = Limiter(limits, DT)
        start = limits.upper - 1e-3
        limiter.reset(start, limits.velocity * 5)
        speed = limiter._sent.velocity
        assert (speed > 0).all() and (speed < limits.velocity).all()
        assert_within(limits, DT, start, [limiter.step(limits.upper + 9) for _ in range(200)], at_speed=speed)

    @pytest.mark.parametrize("scale", SETTINGS)
    def test_a_start_outside_moves_back_in_only(self, scale):
        limits = panda(scale)
        for start in (limits.upper + 0.2, limits.lower - 0.2):
            for target in (start + 1, start - 1, (limits.lower + limits.upper) / 2):
                limiter = Limiter(limits, DT)
                limiter.reset(start, np.sign(start - limits.lower) * 2.0)
                outputs = [limiter.step(target) for _ in range(3000)]
                beyond = [np.maximum(limits.lower - o.position, o.position - limits.upper) for o in outputs]
                assert (np.diff(beyond, axis=0)[np.array(beyond[1:]) > 0] <= 0).all()
                assert (beyond[-1] <= 0).all()
                assert_within(limits, DT, start, outputs)


def shortest_time(distance, velocity, acceleration, jerk):
    """Least time from rest to rest under the three limits (double S)."""
    ramp = velocity / acceleration + acceleration / jerk if velocity * jerk >= acceleration**2 else 0
    ramp = ramp or 2 * np.sqrt(velocity / jerk)
    if distance >= velocity * ramp:
        return distance / velocity + ramp
    if distance >= 2 * acceleration**3 / jerk**2:
        lag = acceleration / jerk
        return lag + np.sqrt(lag**2 + 4 * distance / acceleration)
    return (32 * distance / jerk) ** (1 / 3)


class TestMotion:
    @pytest.mark.parametrize("scale", SETTINGS)
    def test_a_far_target_is_reached_in_nearly_the_shortest_time(self, scale):
        limits = panda(scale)
        for share in (0.3, 0.6, 1.0):
            limiter = Limiter(limits, DT)
            limiter.reset(limits.lower)
            distance = share * (limits.upper - limits.lower)
            target = limits.lower + distance
            positions = [limiter.step(target).position for _ in range(4000)]
            arrived = np.argmax(np.abs(np.array(positions) - target) < 1e-6, axis=0) + 1
            for joint, d in enumerate(distance):
                least = shortest_time(d, limits.velocity[joint], limits.acceleration[joint], limits.jerk[joint])
                ratio = arrived[joint] * DT / least
                assert ratio < 1.3, (limits.names[joint], share, ratio)
                assert arrived[joint] * DT > least - 2 * DT, "faster than possible: the limits are not kept"

    @pytest.mark.parametrize("scale", SETTINGS)
    def test_it_settles_on_the_target_exactly_without_overshoot(self, scale):
        limits, rng = panda(scale), np.random.default_rng(3)
        limiter = Limiter(limits, DT)
        limiter.reset(get_robot("panda").home)
        for size in (1.0, 1e-2, 1e-4, 1e-7):
            start = limiter.position
            target = start + size * (rng.uniform(limits.lower, limits.upper) - start)
            outputs = [limiter.step(target) for _ in range(3000)]
            assert (outputs[-1].position == target).all() and not limiter.moving
            assert not any(o.velocity.any() for o in outputs[-500:]), "a limit cycle"
            way = np.array([o.position for o in outputs]) - start
            assert (np.diff(way, axis=0) * np.sign(target - start) >= -1e-15).all(), "it turned back"

    @pytest.mark.parametrize("feedforward", [False, True])
    def test_a_slow_sinusoid_is_followed(self, feedforward):
        limits = panda()
        middle, amplitude = (limits.lower + limits.upper) / 2, np.minimum(0.3, 0.4 * (limits.upper - limits.lower))
        rate = np.minimum(0.5 * limits.velocity / amplitude, np.sqrt(0.5 * limits.acceleration / amplitude))
        limiter = Limiter(limits, DT)
        limiter.reset(middle)
        errors, accelerations = [], []
        for tick in range(3000):
            phase = rate * tick * DT
            velocity = amplitude * rate * np.cos(phase)
            target = middle + amplitude * np.sin(phase)
            sent = limiter.step(target, velocity if feedforward else None)
            errors.append(np.abs(sent.position - target))
            accelerations.append(np.abs(sent.acceleration))
        error, fastest = np.max(errors[500:], axis=0), amplitude * rate
        # Who may have to stop at the target at any moment stays a braking distance behind it.
        braking = fastest**2 / (2 * limits.acceleration)
        filtering = fastest * DT * (limiter._window + 1) / 2
        assert (error < (5e-4 if feedforward else 1.1 * braking + filtering)).all()
        # A limit cycle would use the whole acceleration; the motion asked for uses half of it.
        assert (np.max(accelerations[500:], axis=0) < (0.85 if feedforward else 1.5) * limits.acceleration).all()

    def test_steps_of_a_slow_policy_are_smooth(self):
        limits = panda()
        limiter = Limiter(limits, DT)
        target = get_robot("panda").home
        limiter.reset(target)
        for tick in range(500):
            if tick % 25 == 0:
                target = target + np.array([0.01] * 7 + [0.0])
            sent = limiter.step(target)
            assert (sent.velocity >= -1e-12).all(), "it swings back between two targets"
        assert np.allclose(sent.position, target, rtol=0, atol=1e-12)


class TestBadCommands:
    @pytest.mark.parametrize(
        ("target", "message"),
        [
            (np.array([0.0] * 3 + [np.nan] + [0.0] * 4), "joint4"),
            (np.array([0.0] * 7 + [np.inf]), "finger_joint1"),
            (np.array([-np.inf] + [0.0] * 7), "joint1"),
            (np.zeros(7), r"shape \(7,\)"),
            (np.zeros((1, 8)), r"shape \(1, 8\)"),
            (0.0, r"shape \(\)"),
            (np.zeros(8, dtype=int), "int64"),
            (np.zeros(8, dtype=complex), "complex"),
            (np.zeros(8, dtype=object), "object"),
            (np.array(["0"] * 8), "<U1"),
            ([[0.0], [0.0, 1.0]], "no array"),
            (None, "shape"),
        ],
    )
    def test_nothing_moves(self, target, message):
        limiter, twin = Limiter(panda(), DT), Limiter(panda(), DT)
        for each in (limiter, twin):
            each.reset(get_robot("panda").home)
            for _ in range(30):
                each.step(each.limits.upper)
        for bad in (
            lambda: limiter.step(target),
            lambda: limiter.step(limiter.position, target if target is not None else [np.nan] * 8),
            lambda: limiter.reset(target),
        ):
            with pytest.raises(CommandError):
                bad()
        with pytest.raises(CommandError, match=message):
            limiter.step(target)
        for _ in range(100):
            a, b = limiter.step(limiter.limits.lower), twin.step(twin.limits.lower)
            assert (a.position == b.position).all() and (a.velocity == b.velocity).all()

    def test_what_is_returned_cannot_change_the_state(self):
        limiter = Limiter(panda(), DT)
        sent = limiter.step(limiter.limits.upper)
        for array in (sent.position, sent.velocity, sent.acceleration, limiter.position):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1.0


class TestClamped:
    def limiter(self) -> Limiter:
        limiter = Limiter(JointLimits(("a",), [-1], [1], 1.0, 5.0, 100.0), DT)
        limiter.reset([0.0])
        return limiter

    def flags(self, limited: Limited) -> set[str]:
        return {name for name, on in vars(limited.clamped).items() if on}

    def test_none_for_a_target_that_is_reached(self):
        limiter = self.limiter()
        assert self.flags(limiter.step([0.0])) == set()
        for _ in range(100):
            sent = limiter.step([1e-4])
        assert self.flags(sent) == set()

    def test_position(self):
        limiter = self.limiter()
        for _ in range(1000):
            sent = limiter.step([1.5])
        assert self.flags(sent) == {"position"} and sent.position == 1.0

    def test_acceleration_and_jerk_then_velocity(self):
        limiter = self.limiter()
        assert self.flags(limiter.step([1.0])) == {"velocity", "acceleration", "jerk"}
        for _ in range(100):
            sent = limiter.step([1.0])
        assert self.flags(sent) == {"velocity"} and sent.velocity == pytest.approx(1.0)


@cache
def kinematics():
    model = get_robot("panda").spec().compile()
    data, tool = mujoco.MjData(model), model.site("tool").id

    def tool_position(q):
        data.qpos[:8], data.qpos[8] = q, q[7]
        mujoco.mj_kinematics(model, data)
        return data.site_xpos[tool].copy()

    return tool_position


class TestWorkspace:
    HOME = property(lambda self: get_robot("panda").home)

    def box(self, half=0.1) -> Workspace:
        centre = kinematics()(get_robot("panda").home)
        return Workspace(centre - half, centre + half, kinematics())

    @pytest.mark.parametrize("scale", SETTINGS)
    def test_no_targets_get_the_tool_out_by_2_mm(self, scale):
        limits, box, rng = panda(scale), self.box(), np.random.default_rng(4)
        limiter = Limiter(limits, DT, box)
        limiter.reset(self.HOME)
        outputs, stopped, nearest, target = [], 0, np.inf, self.HOME
        for tick in range(2500):
            if tick % 25 == 0:
                target = rng.uniform(limits.lower, limits.upper)
                if rng.random() < 0.5:
                    target = self.HOME + rng.normal(size=8) * 0.3
                if rng.random() < 0.3:
                    target = self.HOME
            sent = limiter.step(target)
            outputs.append(sent)
            stopped += sent.clamped.workspace
            assert box.excess(sent.position).max() < 2e-3
            tool = kinematics()(sent.position)
            nearest = min(nearest, (tool - box.lower).min(), (box.upper - tool).min())
        assert stopped > 100, "the box was never in the way"
        assert nearest < 0.02, "it never got near a side"
        assert_within(limits, DT, self.HOME, outputs + bring_to_rest(limiter))

    def test_it_stops_short_and_comes_back(self):
        box, limits = self.box(), panda()
        limiter = Limiter(limits, DT, box)
        limiter.reset(self.HOME)
        out = self.HOME + np.array([0.8] + [0.0] * 7)
        for _ in range(300):
            sent = limiter.step(out)
        assert sent.clamped.workspace and not sent.velocity.any()
        tool = kinematics()(sent.position)
        assert box.upper[1] - 5e-3 < tool[1] <= box.upper[1] + 1e-9
        for _ in range(300):
            sent = limiter.step(self.HOME)
            assert not sent.clamped.workspace
        assert (sent.position == self.HOME).all()

    def test_from_outside_it_gets_in_and_no_further_out(self):
        box, limits = self.box(), panda()
        start = self.HOME + np.array([0.8, 0.2] + [0.0] * 6)
        first = box.excess(start)
        assert first.max() > 0.05
        limiter = Limiter(limits, DT, box)
        limiter.reset(start)
        for _ in range(100):
            sent = limiter.step(start + np.array([0.5, 0.5] + [0.0] * 6))
            assert (box.excess(sent.position) <= first + 1e-3).all()
        assert sent.clamped.workspace
        for _ in range(800):
            sent = limiter.step(self.HOME)
            assert (box.excess(sent.position) <= first + 1e-3).all()
        assert (sent.position == self.HOME).all()

    def test_kinematics_that_fail_stop_the_arm(self):
        broken = False

        def tool_position(q):
            return np.full(3, np.nan) if broken else kinematics()(q)

        limiter = Limiter(panda(), DT, Workspace([-9] * 3, [9] * 3, tool_position))
        limiter.reset(self.HOME)
        for _ in range(30):
            assert limiter.step(limiter.limits.upper).velocity.any()
        broken = True
        for _ in range(100):
            sent = limiter.step(limiter.limits.upper)
        assert sent.clamped.workspace and not sent.velocity.any()


class TestSpeed:
    @pytest.mark.parametrize(("workspace", "budget_s"), [(False, 150e-6), (True, 400e-6)])
    def test_a_tick_is_cheap(self, workspace, budget_s):
        limits, rng = panda(), np.random.default_rng(5)
        limiter = Limiter(limits, DT, TestWorkspace().box(0.3) if workspace else None)
        limiter.reset(get_robot("panda").home)
        took = []
        for tick in range(1000):
            if tick % 50 == 0:
                target = rng.uniform(limits.lower, limits.upper)
            start = time.perf_counter()
            limiter.step(target)
            took.append(time.perf_counter() - start)
        assert np.median(took) < budget_s


class TestLimits:
    def test_of_the_panda(self):
        robot, limits = get_robot("panda"), panda()
        assert limits.names == robot.joint_names
        assert (limits.lower == robot.lower).all() and (limits.upper == robot.upper).all()
        assert limits.velocity.tolist() == [2.175] * 4 + [2.61] * 3 + [0.05]
        assert limits.acceleration[:7].tolist() == [15, 7.5, 10, 12.5, 15, 20, 20]
        assert limits.jerk[:7].tolist() == [7500, 3750, 5000, 6250, 7500, 10000, 10000]

    def test_of_a_model_are_those_of_the_robot(self):
        a = JointLimits.from_model(mujoco.MjModel.from_xml_string(get_robot("panda").mjcf()), scale=0.5)
        b = panda(0.5)
        assert a.names == b.names
        for name in ("lower", "upper", "velocity", "acceleration", "jerk"):
            assert getattr(a, name) == pytest.approx(getattr(b, name))

    def test_scale_and_overrides(self):
        robot = get_robot("panda")
        limits = JointLimits.from_robot(robot, velocity={"joint1": 1.0}, jerk=50.0, scale={"velocity": 0.5})
        assert limits.velocity[:2].tolist() == [0.5, 2.175 / 2] and (limits.jerk == 50).all()
        assert limits.acceleration[0] == 15

    def test_a_robot_without_published_rates_needs_them(self):
        with pytest.raises(LimitError, match="no acceleration limit is published for"):
            JointLimits.from_robot(get_robot("allegro"), velocity=6.0)
        assert JointLimits.from_robot(get_robot("allegro"), velocity=6.0, acceleration=50.0, jerk=5e3).jerk[0] == 5e3

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"scale": 0}, "scale of velocity"),
            ({"scale": 1.5}, "scale of velocity"),
            ({"scale": {"jerks": 0.5}}, "did you mean 'jerk'"),
            ({"velocity": {"joint_1": 1.0}}, "did you mean 'joint1'"),
            ({"velocity": [1.0, 2.0]}, r"shape \(2,\)"),
            ({"acceleration": -1.0}, "'joint1': acceleration limit -1.0 is not positive"),
            ({"jerk": float("nan")}, "'joint1': jerk limit is nan"),
            ({"jerk": "fast"}, "jerk limits are numbers"),
        ],
    )
    def test_wrong_settings_are_named(self, options, message):
        with pytest.raises(LimitError, match=message):
            JointLimits.from_robot(get_robot("panda"), **options)

    def test_impossible_limits(self):
        with pytest.raises(LimitError, match="joint 'b': lower limit 1.0 is not below 1.0"):
            JointLimits(("a", "b"), [0, 1], [1, 1], 1, 1, 1)
        with pytest.raises(LimitError, match="jerk limit 0.0001 takes"):
            Limiter(JointLimits(("a",), [0], [1], 10, 10, 1e-4), DT)
        with pytest.raises(LimitError, match="dt is a number of seconds above 0"):
            Limiter(panda(), 0.0)
        with pytest.raises(LimitError, match="workspace lower"):
            Workspace([0, 0, 0], [1, 0, 1], kinematics())
