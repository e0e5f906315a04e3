"""Cameras of GPU worlds: mujoco_warp's ray tracer, all worlds in one launch.

It draws every world of its data or none. A mask is honoured by turning the cameras of the other worlds away from
everything there is: their rays end at the first box they test, and no count of worlds has to come back to the host.
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

_BELOW = -1e6
"""m; far below every scene. A camera's own frame looks along -z, so from there nothing can be in its view."""


class WarpCameras:
    """Draws the worlds of a mujoco_warp model and data.

    Textures, lights, the sky and per-world model fields (sizes, colours, camera poses and fields of view, lights) are
    honoured as in MuJoCo's own renderer. Unlike there, what is translucent is drawn opaque, things nearer than the
    near plane are drawn as well, and skins are not.

    Args:
        mjm: the compiled model, on the host.
        m, d: `mujoco_warp.Model` and `mujoco_warp.Data` of it; the worlds are drawn as they stand at the call.
        request: which pictures.

    Raises:
        RenderError: an unknown camera.
    """

    def __init__(self, mjm: mujoco.MjModel, m: Any, d: Any, request: Request) -> None:
        self._m, self._d = m, d
        self._views = len(request.names)
        self._size = (request.height, request.width)
        self._device = d.geom_xpos.device
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
            self._away_pos, self._away_mat = warp.empty_like(d.cam_xpos), warp.empty_like(d.cam_xmat)

    def draw(self, mask: torch.Tensor | None, into: Pictures) -> None:
        """Draw the worlds of ``mask`` (n,) bool, on their device, or all, into their rows of the pictures."""
        with self._on_device():
            self._place()
            mujoco_warp.refit_bvh(self._m, self._d, self._context)
            mujoco_warp.render(self._m, self._d if mask is None else self._looking_away(~mask), self._context)
            for target, drawn in self._drawn(into):
                if mask is not None:
                    drawn = torch.where(mask.view(-1, *[1] * (target.ndim - 1)), drawn, target)
                target.copy_(drawn)

    def _place(self) -> None:
        """Bring everything that can be seen up to date with the worlds' state."""
        mujoco_warp.kinematics(self._m, self._d)
        mujoco_warp.com_pos(self._m, self._d)
        mujoco_warp.camlight(self._m, self._d)
        mujoco_warp.flex(self._m, self._d)

    def _looking_away(self, away: torch.Tensor) -> Any:
        """The data with the cameras of the worlds ``away`` (n,) far below the scene, looking down."""
        pos, mat = warp.to_torch(self._d.cam_xpos), warp.to_torch(self._d.cam_xmat)
        below = pos.new_tensor([0.0, 0.0, _BELOW])
        down = torch.eye(3, device=mat.device)
        warp.to_torch(self._away_pos).copy_(torch.where(away.view(-1, 1, 1), below, pos))
        warp.to_torch(self._away_mat).copy_(torch.where(away.view(-1, 1, 1, 1), down, mat))
        data = copy.copy(self._d)
        data.cam_xpos, data.cam_xmat = self._away_pos, self._away_mat
        return data

    def _drawn(self, into: Pictures) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Pairs of a target and what was drawn for it."""
        shape = (-1, self._views, *self._size)
        if into.rgb is not None:
            # one word for a pixel, of which the bytes are blue, green, red, alpha
            packed = warp.to_torch(self._context.rgb_data).view(torch.uint8)
            yield into.rgb, packed.view(*shape, 4)[..., :3].flip(-1)
        if into.depth is not None:
            yield into.depth, warp.to_torch(self._context.depth_data).view(*shape)
        if into.segmentation is not None:
            yield into.segmentation, warp.to_torch(self._context.seg_data).view(*shape, 2)

    @contextlib.contextmanager
    def _on_device(self) -> Iterator[None]:
        """Launch on the stream that torch uses, so that neither overtakes the other."""
        with warp.ScopedDevice(self._device):
            if self._device.is_cuda:
                with warp.ScopedStream(warp.stream_from_torch(torch.cuda.current_stream(str(self._device)))):
                    yield
            else:
                yield
