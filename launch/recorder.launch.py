"""ros2 launch launch/recorder.launch.py stack:=panda_twin: the node that writes episodes to disk."""

from real.ros_launch import describe


def generate_launch_description():
    return describe("recorder")
