"""OpenGL on this machine: which backend draws, and one clear line where none can."""

from __future__ import annotations

import os

import mujoco

from robolearn.errors import RobolearnError


class RenderError(RobolearnError):
    """No way to render on this machine, an unknown camera, or a picture or film that cannot be made."""


def gl_backend() -> str:
    """The OpenGL backend that MuJoCo took when it was first imported; `robolearn` sees to it that this is EGL."""
    context = getattr(mujoco, "GLContext", None)
    return "none" if context is None else context.__module__.rpartition(".")[2]


def cannot_render(error: Exception) -> RenderError:
    """What to tell a user of an ``error`` at the making of an OpenGL context."""
    reason = " ".join(str(error).split())
    return RenderError(
        f"cannot render with OpenGL backend {gl_backend()!r} ({type(error).__name__}: {reason}); "
        "install the EGL library (Debian: libegl1 and libgl1-mesa-dri) and set MUJOCO_GL=egl before MuJoCo "
        "is first imported; 'robolearn doctor' tells more"
    )


def draw_in_calling_threads() -> None:
    """Keep Mesa's software renderer from starting threads of its own, which would fight over the cores with ours.

    It reads this once, when the process makes its first OpenGL context; graphics cards do not care.
    """
    os.environ.setdefault("LP_NUM_THREADS", "0")


def drawn_in_software() -> bool:
    """Whether the OpenGL context that is current in this thread belongs to one of Mesa's software renderers."""
    from OpenGL import GL

    name = GL.glGetString(GL.GL_RENDERER) or b""
    return any(renderer in name.lower() for renderer in (b"llvmpipe", b"softpipe", b"swrast"))
