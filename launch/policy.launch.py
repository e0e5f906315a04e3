"""ros2 launch launch/policy.launch.py stack:=panda_twin: the node that runs a bundle."""

from real.ros_launch import describe


def generate_launch_description():
    return describe("policy")
