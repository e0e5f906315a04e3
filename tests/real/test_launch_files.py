"""The launch files and what makes this a package of ROS 2.

`launch` and `launch_ros` come with ROS 2 alone. Small stand-ins of their API read the files here; then every node's
command line, put together as launch_ros does it, is run for real on embedded DDS.
"""

from __future__ import annotations

import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from real.stack import load
from robolearn import __version__

ROOT = Path(__file__).resolve().parents[2]
NODES = ("policy", "critic", "teleop", "safety", "twin", "episode", "recorder")
READY_S = 90.0


@dataclass
class Action:
    """Anything that a launch file makes: its class's name and arguments."""

    kind: str
    args: tuple[Any, ...]
    given: dict[str, Any] = field(default_factory=dict)

    def perform(self, context: dict[str, str]) -> str:
        assert self.kind == "LaunchConfiguration"
        return context[self.args[0]]


@pytest.fixture
def ros(monkeypatch):
    """Puts the stand-ins in place; gives what reads a launch file: name and arguments → nodes and all actions."""

    def maker(kind):
        return lambda *args, **given: Action(kind, args, given)

    for module, kinds in {
        "launch": ("LaunchDescription",),
        "launch.actions": ("DeclareLaunchArgument", "LogInfo", "OpaqueFunction", "Shutdown"),
        "launch.substitutions": ("LaunchConfiguration",),
        "launch_ros": (),
        "launch_ros.actions": ("Node",),
        "launch_ros.parameter_descriptions": ("ParameterValue",),
    }.items():
        stand_in = types.ModuleType(module)
        for kind in kinds:
            setattr(stand_in, kind, maker(kind))
        monkeypatch.setitem(sys.modules, module, stand_in)

    def read(name: str, **arguments: str) -> tuple[list[Action], list[Action]]:
        description = runpy.run_path(str(ROOT / "launch" / f"{name}.launch.py"))["generate_launch_description"]()
        actions = description.args[0]
        declared = {a.args[0]: a.given["default_value"] for a in actions if a.kind == "DeclareLaunchArgument"}
        assert set(arguments) <= set(declared), "ros2 launch would take it, and nobody would hear of it"
        (opaque,) = [a for a in actions if a.kind == "OpaqueFunction"]
        return opaque.given["function"]({**declared, **arguments}), actions

    return read


def parameters(node: Action) -> dict[str, str]:
    (given,) = node.given["parameters"]
    assert all(value.kind == "ParameterValue" and value.given == {"value_type": str} for value in given.values())
    return {key: value.args[0] for key, value in given.items()}


def command(node: Action, folder: Path) -> list[str]:
    """As launch_ros builds it: the program, its arguments, name, namespace, a file of parameters, remaps."""
    file = folder / f"{node.given['name']}.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters(node)}}))
    line = [node.given["executable"], *node.given["arguments"], "--ros-args"]
    line += ["-r", f"__node:={node.given['name']}", "-r", f"__ns:={node.given['namespace']}"]
    line += ["--params-file", str(file)]
    for old, new in node.given["remappings"]:
        line += ["-r", f"{old}:={new}"]
    return line


def test_there_is_a_launch_file_for_every_node_and_for_the_stack():
    assert {path.name for path in (ROOT / "launch").iterdir() if path.suffix == ".py"} == {
        f"{name}.launch.py" for name in (*NODES, "stack")
    }


@pytest.mark.parametrize("name", NODES)
def test_a_node_s_file_starts_that_node(ros, name):
    (node,), actions = ros(name, stack="panda", namespace="/left", joint_states="franka/joint_states")
    assert node.kind == "Node"
    assert node.given["executable"] == sys.executable
    assert node.given["arguments"] == ["-m", f"real.nodes.{name}"]
    assert (node.given["name"], node.given["namespace"]) == (name, "/left")
    assert node.given["remappings"] == [("joint_states", "franka/joint_states")]
    assert parameters(node)["stack"] == "panda"
    assert "package" not in node.given
    for action in actions:
        if action.kind == "DeclareLaunchArgument":
            assert re.fullmatch(r"[a-z_]+", action.args[0]) and action.given["description"]
    assert any(a.kind == "LogInfo" and "NOT safety-rated" in a.given["msg"] for a in actions)


def test_when_safety_or_the_twin_end_everything_does(ros):
    nodes, _ = ros("stack", stack="panda_twin", bundle="b", critic="c", record="r", teleop="true")
    assert {n.given["name"] for n in nodes} == set(NODES)
    ends = {n.given["name"] for n in nodes if n.given.get("on_exit") and n.given["on_exit"].kind == "Shutdown"}
    assert ends == {"safety", "twin"}


def test_the_stack_s_file_starts_what_the_stack_needs_with_what_was_given(ros):
    nodes, _ = ros("stack", stack="panda", bundle="0123", episodes="10", namespace="left", transport="dds")
    assert [n.given["name"] for n in nodes] == ["safety", "policy", "episode"]
    given = parameters(nodes[0])
    stack = load("panda", {key: value for key, value in given.items() if key != "stack"})
    assert stack.policy.bundle == "0123", "a launch argument that looks like a number is text all the same"
    assert stack.episode.episodes == 10 and stack.episode.auto_start is True
    assert stack.transport == "dds"


def test_a_mistake_in_a_launch_argument_is_named(ros):
    from robolearn.errors import RobolearnError

    with pytest.raises(RobolearnError, match="did you mean 'panda'"):
        ros("stack", stack="pandaa")
    with pytest.raises(RobolearnError, match="episode.episodes is a whole number"):
        ros("episode", episodes="many")
    with pytest.raises(RobolearnError, match="teleop is true or false, not 'perhaps'"):
        ros("stack", teleop="perhaps")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle that commands the Panda to stay where it is."""
    import numpy as np
    import torch

    from robolearn.bundle import export
    from robolearn.contract import Channel, Contract
    from sim.robots import get_robot

    robot = get_robot("panda")
    joints, unit = robot.joint_names, "rad or m"
    low, high = tuple(robot.lower), tuple(robot.upper)

    class Stay(torch.nn.Module):
        def forward(self, joint_pos):
            lower, upper = (torch.tensor(np.array(limit, np.float32)) for limit in (low, high))
            return {"joint_target": torch.clamp(joint_pos, lower, upper)}

    contract = Contract(
        robot="panda",
        robot_hash="",
        inputs=(Channel("joint_pos", (8,), unit, kind="state/joint/position", elements=joints),),
        commands=(
            Channel(
                "joint_target", (8,), unit, kind="target/joint/position", elements=joints, lower=low, upper=high
            ),
        ),
        rate_hz=10.0,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("bundle") / "stay"
    return export(Stay(), contract, path, mjcf=robot.mjcf(), provenance={"seed": 0, "commit": "test", "metrics": {}})


@pytest.fixture(scope="module")
def stack_file(tmp_path_factory, bundle):
    """The shipped twin's stack with a policy, a critic, a folder for recordings, and without rendering."""
    data = yaml.safe_load((ROOT / "real/stacks/panda_twin.yaml").read_text())
    data["transport"] = "dds"
    data["twin"] = {"task": "arm_push", "rendering": "none"}
    data["policy"] = {"bundle": str(bundle)}
    data["critic"] = {"critic": "elapsed_time", "rate_hz": 2}
    data["teleop"] = {"device": "joy"}
    data["recorder"] = {"folder": str(tmp_path_factory.mktemp("recordings")), "min_free_mb": 1}
    path = tmp_path_factory.mktemp("stack") / "small.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.mark.parametrize("name", NODES)
def test_a_node_s_command_comes_up_and_ends_on_embedded_dds(ros, stack_file, tmp_path, name):
    device = {"device": "joy"} if name == "teleop" else {}
    (node,), _ = ros(name, stack=str(stack_file), namespace="/left", **device)
    env = {**os.environ, "ROS_DOMAIN_ID": str(100 + os.getpid() % 100), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    process = subprocess.Popen(command(node, tmp_path), stderr=subprocess.PIPE, text=True, env=env, cwd=ROOT)
    assert process.stderr is not None
    late = threading.Timer(READY_S, process.kill)
    late.start()
    lines = []
    try:
        for line in process.stderr:
            lines.append(line)
            if line == f"[{name}] ready\n":
                break
        assert lines and lines[-1] == f"[{name}] ready\n", "".join(lines[-20:])
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=30)
        assert process.returncode == 0, "".join(lines) + rest
        assert "Traceback" not in rest
    finally:
        late.cancel()
        process.kill()
        process.wait()


def test_a_node_s_mistake_is_one_line_and_code_2(tmp_path):
    line = [sys.executable, "-m", "real.nodes.teleop", "--ros-args", "-p", "stack:=panda_twin"]
    done = subprocess.run([*line, "-p", "speed_liner:=1"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert re.fullmatch(r"\[teleop\] unknown parameter of teleop 'speed_liner'; did you mean .*\n", done.stderr)


def test_package_xml_is_what_colcon_reads():
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    assert (package.tag, package.get("format")) == ("package", "3")
    assert package.findtext("name") == "robolearn"
    assert package.findtext("version") == __version__
    assert package.findtext("export/build_type") == "ament_python"
    for required in ("description", "maintainer", "license"):
        assert package.findtext(required)
    depends = {item.text for item in package.findall("exec_depend")}
    used = set()
    for path in (ROOT / "real" / "nodes").glob("*.py"):
        used |= {name for name, _ in re.findall(r'"([a-z_]+)/(msg|srv)/[A-Z]', path.read_text())}
    assert used and used <= depends, "a node uses messages of a package that package.xml does not name"


def test_setup_py_gives_ros_what_it_looks_for(monkeypatch):
    import setuptools

    given: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **options: given.update(options))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    files = dict(given["data_files"])
    assert set(given) == {"data_files"}, "everything else is in pyproject.toml"
    assert files["share/ament_index/resource_index/packages"] == ["resource/robolearn"]
    assert files["share/robolearn"] == ["package.xml"]
    assert len(files["share/robolearn/launch"]) == len(NODES) + 1
    for listed in files.values():
        assert all((ROOT / path).is_file() for path in listed)
    config = (ROOT / "setup.cfg").read_text()
    assert config.count("$base/lib/robolearn") == 2
