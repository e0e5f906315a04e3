"""ros2 launch launch/safety.launch.py stack:=panda_twin: the only node that commands the robot."""

from real.ros_launch import describe


def generate_launch_description():
    return describe("safety")
