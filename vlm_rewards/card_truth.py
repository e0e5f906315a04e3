"""Lines of a critic card that need the exact progress: preferences, and distances between rewards."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from vlm_rewards import distances, metrics
from vlm_rewards.card_lines import NOT_GIVEN, NOT_OFFERED
from vlm_rewards.clips import ClipSet
from vlm_rewards.critic import Capability, Critic
from vlm_rewards.readings import Readings, moments_of

_APART = 0.1
"""Least difference of true progress in a pair that is asked about."""
_SAMPLE = 2000
_CANONICAL = 256
"""States by which EPIC takes out potentials."""


def preference_line(critic: Critic, readings: Readings, batch: int, seed: int, pairs: int = _SAMPLE) -> Any:
    """Accuracy over pairs of moments with one instruction and different true progress, and the share abstained from.

    Asked of the critic if it offers preferences; otherwise the moment with more progress is preferred.
    """
    if Capability.PREFER not in critic.capabilities and readings.progress is None:
        return NOT_OFFERED
    first, second = _pairs(readings.clips, pairs, seed)
    truth = np.asarray(readings.clips.progress)
    better = truth[second] > truth[first]
    if Capability.PREFER in critic.capabilities:
        source = Capability.PREFER.value
        accuracy, abstained = metrics.preference(_preferred(critic, readings.clips, first, second, batch), better)
    elif readings.progress is not None:
        source = readings.source
        sign = np.sign(readings.progress[second] - readings.progress[first])
        accuracy, abstained = metrics.preference(0.5 + 0.5 * sign, better)
    return {"from": source, **asdict(accuracy), "abstained": abstained}


def distance_line(readings: Readings, gamma: float, seed: int) -> Any:
    """EPIC and STARC distance to the truth of progress and of done as rewards on arrival, with floors."""
    given = {"progress": readings.progress, "done": readings.done}
    if all(values is None for values in given.values()):
        return NOT_OFFERED
    truths = {"progress": np.asarray(readings.clips.progress).astype(float), "done": readings.truth.astype(float)}
    return {
        name: _distances(readings.clips, truths[name], values, gamma, seed)
        for name, values in given.items()
        if values is not None
    }


def _pairs(clips: ClipSet, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames (P,) and (P,) of episodes with one instruction, their true progress apart; at most ``count`` pairs."""
    rng = np.random.default_rng(seed)
    truth, episode = np.asarray(clips.progress), np.asarray(clips.episode())
    texts = {text: i for i, text in enumerate(dict.fromkeys(clips.instructions))}
    group = np.array([texts[text] for text in clips.instructions])[episode]
    first = rng.integers(0, len(truth), 4 * count)
    second = np.empty_like(first)
    for text in range(len(texts)):
        members, mine = np.flatnonzero(group == text), np.flatnonzero(group[first] == text)
        second[mine] = rng.choice(members, len(mine))
    apart = np.flatnonzero(np.abs(truth[first] - truth[second]) > _APART)[:count]
    return first[apart], second[apart]


def _preferred(critic: Critic, clips: ClipSet, first: np.ndarray, second: np.ndarray, batch: int) -> np.ndarray:
    """What the critic says of P pairs: (P,) probabilities that the second is better."""
    episode, said = clips.episode(), [np.empty(0)]
    with torch.inference_mode():
        for one, other in zip(torch.from_numpy(first).split(batch), torch.from_numpy(second).split(batch), strict=True):
            asked = [clips.instructions[e] for e in episode[one].tolist()]
            before, after = moments_of(clips, critic.window, one), moments_of(clips, critic.window, other)
            said.append(critic.prefer(before, after, asked).values.double().cpu().numpy())
    return np.concatenate(said)


def _distances(clips: ClipSet, truth: np.ndarray, said: np.ndarray, gamma: float, seed: int) -> dict[str, Any]:
    """EPIC and STARC of what the critic says, of random numbers and of the clock; ``self``: what sampling alone does.

    ``self`` is the distance of the truth from itself where each side has samples of its own.
    """
    rng = np.random.default_rng(seed)
    before, after = _transitions(clips)
    known = np.isfinite(truth) & np.isfinite(said)
    kept = known[before] & known[after]
    before, after = before[kept], after[kept]
    if len(before) < 2:
        return {"epic": NOT_GIVEN, "starc": NOT_GIVEN}
    right = distances.on_arrival(truth)
    others = {"critic": said, "self": truth, "random": rng.normal(size=len(truth)), "time_only": _clock(clips)}
    states, more = rng.choice(np.flatnonzero(known), (2, _CANONICAL))
    some = rng.choice(len(before), min(len(before), _SAMPLE), replace=False)
    line: dict[str, Any] = {
        "epic": {
            name: distances.epic(
                right,
                distances.on_arrival(values),
                before[some],
                after[some],
                states,
                gamma,
                more if name == "self" else None,
            )
            for name, values in others.items()
        },
        "starc": f"{NOT_GIVEN}: the clips carry neither state nor proprioception",
    }
    state = clips.facts.get("state", clips.facts.get("proprioception"))
    if state is not None:
        features = distances.state_features(_complete(state))
        half = rng.permutation(len(clips))[: len(clips) // 2]
        mine = np.isin(np.asarray(clips.episode())[before], half)
        line["starc"] = {
            name: distances.starc(
                right,
                distances.on_arrival(values),
                before,
                after,
                features,
                gamma,
                *((mine, ~mine) if name == "self" else ()),
            )
            for name, values in others.items()
        }
    return line


def _transitions(clips: ClipSet) -> tuple[np.ndarray, np.ndarray]:
    """Each frame and the next one; the last of an episode goes on to itself."""
    before = np.arange(clips.num_frames)
    after = before + 1
    last = np.asarray(clips.starts[1:]) - 1
    after[last] = last
    return before, after


def _clock(clips: ClipSet) -> np.ndarray:
    """(F,) share of each episode that has gone by."""
    length = np.asarray(clips.starts.diff())
    place = np.arange(clips.num_frames) - np.asarray(clips.starts[:-1]).repeat(length)
    return place / np.maximum(1, length - 1).repeat(length)


def _complete(state: torch.Tensor) -> np.ndarray:
    """(F, k) without the columns in which something is not known."""
    values = np.asarray(state, dtype=np.float64)
    return values[:, np.isfinite(values).all(0)]
