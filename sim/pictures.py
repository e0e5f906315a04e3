"""What cameras deliver: which pictures are asked for, and the tensors they are written into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import torch

from robolearn.errors import unknown
from sim.opengl import RenderError

LARGEST_SIDE = 8192
"""Pixels; what OpenGL drivers commonly offer at least."""


@dataclass(frozen=True)
class Request:
    """The pictures of one world.

    Attributes:
        names: of the cameras, V of them.
        height, width: H and W, pixels.
        rgb, depth, segmentation: which kinds of picture.
    """

    names: tuple[str, ...]
    height: int
    width: int
    rgb: bool
    depth: bool
    segmentation: bool

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names):
            raise RenderError(f"names must be one or more different cameras, got {list(self.names)}")
        for side, value in (("height", self.height), ("width", self.width)):
            if not 1 <= value <= LARGEST_SIDE:
                raise RenderError(f"{side} of a picture must be between 1 and {LARGEST_SIDE} pixels, got {value}")
        if not (self.rgb or self.depth or self.segmentation):
            raise RenderError("cameras must render at least one of rgb, depth and segmentation")

    def cameras(self, model: mujoco.MjModel) -> list[int]:
        """Ids of the named cameras in a model.

        Raises:
            RenderError: the model has no camera of that name; the message lists those it has.
        """
        valid = {model.camera(i).name: i for i in range(model.ncam)}
        for name in self.names:
            if name not in valid:
                raise RenderError(unknown("camera", name, valid))
        return [valid[name] for name in self.names]


@dataclass(frozen=True)
class Pictures:
    """Pictures of N worlds by V cameras; what was not asked for is None.

    Attributes:
        rgb: (N, V, H, W, 3) uint8.
        depth: (N, V, H, W) float32, m along the camera's optical axis; 0 where nothing is hit.
        segmentation: (N, V, H, W, 2) int32, (object id, `mujoco.mjtObj`), such as (3, mjOBJ_GEOM); (-1, -1) where
            nothing is hit.
    """

    rgb: torch.Tensor | None
    depth: torch.Tensor | None
    segmentation: torch.Tensor | None

    @classmethod
    def allocate(cls, request: Request, count: int, device: torch.device) -> Pictures:
        """Black pictures of ``count`` worlds, in which nothing is seen."""
        shape = (count, len(request.names), request.height, request.width)
        try:
            return cls(
                torch.zeros(*shape, 3, dtype=torch.uint8, device=device) if request.rgb else None,
                torch.zeros(*shape, device=device) if request.depth else None,
                torch.full((*shape, 2), -1, dtype=torch.int32, device=device) if request.segmentation else None,
            )
        except (RuntimeError, MemoryError) as error:
            raise RenderError(
                f"no memory for pictures of {count} worlds by {shape[1]} cameras at {shape[2]}x{shape[3]} pixels"
            ) from error

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Pictures:
        """Each tensor under a function."""
        rgb, depth, segmentation = (
            None if value is None else function(value) for value in (self.rgb, self.depth, self.segmentation)
        )
        return Pictures(rgb, depth, segmentation)

    def named(self) -> dict[str, torch.Tensor]:
        """The tensors that are there, by name."""
        kinds = {"rgb": self.rgb, "depth": self.depth, "segmentation": self.segmentation}
        return {name: value for name, value in kinds.items() if value is not None}
