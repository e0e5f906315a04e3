"""What of a stack is recorded."""

from __future__ import annotations

from real.errors import StackError
from real.recording.recorder import Topic
from real.stack import Stack
from real.transport.handle import LATCHED, SENSOR, QoS
from robolearn.errors import unknown

_EVERY = QoS(depth=50)
_EVENTS = QoS(depth=10, transient_local=True)
_STREAM = QoS(depth=10, reliable=False)
_STRING = "std_msgs/msg/String"
_ARRAY = "std_msgs/msg/Float64MultiArray"
_TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
_STEP = "control_msgs/msg/DynamicJointState"
_COMMANDS = {"joint_trajectory": _TRAJECTORY, "float64_multi_array": _ARRAY}

FIXED = (
    Topic("joint_states", "sensor_msgs/msg/JointState", _STREAM),
    Topic("policy/action_chunk", _TRAJECTORY, _EVERY),
    Topic("policy/heartbeat", _STRING, _STREAM),
    Topic("policy/candidate", _STRING, _EVERY),
    Topic("teleop/twist", "geometry_msgs/msg/TwistStamped", _STREAM),
    Topic("teleop/deadman", "sensor_msgs/msg/Joy", _STREAM),
    Topic("safety/request", _STRING, _EVERY),
    Topic("safety/estop", "std_msgs/msg/Bool", _EVERY),
    Topic("safety/reset_pose", "sensor_msgs/msg/JointState", LATCHED),
    Topic("safety/mode", _STRING, LATCHED),
    Topic("safety/step", _STEP, _EVERY),
    Topic("safety/executed", "sensor_msgs/msg/JointState", _STREAM),
    Topic("critic/value", _STEP, _EVERY),
    Topic("episode/instruction", _STRING, LATCHED),
    Topic("episode/request", _STRING, _EVERY),
    Topic("episode/event", _STRING, _EVENTS),
    Topic("scene/request", _STRING, _EVERY),
    Topic("scene/state", _STRING, LATCHED),
    Topic("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", _EVERY),
)
"""Those of every stack."""
ALWAYS = ("episode/event",)
"""Without these there are no episodes."""


def stack_topics(stack: Stack) -> tuple[Topic, ...]:
    """The topics that a stack's ``recorder.topics`` chooses.

    Raises:
        StackError: one of them is no topic of the stack.
    """
    found = {
        topic.name: topic for topic in (*FIXED, *_of_controllers(stack), *_of_cameras(stack), *_of_channels(stack))
    }
    chosen = stack.recorder.topics
    if "all" in chosen:
        return tuple(found.values())
    for name in chosen:
        if name not in found:
            raise StackError(f"recorder.topics: {unknown('topic', name, found)}")
    return tuple(found[name] for name in dict.fromkeys((*ALWAYS, *chosen)))


def _of_controllers(stack: Stack) -> list[Topic]:
    return [Topic(controller.topic, _COMMANDS[controller.type], _EVERY) for controller in stack.controllers]


def _of_cameras(stack: Stack) -> list[Topic]:
    found = []
    for name, camera in stack.cameras.items():
        kind = "CompressedImage" if camera.topic.endswith("/compressed") else "Image"
        found.append(Topic(camera.topic, f"sensor_msgs/msg/{kind}", SENSOR))
        found.append(Topic(f"camera/{name}/camera_info", "sensor_msgs/msg/CameraInfo", SENSOR))
    return found


def _of_channels(stack: Stack) -> list[Topic]:
    found = []
    for source in stack.channels.values():
        if source["kind"] == "poses":
            found += [Topic(name, "geometry_msgs/msg/PoseStamped", _STREAM) for name in source.get("topics", ())]
        elif source["kind"] == "values" and source.get("topic"):
            name = str(source["topic"])
            found.append(Topic(name, _ARRAY, LATCHED if name.startswith("episode/goal/") else _STREAM))
    return found
