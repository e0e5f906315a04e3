"""The baselines that stand beside every critic on its card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from vlm_rewards.baselines import ElapsedTime, Proprioception, RandomInit
from vlm_rewards.clips import ClipSet
from vlm_rewards.critic import Capability, Critic
from vlm_rewards.readings import Readings, read

Reader = Callable[[ClipSet], Readings]
"""What judges every frame of a set of clips."""
ELAPSED_TIME = "elapsed time"


def baseline_readers(fitted_to: ClipSet, batch: int = 64, seed: int = 0) -> dict[str, Reader]:
    """Elapsed time, a network without training, and a regression on the robot's own joints.

    Args:
        fitted_to: episodes apart from those that are judged. The clock's horizon is the longest success among them, and
            the regression is fitted to them; without ``proprioception`` among their facts it is left out.
        batch: moments in one question.
        seed: of the network.
    """
    spans = [float(clip.times[-1] - clip.times[0]) for clip in map(fitted_to.__getitem__, range(len(fitted_to)))]
    won = [span for e, span in enumerate(spans) if fitted_to[e].success] or spans
    horizon_s = max(*won, 1e-3)
    readers = {
        ELAPSED_TIME: reader(ElapsedTime(horizon_s), batch),
        "random network": reader(RandomInit(seed), batch),
    }
    if "proprioception" in fitted_to.facts:
        readers["proprioception"] = _joints(Proprioception.fit(fitted_to))
    return readers


def reader(critic: Critic, batch: int = 64) -> Reader:
    """A critic as a judge of whole sets."""
    return lambda clips: read(critic, clips, batch)


def _joints(model: Proprioception) -> Reader:
    def judged(clips: ClipSet) -> Readings:
        value, done = (values.double().numpy() for values in model.value_and_done(clips))
        return Readings(clips, value, Capability.VALUE.value, done, np.ones(len(value)), Counter())

    return judged
