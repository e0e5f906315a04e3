"""Cameras in batch: pictures of every world, as often and of as many worlds as are asked for, on either engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mujoco
import numpy as np
import torch

from sim.camera_gl import OpenGLCameras
from sim.mujoco_cpu import MujocoCpu
from sim.opengl import RenderError
from sim.physics import Physics
from sim.pictures import Pictures, Request
from sim.world import Shard, World

__all__ = ["BatchCameras", "Frames", "RenderError", "look_at"]


@dataclass(frozen=True)
class Frames:
    """The latest pictures of N worlds by V cameras. The next call reuses the tensors.

    Attributes:
        names: the cameras, V of them.
        rgb: (N, V, H, W, 3) uint8, or None where not asked for, as below.
        depth: (N, V, H, W) float32, m along the optical axis; 0 where nothing is hit.
        segmentation: (N, V, H, W, 2) int32, (object id, `mujoco.mjtObj`); (-1, -1) where nothing is hit.
        age: (N,) int64, control steps since each world's pictures were made; -1 for a world that has none yet.
    """

    names: tuple[str, ...]
    rgb: torch.Tensor | None
    depth: torch.Tensor | None
    segmentation: torch.Tensor | None
    age: torch.Tensor

    @property
    def fresh(self) -> torch.Tensor:
        """(N,) bool, the worlds whose pictures show this control step."""
        return self.age == 0


class BatchCameras:
    """Named cameras of all worlds.

    `render` is called once in each control step. Every ``every``-th call makes pictures, of the worlds of its mask;
    other worlds, and the calls in between, keep the pictures that they had and tell their age.

    Args:
        worlds: a `World`, its shards, or one engine.
        names: cameras of the model; with several models, each has all of them.
        height, width: of each picture, pixels.
        rgb, depth, segmentation: which kinds of picture to make.
        every: control steps between pictures, 1 or more.
        threads: to draw CPU worlds on; 0 means as many as step the worlds.

    Attributes:
        num_worlds, device: N, and where the pictures are.

    Raises:
        RenderError: an unknown camera, an impossible size, or no way to render on this machine.
    """

    def __init__(
        self,
        worlds: World | Sequence[Shard] | Physics,
        names: Sequence[str] = ("front", "wrist"),
        height: int = 64,
        width: int = 64,
        *,
        rgb: bool = True,
        depth: bool = False,
        segmentation: bool = False,
        every: int = 1,
        threads: int = 0,
    ) -> None:
        if every < 1:
            raise RenderError(f"every must be at least 1 control step, got {every}")
        if threads < 0:
            raise RenderError(f"number of threads must be at least 0 (as many as step the worlds), got {threads}")
        shards = _shards(worlds)
        request = Request(tuple(names), height, width, rgb, depth, segmentation)
        self.names = request.names
        self.every = every
        self.num_worlds = shards[-1].stop
        self.device = shards[0].physics.bind("qpos").device
        self._pictures = Pictures.allocate(request, self.num_worlds, self.device)
        self._age = torch.full((self.num_worlds,), -1, dtype=torch.long, device=self.device)
        self._calls = 0
        self._parts = _parts(shards, request, threads)
        self._frames = Frames(self.names, **vars(self._pictures), age=self._age)

    def render(self, mask: torch.Tensor | None = None) -> Frames:
        """One control step has passed: the pictures at its end, new ones if the interval says so.

        Args:
            mask: (N,) bool, the worlds whose pictures are wanted; None means all.

        Raises:
            RenderError: a mask of another shape or type.
        """
        self._age += self._age >= 0
        due = self._calls % self.every == 0
        self._calls += 1
        return self.refresh(mask) if due else self._frames

    def refresh(self, mask: torch.Tensor | None = None) -> Frames:
        """Make pictures of the worlds ``mask`` (N,) now, whatever the interval: of those just reset, say.

        No control step is counted.
        """
        if mask is not None:
            self._check(mask)
        if not self._parts:
            raise RenderError("these cameras are closed")
        for part in self._parts:
            part.draw(mask, self._pictures)
        if mask is None:
            self._age.zero_()
        else:
            self._age.masked_fill_(mask, 0)
        return self._frames

    def state_dict(self) -> dict[str, Any]:
        """Pictures, their age and the phase of the interval."""
        pictures = {name: value.clone() for name, value in self._pictures.named().items()}
        return {"pictures": pictures, "age": self._age.clone(), "calls": self._calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        live = self._pictures.named()
        for name, value in state["pictures"].items():
            if name not in live or live[name].shape != value.shape:
                raise RenderError(f"saved {name} pictures of shape {tuple(value.shape)} are not these cameras'")
            live[name].copy_(value)
        self._age.copy_(state["age"])
        self._calls = int(state["calls"])

    def close(self) -> None:
        """Free OpenGL contexts; the last frames stay."""
        for part in self._parts:
            part.close()
        self._parts = []

    def __enter__(self) -> BatchCameras:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, mask: torch.Tensor) -> None:
        if mask.dtype != torch.bool or tuple(mask.shape) != (self.num_worlds,):
            raise RenderError(f"a mask of worlds is ({self.num_worlds},) bool, got {tuple(mask.shape)} {mask.dtype}")


class _Part(Protocol):
    """Draws some of the worlds."""

    def draw(self, mask: torch.Tensor | None, into: Pictures) -> None:
        """Draw the worlds of a mask over all worlds into the pictures of all worlds."""

    def close(self) -> None:
        """Free what has to be freed."""


class _WarpPart:
    """One shard of the GPU engine, which has its `mujoco_warp.Model` and `mujoco_warp.Data`."""

    def __init__(self, shard: Shard, request: Request) -> None:
        from sim.camera_warp import WarpCameras  # needs the GPU extra

        engine: Any = shard.physics
        self._rows = shard.rows
        self._cameras = WarpCameras(engine.model, engine.warp_model, engine.warp_data, request)

    def draw(self, mask: torch.Tensor | None, into: Pictures) -> None:
        self._cameras.draw(None if mask is None else mask[self._rows], into.map(lambda rows: rows[self._rows]))

    def close(self) -> None:
        pass


def _parts(shards: Sequence[Shard], request: Request, threads: int) -> list[_Part]:
    on_cpu = [shard for shard in shards if isinstance(shard.physics, MujocoCpu)]
    parts: list[_Part] = [OpenGLCameras(on_cpu, request, threads)] if on_cpu else []
    for shard in shards:
        if hasattr(shard.physics, "warp_model"):
            parts.append(_WarpPart(shard, request))
        elif shard not in on_cpu:
            raise RenderError(f"engine {type(shard.physics).__name__} of shard {shard.label!r} has no cameras")
    return parts


def _shards(worlds: World | Sequence[Shard] | Physics) -> tuple[Shard, ...]:
    if isinstance(worlds, World):
        return worlds.shards
    if isinstance(worlds, Sequence):
        if not worlds:
            raise RenderError("cameras need at least one shard of worlds")
        return tuple(worlds)
    return (Shard(worlds, 0, worlds.nworld, ""),)


def look_at(position: Sequence[float], target: Sequence[float], up: Sequence[float] = (0.0, 0.0, 1.0)) -> np.ndarray:
    """Orientation (4,) wxyz of an MJCF camera at ``position`` (3,) that sees ``target`` in the middle, ``up`` upright.

    Raises:
        RenderError: the camera would look straight along ``up``, or at where it stands.
    """
    backward = np.subtract(position, target)
    right = np.cross(up, backward)
    if np.linalg.norm(right) < 1e-9:
        raise RenderError(f"a camera at {list(position)} cannot look at {list(target)} with {list(up)} upright")
    axes = np.stack([right, np.cross(backward, right), backward], axis=1)
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, (axes / np.linalg.norm(axes, axis=0)).ravel())
    return quat
