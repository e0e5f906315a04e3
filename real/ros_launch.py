"""What the files of `launch/` have in common: their arguments, and the node's action.

`launch` and `launch_ros` belong to ROS 2 and are imported when a launch file is read by `ros2 launch`, never before.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from real.errors import StackError
from real.stack import Stack, load

ARGUMENTS = {
    "stack": ("panda_twin", "name of a stack, or the path of its YAML"),
    "namespace": ("", "put before all topics; empty: the stack's"),
    "transport": ("", "auto, dds or ros; empty: the stack's"),
    "joint_states": ("joint_states", "topic of the driver's joint states"),
}
"""Of every launch file: default, description."""
OWN: dict[str, dict[str, tuple[str, str]]] = {
    "policy": {"bundle": ("", "folder of the policy's bundle; empty: the stack's")},
    "critic": {"critic": ("", "a critic's folder, model, address or baseline; empty: the stack's")},
    "teleop": {"teleop.device": ("gamepad", "gamepad or joy; a keyboard needs a terminal: robolearn teleop")},
    "episode": {
        "task": ("", "name of the task; a twin becomes a world of it"),
        "instruction": ("", "what the robot is told"),
        "episodes": ("", "how many to run; empty: until stopped"),
    },
    "recorder": {"record": ("", "folder for recordings; empty: the stack's")},
    "safety": {},
    "twin": {"task": ("", "name of the task; a twin becomes a world of it")},
}
"""Node -> arguments of its launch file beside `ARGUMENTS`."""
CRITICAL = ("safety", "twin")
"""When one of these ends, the launch shuts everything down."""


def describe(name: str) -> Any:
    """The launch description of one node."""
    return _description({**ARGUMENTS, **OWN[name]}, lambda stack, given: [name])


def describe_stack() -> Any:
    """The launch description of all nodes that a stack needs; ``teleop:=true`` adds a gamepad."""
    arguments = dict(ARGUMENTS)
    for own in OWN.values():
        arguments.update(own)
    arguments["teleop"] = ("false", "whether to start the teleop node too")

    def chosen(stack: Stack, given: dict[str, str]) -> list[str]:
        return [*stack.nodes, *(["teleop"] if _true(given["teleop"]) else [])]

    return _description(arguments, chosen)


def _description(arguments: dict[str, tuple[str, str]], chosen: Any) -> Any:
    launch, acts, substitutions = _ros("launch"), _ros("launch.actions"), _ros("launch.substitutions")
    # An argument's name holds no dot on the command line of `ros2 launch`.
    names = {name: name.rpartition(".")[2] for name in arguments}

    def actions(context: Any, *_: Any, **__: Any) -> list[Any]:
        given = {
            name: str(substitutions.LaunchConfiguration(names[name]).perform(context)).strip() for name in arguments
        }
        settings = _settings(given)
        stack = load(given["stack"], {key: value for key, value in settings.items() if key != "stack"})
        return [_node(name, stack, settings, given) for name in chosen(stack, given)]

    declared = [
        acts.DeclareLaunchArgument(names[name], default_value=default, description=about)
        for name, (default, about) in arguments.items()
    ]
    warning = acts.LogInfo(msg="robolearn is NOT safety-rated: a hardware e-stop is required")
    return launch.LaunchDescription([*declared, warning, acts.OpaqueFunction(function=actions)])


def _settings(given: dict[str, str]) -> dict[str, str]:
    """Parameters for the nodes: what was given, as text; nodes turn it into their settings' types."""
    apart = ("namespace", "joint_states", "teleop")
    settings = {key: value for key, value in given.items() if value and key not in apart}
    if settings.get("episodes", "0") not in ("", "0"):
        settings["episode.auto_start"] = "true"
    return settings


def _node(name: str, stack: Stack, settings: dict[str, str], given: dict[str, str]) -> Any:
    value_of = _ros("launch_ros.parameter_descriptions").ParameterValue
    ends_all = {"on_exit": _ros("launch.actions").Shutdown(reason=f"{name} ended")} if name in CRITICAL else {}
    remapped = given["joint_states"] != "joint_states"
    return _ros("launch_ros.actions").Node(
        executable=sys.executable,
        arguments=["-m", f"real.nodes.{name}"],
        name=name,
        namespace=given["namespace"] or stack.namespace,
        # Without a type, launch would read "0123" as a number and "yes" as true.
        parameters=[{key: value_of(value, value_type=str) for key, value in settings.items()}],
        remappings=[("joint_states", given["joint_states"])] if remapped else [],
        output="screen",
        **ends_all,
    )


def _ros(module: str) -> Any:
    return importlib.import_module(module)


def _true(text: str) -> bool:
    if text.lower() in ("true", "1", "yes", "on"):
        return True
    if text.lower() in ("", "false", "0", "no", "off"):
        return False
    raise StackError(f"teleop is true or false, not {text!r}")
