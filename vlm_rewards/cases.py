"""Episodes in which "done" may be said, of one or several sets of clips, and how often it was said wrongly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlm_rewards.metrics import Detection, Rate, detection
from vlm_rewards.operating_point import OperatingPoint, false_episodes, firing, found_episodes, successes
from vlm_rewards.readings import Readings


@dataclass(frozen=True)
class Cases:
    """Probabilities of done with their truth, of one or several sets of clips.

    Attributes:
        probabilities, truths, episodes: (F,); episodes count from 0.
        modes: (E,).
    """

    probabilities: np.ndarray
    truths: np.ndarray
    episodes: np.ndarray
    modes: tuple[str, ...]

    @classmethod
    def of(cls, *readings: Readings) -> Cases | None:
        """Of all of them together; None if done is not offered."""
        given = [(r, r.done) for r in readings if r.done is not None]
        if not given:
            return None
        offsets = np.cumsum([0, *(len(r.clips) for r, _ in given)])
        return cls(
            np.concatenate([done for _, done in given]),
            np.concatenate([r.truth for r, _ in given]),
            np.concatenate([r.episodes + offset for (r, _), offset in zip(given, offsets, strict=False)]),
            tuple(mode for r, _ in given for mode in r.clips.modes),
        )

    def by_mode(self, point: OperatingPoint) -> dict[str, dict[str, float]]:
        """Mode → false "done" at an operating point: share of frames and of episodes, with Wilson's interval."""
        fired = firing(self.probabilities, point.threshold, point.debounce, self.episodes)
        wrong = false_episodes(fired, self.truths, self.episodes, len(self.modes))
        made, found = np.array(self.modes), {}
        for mode in dict.fromkeys(self.modes):
            rate, frames = Rate.of(wrong[made == mode]), (made == mode)[self.episodes]
            found[mode] = {
                "episodes": rate.n,
                "step_false_positive_rate": Rate.of(fired[frames & ~self.truths]).rate,
                "false_done": rate.rate,
                "low": rate.low,
                "high": rate.high,
            }
        return found

    def success_recall(self, point: OperatingPoint) -> Rate:
        """Share of the successful episodes in which done fires while it is true."""
        fired = firing(self.probabilities, point.threshold, point.debounce, self.episodes)
        found = found_episodes(fired, self.truths, self.episodes, len(self.modes))
        return Rate.of(found[successes(self.truths, self.episodes, len(self.modes))])

    def steps(self, point: OperatingPoint) -> Detection:
        """Precision, recall and so on of the frames in which done fires."""
        return detection(firing(self.probabilities, point.threshold, point.debounce, self.episodes), self.truths)
