"""Looks at everything that must be right before a stack may move a robot; moves nothing, commands nothing.

`check_files` needs the stack alone; `check_graph` listens to a running driver for a few seconds.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable

from real.findings import FAIL, OK, WARN, Finding
from real.msgs import store
from real.preflight_graph import check_commands, check_controllers, check_names, check_nodes
from real.preflight_topics import CameraProbe, JointProbe, PoseProbe, Probe
from real.stack import Stack
from real.stack_robot import StackRobot, open_robot
from real.transport.handle import NodeHandle
from robolearn.bundle import Bundle
from robolearn.contract import Channel, Contract
from robolearn.errors import RobolearnError, unknown

LISTEN_S = 3.0
_DEFAULT_PORTS = 101
"""Domain ids above may collide with ports that Linux hands out by itself."""


def check_files(stack: Stack) -> list[Finding]:
    """Robot, limits and bundle, without a graph."""
    try:
        robot = open_robot(stack)
    except RobolearnError as error:
        return [Finding("robot", FAIL, str(error), f"change {stack.path}")]
    arm = f"{robot.name}, {len(robot.joints)} joints: {', '.join(robot.joints)}"
    return [Finding("robot", OK, arm), *_workspace(stack, robot), *_bundle(stack, robot)]


def check_ros(transport: str = "auto") -> Finding:
    """Whether ROS 2 is sourced, and then whether it works; with transport ``dds`` it need not."""
    broken = WARN if transport == "dds" else FAIL
    distro = os.environ.get("ROS_DISTRO", "")
    if not distro:
        return Finding("ros 2", OK, "not sourced; embedded DDS is used")
    if importlib.util.find_spec("rclpy") is None:
        advice = "use the Python that it was built for, unset ROS_DISTRO, or give transport=dds"
        return Finding(
            "ros 2", broken, f"{distro} is sourced, but this Python ({sys.version.split()[0]}) has no rclpy", advice
        )
    code = "import rclpy; rclpy.init(); rclpy.shutdown(); print('works')"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
        reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        works = "works" in done.stdout
    except subprocess.TimeoutExpired:
        works, reason = False, "rclpy.init() hangs"
    if not works:
        return Finding(
            "ros 2", broken, f"{distro} is sourced but broken: {reason}", "source it anew, or give transport=dds"
        )
    return Finding("ros 2", OK, f"{distro}, rclpy works")


def check_domain(stack: Stack) -> Finding:
    """The domain that the nodes would use."""
    text = os.environ.get("ROS_DOMAIN_ID", "0") or "0"
    domain = str(stack.domain) if stack.domain is not None else text
    if not domain.isdigit() or int(domain) > 232:
        return Finding("domain", FAIL, f"{domain!r} is no domain id", "set ROS_DOMAIN_ID to 0..101")
    if int(domain) > _DEFAULT_PORTS:
        return Finding("domain", WARN, f"{domain} shares ports with other programs on Linux", "choose one of 0..101")
    return Finding("domain", OK, domain)


def check_graph(stack: Stack, handle: NodeHandle, listen_s: float = LISTEN_S) -> list[Finding]:
    """Topics, rates, joint names, units, cameras, controllers and other nodes, from a graph that is up.

    Raises:
        RobolearnError: the stack's robot cannot be read; see `check_files`.
    """
    robot = open_robot(stack)
    probes = _probes(stack, robot, handle)
    until = handle.clock.monotonic() + listen_s
    _spin(handle, lambda: handle.clock.monotonic() >= until)
    findings = [finding for probe in probes for finding in probe.findings(listen_s)]
    findings += check_names(stack, handle, [probe.topic for probe in probes])
    findings += check_nodes(handle)
    findings += check_commands(stack, handle)
    findings += check_controllers(stack, handle)
    return findings


def _spin(handle: NodeHandle, done: Callable[[], bool]) -> None:
    guard = time.monotonic() + 120.0
    while not done() and time.monotonic() < guard:
        handle.spin_once(0.05)


def _probes(stack: Stack, robot: StackRobot, handle: NodeHandle) -> list[Probe]:
    messages = store(stack.distro)
    joints = {t for s in stack.sources().values() if s.message_type.endswith("JointState") for t in s.topics}
    probes: list[Probe] = [
        JointProbe(handle, messages, topic, stack, robot) for topic in sorted(joints or {"joint_states"})
    ]
    drawn = stack.twin is not None
    probes += [CameraProbe(handle, messages, name, camera, drawn) for name, camera in stack.cameras.items()]
    for source in stack.sources().values():
        if source.kind == "poses":
            probes += [PoseProbe(handle, messages, topic, source.age_s) for topic in source.topics]
    return probes


def _workspace(stack: Stack, robot: StackRobot) -> list[Finding]:
    if stack.limits.workspace is None:
        return [Finding("workspace", WARN, "no box: only the joints' limits hold", "give limits.workspace")]
    if not robot.tool_site:
        return [Finding("workspace", FAIL, "the box needs to know the tool", "give robot.tool_site")]
    return [Finding("workspace", OK, f"{list(stack.limits.workspace.lower)} to {list(stack.limits.workspace.upper)} m")]


def _bundle(stack: Stack, robot: StackRobot) -> list[Finding]:
    if not stack.policy.bundle:
        return [Finding("bundle", WARN, "none: no policy runs", "give bundle=...")]
    try:
        bundle = Bundle.load(stack.policy.bundle)
        contract = bundle.contract
        if contract.robot:
            contract.check_robot(robot.name)
    except RobolearnError as error:
        return [Finding("bundle", FAIL, str(error), "give the bundle of a policy that was trained for this robot")]
    problems = [*_commands(contract, robot), *_inputs(contract, stack)]
    if problems:
        return problems
    detail = (
        f"{contract.task or 'a policy'} at {contract.rate_hz:g} Hz; reads {', '.join(c.name for c in contract.inputs)}"
    )
    return [Finding("bundle", OK, detail)]


def _commands(contract: Contract, robot: StackRobot) -> list[Finding]:
    named = [joint for channel in contract.commands for joint in channel.elements]
    for joint in named:
        if joint not in robot.joints:
            advice = "give a bundle for this robot, or list the joint in robot.joints and under controllers"
            return [Finding("bundle", FAIL, f"it commands {unknown('joint', joint, robot.joints)}", advice)]
    if not contract.rate_hz > 0:
        return [Finding("bundle", FAIL, "it states no rate", "export it with its frequency")]
    return []


def _inputs(contract: Contract, stack: Stack) -> list[Finding]:
    found = []
    for channel in contract.inputs:
        name = f"channel {channel.name}"
        if channel.name not in stack.channels:
            detail = f"the policy reads it, and {unknown('channel', channel.name, stack.channels)}"
            found.append(Finding(name, FAIL, detail, f"say under channels of {stack.path} where it comes from"))
        elif wrong := _size(channel, stack):
            found.append(Finding(name, FAIL, wrong, "give as many topics, values or joints as the policy reads"))
    return found


def _size(channel: Channel, stack: Stack) -> str:
    """What does not fit between a channel's shape and its source."""
    source = stack.sources()[channel.name]
    if source.kind == "poses":
        rows = channel.shape[0] if len(channel.shape) > 1 else 1
        width = 2 if source.part == "xy" else 7
        if len(source.topics) != rows or channel.shape[-1] != width:
            return f"{len(source.topics)} poses of {width} numbers, where the policy reads {channel.shape}"
    if source.kind == "image" and len(channel.shape) != 3:
        return f"a picture, where the policy reads {channel.shape}"
    if source.kind == "joint_states" and not channel.elements:
        return "joint states, but the policy does not say which joints it reads"
    if source.kind == "constant" and len(source.value) != int(channel.shape[-1]):
        return f"{len(source.value)} values, where the policy reads {channel.shape}"
    return ""
