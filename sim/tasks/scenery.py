"""What the scenes of several tasks share."""

from __future__ import annotations

import mujoco


def add_sky(spec: mujoco.MjSpec) -> None:
    """A pale gradient behind everything."""
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=[0.75, 0.82, 0.9],
        rgb2=[0.35, 0.42, 0.5],
        width=32,
        height=192,
    )
