"""What a control step has found out by the time that episodes are reset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from sim.selection import Selection
from sim.senses import Rows
from sim.step import Step


@dataclass
class Ending:
    """A step before its resets.

    Attributes:
        step: without observations yet.
        worlds: whose episodes ended.
        last: their channels, before the reset.
        state: where their next episodes start.
    """

    step: Step
    worlds: Selection
    last: Rows
    state: Mapping[str, torch.Tensor]
