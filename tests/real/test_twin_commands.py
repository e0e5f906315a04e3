"""When commands take effect, what trips the reflex, and what the monitor counts when commands are late or lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from real.nodes.twin import TwinNode
from real.transport.handle import SENSOR, QoS
from real.transport.local import LocalBus
from real.twin.cameras import Grain
from real.twin.commands import Command
from real.twin.driver import Driver
from real.twin.monitor import Bounds, Monitor
from real.twin.settings import TwinSettings
from sim.robots import get_robot
from tests.real.test_twin import ARM, HOME, NEW, PERIOD, World, bend, store

FAST = 1.5
"""rad/s of joint 1, of the 2.175 that it may."""


def ramp(t: float, speed: float = FAST) -> np.ndarray:
    """(7,) rad: joint 1 gets going within its acceleration, and on at ``speed`` rad/s."""
    begin = speed / 10.0
    moved = 5.0 * t * t if t < begin else speed * (t - begin / 2)
    return HOME[:7] + moved * np.eye(7)[0]


def test_training_own_time_step_follows_a_stream_of_the_same_period() -> None:
    world = World(gap="none")
    assert world.cell.arm.timestep == PERIOD
    seen = world.stream(bend, 2.0)
    assert max(np.abs(q - bend((k + 1) * PERIOD)).max() for k, q in enumerate(seen)) < 0.04
    assert not world.driver.reflex and not any(world.driver.violations.values())


def command(topic_joints: int, point: np.ndarray, seconds: float, velocity: np.ndarray | None) -> Any:
    made = NEW(
        "trajectory_msgs/msg/JointTrajectoryPoint",
        positions=point,
        velocities=np.zeros(0) if velocity is None else velocity,
        time_from_start=store().duration(seconds),
    )
    names = [f"joint{i + 1}" for i in range(topic_joints)]
    return NEW("trajectory_msgs/msg/JointTrajectory", joint_names=names, points=[made])


@pytest.mark.parametrize("smooth", [False, True])
def test_a_set_point_is_that_of_its_moment_whatever_the_step(smooth: bool) -> None:
    rng = np.random.default_rng(0)
    arrivals = np.arange(1, 41) * PERIOD + 0.004 * rng.random(40)  # each takes effect within a step, not at its end

    def followed(step: float) -> list[np.ndarray]:
        driver = Driver(get_robot("panda"), TwinSettings.from_mapping({"seed": 3}), HOME)
        seen, waiting = [], list(enumerate(arrivals))
        for k in range(1, round(0.24 / step) + 1):
            now = k * step
            while waiting and waiting[0][1] <= now:
                i, at = waiting.pop(0)
                t = (i + 1) * PERIOD
                speed = (ramp(t) - ramp(t - PERIOD)) / PERIOD
                driver.receive(ARM, command(7, ramp(t), PERIOD, speed if smooth else None), at)
            point = driver.advance(now).copy()
            if k % round(0.006 / step) == 0:
                seen.append(point)
        assert not driver.reflex and driver.commands == 40
        return seen

    fine, coarse = followed(0.0005), followed(0.006)
    np.testing.assert_allclose(fine, coarse, atol=1e-9)
    assert fine[-1][0] - HOME[0] > 0.15


@pytest.mark.parametrize("stalled_s", [0.03, 0.06, 0.1])
def test_a_twin_that_stood_still_for_a_moment_goes_on(stalled_s: float) -> None:
    world = World()
    for k in range(80):
        if k == 40:
            world.bus.pause("twin")
        if k == 40 + round(stalled_s / PERIOD):
            world.bus.resume("twin")
        world.send([ramp((k + 1) * PERIOD)], [PERIOD], stamp=10**9 + k * 5_000_000)
        world.run(PERIOD)
    assert not world.driver.reflex and world.driver.timeouts == 0
    assert world.driver.commands == 80 and not any(world.driver.violations.values())
    world.send([ramp(80 * PERIOD)], [PERIOD], stamp=10**9 + 80 * 5_000_000)
    world.run(0.2)
    np.testing.assert_allclose(world.joints(), ramp(80 * PERIOD), atol=5e-3)


@pytest.mark.parametrize(("missing", "jump", "trips"), [(0, 0.0, 0), (14, 0.0, 0), (0, 0.06, 1), (14, 0.25, 1)])
def test_lost_commands_excuse_what_the_joint_may_have_travelled_and_no_more(
    missing: int, jump: float, trips: int
) -> None:
    world = World()
    for k in range(60):
        if not 40 <= k < 40 + missing:
            away = jump * (k == 40 + missing) * np.eye(7)[0]
            world.send([ramp((k + 1) * PERIOD) + away], [PERIOD], stamp=10**9 + k * 5_000_000)
        world.run(PERIOD)
    assert world.driver.reflexes == trips
    assert bool(world.driver.violations["velocity"]) == bool(trips)


def test_after_a_silence_nothing_is_excused() -> None:
    world = World()
    world.stream(bend, 0.1)
    world.run(1.0)
    world.send([world.driver.set_point[:7] + 0.06 * np.eye(7)[0]], [PERIOD])
    world.run(0.05)
    assert world.driver.reflexes == 1


def test_many_small_jumps_at_once_are_a_jump() -> None:
    world = World()
    world.stream(lambda t: HOME[:7], 0.1)
    for k in range(8):
        world.send([HOME[:7] + 0.045 * (k + 1) * np.eye(7)[0]], [PERIOD])
    world.run(0.05)
    assert world.driver.reflexes == 1
    assert world.driver.violations["velocity"] >= 6


def limits() -> Bounds:
    robot = get_robot("panda")
    acceleration = np.array([15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0])
    return Bounds(robot.lower[:7], robot.upper[:7], robot.speed[:7], acceleration)


def swing(share: float, ticks: int) -> np.ndarray:
    """(ticks, 7) rad: every joint reaches this share of its limits of velocity and acceleration, from rest."""
    bounds = limits()
    rate = bounds.acceleration / bounds.velocity
    phase = np.arange(ticks)[:, None] * PERIOD * rate
    path = HOME[:7] + share * bounds.velocity / rate * (1 - np.cos(phase)) / 1.0
    return np.asarray(path)


def judged(share: float, seed: int, lost: float, busy: float, stamped: bool = True) -> Monitor:
    """A monitor that heard a sender on a busy machine: ticks late or left out, commands lost."""
    rng = np.random.default_rng(seed)
    path, done = swing(share, 1500), 0
    bounds = limits()
    wide = Bounds(bounds.lower - 9, bounds.upper + 9, bounds.velocity, bounds.acceleration)
    monitor = Monitor(wide, PERIOD)
    due, now = 0, 0.0
    while done < len(path):
        now = max(now, due * PERIOD) + 0.0002 * rng.random()
        if rng.random() < busy:
            now += rng.exponential(0.6) * PERIOD
        if rng.random() >= lost:
            stamp = 10**18 + round(now * 1e9) if stamped else 0
            sent = Command(path[done][None], None, np.array([PERIOD]), stamp)
            monitor.judge(sent, HOME[:7], np.zeros(7), now + 0.001)
        done += 1
        due = int(now / PERIOD) + 1
    return monitor


@pytest.mark.parametrize(("lost", "busy"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.3), (0.1, 0.3), (0.02, 0.6)])
def test_what_is_late_or_lost_is_no_violation_and_what_is_too_fast_is(lost: float, busy: float) -> None:
    for seed in range(4):
        good = judged(0.995, seed, lost, busy)
        assert not any(good.violations.values()), (seed, good.worst)
        bad = judged(1.05, seed, lost, busy)
        assert bad.violations["velocity"] > 0
        if busy < 0.5:
            assert bad.violations["acceleration"] > 0
            assert good.worst["velocity"] > 0.9 and good.worst["acceleration"] > 0.9
    quiet = judged(1.05, 0, 0.0, 0.0)
    assert min(quiet.violations["velocity"], quiet.violations["acceleration"]) > 100 and quiet.unjudged <= 20


@pytest.mark.parametrize("beyond", [0.012, -0.012, 0.05])
def test_one_command_too_far_is_counted_wherever_it_is(beyond: float) -> None:
    for at in (30, 77, 130):
        monitor = Monitor(limits(), PERIOD)
        for k in range(200):
            point = bend(k * PERIOD) + (beyond * np.eye(7)[0] if k == at else 0.0)
            sent = Command(point[None], None, np.array([PERIOD]), 10**18 + k * 5_000_000 + (k % 7) * 300_000)
            monitor.judge(sent, HOME[:7], np.zeros(7), k * PERIOD)
        assert monitor.violations["velocity"] in (1, 2) and monitor.violations["acceleration"] >= 2


def test_a_sender_at_twice_its_rate_is_too_fast() -> None:
    monitor = Monitor(limits(), PERIOD)
    for k in range(200):
        sent = Command(ramp(k * PERIOD, 1.6)[None], None, np.array([PERIOD]), 10**18 + k * 2_500_000)
        monitor.judge(sent, HOME[:7], np.zeros(7), k * PERIOD / 2)
    assert monitor.violations["velocity"] > 100


def test_a_reflex_is_not_counted_as_a_violation_of_what_goes_on() -> None:
    world = World()
    world.stream(ramp, 0.1)
    world.driver._trip("a test")
    for k in range(20, 60):
        world.send([ramp((k + 1) * PERIOD)], [PERIOD])
        world.run(PERIOD)
    assert not any(world.driver.violations.values()) and world.driver.rejected["reflex"] >= 40


def test_pictures_of_a_scene_at_rest_differ_unless_the_noise_is_off() -> None:
    def two(noise: float) -> tuple[np.ndarray, np.ndarray]:
        bus = LocalBus()
        given = {"rendering": "inline", "width": 160, "height": 120, "cameras": ["front"], "image_noise": noise}
        twin = TwinNode(bus.node("twin"), TwinSettings.from_mapping(given))
        heard: list[Any] = []
        topic = "camera/front/image_raw"
        bus.node("ear").subscribe(topic, "sensor_msgs/msg/Image", lambda m, _: heard.append(m), SENSOR)
        bus.run(1.2)
        twin.close()
        first, second = (np.asarray(message.data, dtype=float) for message in heard[-2:])
        return first, second

    same = np.equal(*two(0.0))
    first, second = two(1.0)
    assert same.all() and (first == second).mean() < 0.6
    assert 1.2 < (first - second).std() < 1.6  # of two pictures with a deviation of 1 each


def test_grain_stays_within_a_byte_and_repeats_by_seed() -> None:
    black, white = np.zeros((8, 10, 3), np.uint8), np.full((8, 10, 3), 255, np.uint8)
    one, other = Grain(240, 3.0, seed=1), Grain(240, 3.0, seed=1)
    for _ in range(20):
        picture = one.on(black)
        assert picture.max() < 30 and one.on(white).min() > 225
        np.testing.assert_array_equal(picture, other.on(black))
        other.on(white)


def test_commands_wait_for_a_busy_twin() -> None:
    world = World()
    [endpoint] = world.sender.subscriptions(ARM)
    assert endpoint.qos == QoS(depth=64)
