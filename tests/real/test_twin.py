"""The twin from outside: a robot driver with cameras and a tracker, on a simulated graph and virtual time."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from real.errors import StackError
from real.msgs import store
from real.nodes.twin import TwinNode, settings_of
from real.stack import load
from real.transport.handle import LATCHED, SENSOR
from real.transport.local import LocalBus
from real.twin.settings import TwinSettings
from sim.robots import get_robot

ARM, GRIPPER = "arm_controller/joint_trajectory", "gripper_controller/commands"
JOINTS = tuple(f"joint{i}" for i in range(1, 8))
HOME = np.array(get_robot("panda").home)
PERIOD = 0.005
NEW = store().new


class World:
    """A twin, somebody who listens to it and somebody who commands it, on one bus."""

    def __init__(self, **settings: Any) -> None:
        self.bus = LocalBus(seed=0)
        node = self.bus.node("twin")
        self.twin = TwinNode(node, TwinSettings.from_mapping({"rendering": "none", **settings}))
        self.cell, self.driver = self.twin.cell, self.twin.cell.driver
        self.ear = self.bus.node("ear")
        self.states: list[Any] = []
        self.arrived: list[float] = []
        self.told: list[dict[str, Any]] = []
        self.ear.subscribe("joint_states", "sensor_msgs/msg/JointState", self._heard, SENSOR)
        self.ear.subscribe(
            "scene/state", "std_msgs/msg/String", lambda message, _: self.told.append(json.loads(message.data)), LATCHED
        )
        self.sender = self.bus.node("sender")
        self.arm = self.sender.publisher(ARM, "trajectory_msgs/msg/JointTrajectory")
        self.gripper = self.sender.publisher(GRIPPER, "std_msgs/msg/Float64MultiArray")
        self.requests = self.sender.publisher("scene/request", "std_msgs/msg/String")

    def _heard(self, message: Any, received: Any) -> None:
        self.states.append(message)
        self.arrived.append(received.monotonic)

    def run(self, seconds: float) -> None:
        self.bus.run(seconds)

    def joints(self) -> np.ndarray:
        """(7,) rad, the arm's true positions."""
        return np.array(self.cell.arm.actuated()[0][:7])

    def send(self, points: Any, times: Any, names: Any = JOINTS, velocities: Any = None, stamp: int = 0) -> None:
        """A trajectory: points (K, 7) rad at times (K,) s."""
        made = [
            NEW(
                "trajectory_msgs/msg/JointTrajectoryPoint",
                positions=np.asarray(point, dtype=np.float64),
                velocities=np.zeros(0) if velocities is None else np.asarray(velocities[i], dtype=np.float64),
                time_from_start=store().duration(time),
            )
            for i, (point, time) in enumerate(zip(points, times, strict=True))
        ]
        header = NEW("std_msgs/msg/Header", stamp=store().time(stamp))
        self.arm.publish(
            NEW("trajectory_msgs/msg/JointTrajectory", header=header, joint_names=list(names), points=made)
        )

    def stream(self, path: Any, seconds: float) -> list[np.ndarray]:
        """One point every period, ``path(t)`` -> (7,) rad; the true positions at the end of every period."""
        seen = []
        for k in range(round(seconds / PERIOD)):
            self.send([path((k + 1) * PERIOD)], [PERIOD])
            self.run(PERIOD)
            seen.append(self.joints())
        return seen

    def grip(self, opening: Any) -> None:
        self.gripper.publish(NEW("std_msgs/msg/Float64MultiArray", data=np.asarray(opening, dtype=np.float64)))

    def request(self, text: str) -> dict[str, Any]:
        """Ask for a scene; the state that is told next."""
        self.requests.publish(NEW("std_msgs/msg/String", data=text))
        self.run(0.01)
        return self.told[-1]


def bend(t: float, amplitude: float = 0.1, hz: float = 0.5) -> np.ndarray:
    """(7,) rad: all joints swing about home, from rest."""
    return HOME[:7] + amplitude * (1 - np.cos(2 * np.pi * hz * t)) / 2


def test_it_holds_still_and_tells_every_joint_in_the_drivers_own_order() -> None:
    world = World()
    world.run(1.0)
    assert world.states[0].name == ["finger_joint1", "finger_joint2", *JOINTS]
    assert 490 <= len(world.states) <= 501
    np.testing.assert_allclose(world.joints(), HOME[:7], atol=1e-3)
    told = np.array([message.position for message in world.states])
    spread = told[:, 2:].std(axis=0)
    assert (spread > 1e-4).all() and (spread < 4e-4).all()  # the noise of the settings, 2e-4 rad
    np.testing.assert_allclose(told[:, 0], told[:, 1], atol=2e-4)
    assert len(world.states[0].velocity) == len(world.states[0].effort) == 9
    stamps = np.diff([store().ns(message.header.stamp) for message in world.states])
    assert (stamps > 0).all()


def test_the_second_finger_mimics_the_first() -> None:
    world = World()
    for _ in range(100):
        world.grip([0.035])
        world.run(PERIOD)
    first, second = world.states[-1].position[:2]
    assert first == pytest.approx(0.035, abs=2e-3) and second == pytest.approx(first, abs=5e-4)


def test_it_follows_a_trajectory_by_its_times() -> None:
    world = World(cmd_timeout_from="end", gap="none", timestep_s=0.001)
    times = np.arange(1, 21) * 0.1
    world.send([bend(t) for t in times], times)
    errors = []
    for k in range(20):
        world.run(0.1)
        errors.append(np.abs(world.joints() - bend((k + 1) * 0.1)).max())
    assert max(errors) < 0.02  # the motors' lag
    world.run(0.5)
    np.testing.assert_allclose(world.joints(), bend(2.0), atol=1e-3)


def test_it_follows_a_stream_of_points_and_finds_nothing_beyond_a_limit() -> None:
    world = World()
    seen = world.stream(bend, 2.0)
    errors = [np.abs(q - bend((k + 1) * PERIOD)).max() for k, q in enumerate(seen)]
    assert max(errors) < 0.03
    assert world.driver.commands == 400 and not any(world.driver.violations.values())
    assert 0 < world.driver.worst["velocity"] < 0.2
    peak = 0.05 * (2 * np.pi * 0.5) ** 2
    assert world.driver.worst["acceleration"] == pytest.approx(peak / 7.5, rel=0.02)  # of joint 2


@pytest.mark.parametrize("gap", ["none", "default", "large"])
def test_a_command_takes_effect_after_the_latency_of_the_settings(gap: str) -> None:
    world = World(gap=gap, seed=4, timestep_s=0.001, cmd_timeout_s=0.0)
    settings = TwinSettings.from_mapping({"gap": gap})
    delays = []
    for k in range(20):
        goal = 0.02 + 0.001 * (k + 1)
        sent = world.bus.clock.monotonic()
        world.grip([goal])
        while world.driver.set_point[7] != goal:
            world.run(0.001)
        delays.append(world.bus.clock.monotonic() - sent)
        world.run(0.05)
    low, high = settings.command_latency_s, settings.command_latency_s + settings.command_jitter_s
    assert low <= min(delays) and max(delays) <= high + 0.0045  # a tick, and the bus
    if settings.command_jitter_s:
        assert np.ptp(delays) > 0.3 * settings.command_jitter_s


@pytest.mark.parametrize("velocities", [False, True])
def test_without_commands_it_slows_down_and_holds(velocities: bool) -> None:
    world = World(cmd_timeout_s=0.2)
    goal = HOME[:7] + np.eye(7)[0]
    world.send([goal], [2.0], velocities=[np.zeros(7)] if velocities else None)
    world.run(0.2)
    before = world.joints()[0]
    world.run(0.4)
    stopped = world.joints()
    world.run(1.0)
    assert world.driver.timeouts == 1 and world.driver.modes[ARM] == "holding"
    assert stopped[0] > before + 0.005 and stopped[0] < 0.5 * goal[0]
    np.testing.assert_allclose(world.joints(), stopped, atol=1e-3)


def test_it_slows_down_no_harder_than_the_settings_say() -> None:
    world = World(cmd_timeout_s=0.1, stop_acceleration=3.0, gap="none", timestep_s=0.001)
    world.send([HOME[:7] + 2.0 * np.eye(7)[0]], [2.0])
    points = []
    for _ in range(800):
        world.run(0.001)
        points.append(world.driver.set_point[0])
    speed = np.diff(points[2::2]) / 0.002  # the bus and the timer are 2 ms apart
    steps = np.diff(speed[50:]) / 0.002
    assert speed[:40].max() == pytest.approx(1.0, rel=0.01) and abs(speed[-1]) < 1e-6
    assert steps.min() > -3.2


REFUSED = {
    "not finite": lambda world: world.send([np.full(7, np.nan)], [0.1]),
    "names": lambda world: world.send([HOME[:7]], [0.1], names=[*JOINTS[:6], "joint8"]),
    "empty": lambda world: world.send([], []),
    "range": lambda world: world.send([np.full(7, 1e300)], [0.1]),
    "size": lambda world: world.send([HOME[:6]], [0.1]),
    "times": lambda world: world.send([HOME[:7], HOME[:7]], [0.1, 0.1]),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_bad_commands_are_refused_and_counted(reason: str) -> None:
    world = World()
    REFUSED[reason](world)
    world.run(0.1)
    assert world.driver.rejected == {reason: 1} and world.driver.commands == 0
    assert world.driver.modes[ARM] == "holding"
    np.testing.assert_allclose(world.joints(), HOME[:7], atol=1e-3)


@pytest.mark.parametrize("value", [[np.inf], [0.01, 0.01], []])
def test_bad_gripper_commands_are_refused(value: list[float]) -> None:
    world = World()
    world.grip(value)
    world.run(0.1)
    assert sum(world.driver.rejected.values()) == 1 and world.driver.commands == 0


def test_joints_may_come_in_any_order() -> None:
    world = World()
    goal = HOME[:7] + 0.01 * np.arange(7)
    for _ in range(100):
        world.send([goal[::-1]], [0.1], names=JOINTS[::-1])
        world.run(PERIOD)
    np.testing.assert_allclose(world.joints(), goal, atol=3e-3)


def test_a_jump_trips_the_reflex_until_it_is_reset() -> None:
    world = World()
    jump = HOME[:7] + 0.3 * np.eye(7)[3]
    world.send([jump], [PERIOD])
    world.run(0.1)
    assert world.driver.reflexes == 1 and "joint4" in world.driver.reflex
    np.testing.assert_allclose(world.joints(), HOME[:7], atol=1e-3)
    near = HOME[:7] + 0.01
    world.send([near], [0.1])
    world.run(0.2)
    assert world.driver.rejected == {"reflex": 1}
    np.testing.assert_allclose(world.joints(), HOME[:7], atol=1e-3)
    assert world.told[-1]["monitor"]["reflexes"] == 1
    reset = world.sender.publisher("driver/reset", "std_msgs/msg/String")
    reset.publish(NEW("std_msgs/msg/String", data="go on"))
    world.run(0.01)
    world.send([near], [0.1])
    world.run(0.2)
    assert not world.driver.reflex
    np.testing.assert_allclose(world.joints(), near, atol=3e-3)


def test_the_monitor_counts_what_is_beyond_each_limit() -> None:
    world = World(discontinuity=10.0)
    world.send([HOME[:7] + 0.05 * np.eye(7)[0]], [PERIOD])  # 10 rad/s from rest
    world.run(PERIOD)
    assert world.driver.violations == {"position": 0, "velocity": 1, "acceleration": 1}
    world.run(0.5)
    world.stream(lambda t: bend(t) + 0.05 * np.eye(7)[0], 0.1)
    assert world.driver.violations["velocity"] == 1  # the stream began anew where the arm is held
    world.run(0.5)
    beyond = world.driver.set_point[:7]
    beyond[5] = 3.8
    world.send([beyond], [2.0])
    world.run(PERIOD)
    assert world.driver.violations["position"] == 1
    assert world.driver.worst["position"] == pytest.approx(3.8 - 3.7525)


def test_the_monitor_goes_by_stamps_where_commands_were_lost() -> None:
    world = World()
    for k in range(100):
        if k % 7 != 3:  # lost on the way
            world.send([bend((k + 1) * PERIOD)], [PERIOD], stamp=10**9 + k * 5_000_000)
        world.run(PERIOD)
    assert not any(world.driver.violations.values())
    assert world.driver.unjudged == 30  # the start and every gap leave two accelerations unknown


def test_copies_and_gaps_without_stamps_are_no_violations() -> None:
    world = World()
    for k in range(60):
        for _ in range(1 + (k % 5 == 2)):  # now and then twice
            world.send([bend((k + 1) * PERIOD, amplitude=0.8)], [PERIOD], stamp=10**9 + k * 5_000_000)
        if k % 6 != 1:  # now and then not at all
            world.grip([0.02 + 0.15 * PERIOD * k / 4])
        world.run(PERIOD)
    assert world.driver.commands == 72 + 50 and not any(world.driver.violations.values())


def test_commands_of_a_second_publisher_are_counted() -> None:
    world = World()
    world.stream(bend, 0.1)
    assert world.driver.foreign == 0
    other = world.bus.node("intruder").publisher(ARM, "trajectory_msgs/msg/JointTrajectory")
    sent, world.arm = world.arm, other
    world.send([bend(0.1)], [PERIOD])
    world.arm = sent
    world.run(0.01)
    assert world.driver.foreign == 1 and world.cell.monitor()["publishers"][ARM] == 2
    heard: list[Any] = []
    world.ear.subscribe("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", lambda m, _: heard.append(m.status[0]))
    world.run(1.1)
    assert "two publishers of commands" in heard[-1].message and int(heard[-1].level) == 1


def test_scenes_repeat_by_seed_and_move_things_not_the_arm() -> None:
    world = World()
    first = world.request('{"seed": 7}')
    poses = world.cell.poses()
    assert first["seed"] == 7 and first["task"] == "arm_push" and first["error"] == ""
    other = world.request('{"seed": 8, "task": "arm_pick_place"}')
    assert other["task"] == "arm_pick_place" and not np.allclose(world.cell.poses()["first"], poses["first"])
    again = world.request('{"seed": 7, "task": "arm_push"}')
    assert {k: v for k, v in again.items() if k != "monitor"} == {k: v for k, v in first.items() if k != "monitor"}
    for name, pose in world.cell.poses().items():
        np.testing.assert_allclose(pose, poses[name], atol=2e-3)
    assert again["named_one_hot"][again["named"]] == 1 and sum(again["named_one_hot"]) == 1
    color, shape = again["colors"][again["named"]], again["shapes"][again["named"]]
    assert f"{color} {shape}" in again["instruction"]
    np.testing.assert_allclose(world.joints(), HOME[:7], atol=2e-3)
    placed = world.request('{"seed": 7, "teleport": true}')
    np.testing.assert_allclose(world.joints(), [placed["start"][name] for name in JOINTS], atol=2e-3)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"seed": -1}', '{"task": "arm_pusch"}', '{"sead": 1}', '{"teleport": 1}', '{"seed": true}']
)
def test_bad_scene_requests_change_nothing_and_are_told(text: str) -> None:
    world = World()
    before = world.cell.poses()
    state = world.request(text)
    assert state["error"] and state["bad_requests"] == 1 and state["seed"] == 0
    np.testing.assert_allclose(world.cell.poses()["goal"], before["goal"], atol=1e-4)


def test_a_thing_is_not_put_into_the_robot() -> None:
    world = World(teleport=True)
    arm = world.cell.arm
    tool = arm.data.site("tool").xpos.copy()
    qpos = world.cell.scene.qpos.copy()
    place = int(arm.model.joint("first").qposadr[0])
    qpos[place : place + 3] = tool
    assert not arm.load(arm.model, qpos)
    world.run(0.1)
    assert np.linalg.norm(world.cell.poses()["first"][:3] - tool) > 0.05


def test_success_and_progress_are_the_tasks_own() -> None:
    world = World()
    state = world.request('{"seed": 3}')
    assert not state["success"] and state["progress"] < 0.5
    scene, arm = world.cell.scene, world.cell.arm
    named = ("first", "second")[scene.named]
    goal = world.cell.poses()["goal"]
    place = int(arm.model.joint(named).qposadr[0])
    arm.data.qpos[place : place + 2] = goal[:2] + [0.04, 0.0]  # on the pad, as pushing has it
    world.run(0.2)
    assert world.told[-1]["success"] and world.told[-1]["progress"] == 1.0
    arm.data.qpos[place : place + 2] = goal[:2] + [0.06, 0.0]  # just off it
    world.run(0.2)
    assert not world.told[-1]["success"] and world.told[-1]["ever_success"]
    assert 0.5 < world.told[-1]["progress"] < 1.0
    other = ("second", "first")[scene.named]
    place = int(arm.model.joint(other).qposadr[0])
    before = world.told[-1]["progress"]
    arm.data.qpos[place : place + 2] = goal[:2] - [0.04, 0.0]
    world.run(0.2)
    assert not world.told[-1]["success"] and world.told[-1]["progress"] == pytest.approx(before, abs=0.15)


def test_the_gap_is_told_in_numbers_and_is_none_where_none_is_asked_for() -> None:
    none = World(gap="none").cell.physics_report()
    assert none["timestep_s"] == [0.005, 0.005] and none["integrator"] == ["discrete", "discrete"]
    for name in ("stiffness_factor", "damping_factor", "armature_factor", "object_mass_factor"):
        assert set(none[name]) == {1.0}
    assert set(none["joint_friction_N_or_Nm"]) == {0.0} and none["command_latency_s"] == [0.0, 0.0]
    reports = [World(seed=seed).cell.physics_report() for seed in (0, 0, 1)]
    assert reports[0] == reports[1] != reports[2]
    assert min(reports[0]["stiffness_factor"]) >= 0.75 and reports[0]["timestep_s"][1] == 0.001


def test_poses_are_noisy_late_and_have_the_scalar_last() -> None:
    world = World()
    heard: list[tuple[Any, float]] = []
    for name in ("second", "goal"):
        world.ear.subscribe(
            f"objects/{name}/pose",
            "geometry_msgs/msg/PoseStamped",
            lambda message, received: heard.append((message, world.ear.clock.now() * 1e-9)),
            SENSOR,
        )
    world.run(1.0)
    poses = world.cell.poses()
    seen = heard[-2][0].pose
    assert heard[0][0].header.frame_id == "world" and 90 <= len(heard) <= 100
    found = [seen.position.x, seen.position.y, seen.position.z]
    np.testing.assert_allclose(found, poses["second"][:3], atol=5e-3)
    turned = [seen.orientation.w, seen.orientation.x, seen.orientation.y, seen.orientation.z]
    np.testing.assert_allclose(turned, poses["second"][3:], atol=0.03)
    places = np.array([[m.pose.position.x, m.pose.position.y] for m, _ in heard[::2]])
    assert (np.abs(places.std(axis=0) - 1e-3) < 4e-4).all()
    ages = [now - store().ns(message.header.stamp) * 1e-9 for message, now in heard]
    assert 0.019 < min(ages) and max(ages) < 0.045


def test_pictures_agree_with_camera_info() -> None:
    world = World(rendering="inline", width=320, height=240, camera_rate_hz=10.0)
    world.request('{"seed": 5}')
    images: dict[str, Any] = {}
    infos: dict[str, Any] = {}
    for camera in ("front", "wrist"):
        world.ear.subscribe(
            f"camera/{camera}/image_raw",
            "sensor_msgs/msg/Image",
            lambda m, r: images.setdefault(r.topic.split("/")[2], (m, world.ear.clock.now())),
            SENSOR,
        )
        world.ear.subscribe(
            f"camera/{camera}/camera_info",
            "sensor_msgs/msg/CameraInfo",
            lambda m, r: infos.setdefault(r.topic.split("/")[2], m),
            SENSOR,
        )
    world.run(0.3)
    assert set(images) == set(infos) == {"front", "wrist"}
    image, received = images["front"]
    info = infos["front"]
    assert (image.encoding, image.step, image.width, image.height) == ("rgb8", 960, 320, 240)
    assert image.header.stamp == info.header.stamp and info.distortion_model == "plumb_bob"
    assert 0.029 < (received - store().ns(image.header.stamp)) * 1e-9 < 0.06
    picture = np.asarray(image.data).reshape(240, 320, 3).astype(float)
    white = (picture > 180).all(axis=2) & (np.ptp(picture, axis=2) < 25)
    rows, columns = np.nonzero(white)
    near = projected(world, np.asarray(info.k).reshape(3, 3))
    inside = (abs(columns - near[0]) < 40) & (abs(rows - near[1]) < 25)
    assert inside.sum() > 100
    assert columns[inside].mean() == pytest.approx(near[0], abs=1.5)
    assert rows[inside].mean() == pytest.approx(near[1], abs=2.0)  # the nearer half looks larger
    world.twin.close()


def projected(world: World, k: np.ndarray) -> tuple[float, float]:
    """Pixel of the goal pad's middle, by the published intrinsics and the camera's place in the scene."""
    arm = world.cell.arm
    camera = arm.data.camera("front")
    local = camera.xmat.reshape(3, 3).T @ (world.cell.poses()["goal"][:3] - camera.xpos)
    u, v, w = k @ [local[0], -local[1], -local[2]]  # optical frame: x right, y down, z ahead
    return u / w, v / w


def test_a_twin_that_is_too_slow_says_so() -> None:
    world = World()
    world.run(0.1)
    world.cell.advance(world.cell.clockwork.time + 0.5)
    assert world.cell.clockwork.debt_s == pytest.approx(0.45, abs=0.01) and world.cell.clockwork.late == 1


def test_settings_come_from_the_stack() -> None:
    settings = settings_of(load("panda_twin", {"twin.gap": "large", "safety.rate_hz": 100}))
    assert settings.gap == "large" and settings.command_latency_s == 0.025 and settings.command_period_s == 0.01
    assert [controller.topic for controller in settings.controllers] == [ARM, GRIPPER]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"gab": "none"}, "did you mean 'gap'"),
        ({"gap": "smal"}, "unknown gap 'smal'"),
        ({"stiffness": [1.2, 0.8]}, "stiffness"),
        ({"cameras": ["top"]}, "unknown camera 'top'"),
        ({"acceleration": [1.0]}, "acceleration"),
        ({"controllers": [{"type": "joint_trajectory", "topic": "a", "joints": ["joint9"]}]}, "joint9"),
    ],
)
def test_settings_that_cannot_work_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(StackError, match=words):
        World(**{"rendering": "inline", **given})
