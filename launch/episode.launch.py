"""ros2 launch launch/episode.launch.py stack:=panda_twin: the node that starts and ends episodes."""

from real.ros_launch import describe


def generate_launch_description():
    return describe("episode")
