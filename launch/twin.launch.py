"""ros2 launch launch/twin.launch.py stack:=panda_twin: the digital twin, in the place of a robot's driver."""

from real.ros_launch import describe


def generate_launch_description():
    return describe("twin")
