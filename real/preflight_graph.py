"""Who else is in the graph: other safety nodes, other publishers of commands, controllers and their time-outs."""

from __future__ import annotations

from typing import Any

from real.errors import RealError
from real.findings import FAIL, OK, WARN, Finding
from real.msgs import store
from real.stack import Stack
from real.stack_sections import ControllerSection
from real.transport.handle import NodeHandle

TYPES = {
    "joint_trajectory": "trajectory_msgs/msg/JointTrajectory",
    "float64_multi_array": "std_msgs/msg/Float64MultiArray",
}
"""Type of a controller -> of its topic."""
_PARAMETERS = "rcl_interfaces/srv/GetParameters"
_TIME_OUTS = ("cmd_timeout", "command_timeout")
_DOUBLE = 3


def check_nodes(handle: NodeHandle) -> list[Finding]:
    """At most one safety node in this namespace, and no node name twice."""
    nodes = handle.nodes()
    mine = handle.resolve("safety")
    count = nodes.count(mine)
    if count > 1:
        detail = f"{count} nodes are called {mine}"
        return [Finding("safety nodes", FAIL, detail, "end all but one, or use another domain or namespace")]
    return [Finding("safety nodes", OK, f"{mine} is running" if count else "none is running yet")]


def check_names(stack: Stack, handle: NodeHandle, probed: list[str]) -> list[Finding]:
    """Topics of other sources, which may begin to speak later: values and goals."""
    found = []
    for name, source in stack.sources().items():
        for topic in source.topics:
            if topic in probed or source.kind == "image":
                continue
            given = handle.publishers(topic)
            wrong = sorted({endpoint.type for endpoint in given} - {source.message_type})
            if wrong:
                detail = f"{handle.resolve(topic)} carries {', '.join(wrong)}"
                found.append(Finding(f"channel {name}", FAIL, detail, f"publish {source.message_type}"))
            elif not given:
                detail = f"nobody publishes {handle.resolve(topic)} yet"
                found.append(Finding(f"channel {name}", WARN, detail, "fine for what the episode node will say"))
    return found


def check_commands(stack: Stack, handle: NodeHandle) -> list[Finding]:
    """Only the safety node may publish a command."""
    found = []
    for controller in stack.controllers:
        given = handle.publishers(controller.topic)
        strangers = sorted(
            {endpoint.node or "an unknown node" for endpoint in given if not _is_safety(handle, endpoint.node)}
        )
        full = handle.resolve(controller.topic)
        if strangers:
            advice = "end them: two publishers of a command tear at the robot"
            found.append(Finding(f"commands {full}", FAIL, f"published by {', '.join(strangers)}", advice))
        elif len(given) > 1:
            found.append(Finding(f"commands {full}", FAIL, f"{len(given)} publishers", "end all safety nodes but one"))
        else:
            found.append(Finding(f"commands {full}", OK, "safety alone" if given else "nobody commands"))
    return found


def check_controllers(stack: Stack, handle: NodeHandle) -> list[Finding]:
    """A controller listens, to the right type, and stops by itself when commands end."""
    found = []
    if not stack.controllers:
        found.append(Finding("controllers", FAIL, "the stack has none", "list them under controllers"))
    for controller in stack.controllers:
        full, wanted = handle.resolve(controller.topic), TYPES[controller.type]
        given = handle.subscriptions(controller.topic)
        right = [endpoint for endpoint in given if endpoint.type == wanted]
        wrong = sorted({endpoint.type for endpoint in given} - {wanted})
        name = f"controller {full}"
        if not right:
            detail = f"it listens to {', '.join(wrong)}" if wrong else "nobody listens"
            advice = (
                f"the stack says {wanted}: change its type" if wrong else "start the controller, or change the topic"
            )
            found.append(Finding(name, FAIL, detail, advice))
            continue
        demanding = [endpoint.node for endpoint in right if endpoint.qos.transient_local]
        if demanding:
            detail = f"{', '.join(demanding)} asks for transient local, which commands are not"
            found.append(Finding(name, FAIL, detail, "let the controller subscribe volatile"))
        else:
            found.append(Finding(name, OK, f"{', '.join(sorted(e.node for e in right))} listens"))
        node = right[0].node
        found.append(_twin_time_out(stack, name) if stack.twin is not None else _time_out(controller, handle, node))
    return found


def _is_safety(handle: NodeHandle, node: str) -> bool:
    return node == handle.resolve("safety")


def _twin_time_out(stack: Stack, name: str) -> Finding:
    """A twin takes its time-out from the stack."""
    given = (stack.twin or {}).get("cmd_timeout_s", min(controller.time_out_s for controller in stack.controllers))
    if not given > 0:
        return Finding(f"time-out of {name}", FAIL, "that of the twin is off", "set twin.cmd_timeout_s above 0")
    return Finding(f"time-out of {name}", OK, f"{given:g} s, of the twin")


def _time_out(controller: ControllerSection, handle: NodeHandle, node: str) -> Finding:
    """ros2_control's trajectory controller has a command time-out, off by default."""
    name = f"time-out of controller {handle.resolve(controller.topic)}"
    advice = f"set it to {controller.time_out_s:g} s: if safety dies, nothing else stops the arm"
    try:
        values = _parameters(handle, node)
    except RealError as error:
        detail = f"{node or 'the controller'} does not tell its command time-out: {error}"
        return Finding(name, WARN, detail, f"look it up by hand; {advice}")
    if not values:
        detail = f"{node} has no parameter {' or '.join(_TIME_OUTS)}"
        return Finding(name, WARN, detail, f"look it up by hand; {advice}")
    if min(values) <= 0:
        return Finding(name, FAIL, f"the command time-out of {node} is off", advice)
    if max(values) > 2 * controller.time_out_s:
        return Finding(name, WARN, f"{max(values):g} s, the stack says {controller.time_out_s:g}", advice)
    return Finding(name, OK, f"{max(values):g} s")


def _parameters(handle: NodeHandle, node: str) -> list[float]:
    messages = store()
    request: Any = messages.new(f"{_PARAMETERS}_Request", names=list(_TIME_OUTS))
    answer = handle.call(f"{node}/get_parameters", _PARAMETERS, request, timeout_s=1.0)
    return [float(value.double_value) for value in answer.values if value.type == _DOUBLE]
