"""The robot side: the same bundle and the same critic on a ROS 2 arm, with a person able to take over.

The safety node is not safety-rated. A physical robot needs a hardware emergency stop that depends on none of this.
"""
