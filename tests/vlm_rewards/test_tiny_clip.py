"""A small CLIP trained on drawn pictures: the whole way from captions to a zero-shot score that works."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.vlm_rewards.drawn import drawn_clips
from vlm_rewards.captions import CARRIED_OUT, SCENE, Captions, Relations, captions_for, thing_in
from vlm_rewards.clips import ClipSet
from vlm_rewards.contrastive import contrastive_loss, retrieval
from vlm_rewards.critic import Critic
from vlm_rewards.dual_encoder import DualEncoder
from vlm_rewards.errors import CriticError
from vlm_rewards.registry import load_critic, read_description, write_description
from vlm_rewards.tiny_clip import train_tiny_clip
from vlm_rewards.tiny_clip_parts import TinyClip, make_tokenizer

PARTS = TinyClip(size=32, patch=8, width=64, picture_layers=2, text_layers=1)
MODES = ("expert", "drop", "stall", "wrong_object")


def relations(clips: ClipSet) -> Relations:
    state = clips.facts["state"]
    gripper, objects, pad, held = (
        state[:, None, :2],
        state[:, 4:8].unflatten(1, (2, 2)),
        state[:, None, 8:10],
        state[:, 10:],
    )
    return Relations(
        held=held == torch.tensor([0.0, 1.0]),
        reached=(objects - gripper).norm(dim=-1) < 0.07,
        at_pad=(objects - pad).norm(dim=-1) < 0.05,
        done=torch.stack([clips.done, clips.facts["done_other"][:, 0] > 0.5], dim=1),
    )


@dataclass(frozen=True)
class Trained:
    folder: Path
    untrained: Path
    heldout: ClipSet
    captions: Captions
    metrics: dict[str, float]
    told: list[tuple[float, float]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("tiny_clip")
    clips, heldout = drawn_clips(30, seed=0, size=32, modes=MODES), drawn_clips(12, seed=1, size=32, modes=MODES)
    captions, told = captions_for(clips, relations(clips)), []
    settings: dict[str, Any] = {"false_captions": captions.false, "parts": PARTS, "settings": {"camera": "front"}}
    frames = clips.rgb[:, 0]
    metrics = train_tiny_clip(
        frames, captions.true, folder / "trained", steps=120, **settings,
        progress=lambda share, measured: told.append((share, measured["loss"])),
    )  # fmt: skip
    train_tiny_clip(frames, captions.true, folder / "untrained", steps=0, **settings)
    truth = captions_for(heldout, relations(heldout))
    return Trained(folder / "trained", folder / "untrained", heldout, truth, metrics, told)


def scores(critic: Critic, clips: ClipSet, other: bool = False) -> torch.Tensor:
    asked = [others[0] for others in clips.others] if other else clips.instructions
    answers = [critic.score(clips[e].frames(), [asked[e]] * len(clips[e])) for e in range(len(clips))]
    assert all(bool(answer.valid.all()) for answer in answers)
    return torch.cat([answer.values for answer in answers])


def auc(above: torch.Tensor, below: torch.Tensor) -> float:
    pairs = above[:, None] - below[None]
    return float(((pairs > 0).float() + 0.5 * (pairs == 0).float()).mean())


def start_and_end(folder: Path, clips: ClipSet) -> float:
    """AUC of frames where the instruction is carried out against the first frames."""
    values = scores(load_critic(folder), clips)
    return auc(values[clips.done], values[clips.starts[:-1]])


def test_done_frames_score_above_start_frames_after_training_only(trained: Trained) -> None:
    assert start_and_end(trained.folder, trained.heldout) >= 0.95
    assert 0.25 < start_and_end(trained.untrained, trained.heldout) < 0.75


def test_done_frames_score_above_all_others(trained: Trained) -> None:
    values = scores(load_critic(trained.folder), trained.heldout)
    assert auc(values[trained.heldout.done], values[~trained.heldout.done]) > 0.85


def test_captions_of_heldout_frames_are_found_far_above_chance(trained: Trained) -> None:
    texts = sorted({text for row in trained.captions.true for text in row} - {SCENE})
    truth = torch.tensor([[text in row for text in texts] for row in map(set, trained.captions.true)])
    found = {}
    for folder in (trained.folder, trained.untrained):
        encoder = DualEncoder.load(folder)
        found[folder], chance = retrieval(encoder.images(trained.heldout.rgb[:, 0]), encoder.texts(texts), truth)
    assert found[trained.folder] > 5 * chance
    assert found[trained.untrained] < 2.5 * chance


def test_training_is_told_and_measured(trained: Trained) -> None:
    assert trained.metrics["steps"] == 120 == len(trained.told)
    assert trained.told[-1][0] == 1.0 and trained.told[-1][1] < 0.8 * trained.told[0][1]
    described = read_description(trained.folder)
    assert described["kind"] == "tiny_clip" and described["trained"]["steps"] == 120


def test_the_folder_is_a_plain_clip_of_transformers(trained: Trained) -> None:
    from transformers import AutoModel, AutoTokenizer, CLIPModel, CLIPTokenizer

    assert isinstance(AutoModel.from_pretrained(trained.folder), CLIPModel)
    assert isinstance(AutoTokenizer.from_pretrained(trained.folder), CLIPTokenizer)


def test_settings_of_the_folder_hold_until_others_are_given(trained: Trained) -> None:
    critic, named = load_critic(trained.folder), load_critic(trained.folder, goals=CARRIED_OUT, baseline=SCENE)
    assert critic.cameras == ("front",) and critic.revision == named.revision
    other = load_critic(trained.folder, camera="wrist", alpha=1.0)
    assert other.cameras == ("wrist",) and other.revision != critic.revision
    with pytest.raises(CriticError, match="did you mean 'alpha'"):
        load_critic(trained.folder, alhpa=1.0)


def test_equal_seeds_give_equal_models(tmp_path: Path) -> None:
    frames = torch.randint(0, 256, (20, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    revisions = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        captions = ["the red cube is here", "the blue ball is there"] * 10
        train_tiny_clip(frames, captions, tmp_path / name, steps=3, seed=seed, parts=PARTS, batch_size=8)
        revisions.append(load_critic(tmp_path / name).revision)
    assert revisions[0] == revisions[1] != revisions[2]


def test_training_ends_with_the_clock_and_takes_captions_from_a_function(tmp_path: Path) -> None:
    frames = torch.zeros(12, 32, 32, 3, dtype=torch.uint8)
    metrics = train_tiny_clip(frames, lambda i: f"frame {i % 3}", tmp_path, minutes=0.01, parts=PARTS, batch_size=8)
    assert metrics["steps"] >= 1 and 0.6 <= metrics["seconds"] < 5.0 and metrics["captions"] == 3


def test_the_loss_is_clips_where_each_picture_has_its_own_text() -> None:
    images, texts = (torch.nn.functional.normalize(torch.randn(5, 8), dim=-1) for _ in range(2))
    loss = contrastive_loss(images, texts, torch.eye(5, dtype=torch.bool), torch.tensor(10.0))
    logits, own = 10.0 * images @ texts.T, torch.arange(5)
    cross = torch.nn.functional.cross_entropy
    torch.testing.assert_close(loss, (cross(logits, own) + cross(logits.T, own)) / 2)


def test_texts_true_of_several_pictures_are_no_wrong_answers() -> None:
    images = torch.eye(3)
    texts = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    truth = torch.tensor([[True, False], [True, False], [False, True]])
    assert float(contrastive_loss(images, texts, truth, torch.tensor(60.0))) < float(torch.tensor(2.0).log())
    # With a false text that is true of no picture, every picture has one more wrong answer, and no text lacks one.
    more = torch.cat([texts, torch.tensor([[1.0, 0.0, 0.0]])])
    wide = torch.cat([truth, torch.zeros(3, 1, dtype=torch.bool)], dim=1)
    harder = contrastive_loss(images, more, wide, torch.tensor(1.0))
    assert torch.isfinite(harder) and float(harder) > float(contrastive_loss(images, texts, truth, torch.tensor(1.0)))


def test_captions_say_what_the_state_says() -> None:
    clips = drawn_clips(1, seed=4, size=16, modes=("expert",))
    captions = captions_for(clips, relations(clips))
    thing, other = thing_in(clips.instructions[0]), thing_in(clips.others[0][0])
    first, last = captions.true[0], captions.true[-1]
    assert {SCENE, f"the {thing} is on the table", f"the {other} is on the table"} <= set(first)
    assert {f"the {thing} is on the white pad", CARRIED_OUT.format(clips.instructions[0])} <= set(last)
    assert f"the {other} is on the white pad" in captions.false[-1]
    assert any(f"the robot holds the {thing}" in row for row in captions.true)
    assert not any(set(true) & set(false) for true, false in zip(captions.true, captions.false, strict=True))


def test_an_instruction_without_an_object_is_refused() -> None:
    with pytest.raises(CriticError, match="names no coloured object; colours: red"):
        thing_in("open the drawer")


def test_words_of_the_captions_are_single_tokens_and_any_text_can_be_spelt() -> None:
    tokenizer = make_tokenizer(["the red cube is on the white pad", "the red can"], 16)
    assert len(tokenizer("the red cube")["input_ids"]) == 3 + 2
    spelt = tokenizer("Zebra ü")["input_ids"]
    assert len(spelt) > 6 and tokenizer.decode(spelt, skip_special_tokens=True).strip() == "zebra ü"


@pytest.mark.parametrize(
    "frames, captions, more, said",
    [
        (torch.zeros(2, 32, 32, 3), ["a", "b"], {}, "uint8"),
        (torch.zeros(2, 32, 32, dtype=torch.uint8), ["a", "b"], {}, "frames, height, width, 3"),
        (torch.zeros(2, 32, 32, 3, dtype=torch.uint8), ["a"], {}, "2 frames came with captions for 1"),
        (torch.zeros(2, 32, 32, 3, dtype=torch.uint8), ["a", ""], {}, "1 of 2 frames have no caption"),
        (torch.zeros(1, 32, 32, 3, dtype=torch.uint8), ["a"], {"false_captions": []}, "false captions for 0"),
        (torch.zeros(1, 32, 32, 3, dtype=torch.uint8), ["a b c d " * 20], {}, "longer than the context of 48"),
    ],
)
def test_frames_and_captions_that_do_not_fit(
    frames: torch.Tensor, captions: list[str], more: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(CriticError, match=said):
        train_tiny_clip(frames, captions, tmp_path, steps=1, parts=PARTS, **more)


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(CriticError, match="multiple of patch"):
        TinyClip(size=60, patch=16)


def test_a_folder_without_settings_is_refused(tmp_path: Path) -> None:
    write_description(tmp_path, "tiny_clip")
    with pytest.raises(CriticError, match="names its settings"):
        load_critic(tmp_path)
