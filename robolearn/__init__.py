"""robolearn: the front door of the platform and what all its rooms share.

Importing it settles what libraries read from the environment when they are loaded; what a user has set stands.
"""

import ctypes
import os
import sys

__version__ = "0.1.0"


def _choose_renderer() -> None:
    """Render through EGL on Linux, so that no display is needed.

    MuJoCo reads ``MUJOCO_GL`` when it is first imported, and cannot be imported at all where it says ``egl`` and the
    library is missing: there the variable stays unset, and `robolearn doctor` tells what to install.
    """
    if sys.platform != "linux" or "MUJOCO_GL" in os.environ:
        return
    try:
        ctypes.CDLL("libEGL.so.1")
    except OSError:
        return
    os.environ["MUJOCO_GL"] = "egl"


def _share_the_processor() -> None:
    """Let OpenMP threads sleep while they wait for each other.

    By default they spin; beside any other busy process that made training six times slower on two cores.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


_choose_renderer()
_share_the_processor()
