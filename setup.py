"""For `colcon build` alone: what makes this a package of ROS 2. Everything else is said in pyproject.toml."""

from glob import glob

from setuptools import setup

setup(
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/robolearn"]),
        ("share/robolearn", ["package.xml"]),
        ("share/robolearn/launch", sorted(glob("launch/*.launch.py"))),
    ]
)
