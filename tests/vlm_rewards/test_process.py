"""The small process critic and the success classifier: trained on drawn recordings, asked, saved, and fooled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.vlm_rewards.drawn import MODES, drawn_clips, noise_pictures
from vlm_rewards.batches import Augmentation, Batches
from vlm_rewards.clips import ClipSet
from vlm_rewards.critic import Capability
from vlm_rewards.errors import CriticError, MissingCapability
from vlm_rewards.fit import fit_process_critic
from vlm_rewards.frames import Frames
from vlm_rewards.process import ProcessCritic
from vlm_rewards.registry import load_critic
from vlm_rewards.success import fit_success_classifier
from vlm_rewards.text import HashedText

SIZE = 32
QUICK = {"threads": 1, "episodes": 8, "moments": 4, "rate": 3e-3}


@pytest.fixture(scope="module")
def recordings() -> tuple[ClipSet, ClipSet, ClipSet]:
    """Training, validation, test."""
    train = drawn_clips({**dict.fromkeys(MODES, 8), "expert": 32}, 1, SIZE)
    return train, drawn_clips(4, 2, SIZE), drawn_clips(6, 3, SIZE)


@pytest.fixture(scope="module")
def folder(recordings: tuple[ClipSet, ClipSet, ClipSet], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a critic that has been trained for some seconds."""
    folder = tmp_path_factory.mktemp("critic") / "drawn"
    fit_process_critic(recordings[0], recordings[1], folder, steps=130, **QUICK)
    return folder


@pytest.fixture()
def critic(folder: Path) -> ProcessCritic:
    made = load_critic(folder)
    assert isinstance(made, ProcessCritic)
    return made


def asked(clips: ClipSet) -> tuple[Frames, Frames, list[str]]:
    """All frames of a set, the first pictures of their episodes, and their instructions."""
    episode = clips.episode()
    start = clips.rgb[clips.starts[:-1]][episode]
    told = [clips.instructions[e] for e in episode.tolist()]
    return Frames.now(clips.rgb, clips.cameras, clips.times), Frames.now(start, clips.cameras), told


def auc(scores: torch.Tensor, truths: torch.Tensor) -> float:
    """Probability that a true case scores higher than a false one."""
    return float((scores[truths][:, None] > scores[~truths][None]).float().mean())


def test_learns_progress_and_success(critic: ProcessCritic, recordings: tuple[ClipSet, ClipSet, ClipSet]) -> None:
    clips = recordings[2]
    value, done = critic.value_and_done(*asked(clips))
    assert bool(value.valid.all() and done.valid.all())
    assert np.corrcoef(value.values, clips.progress)[0, 1] > 0.6
    assert auc(done.values, clips.done) > 0.93
    now, start, told = asked(clips)
    torch.testing.assert_close(critic.value(now, start, told).values, value.values)
    assert auc(critic.done(now, told).values, clips.done) > 0.93


def test_hops_and_preferences_agree_with_progress(
    critic: ProcessCritic, recordings: tuple[ClipSet, ClipSet, ClipSet]
) -> None:
    clips = recordings[2]
    now, _, told = asked(clips)
    rows = clips.starts[:-1]
    end = clips.starts[1:] - 1
    change = clips.progress[end] - clips.progress[rows]
    clear = change.abs() > 0.2
    words = [told[int(i)] for i in rows]
    hop = critic.delta(now.rows(rows), now.rows(end), words)
    prefer = critic.prefer(now.rows(rows), now.rows(end), words)
    assert bool(((hop.values >= -1) & (hop.values <= 1)).all())
    assert float(((hop.values > 0) == (change > 0))[clear].float().mean()) > 0.7
    assert torch.equal(prefer.values > 0.5, hop.values > 0)
    back = critic.prefer(now.rows(end), now.rows(rows), words)
    torch.testing.assert_close(back.values, 1 - prefer.values, atol=1e-5, rtol=0)
    still = critic.delta(now.rows(rows), now.rows(rows), words)
    assert float(still.values.abs().max()) == 0.0


def test_loaded_critic_gives_the_same_answers(
    critic: ProcessCritic, folder: Path, recordings: tuple[ClipSet, ClipSet, ClipSet]
) -> None:
    question = asked(recordings[2].subset(range(8)))
    again = load_critic(folder, batch=5)
    assert again.revision == critic.revision != ""
    assert again.cameras == ("front", "wrist") and again.picture == (SIZE, SIZE)
    for one, two in zip(critic.value_and_done(*question), again.value_and_done(*question), strict=True):
        torch.testing.assert_close(one.values, two.values, atol=1e-5, rtol=0)
        torch.testing.assert_close(one.confidence, two.confidence, atol=1e-4, rtol=0)


def test_training_by_steps_is_the_same_each_time(recordings: tuple[ClipSet, ClipSet, ClipSet], tmp_path: Path) -> None:
    few = recordings[0].subset(range(0, 96, 6))
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        fit_process_critic(few, recordings[1], tmp_path / name, steps=3, seed=seed, **QUICK)
    one, two, three = (load_critic(tmp_path / name).revision for name in ("one", "two", "three"))
    assert one == two != three


def test_views_may_come_in_any_order_and_with_others(
    critic: ProcessCritic, recordings: tuple[ClipSet, ClipSet, ClipSet]
) -> None:
    now, start, told = asked(recordings[2].subset([0]))
    more = Frames(now.rgb[:, :, [1, 0, 0]], ("wrist", "front", "side"), now.stamps)
    torch.testing.assert_close(critic.value(more, start, told).values, critic.value(now, start, told).values)


def test_says_when_it_does_not_know(critic: ProcessCritic, recordings: tuple[ClipSet, ClipSet, ClipSet]) -> None:
    now, start, told = asked(recordings[2])
    confidence = critic.value(now, start, told).confidence
    assert float((confidence > 0.5).float().mean()) > 0.9
    noise = Frames.now(noise_pictures(8, SIZE), now.cameras)
    grey = Frames.now(torch.full_like(noise_pictures(8, SIZE), 128), now.cameras)
    for strange in (noise, grey):
        assert float(critic.done(strange, told[:8]).confidence.max()) < 0.05
    some = now.rows(torch.arange(8))
    unheard = critic.done(some, ["fold the laundry now"] * 8).confidence
    assert float(unheard.max()) < 0.1
    assert float(critic.done(some, told[:8]).confidence.min()) > float(unheard.max())


def test_refuses_what_it_cannot_judge(
    critic: ProcessCritic, folder: Path, recordings: tuple[ClipSet, ClipSet, ClipSet]
) -> None:
    now, _, told = asked(recordings[2].subset([0]))
    with pytest.raises(CriticError, match="cameras front, wrist"):
        critic.done(now.of(["front"]), told)
    with pytest.raises(CriticError, match="32x32 pixels, got 48x48"):
        critic.done(Frames.now(noise_pictures(len(told), 48), now.cameras), told)
    with pytest.raises(CriticError, match="instruction is empty"):
        critic.done(now, [" "] * len(told))
    with pytest.raises(MissingCapability, match="cannot plan"):
        critic.plan(now, told)
    with pytest.raises(CriticError, match="unknown setting of a process critic 'batsh'; did you mean 'batch'"):
        load_critic(folder, batsh=3)
    (folder.parent / "broken").mkdir()
    for name in ("critic.json", "weights.pt"):
        data = (folder / name).read_bytes()
        (folder.parent / "broken" / name).write_bytes(data if name == "critic.json" else data[:-100])
    with pytest.raises(Exception, match="truncated or corrupt"):
        load_critic(folder.parent / "broken")


def test_refuses_to_train_on_what_does_not_go_together(
    recordings: tuple[ClipSet, ClipSet, ClipSet], tmp_path: Path
) -> None:
    train, validation, _ = recordings
    with pytest.raises(CriticError, match="not of the same cameras and sizes"):
        fit_process_critic(train, drawn_clips(1, 0, 48, ["expert"]), tmp_path, steps=1, **QUICK)
    with pytest.raises(CriticError, match="unknown setting of training 'stepps'; did you mean 'steps'"):
        fit_process_critic(train, validation, tmp_path, stepps=1)
    with pytest.raises(CriticError, match="unknown precision 'float61'"):
        fit_process_critic(train, validation, tmp_path, steps=1, precision="float61")
    with pytest.raises(CriticError, match="diverged at step"):
        fit_process_critic(train, validation, tmp_path, steps=30, **{**QUICK, "rate": float("inf")})
    assert not (tmp_path / "critic.json").exists()


def test_recordings_without_simulated_truth_train_as_well(
    recordings: tuple[ClipSet, ClipSet, ClipSet], tmp_path: Path
) -> None:
    clips = recordings[1]
    plain = ClipSet([clips[e] for e in range(len(clips))])
    plain.facts, plain.others = {}, [()] * len(plain)
    figures = fit_process_critic(plain, plain, tmp_path / "plain", steps=2, **QUICK)
    assert set(figures["point"]["false_done"]) == set(MODES)


def test_success_classifier_counts_what_it_misses(
    critic: ProcessCritic, recordings: tuple[ClipSet, ClipSet, ClipSet], tmp_path: Path
) -> None:
    train, validation, test = recordings
    figures = fit_success_classifier(train, validation, tmp_path / "s", steps=40, start_from=critic, **QUICK)
    made = load_critic(tmp_path / "s")
    assert made.capabilities == {Capability.DONE}
    now, start, told = asked(test)
    said = made.done(now, told)
    assert auc(said.values, test.done) > 0.93
    with pytest.raises(MissingCapability):
        made.value_and_done(now, start, told)
    at_half = figures["at_half"]
    probability = made.done(*asked(validation)[::2]).values
    missed = 1 - float((probability >= 0.5)[validation.done].float().mean())
    assert at_half["missed_frames"] == pytest.approx(missed, abs=1e-6)
    assert at_half["successful_episodes"] == len(validation.of_mode("expert"))
    assert figures["ece"] < 0.1


def test_batches_know_the_truth_of_every_sentence(recordings: tuple[ClipSet, ClipSet, ClipSet]) -> None:
    clips = recordings[0]
    batches = Batches(clips, HashedText(), seed=0, episodes=12, moments=3)
    for _ in range(3):
        batch = batches.next()
        assert batch.pictures.shape == (12, 4, 2, 3, SIZE, SIZE) and batch.text.shape == (12, 3, HashedText.size)
        assert bool(torch.isfinite(batch.value).all()) and float(batch.value[..., 2].abs().max()) == 0.0
        assert bool(((batch.done == 1) <= (batch.value > 0.89)).all())
        assert bool(torch.isnan(batch.pixels[..., 2, 0, :]).all())


def test_a_shift_moves_pictures_and_places_alike(recordings: tuple[ClipSet, ClipSet, ClipSet]) -> None:
    clips = recordings[0].subset(recordings[0].of_mode("expert"))
    only_shift = Augmentation(shift=6, brightness=0, contrast=0, tint=0, noise=0, words=0)
    white = []
    for augmentation in (None, only_shift):
        batch = Batches(clips, HashedText(), 3, 16, 3, augmentation).next()
        goal = batch.pixels[:, :, 0, 0, 1]
        seen = torch.isfinite(goal).all(-1)
        x, y = (goal.nan_to_num(0.5) * SIZE).long().clamp(0, SIZE - 1).unbind(-1)
        e, m = torch.meshgrid(torch.arange(16), torch.arange(3), indexing="ij")
        white.append(batch.pictures[:, 1:, 0].amin(2)[e, m, y, x][seen])
    start = [float(part.median()) for part in white]
    assert start[0] == pytest.approx(start[1], abs=0.3)
