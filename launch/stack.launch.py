"""ros2 launch launch/stack.launch.py stack:=panda bundle:=<folder> critic:=<critic>: all nodes of a stack."""

from real.ros_launch import describe_stack


def generate_launch_description():
    return describe_stack()
