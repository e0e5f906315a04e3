"""robolearn: the front door of the platform and what all its rooms share."""

import ctypes
import os
import sys

__version__ = "0.1.0"


def _choose_renderer() -> None:
    """Render through EGL on Linux unless the user chose otherwise, so that no display is needed.

    MuJoCo reads ``MUJOCO_GL`` when it is first imported, and cannot be imported at all where it says ``egl``
    and the library is missing: there the variable stays unset, and `robolearn doctor` tells what to install.
    """
    if sys.platform != "linux" or "MUJOCO_GL" in os.environ:
        return
    try:
        ctypes.CDLL("libEGL.so.1")
    except OSError:
        return
    os.environ["MUJOCO_GL"] = "egl"


_choose_renderer()
