"""How tracking is judged: DexTrack's errors and both of its success levels, and a stricter one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.linalg import vector_norm

from sim.channels import Channels
from sim.motions import ReferenceGoal
from sim.selection import Selection

TIGHT_MAX = 0.06
"""m: an object further than this from its reference at any time counts as dropped."""


class TrackingMetrics:
    """`sim.task.EpisodeMetrics` of reference tracking, over whole clips.

    Means over the clip's control steps (DexTrack, arXiv 2502.09614):

    - ``T_err`` cm: distance of the object from its reference; ``R_err`` rad: its angle.
    - ``E_wrist``: 0.5·‖Δposition‖ (m) + 0.5·‖Δhinge angles‖ (rad) of the wrist; ``E_finger`` rad: mean |Δ| of the
      finger joints.
    - ``strict``: T_err < 10 cm ∧ R_err < 20° ∧ 0.5·E_wrist + 0.5·E_finger < 0.8; ``loose``: 10 cm, 40°, 1.2.
    - ``tight``: T_err < 3 cm ∧ R_err < 15° ∧ hand error < 0.8 ∧ never further than 6 cm (no drop).
    - ``turned``: the object ends within 15° of the reference's last orientation and was never further than 6 cm.

    Success is only counted for clips followed from first to last frame: other episodes give NaN (started within the
    clip) or 0 (ended early).
    """

    def __init__(self, goal: ReferenceGoal, num_worlds: int, wrist: int) -> None:
        self._goal = goal
        self._wrist = wrist
        device = goal.frame.device
        self._sums = torch.zeros(num_worlds, 4, device=device)
        self._max_distance = torch.zeros(num_worlds, device=device)
        self._last_angle = torch.zeros(num_worlds, device=device)
        self._steps = torch.zeros(num_worlds, device=device)
        self._whole = torch.zeros(num_worlds, dtype=torch.bool, device=device)  # begun at the clip's first frame

    def update(self, c: Channels) -> None:
        # taken at the start: a world that diverges has drawn its next start by the time it is finished
        self._whole.copy_(torch.where(self._steps == 0, self._goal.first_frame == 0, self._whole))
        error = c["joint_error"]
        half = self._wrist // 2
        e_wrist = 0.5 * (vector_norm(error[:, :half], dim=1) + vector_norm(error[:, half : self._wrist], dim=1))
        e_finger = error[:, self._wrist :].abs().mean(1)
        self._sums += torch.stack([c["object_distance"], c["object_angle"], e_wrist, e_finger], dim=1)
        self._max_distance.copy_(torch.maximum(self._max_distance, c["object_distance"]))
        self._last_angle.copy_(c["object_angle"])
        self._steps += 1

    def finish(self, select: Selection) -> dict[str, torch.Tensor]:
        ids = select.ids
        means = self._sums[ids] / self._steps[ids].clamp_min(1).unsqueeze(1)
        t_err, r_err, e_wrist, e_finger = means.unbind(1)
        largest, last_angle = self._max_distance[ids], self._last_angle[ids]
        hand = 0.5 * e_wrist + 0.5 * e_finger
        complete = self._goal.timed_out()[ids]
        whole = torch.where(self._whole[ids], 1.0, torch.nan)
        for value in (self._sums, self._max_distance, self._steps):
            select.fill(value, 0.0)

        def success(distance: float, degrees: float, bound: float) -> torch.Tensor:
            return (t_err < distance) & (r_err < math.radians(degrees)) & (hand < bound) & complete

        tight = success(0.03, 15.0, 0.8) & (largest < TIGHT_MAX)
        return {
            "tight": tight.float() * whole,
            "turned": (complete & (last_angle < math.radians(15.0)) & (largest < TIGHT_MAX)).float() * whole,
            "strict": success(0.10, 20.0, 0.8).float() * whole,
            "loose": success(0.10, 40.0, 1.2).float() * whole,
            "completed": complete.float(),
            "T_err_cm": 100.0 * t_err,
            "R_err_deg": torch.rad2deg(r_err),
            "final_angle_deg": torch.rad2deg(last_angle),
            "max_T_err_cm": 100.0 * largest,
            "E_wrist": e_wrist,
            "E_finger": e_finger,
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "sums": self._sums.clone(),
            "max_distance": self._max_distance.clone(),
            "last_angle": self._last_angle.clone(),
            "steps": self._steps.clone(),
            "whole": self._whole.clone(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sums.copy_(state["sums"])
        self._max_distance.copy_(state["max_distance"])
        self._last_angle.copy_(state["last_angle"])
        self._steps.copy_(state["steps"])
        self._whole.copy_(state["whole"])
