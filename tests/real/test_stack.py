"""Stacks: read strictly, overridden by key, usable for robots other than the Panda."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from real.errors import StackError
from real.nodes.run import node_stack
from real.stack import Stack, load, names, section_keys
from real.stack_robot import open_robot
from robolearn.contract import Channel, Contract
from robolearn.errors import RobolearnError

UR = """
<mujoco model="ur_like">
  <compiler angle="radian"/>
  <worldbody><body><joint name="shoulder_pan_joint" axis="0 0 1" range="-6.28 6.28"/><geom size=".05" mass="1"/>
    <body pos=".3 0 0"><joint name="elbow_joint" axis="0 1 0" range="-3.14 3.14"/><geom size=".05" mass="1"/>
      <site name="flange" pos=".3 0 0"/>
    </body></body></worldbody>
  <actuator>
    <position name="a" joint="shoulder_pan_joint" kp="10"/><position name="b" joint="elbow_joint" kp="10"/>
  </actuator>
</mujoco>
"""
UR_STACK = {
    "name": "ur_like",
    "robot": {"model": "ur.xml", "tool_site": "flange"},
    "controllers": [
        {
            "type": "joint_trajectory",
            "topic": "scaled_joint_trajectory_controller/joint_trajectory",
            "joints": ["elbow_joint", "shoulder_pan_joint"],
        }
    ],
    "channels": {"joint_pos": {"kind": "joint_states", "topic": "joint_states"}},
    "limits": {"max_velocity": [2.0, 2.0], "max_acceleration": [8.0, 8.0], "max_jerk": [100.0, 100.0]},
    "safety": {"home": [0.1, -0.2]},
}


@pytest.fixture
def ur(tmp_path):
    """Path of the stack of an arm without gripper, cameras or twin; its folder holds the robot's model."""
    (tmp_path / "ur.xml").write_text(UR)
    path = tmp_path / "ur.yaml"
    path.write_text(yaml.safe_dump(UR_STACK))
    return path


@pytest.mark.parametrize("name", names())
def test_shipped_stacks_fit_their_robots_and_survive_a_round_trip(name):
    stack = load(name)
    robot = open_robot(stack)
    assert robot.joints == (*(f"joint{i}" for i in range(1, 8)), "finger_joint1")
    assert (robot.limits.velocity > 0).all()
    assert Stack.from_dict(yaml.safe_load(yaml.safe_dump(stack.to_dict())), stack.path) == stack


def test_only_the_twin_s_stack_starts_a_twin_and_nodes_without_work_are_not_started():
    assert load("panda_twin").nodes == ("twin", "safety", "episode")
    full = load("panda", {"bundle": "b", "critic": "c", "record": "r"})
    assert full.nodes == ("safety", "recorder", "critic", "policy", "episode")


def test_another_robot_needs_no_gripper_and_no_cameras(ur, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    stack = load(ur)
    robot = open_robot(stack)
    assert robot.joints == ("shoulder_pan_joint", "elbow_joint"), "the model's order, not the controller's"
    assert robot.tool_site == "flange"
    assert stack.robot.gripper == () and stack.cameras == {} and stack.twin is None
    np.testing.assert_allclose(robot.limits.velocity, [1.0, 1.0])  # half of what the stack allows: limits.velocity
    np.testing.assert_allclose(robot.home, [0.1, -0.2])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("limits.max_jerk", None, "limits.max_velocity, max_acceleration and max_jerk"),
        ("limits.max_velocity", [1.0], "1 values for 2 joints"),
        ("safety.home", None, "no keyframe 'home'"),
        ("safety.home", [9.0, 0.0], "home of joint 'shoulder_pan_joint', 9, is outside"),
        ("robot.tool_site", "flang", "did you mean 'flange'"),
        ("robot.joints", ["elbow"], "did you mean 'elbow_joint'"),
        ("robot.gripper", ["finger"], "unknown joint 'finger'"),
        ("robot.driver_names", {"elbow_jont": "e"}, "did you mean 'elbow_joint'"),
        ("controllers", [], "no controller moves shoulder_pan_joint, elbow_joint"),
        ("robot.model", "/nowhere/ur.xml", "no file at /nowhere/ur.xml"),
        ("robot.model", "pandaa", "did you mean 'panda'"),
    ],
)
def test_what_does_not_fit_the_robot_is_named(ur, key, value, message):
    data = yaml.safe_load(ur.read_text())
    section, _, name = key.partition(".")
    if name:
        data[section][name] = value
    else:
        data[section] = value
    ur.write_text(yaml.safe_dump(data))
    with pytest.raises(RobolearnError, match=message.replace(".", r"\.")):
        open_robot(load(ur))


def test_a_file_that_is_no_mjcf_is_named(ur, tmp_path):
    (tmp_path / "ur.xml").write_text("<mujoco>")
    with pytest.raises(StackError, match="is no MJCF"):
        open_robot(load(ur))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("safty.rate_hz", 1, "unknown key 'safty'; did you mean 'safety'"),
        ("safety.rat_hz", 1, "unknown key 'rat_hz' in safety; did you mean 'rate_hz'"),
        ("safety.rate_hz", -1, "safety.rate_hz is above 0, not -1"),
        ("safety.rate_hz", float("nan"), "safety.rate_hz is a finite number"),
        ("safety.rate_hz", "fast", "safety.rate_hz is a number, not 'fast'"),
        ("safety.latch_after", 2.5, "safety.latch_after is a whole number"),
        ("safety.auto_rearm", "maybe", "safety.auto_rearm is true or false"),
        ("limits.velocity", 1.5, "limits.velocity is at most 1"),
        ("limits.workspace.lower", [0, 0], "limits.workspace.lower has 3 values, not 2"),
        ("limits.workspace.lower", [2, 0, 0], "must be below upper"),
        ("transport", "udp", "transport is 'udp'; choices: auto, dds, ros"),
        ("distro", "jazy", "did you mean 'jazzy'"),
        ("domain", 999, "domain is at most 232"),
        ("namespace", "/left arm", "namespace is a name of ROS 2"),
        ("cameras.front.width", 0, "cameras.front.width is above 0"),
        ("cameras.front.fps", 3, "unknown key 'fps' in cameras.front"),
        ("cameras.side.width", 3, "cameras.side.topic must be given"),
        ("critic.cameras", ["fron"], "did you mean 'front'"),
        ("safety.require_cameras", "front", "safety.require_cameras is a list"),
        ("teleop.device", "mouse", "teleop.device is 'mouse'"),
        ("channels.joint_pos.kind", "joint_state", "did you mean 'joint_states'"),
        ("channels.joint_pos.fild", "x", "did you mean 'field'"),
        ("controllers", [{"type": "joint_trajectory", "topic": "t", "joints": []}], "names no joint"),
        ("controllers", [{"type": "twist", "topic": "t", "joints": ["joint1"]}], r"controllers\[0\].type is 'twist'"),
        ("controllers", [{"topic": "t", "joints": ["joint1"]}], r"controllers\[0\].type must be given"),
        ("name.first", 1, "name is no section"),
    ],
)
def test_every_mistake_is_one_line_that_names_the_key(key, value, message):
    with pytest.raises(StackError, match=message) as caught:
        load("panda_twin", {key: value})
    assert "\n" not in str(caught.value)


def test_a_joint_is_commanded_once_and_a_topic_used_once():
    one = {"type": "joint_trajectory", "topic": "a", "joints": ["joint1"]}
    with pytest.raises(StackError, match="'joint1' is commanded twice"):
        load("panda_twin", {"controllers": [one, {**one, "topic": "b"}]})
    with pytest.raises(StackError, match="share the topic 'a'"):
        load("panda_twin", {"controllers": [one, {**one, "joints": ["joint2"]}]})


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "is no YAML"), ("[1, 2]", "is no stack"), ("name: x", "robot must be given"), ("", "is no stack")],
)
def test_files_that_are_no_stack(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(StackError, match=message):
        load(path)


def test_unsafe_yaml_is_refused(tmp_path):
    path, made = tmp_path / "evil.yaml", tmp_path / "made"
    path.write_text(f"name: !!python/object/apply:os.mkdir ['{made}']\nrobot: {{model: panda}}\n")
    with pytest.raises(StackError, match="is no YAML"):
        load(path)
    assert not made.exists()


def test_an_unknown_stack_and_a_missing_file():
    with pytest.raises(StackError, match="did you mean 'panda_twin'"):
        load("panda_twn")
    with pytest.raises(StackError, match="no stack file at nowhere/x.yaml"):
        load("nowhere/x.yaml")


def test_texts_of_a_command_line_become_the_type_of_their_key():
    stack = load(
        "panda_twin",
        {"safety.rate_hz": "100", "safety.auto_rearm": "true", "domain": "7", "bundle": 12, "limits.workspace": ""},
    )
    assert (stack.safety.rate_hz, stack.safety.auto_rearm, stack.domain) == (100.0, True, 7)
    assert stack.policy.bundle == "12"
    assert stack.limits.workspace is None


def test_the_task_is_the_twin_s_too():
    stack = load("panda_twin", {"task": "arm_reach"})
    assert stack.episode.task == "arm_reach" and stack.twin is not None and stack.twin["task"] == "arm_reach"
    assert load("panda", {"task": "arm_reach"}).twin is None


def test_paths_in_a_file_count_from_the_file_and_overrides_from_here(ur):
    data = yaml.safe_load(ur.read_text())
    data["policy"] = {"bundle": "bundles/a"}
    ur.write_text(yaml.safe_dump(data))
    assert load(ur).policy.bundle == str(ur.parent / "bundles/a")
    assert load(ur, {"bundle": "bundles/b"}).policy.bundle == "bundles/b"


def test_plain_parameters_of_a_node_belong_to_its_own_section():
    stack = node_stack("safety", {"stack": "panda_twin", "rate_hz": 100, "critic.rate_hz": 4, "bundle": "b"})
    assert (stack.safety.rate_hz, stack.critic.rate_hz, stack.policy.bundle) == (100.0, 4.0, "b")
    assert node_stack("critic", {"rate_hz": 3}).critic.rate_hz == 3.0
    with pytest.raises(StackError, match="unknown parameter of safety 'rat_hz'; did you mean 'rate_hz'"):
        node_stack("safety", {"rat_hz": 1})
    with pytest.raises(StackError, match="use_sim_time"):
        node_stack("safety", {"use_sim_time": True})
    assert node_stack("safety", {"use_sim_time": False}).name == "panda_twin"


def test_sources_get_the_driver_s_names_of_the_joints():
    joints = ("joint2", "finger_joint1")
    contract = Contract(
        robot="panda",
        robot_hash="",
        inputs=(Channel("joint_pos", (2,), kind="state/joint/position", elements=joints),),
        commands=(Channel("command", (2,), kind="target/joint/position", elements=joints, lower=-1.0, upper=1.0),),
        rate_hz=10.0,
    )
    sources = load("panda").sources(contract)
    assert list(sources) == ["joint_pos"]
    assert sources["joint_pos"].joints == ("panda_joint2", "panda_finger_joint1")
    assert load("panda_twin").sources(contract)["joint_pos"].joints == ()


def test_every_key_of_every_section_is_explained():
    from robolearn.settings import _notes

    for item in dataclasses.fields(Stack):
        section = item.default
        if dataclasses.is_dataclass(section):
            assert set(_notes(type(section))) == set(section_keys(item.name)), item.name


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
KEYS = [f"{item.name}.{key}" for item in dataclasses.fields(Stack) if item.init for key in section_keys(item.name)] + [
    item.name for item in dataclasses.fields(Stack) if item.init
]


@settings(max_examples=400, deadline=None)
@given(key=st.sampled_from(KEYS), value=PLAIN)
def test_no_value_makes_anything_but_a_stack_or_one_line(key, value):
    try:
        stack = load("panda", {key: value})
    except RobolearnError as error:
        assert str(error)
    else:
        assert Stack.from_dict(stack.to_dict(), stack.path) == stack
