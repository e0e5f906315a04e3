"""A policy for the Panda that needs no training: it leads the arm slowly to and fro around its home."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from robolearn.bundle import export
from robolearn.contract import Channel, Contract
from sim.robots import get_robot


def write_bundle(path: Path, rate_hz: float = 10.0) -> Path:
    """Export it; it reads every channel of the stack ``panda_twin`` and commands all joints."""
    robot = get_robot("panda")
    joints, unit = robot.joint_names, "rad or m"
    low, high, home = (np.array(values, np.float32) for values in (robot.lower, robot.upper, robot.home))

    class ToAndFro(torch.nn.Module):
        def forward(
            self, joint_pos: torch.Tensor, object_poses: torch.Tensor, pad_pos: torch.Tensor, named: torch.Tensor
        ) -> dict[str, torch.Tensor]:
            lower, upper, middle = (torch.from_numpy(values) for values in (low, high, home))
            away = joint_pos - middle
            scene = 1e-3 * torch.tanh(object_poses.flatten(-2).sum(-1) + pad_pos.flatten(-2).sum(-1) + named.sum(-1))
            lead = 0.1 * torch.cos(40.0 * away) + scene[..., None]
            return {"joint_target": torch.clamp(middle + 0.5 * away + lead, lower, upper)}

    contract = Contract(
        robot="panda",
        robot_hash="",
        inputs=(
            Channel("joint_pos", (8,), unit, kind="state/joint/position", elements=joints),
            Channel("object_poses", (2, 7), "m", kind="state/object/pose"),
            Channel("pad_pos", (2, 2), "m", kind="state/pad/position"),
            Channel("named", (2,), "1", kind="command/object/named"),
        ),
        commands=(
            Channel(
                "joint_target",
                (8,),
                unit,
                kind="target/joint/position",
                elements=joints,
                lower=tuple(low.tolist()),
                upper=tuple(high.tolist()),
            ),
        ),
        rate_hz=rate_hz,
    )
    provenance = {"seed": 0, "commit": "test", "metrics": {}}
    return Path(export(ToAndFro(), contract, path, mjcf=robot.mjcf(), provenance=provenance))
