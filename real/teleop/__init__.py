"""Devices with which a person drives the robot: the keyboard of a terminal, and Linux gamepads."""
