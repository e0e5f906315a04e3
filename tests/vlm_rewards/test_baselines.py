"""Baselines: blind by construction, and the same every time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.vlm_rewards.brightness import Brightness, pictures, recording, tasks
from vlm_rewards.baselines import Proprioception, load
from vlm_rewards.clips import ClipSet
from vlm_rewards.critic import Capability
from vlm_rewards.errors import CriticError, MissingCapability
from vlm_rewards.frames import Frames
from vlm_rewards.potential import as_potential

NAN = float("nan")


def noise(count: int, seed: int = 0, side: int = 24) -> Frames:
    made = torch.Generator().manual_seed(seed)
    return Frames.now(torch.randint(0, 256, (count, 2, side, side, 3), dtype=torch.uint8, generator=made), ("a", "b"))


def at(*seconds: float) -> Frames:
    frames = pictures([0.5] * len(seconds))
    return Frames(frames.rgb, frames.cameras, torch.tensor(seconds, dtype=torch.float64))


def test_elapsed_time_knows_nothing_but_the_clock():
    critic = load("elapsed_time", horizon_s=4)
    start = at(1e9, 1e9, 1e9, 1e9)
    value, done = critic.value_and_done(at(1e9, 1e9 + 1, 1e9 + 4, 1e9 + 9), start, tasks(4))
    assert value.values.tolist() == [0.0, 0.25, 1.0, 1.0]
    assert done.values.tolist() == [0.0, 0.0, 1.0, 1.0]
    assert critic.done(at(0.0, 3.9, 4.0), tasks(3)).values.tolist() == [0.0, 0.0, 1.0]


def test_elapsed_time_says_when_the_clock_makes_no_sense():
    critic = load("elapsed_time", horizon_s=4)
    assert not critic.value(at(1.0), at(2.0), tasks(1)).valid
    assert not critic.done(at(1e9), tasks(1)).valid
    value, done = critic.value_and_done(at(1.0, 2.0), at(2.0, 2.0), tasks(2))
    assert value.valid.tolist() == done.valid.tolist() == [False, True]


def test_elapsed_time_follows_time_on_a_failure_too():
    clip = recording([0.0, 0.5, 0.2, 0.2, 0.0], mode="drop")
    potential = as_potential(load("elapsed_time", horizon_s=4))
    world = torch.zeros(1, dtype=torch.int64)
    frames = clip.frames()
    given = [potential.begin(world, frames.rows(world), tasks(1))]
    given += [potential.read(world, frames.rows(torch.tensor([i])), tasks(1)) for i in range(1, len(clip))]
    assert [float(answer.values) for answer in given] == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("ask", ["score", "done", "delta", "prefer", "value"])
def test_random_init_is_the_same_for_the_same_seed_and_looks(ask):
    seen = (noise(6),) if ask in ("score", "done") else (noise(6), noise(6, seed=1))
    one, again, other = (getattr(load("random_init", seed=s), ask)(*seen, tasks(6)) for s in (1, 1, 2))
    assert torch.equal(one.values, again.values) and one.revision == again.revision
    assert not torch.allclose(one.values, other.values) and one.revision != other.revision
    assert one.values.std() > 0.0
    asked_else = getattr(load("random_init", seed=1), ask)(*seen, ["open the drawer"] * 6)
    assert not torch.allclose(one.values, asked_else.values)


def test_random_init_does_not_touch_the_global_generator():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    load("random_init", seed=5)
    assert torch.rand(1) == expected


def test_random_init_takes_any_size_and_compares_a_moment_with_itself_as_equal():
    critic = load("random_init")
    for side in (8, 32, 50):
        frames = noise(2, side=side)
        assert critic.delta(frames, frames, tasks(2)).values.tolist() == [0.0, 0.0]
        assert critic.prefer(frames, frames, tasks(2)).values.tolist() == [0.5, 0.5]
    with pytest.raises(MissingCapability):
        critic.plan(noise(1), tasks(1))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("elapsed", {}, "did you mean 'elapsed_time'"),
        ("elapsed_time", {"seed": 1}, "unknown setting 'seed'; settings: horizon_s"),
        ("random_init", {"horizon_s": 1}, "settings: seed"),
        ("elapsed_time", {"horizon_s": 0}, "above 0"),
        ("elapsed_time", {"horizon_s": NAN}, "above 0"),
    ],
)
def test_what_is_unknown_or_makes_no_sense_is_refused(name, settings, message):
    with pytest.raises(CriticError, match=message):
        load(name, **settings)


def clips_of(seed: int, count: int = 12) -> ClipSet:
    """Episodes in which the joints tell progress by a square, among joints that tell nothing."""
    made = torch.Generator().manual_seed(seed)
    episodes = []
    for _ in range(count):
        joint = torch.rand(20, generator=made) * 2 - 1
        still = torch.stack([joint, torch.randn(20, generator=made), torch.full((20,), 3.0)], -1)
        episodes.append(replace(recording(joint.square().tolist()), facts={"proprioception": still}))
    return ClipSet(episodes)


def test_proprioception_learns_what_joints_tell():
    fitted = Proprioception.fit(clips_of(0))
    held_out = clips_of(1)
    progress, done = fitted.value_and_done(held_out)
    assert progress.shape == done.shape == (held_out.num_frames,)
    assert (progress - held_out.progress).abs().max() < 0.05
    assert progress.min() >= 0.0 and done.max() <= 1.0


def test_proprioception_leaves_out_what_nobody_knows():
    clips = clips_of(0)
    clips.progress[::3] = NAN
    clips.facts["proprioception"][1::3] = NAN
    progress, _ = Proprioception.fit(clips).value_and_done(clips)
    known = torch.isfinite(clips.facts["proprioception"]).all(-1)
    assert torch.equal(torch.isfinite(progress), known)


def test_proprioception_needs_its_facts():
    clips = clips_of(0)
    with pytest.raises(CriticError, match="did you mean 'proprioception'"):
        Proprioception.fit(clips, fact="propioception")
    fitted = Proprioception.fit(clips)
    clips.facts["proprioception"] = clips.facts["proprioception"][:, :2]
    with pytest.raises(CriticError, match="fitted to 3 numbers of proprioception, these clips have 2"):
        fitted.value_and_done(clips)
    clips.progress[:] = NAN
    with pytest.raises(CriticError, match="no frame"):
        Proprioception.fit(clips)


def test_a_baseline_is_what_its_capabilities_say():
    assert load("elapsed_time").capabilities == {Capability.VALUE, Capability.DONE}
    with pytest.raises(MissingCapability):
        load("elapsed_time").score(pictures([0.1]), tasks(1))
    assert Brightness().timed is False and load("elapsed_time").timed is True
