"""ros2 launch launch/teleop.launch.py stack:=panda_twin: a person's gamepad."""

from real.ros_launch import describe


def generate_launch_description():
    return describe("teleop")
