"""The preflight names what is wrong before anything moves: a driver on a graph, with one fault at a time."""

from __future__ import annotations

import dataclasses
import json
import os

import numpy as np
import pytest

from real.findings import FAIL, OK, WARN, Finding
from real.msgs import store
from real.preflight import check_domain, check_files, check_graph, check_ros
from real.stack import Stack, load
from real.stack_robot import open_robot
from real.transport.handle import RELIABLE, SENSOR, QoS
from real.transport.local import LocalBus
from robolearn import cli

MESSAGES = store()
JOINTS = (*(f"joint{i}" for i in range(1, 8)), "finger_joint1")
NAMES = tuple(f"panda_{joint}" for joint in JOINTS)
HOME = open_robot(load("panda")).home


@dataclasses.dataclass
class Driver:
    """What the stack `panda` expects of a robot, cameras and a tracker; every field is a thing that can go wrong."""

    names: tuple[str, ...] = NAMES
    positions: tuple[float, ...] = tuple(HOME)
    joint_hz: float = 100.0
    joint_type: str = "sensor_msgs/msg/JointState"
    skew_s: float = 0.0
    size: tuple[int, int] = (640, 480)
    camera_hz: float = 30.0
    encoding: str = "rgb8"
    frozen: bool = False
    quaternion: tuple[float, ...] = (0.0, 0.0, 0.0, 1.0)
    arm_type: str = "trajectory_msgs/msg/JointTrajectory"
    arm_qos: QoS = RELIABLE

    def start(self, bus: LocalBus) -> None:
        self.bus = bus
        self.node = node = bus.node("controller")
        self.count = 0
        self.joints = node.publisher("joint_states", self.joint_type, SENSOR)
        self.cameras = [
            node.publisher(f"camera/{c}/image_raw", "sensor_msgs/msg/Image", SENSOR) for c in ("front", "wrist")
        ]
        things = ("first", "second", "goal", "decoy")
        self.things = [node.publisher(f"objects/{t}/pose", "geometry_msgs/msg/PoseStamped", SENSOR) for t in things]
        node.timer(1 / self.joint_hz, self.say_joints)
        node.timer(1 / self.camera_hz, self.say_pictures)
        node.timer(1 / 50, self.say_poses)
        node.subscribe("arm_controller/joint_trajectory", self.arm_type, lambda *_: None, self.arm_qos)
        node.subscribe("gripper_controller/commands", "std_msgs/msg/Float64MultiArray", lambda *_: None, RELIABLE)

    def header(self):
        return MESSAGES.new("std_msgs/msg/Header", stamp=MESSAGES.time(self.node.clock.now() - int(self.skew_s * 1e9)))

    def say_joints(self) -> None:
        if self.joint_type == "sensor_msgs/msg/JointState":
            new = MESSAGES.new(
                self.joint_type, header=self.header(), name=list(self.names), position=list(self.positions)
            )
            self.joints.publish(new)

    def say_pictures(self) -> None:
        self.count += not self.frozen
        width, height = self.size
        data = np.full(width * height * 3, self.count % 256, np.uint8)
        image = MESSAGES.new(
            "sensor_msgs/msg/Image", header=self.header(), width=width, height=height, step=3 * width, data=data,
            encoding=self.encoding,
        )  # fmt: skip
        for camera in self.cameras:
            camera.publish(image)

    def say_poses(self) -> None:
        pose = MESSAGES.new("geometry_msgs/msg/PoseStamped", header=self.header())
        q = pose.pose.orientation
        q.x, q.y, q.z, q.w = self.quaternion
        for thing in self.things:
            thing.publish(pose)


def examine(driver: Driver | None = None, stack: Stack | None = None, before=lambda bus: None) -> dict[str, Finding]:
    bus = LocalBus(store=MESSAGES)
    if driver is not None:
        driver.start(bus)
    before(bus)
    stack = stack or load("panda")
    found = check_graph(stack, bus.node("preflight", namespace=stack.namespace), listen_s=0.5)
    assert len({f.name for f in found}) == len(found), "every finding has a name of its own"
    for finding in found:
        assert (finding.state == OK) or finding.advice, finding
    return {finding.name: finding for finding in found}


def failing(found: dict[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.state == FAIL}


def test_nothing_fails_where_everything_is_right():
    found = examine(Driver())
    assert not failing(found)
    assert found["joint_states names"].detail == "all there"
    assert found["camera front"].state == OK
    assert found["channel named"].state == WARN, "the episode node is not up yet"


def test_nothing_there_fails_everywhere():
    found = examine()
    assert failing(found) >= {
        "joint_states",
        "camera front",
        "objects/goal/pose",
        "controller /arm_controller/joint_trajectory",
    }
    assert "nobody publishes /joint_states" in found["joint_states"].detail


@pytest.mark.parametrize(
    ("fault", "name", "said"),
    [
        ({"names": NAMES[:-1], "positions": tuple(HOME[:-1])}, "joint_states names", "missing panda_finger_joint1"),
        ({"names": JOINTS}, "joint_states names", "missing panda_joint1"),
        ({"positions": tuple(np.rad2deg(HOME))}, "joint_states positions", "look like degrees"),
        ({"positions": (3.5, *HOME[1:])}, "joint_states positions", "panda_joint1 is at 3.5, limits -2.897 to 2.897"),
        ({"positions": (float("nan"), *HOME[1:])}, "joint_states positions", "NaN or infinity"),
        ({"positions": tuple(HOME[:3])}, "joint_states positions", "without a position for every name"),
        ({"joint_hz": 5.0}, "joint_states", "needs at least 20 Hz"),
        ({"joint_type": "sensor_msgs/msg/Joy"}, "joint_states", "/joint_states carries sensor_msgs/msg/Joy"),
        ({"skew_s": 3600.0}, "joint_states clock", "3.6e+03 s behind"),
        ({"skew_s": -5.0}, "camera front clock", "5 s ahead"),
        ({"size": (320, 240)}, "camera wrist", "320x240 pixels, the stack says 640x480"),
        ({"encoding": "mono8"}, "camera front", "encoding mono8"),
        ({"frozen": True}, "camera front", "frozen"),
        ({"camera_hz": 3.0}, "camera front", "Hz of 30"),
        ({"quaternion": (0.0, 0.0, 0.0, 0.0)}, "objects/first/pose", "quaternion of length 0"),
        ({"arm_type": "std_msgs/msg/String"}, "controller /arm_controller/joint_trajectory", "listens to std_msgs"),
        ({"arm_qos": QoS(transient_local=True)}, "controller /arm_controller/joint_trajectory", "transient local"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_what_to_change(fault, name, said):
    found = examine(Driver(**fault))
    assert found[name].state == FAIL
    assert said in found[name].detail


def test_a_slow_camera_that_is_still_fresh_is_a_warning():
    assert examine(Driver(camera_hz=10.0))["camera front"].state == WARN


def test_a_twin_at_rest_draws_equal_pictures_with_new_stamps():
    home = tuple(open_robot(load("panda_twin")).home)
    twin = load("panda_twin")
    assert examine(Driver(names=JOINTS, positions=home, frozen=True), twin)["camera front"].state == OK


def test_another_order_and_more_joints_are_no_fault():
    order = [3, 0, 1, 2, 7, 6, 5, 4]
    found = examine(Driver(names=tuple(NAMES[i] for i in order), positions=tuple(HOME[order])))
    assert not failing(found)
    assert "another order: panda_joint4" in found["joint_states names"].detail
    found = examine(Driver(names=(*NAMES, "wheel"), positions=(*HOME, 50.0)))
    assert not failing(found)
    assert "wheel" in found["joint_states names"].detail


def test_a_second_publisher_of_commands_is_named():
    def intrude(bus):
        bus.node("moveit").publisher("arm_controller/joint_trajectory", "trajectory_msgs/msg/JointTrajectory", RELIABLE)

    found = examine(Driver(), before=intrude)
    assert failing(found) == {"commands /arm_controller/joint_trajectory"}
    assert "/moveit" in found["commands /arm_controller/joint_trajectory"].detail


def test_the_safety_node_of_this_stack_may_command():
    def run(bus):
        safety = bus.node("safety")
        safety.publisher("arm_controller/joint_trajectory", "trajectory_msgs/msg/JointTrajectory", RELIABLE)

    found = examine(Driver(), before=run)
    assert not failing(found)
    assert "is running" in found["safety nodes"].detail


def test_two_safety_nodes_in_one_domain_are_one_too_many():
    from real.preflight_graph import check_nodes

    class Graph:
        """Of DDS, where a name may be there twice; the bus in process refuses that."""

        nodes = staticmethod(lambda: ["/safety", "/safety", "/twin"])
        resolve = staticmethod(lambda name: f"/{name}")

    (found,) = check_nodes(Graph())
    assert found.state == FAIL and "2 nodes are called /safety" in found.detail


def test_malformed_messages_are_told_apart_from_silence():
    class Broken(Driver):
        def say_joints(self):
            self.joints.publish_raw(b"\x00\x01\x00\x00garbage")

    found = examine(Broken())
    assert "are no sensor_msgs/msg/JointState" in found["joint_states"].detail


def test_a_controller_that_does_not_tell_its_time_out_is_a_warning():
    found = examine(Driver())
    assert found["time-out of controller /arm_controller/joint_trajectory"].state == WARN


@pytest.mark.parametrize(("value", "state"), [(0.1, OK), (0.0, FAIL), (5.0, WARN)])
def test_the_controller_s_time_out_is_read(value, state):
    if "rcl_interfaces/srv/GetParameters_Request" not in MESSAGES.types:
        pytest.skip("real.msgs has no rcl_interfaces/srv/GetParameters")

    def answer(request):
        values = [MESSAGES.new("rcl_interfaces/msg/ParameterValue", type=3, double_value=value)]
        return MESSAGES.new("rcl_interfaces/srv/GetParameters_Response", values=values[: len(request.names)])

    class Telling(Driver):
        def start(self, bus):
            super().start(bus)
            self.node.service("/controller/get_parameters", "rcl_interfaces/srv/GetParameters", answer)

    assert examine(Telling())["time-out of controller /arm_controller/joint_trajectory"].state == state


def test_a_twin_whose_time_out_is_off_fails():
    names, home = JOINTS, tuple(open_robot(load("panda_twin")).home)
    name = "time-out of controller /arm_controller/joint_trajectory"
    assert examine(Driver(names=names, positions=home), load("panda_twin"))[name].state == OK
    off = load("panda_twin", {"twin.cmd_timeout_s": 0})
    assert examine(Driver(names=names, positions=home), off)[name].state == FAIL


def test_a_namespace_is_looked_into():
    found = examine(Driver(), load("panda", {"namespace": "/left"}))
    assert "joint_states" in failing(found), "the driver is not in /left"


def states(stack: Stack) -> dict[str, str]:
    return {finding.name: finding.state for finding in check_files(stack)}


def test_files_without_a_bundle_may_run():
    assert states(load("panda")) == {"robot": OK, "workspace": OK, "bundle": WARN}
    assert states(load("panda", {"limits.workspace": None}))["workspace"] == WARN
    assert states(load("panda", {"robot.joints": ["joint9"]})) == {"robot": FAIL}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle for the Panda that reads joints and one more channel, and commands the joints."""
    import torch

    from robolearn.bundle import export
    from robolearn.contract import Channel, Contract
    from sim.robots import get_robot

    robot = get_robot("panda")

    contract = Contract(
        robot="panda",
        robot_hash="",
        inputs=(
            Channel("joint_pos", (8,), "rad or m", kind="state/joint/position", elements=robot.joint_names),
            Channel("named", (2,), "1", kind="command/object/named"),
        ),
        commands=(
            Channel(
                "joint_target", (8,), "rad or m", kind="target/joint/position", elements=robot.joint_names,
                lower=tuple(robot.lower), upper=tuple(robot.upper),
            ),
        ),
        rate_hz=10.0,
    )  # fmt: skip

    class Clamped(torch.nn.Module):
        def forward(self, joint_pos, named):
            low, high = (torch.tensor(np.array(limit, np.float32)) for limit in (robot.lower, robot.upper))
            return {"joint_target": torch.clamp(joint_pos + 0 * named.sum(-1, keepdim=True), low, high)}

    path = tmp_path_factory.mktemp("bundle") / "hold"
    return export(Clamped(), contract, path, mjcf=robot.mjcf(), provenance={"seed": 0, "commit": "test", "metrics": {}})


def test_a_bundle_for_this_robot_passes_and_others_are_named(bundle, tmp_path):
    good = check_files(load("panda", {"bundle": str(bundle)}))[-1]
    assert good.state == OK and "10 Hz" in good.detail
    missing = check_files(load("panda", {"bundle": str(tmp_path)}))[-1]
    assert missing.state == FAIL and "is no bundle" in missing.detail


def test_a_channel_without_a_source_and_a_joint_that_is_not_commanded_are_named(bundle):
    stack = load("panda", {"bundle": str(bundle)})
    without = dataclasses.replace(stack, channels={k: v for k, v in stack.channels.items() if k != "named"})
    found = check_files(without)[-1]
    assert (found.name, found.state) == ("channel named", FAIL)
    controller = {"type": "joint_trajectory", "topic": "t", "joints": list(JOINTS[:-1])}
    given = {"robot.joints": list(JOINTS[:-1]), "robot.gripper": [], "controllers": [controller]}
    arm = load("panda", {"bundle": str(bundle), **given})
    found = check_files(arm)[-1]
    assert found.state == FAIL and "'finger_joint1'" in found.detail


def test_a_bundle_for_another_robot_is_refused(bundle):
    from real.preflight import _bundle

    stack = load("panda", {"bundle": str(bundle)})
    other = dataclasses.replace(open_robot(stack), name="ur5")
    (found,) = _bundle(stack, other)
    assert found.state == FAIL and "panda" in found.detail


def test_ros_that_is_sourced_but_broken(monkeypatch, tmp_path):
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    assert check_ros().state == OK
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    assert "has no rclpy" in check_ros().detail
    (tmp_path / "rclpy.py").write_text("raise ImportError('librcl.so: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    found = check_ros()
    assert found.state == FAIL and "librcl.so" in found.detail
    assert check_ros("dds").state == WARN, "embedded DDS needs no ROS"
    (tmp_path / "rclpy.py").write_text("init = shutdown = lambda: None")
    assert check_ros().state == OK


@pytest.mark.parametrize(("given", "state"), [("0", OK), ("77", OK), ("150", WARN), ("300", FAIL), ("seven", FAIL)])
def test_the_domain(monkeypatch, given, state):
    monkeypatch.setenv("ROS_DOMAIN_ID", given)
    assert check_domain(load("panda")).state == state


def test_the_verb_over_real_dds_says_what_is_missing_and_exits_with_1(monkeypatch, capsys):
    monkeypatch.setitem(cli.VERBS, "real", "robolearn.real_verb")
    monkeypatch.setenv("ROS_DOMAIN_ID", str(100 + os.getpid() % 100))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    assert cli.main(["real", "check", "stack=panda_twin", "transport=dds", "listen_s=0.3", "--json"]) == 1
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert not answer["ok"]
    assert {"name": "joint_states", "state": "fail"}.items() <= next(
        f for f in answer["findings"] if f["name"] == "joint_states"
    ).items()
    assert cli.main(["real", "check", "stack=panda_twin", "listen_s=0"]) == 0
    assert "NOT safety-rated" in capsys.readouterr().out
    assert cli.main(["real", "check", "stack=panda_twin", "listen=1"]) == 2
    assert "did you mean 'listen_s'" in capsys.readouterr().err
