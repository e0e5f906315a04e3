"""Names that settings of rewards accept, free of torch: the command line reads them before anything is computed."""

from __future__ import annotations

SHAPINGS = ("potential", "heuristic", "difference", "value", "none")
"""``difference`` and ``value`` are there for ablations: both pay a policy for staying where Φ is high."""

MIXINGS = ("sum", "soft_and", "gdpo")
"""How several reward terms become one."""

ENSEMBLES = ("mean", "min", "lower")
"""How the judgements of several critics become one."""

FALLBACKS = ("drop", "hold", "distilled")
"""What to do about an invalid answer: leave the moment out, keep the last valid value, or take a distilled model's."""

MOST_REFERENCES = 10
"""References of `vlm_rewards.shaping.par`; more change nothing (Fu et al. 2025)."""
