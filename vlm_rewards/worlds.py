"""What is remembered of each world's episode."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from vlm_rewards.errors import CriticError
from vlm_rewards.frames import Frames


class Memory:
    """Named rows, one for each world; worlds are any small non-negative numbers, and room is made as they come.

    Rows of a floating type are NaN until they are written, others 0.
    """

    def __init__(self) -> None:
        self._rows: dict[str, torch.Tensor] = {}
        self._cameras: dict[str, tuple[str, ...]] = {}

    def write(self, name: str, worlds: torch.Tensor, rows: torch.Tensor) -> None:
        """Keep ``rows`` (K, ...) for ``worlds`` (K,) int64.

        Raises:
            CriticError: rows of another shape than those kept under that name.
        """
        if not len(worlds):
            return
        kept = self._rows.get(name)
        if kept is not None and kept.shape[1:] != rows.shape[1:]:
            raise CriticError(
                f"{name} of {tuple(rows.shape[1:])} cannot be kept beside those of {tuple(kept.shape[1:])}: "
                "the size, cameras and window of frames stay the same from episode to episode"
            )
        self._rows[name] = kept = _with_room(kept, int(worlds.max()) + 1, rows)
        kept[worlds.to(kept.device)] = rows.to(kept.device)

    def read(self, name: str, worlds: torch.Tensor) -> torch.Tensor:
        """The rows of ``worlds``, (K, ...), copied.

        Raises:
            CriticError: a world for which nothing was ever written.
        """
        kept = self._rows.get(name)
        count = 0 if kept is None else len(kept)
        if kept is None or (len(worlds) and int(worlds.max()) >= count):
            raise CriticError(f"world {int(worlds.max()) if len(worlds) else 0} has no episode: begin it first")
        return kept[worlds.to(kept.device)]

    def write_frames(self, name: str, worlds: torch.Tensor, frames: Frames) -> None:
        """Keep one moment for each of ``worlds``.

        Raises:
            CriticError: frames of other cameras, size or window than those kept under that name.
        """
        cameras = self._cameras.setdefault(name, frames.cameras)
        if set(cameras) != set(frames.cameras):
            raise CriticError(
                f"frames of cameras {', '.join(frames.cameras)} cannot be kept beside those of {', '.join(cameras)}"
            )
        frames = frames.of(cameras)
        self.write(f"{name}/rgb", worlds, frames.rgb)
        self.write(f"{name}/stamps", worlds, frames.stamps)
        self.write(f"{name}/kept", worlds, torch.ones_like(frames.stamps, dtype=torch.bool))

    def read_frames(self, name: str, worlds: torch.Tensor) -> Frames:
        """The moments kept for ``worlds``.

        Raises:
            CriticError: a world for which none was ever kept.
        """
        rgb, stamps = self.read(f"{name}/rgb", worlds), self.read(f"{name}/stamps", worlds)
        missing = ~self.read(f"{name}/kept", worlds)
        if bool(missing.any()):
            raise CriticError(f"world {int(worlds[missing.to(worlds.device)][0])} has no episode: begin it first")
        return Frames(rgb, self._cameras[name], stamps)

    def state_dict(self) -> dict[str, object]:
        """Plain tensors and texts, copied."""
        return {
            "rows": {name: rows.clone() for name, rows in self._rows.items()},
            "cameras": {name: list(cameras) for name, cameras in self._cameras.items()},
        }

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Continue from what `state_dict` gave.

        Raises:
            CriticError: it is not such a state.
        """
        rows, cameras = state.get("rows"), state.get("cameras")
        if not isinstance(rows, Mapping) or not isinstance(cameras, Mapping):
            raise CriticError(f"this is not the state of a potential: {', '.join(map(str, state)) or 'empty'}")
        self._rows = {str(name): value.clone() for name, value in rows.items()}
        self._cameras = {str(name): tuple(value) for name, value in cameras.items()}


def _with_room(kept: torch.Tensor | None, count: int, like: torch.Tensor) -> torch.Tensor:
    """``kept`` with at least ``count`` rows of the shape of those of ``like``; room is doubled, not made one by one."""
    have = 0 if kept is None else len(kept)
    if kept is not None and have >= count:
        return kept
    blank = torch.nan if like.is_floating_point() else 0
    larger = like.new_full((max(count, 2 * have), *like.shape[1:]), blank)
    if kept is not None:
        larger[:have] = kept
    return larger
