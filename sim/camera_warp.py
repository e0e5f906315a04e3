"""Cameras of GPU worlds: mujoco_warp's ray tracer, all wanted worlds in one launch.

It draws the first worlds of its data. A mask is honoured by gathering what can be seen of the chosen worlds into the
first rows of buffers, so that the work is in proportion to the number of chosen worlds. That number has to come back to
the host, which is the one time the host waits for the device.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import mujoco
import mujoco_warp
import torch
import warp

from sim.pictures import Pictures, Request

_PLACED = ("geom_xpos", "geom_xmat", "cam_xpos", "cam_xmat", "light_xpos", "light_xdir")
"""Data fields that the renderer reads."""
_OWN = (
    *("geom_dataid", "geom_matid", "geom_size", "geom_rgba", "cam_fovy", "cam_intrinsic"),
    *("light_type", "light_castshadow", "light_active", "light_attenuation", "light_cutoff", "light_exponent"),
    *("light_ambient", "light_diffuse", "light_specular"),
    *("mat_texid", "mat_texuniform", "mat_texrepeat", "mat_emission", "mat_specular", "mat_shininess", "mat_rgba"),
)
"""Model fields that the renderer reads and a world may have of its own."""


class WarpCameras:
    """Draws the worlds of a mujoco_warp model and data.

    Textures, lights, the sky and per-world model fields (sizes, colours, camera poses and fields of view, lights) are
    honoured as in MuJoCo's own renderer. Unlike there, what is translucent is drawn opaque, things nearer than the
    near plane are drawn as well, skins and the sides of height fields are not, and quaternions that are given to
    worlds of their own must have unit length.

    Args:
        mjm: the compiled model, on the host.
        m, d: `mujoco_warp.Model` and `mujoco_warp.Data` of it; the worlds are drawn as they stand at the call.
        request: which pictures.

    Raises:
        RenderError: an unknown camera.
    """

    def __init__(self, mjm: mujoco.MjModel, m: Any, d: Any, request: Request) -> None:
        self._m, self._d = m, d
        self._flexible = mjm.nflex > 0
        self._shape = (-1, len(request.names), request.height, request.width)
        self._device = d.geom_xpos.device
        self._gathered: dict[str, warp.array] = {}
        with self._on_device():
            self._context = mujoco_warp.create_render_context(
                mjm,
                nworld=d.nworld,
                cam_res=(request.width, request.height),
                render_rgb=request.rgb,
                render_depth=request.depth,
                render_seg=request.segmentation,
                cam_active=request.cameras(mjm),
                use_precomputed_rays=False,  # they would not follow a world's own field of view
                render_skybox=True,
            )
            # these are read off the host's model, where a world's own lights do not show
            self._context.light_attenuation_is_default = False
            self._context.has_spot_lights = True

    def draw(self, mask: torch.Tensor | None, into: Pictures) -> None:
        """Draw the worlds of ``mask`` (n,) bool, on their device, or all, into their rows of the pictures."""
        with self._on_device():
            ids = None if mask is None else torch.nonzero(mask).flatten()
            if ids is not None and not len(ids):
                return
            self._place()
            m, d = self._m, self._d
            compact = ids is not None and not self._flexible  # flexible bodies' boxes are laid out for all worlds
            if ids is not None and compact:
                m, d = self._chosen(ids)
            mujoco_warp.refit_bvh(m, d, self._context)
            mujoco_warp.render(m, d, self._context)
            for target, drawn in self._drawn(into):
                if ids is None:
                    target.copy_(drawn)
                else:
                    target.index_copy_(0, ids, drawn[: len(ids)] if compact else drawn[ids])

    def _place(self) -> None:
        """Bring everything that can be seen up to date with the worlds' state."""
        mujoco_warp.kinematics(self._m, self._d)
        mujoco_warp.com_pos(self._m, self._d)
        mujoco_warp.camlight(self._m, self._d)
        if self._flexible:
            mujoco_warp.flex(self._m, self._d)

    def _chosen(self, ids: torch.Tensor) -> tuple[Any, Any]:
        """Model and data whose first worlds are the worlds ``ids`` (K,), for the renderer alone."""
        m, d = copy.copy(self._m), copy.copy(self._d)
        d.nworld = len(ids)
        for holder, names in ((d, _PLACED), (m, _OWN)):
            for name in names:
                values = getattr(holder, name)
                if values.shape[0] > 1:  # else one row serves all worlds
                    setattr(holder, name, self._gather(name, values, ids))
        return m, d

    def _gather(self, name: str, values: warp.array, ids: torch.Tensor) -> warp.array:
        if name not in self._gathered:
            shape = (self._d.nworld, *values.shape[1:])
            self._gathered[name] = warp.empty(shape, dtype=values.dtype, device=values.device)
        rows = warp.to_torch(self._gathered[name])
        rows[: len(ids)] = warp.to_torch(values)[ids % values.shape[0]]
        return self._gathered[name]

    def _drawn(self, into: Pictures) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Pairs of a target and what was drawn for it."""
        if into.rgb is not None:
            # one word for a pixel, of which the bytes are blue, green, red, alpha
            packed = warp.to_torch(self._context.rgb_data).view(torch.uint8)
            yield into.rgb, packed.view(*self._shape, 4)[..., :3].flip(-1)
        if into.depth is not None:
            yield into.depth, warp.to_torch(self._context.depth_data).view(*self._shape)
        if into.segmentation is not None:
            yield into.segmentation, warp.to_torch(self._context.seg_data).view(*self._shape, 2)

    @contextlib.contextmanager
    def _on_device(self) -> Iterator[None]:
        """Launch on the stream that torch uses, so that neither overtakes the other."""
        with warp.ScopedDevice(self._device):
            if self._device.is_cuda:
                with warp.ScopedStream(warp.stream_from_torch(torch.cuda.current_stream(str(self._device)))):
                    yield
            else:
                yield
