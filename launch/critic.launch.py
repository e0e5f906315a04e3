"""ros2 launch launch/critic.launch.py stack:=panda_twin: the node that judges progress."""

from real.ros_launch import describe


def generate_launch_description():
    return describe("critic")
