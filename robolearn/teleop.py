"""`robolearn teleop`: drive a robot of a running stack from this terminal, or with a gamepad."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass

from robolearn import real_settings, settings
from robolearn.real_settings import NOT_SAFE
from robolearn.settings import MISSING

SUMMARY = "drive the robot of a running stack: keyboard in this terminal, or a gamepad"


@dataclass
class Options:
    """Settings of `robolearn teleop`; dotted ones, such as teleop.deadman_s=2, are keys of the stack."""

    stack: str = MISSING
    """Name of a stack, or the path of its YAML."""
    device: str = ""
    """keyboard, gamepad or joy (a sensor_msgs/Joy topic); default: the stack's."""
    speed_linear: float = 0.0
    """m/s of the tool; 0: the stack's."""
    speed_angular: float = 0.0
    """rad/s of the tool; 0: the stack's."""
    transport: str = "auto"
    """auto, dds or ros."""
    domain: int | None = None
    """DDS domain; null: the stack's, ROS_DOMAIN_ID, or that of `robolearn real up`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``key=value`` settings."""
    settings.add_arguments(parser, Options)


def main(args: argparse.Namespace) -> int:
    """The verb: runs until Ctrl-C; 2 for a device that is not there."""
    options, dotted = real_settings.parse(Options, args.settings)
    given = real_settings.overrides(options, dotted, ("transport", "domain"))
    for name in ("device", "speed_linear", "speed_angular"):
        if value := getattr(options, name):
            given[f"teleop.{name}"] = value
    stack = real_settings.load_stack(options.stack, given)
    from real.launcher import environment, node_command
    from real.nodes.run import run_node
    from real.nodes.teleop import build

    os.environ.update(environment(stack))
    print(NOT_SAFE, file=sys.stderr)
    code = run_node("teleop", build, node_command("teleop", str(stack.path), given)[3:])
    if args.json:
        print(json.dumps({"stack": stack.name, "device": stack.teleop.device, "exit_code": code}))
    return code
