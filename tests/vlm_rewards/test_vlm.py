"""Critics from local vision-language models. The models are tiny and random: this tests plumbing, never quality."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.vlm_rewards.drawn import drawn_clips
from tests.vlm_rewards.tiny_vlm import tiny_intern, tiny_qwen
from vlm_rewards.clips import ClipSet
from vlm_rewards.critic import Capability
from vlm_rewards.errors import CriticError
from vlm_rewards.frames import Frames
from vlm_rewards.prompts import Prompter, Scale, Wording
from vlm_rewards.reference import Reference
from vlm_rewards.registry import load_critic
from vlm_rewards.score_tokens import FIRST_SECOND, YES_NO, Labels
from vlm_rewards.vlm import VlmCritic

INSTRUCTIONS = ["put the red cube on the white pad", "go", "move the yellow ball onto the white pad, and quickly"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {"qwen": tiny_qwen(root / "qwen"), "intern": tiny_intern(root / "intern")}


@pytest.fixture(scope="module")
def clips() -> ClipSet:
    return drawn_clips({"expert": 2, "miss": 1}, size=48)


@pytest.fixture(scope="module")
def qwen(folders: dict[str, Path]) -> VlmCritic:
    return made(folders["qwen"])


def made(folder: Path, **settings: Any) -> VlmCritic:
    critic = load_critic(folder, **{"least_mass": 0.0, **settings})
    assert isinstance(critic, VlmCritic)
    return critic


def moments(seed: int, rows: int = 3, cameras: tuple[str, ...] = ("front", "wrist")) -> Frames:
    generator = torch.Generator().manual_seed(seed)
    rgb = torch.randint(0, 256, (rows, len(cameras), 40, 56, 3), dtype=torch.uint8, generator=generator)
    return Frames.now(rgb, cameras, torch.arange(rows, dtype=torch.float64) + seed)


def ask(critic: VlmCritic, what: str, first: Frames, second: Frames, instructions: list[str]) -> Any:
    if what == "done":
        return critic.done(first, instructions)
    return getattr(critic, what)(first, second, instructions)


def prompter(scale: str = "numbers", granularity: int = 20) -> Prompter:
    return Prompter(Wording(), Scale.of(scale, granularity), None)


def direct(critic: VlmCritic, prompt: Any, labels: Labels) -> torch.Tensor:
    """Log-probability of each label, (L,), by a forward pass over the prompt with the whole label behind it."""
    model = critic._model
    inputs = model._inputs([prompt])
    length = inputs["input_ids"].shape[1]
    found = []
    for text in labels.texts:
        ids = model._tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        whole = {**inputs, "input_ids": torch.cat([inputs["input_ids"], ids], 1)}
        whole["attention_mask"] = torch.ones_like(whole["input_ids"])
        if "mm_token_type_ids" in whole:
            whole["mm_token_type_ids"] = torch.cat([whole["mm_token_type_ids"], torch.zeros_like(ids)], 1)
        with torch.inference_mode():
            log_p = model.model(**whole).logits[0, length - 1 : -1].double().log_softmax(-1)
        found.append(log_p.gather(1, ids[0][:, None]).sum())
    return torch.stack(found)


@pytest.mark.parametrize("family", ["qwen", "intern"])
def test_a_model_from_disk_answers_everything_it_says_it_can(folders: dict[str, Path], family: str):
    critic = made(folders[family])
    assert critic.capabilities == {Capability.DELTA, Capability.DONE, Capability.VALUE, Capability.PREFER}
    for what, low in (("delta", -1.0), ("done", 0.0), ("value", 0.0), ("prefer", 0.0)):
        answer = ask(critic, what, moments(1), moments(2), INSTRUCTIONS)
        assert bool(answer.valid.all()), answer.reasons
        assert bool(((answer.values >= low) & (answer.values <= 1.0)).all())
        assert bool(((answer.confidence > 0) & (answer.confidence < 0.1)).all())
        assert answer.revision == critic.revision and answer.latency_s > 0
        # The newest picture that was seen.
        assert answer.stamps.tolist() == ([1.0, 2.0, 3.0] if what == "done" else [2.0, 3.0, 4.0])
        assert len(set(answer.values.tolist())) > 1


@pytest.mark.parametrize(
    ("family", "scale"), [("qwen", "numbers"), ("qwen", "percent"), ("qwen", "letters"), ("intern", "numbers")]
)
def test_scores_are_expectations_over_the_probabilities_of_whole_labels(folders: dict, family: str, scale: str):
    critic = made(folders[family], scale=scale, granularity=10)
    seen, later, told = moments(1, 1), moments(2, 1), INSTRUCTIONS[:1]
    asked, kind = prompter(scale, 10), Scale.of(scale, 10)
    cases = [
        (critic.value(later, seen, told), asked.value(later, seen, told), kind.value),
        (critic.delta(seen, later, told), asked.delta(seen, later, told), kind.delta),
        (critic.done(seen, told), asked.done(seen, told), YES_NO),
    ]
    for answer, prompts, labels in cases:
        for row, prompt in enumerate(prompts):
            p = direct(critic, prompt, labels).exp()
            expected = (p * torch.tensor(labels.values)).sum() / p.sum()
            assert answer.values[row].item() == pytest.approx(expected.item(), abs=1e-4)
            assert answer.confidence[row].item() == pytest.approx(p.sum().item(), rel=1e-3)


def test_the_work_on_a_prompt_is_kept_between_contexts_without_changing_the_answer(qwen: VlmCritic, monkeypatch):
    kept = qwen.delta(moments(1), moments(2), INSTRUCTIONS)
    monkeypatch.setattr("vlm_rewards.chat_model._can_be_cut", lambda cache: False)
    again = qwen.delta(moments(1), moments(2), INSTRUCTIONS)
    torch.testing.assert_close(kept.values, again.values, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["qwen", "intern"])
@pytest.mark.parametrize("what", ["delta", "done", "value", "prefer"])
def test_answers_do_not_depend_on_the_batch(folders: dict[str, Path], family: str, what: str):
    together = ask(made(folders[family]), what, moments(1), moments(2), INSTRUCTIONS)
    small = made(folders[family], batch=1)
    torch.testing.assert_close(
        ask(small, what, moments(1), moments(2), INSTRUCTIONS).values, together.values, atol=1e-4, rtol=0
    )
    for row, instruction in enumerate(INSTRUCTIONS):
        index = torch.tensor([row])
        alone = ask(small, what, moments(1).rows(index), moments(2).rows(index), [instruction])
        torch.testing.assert_close(alone.values, together.values[index], atol=1e-4, rtol=0)


def test_preference_does_not_depend_on_the_order(qwen: VlmCritic):
    forward = qwen.prefer(moments(1), moments(2), INSTRUCTIONS)
    backward = qwen.prefer(moments(2), moments(1), INSTRUCTIONS)
    torch.testing.assert_close(forward.values, 1.0 - backward.values, atol=1e-5, rtol=0)
    same = qwen.prefer(moments(1), moments(1), INSTRUCTIONS)
    torch.testing.assert_close(same.values, torch.full((3,), 0.5))
    # One order alone is biased towards a position.
    p = direct(qwen, prompter().prefer(moments(1), moments(1), INSTRUCTIONS)[0], FIRST_SECOND).exp()
    assert abs((p[1] / p.sum()).item() - 0.5) > 1e-3


def test_half_precision_is_near(folders: dict[str, Path], qwen: VlmCritic):
    half = made(folders["qwen"], dtype="bfloat16")
    assert half.revision != qwen.revision
    answers = [critic.value(moments(1), moments(2), INSTRUCTIONS).values for critic in (half, qwen)]
    torch.testing.assert_close(answers[0], answers[1], atol=0.1, rtol=0)


def test_a_reply_that_hardly_speaks_of_the_labels_is_invalid(folders: dict[str, Path]):
    answer = load_critic(folders["qwen"]).value(moments(1), moments(2), INSTRUCTIONS)
    assert not bool(answer.valid.any()) and bool(answer.values.isnan().all())
    assert "of its probability is on 00 to 20, below least_mass=0.5" in answer.reasons[0]


def test_the_text_that_a_model_writes_can_be_read_instead(folders: dict[str, Path]):
    critic = made(folders["qwen"], answer="text", max_new_tokens=3)
    answer = critic.value(moments(1), moments(2), INSTRUCTIONS)
    assert not bool(answer.valid.any()) and "holds no answer from 00 to 20" in answer.reasons[0]


def test_a_reference_is_shown_first_and_changes_the_answer(folders: dict[str, Path], clips: ClipSet, tmp_path: Path):
    clips.save(tmp_path / "clips")
    plain = made(folders["qwen"])
    told = made(folders["qwen"], reference=clips[0], views=["front"])
    from_folder = made(folders["qwen"], reference=str(tmp_path / "clips"), views=["front"])
    seen = moments(1, cameras=("wrist", "front"))
    assert told.cameras == ("front",)
    assert told.revision == from_folder.revision != plain.revision
    answers = [critic.done(seen, INSTRUCTIONS).values for critic in (plain, told, from_folder)]
    assert not torch.allclose(answers[0], answers[1], atol=1e-6)
    torch.testing.assert_close(answers[1], answers[2])


def test_a_reference_has_eleven_moments_with_percentages(clips: ClipSet):
    clip = clips[0]
    reference = Reference.read(clip, ["front", "wrist"])
    assert reference is not None and len(reference.rgb) == 11
    assert torch.equal(reference.rgb[0], clip.rgb[0]) and torch.equal(reference.rgb[-1], clip.rgb[-1])
    assert reference.percent[-1].item() == pytest.approx(100.0 * clip.progress[-1].item())
    prompts = Prompter(Wording(), Scale.of("numbers", 20), reference).value(moments(1), moments(2), INSTRUCTIONS)
    texts = [part for part in prompts[0] if isinstance(part, str)]
    pictures = [part for part in prompts[0] if not isinstance(part, str)]
    assert len(pictures) == 11 * 2 + 4
    assert sum("Reference, " in text for text in texts) == 22
    assert clip.instruction in texts[0] and "Start of the episode, camera front" in texts[-5]
    pairs = [(clip.rgb[0], 0), (clip.rgb[-1], 100)]
    given = Reference.read(pairs, ["front", "wrist"])
    assert given is not None and given.percent.tolist() == [0.0, 100.0]


def test_views_choose_the_cameras_and_their_order(folders: dict[str, Path]):
    critic = made(folders["qwen"], views=["wrist", "front"])
    seen = moments(1)
    both = critic.done(seen, INSTRUCTIONS).values
    torch.testing.assert_close(both, critic.done(seen.of(("wrist", "front")), INSTRUCTIONS).values)
    assert not torch.allclose(both, made(folders["qwen"]).done(seen, INSTRUCTIONS).values, atol=1e-6)
    with pytest.raises(CriticError, match="made for cameras wrist, front"):
        critic.done(moments(1, cameras=("front", "side")), INSTRUCTIONS)


def test_revisions_follow_whatever_changes_answers(folders: dict[str, Path], tmp_path: Path):
    wording = tmp_path / "wording.json"
    wording.write_text(json.dumps({"done": "Did the robot do it: {instruction}? Answer yes or no."}))
    variants: list[dict[str, Any]] = [
        {}, {"granularity": 10}, {"scale": "letters"}, {"views": ["front"]}, {"wording": str(wording)},
        {"answer": "text"}, {"least_mass": 0.3},
    ]  # fmt: skip
    revisions = [made(folders["qwen"], **settings).revision for settings in variants]
    revisions.append(made(tiny_qwen(tmp_path / "other", seed=1)).revision)
    assert len(set(revisions)) == len(revisions)
    assert made(folders["qwen"], batch=3).revision == revisions[0]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"granularty": 5}, "unknown setting 'granularty'; did you mean 'granularity'"),
        ({"granularity": "ten"}, "setting granularity is int, got 'ten'"),
        ({"least_mass": None}, "setting least_mass is float, got None"),
        ({"scale": "stars"}, "unknown scale 'stars'"),
        ({"granularity": 7}, "even number"),
        ({"scale": "letters", "granularity": 30}, "up to 24"),
        ({"dtype": "float8"}, "unknown dtype"),
        ({"answer": "words"}, "unknown answer"),
        ({"least_mass": 2.0}, r"least_mass is a share of probability in \[0, 1\]"),
        ({"wording": {"don": "x"}}, "unknown wording 'don'; did you mean 'done'"),
        ({"wording": "nowhere.json"}, "wording=nowhere.json cannot be read"),
        ({"reference": "nowhere"}, "nowhere holds no set of clips"),
        ({"reference": [(torch.zeros(4, 4, 3, dtype=torch.uint8), 0)]}, "needs views="),
        ({"reference": [(torch.zeros(4, 4, 3), 0)], "views": ["front"]}, "uint8"),
        ({"reference": [(torch.zeros(4, 4, 3, dtype=torch.uint8), 130)], "views": ["front"]}, "percentages lie in"),
        ({"device": "nonsense"}, "cannot be read"),
    ],
)
def test_settings_that_cannot_be_are_refused(folders: dict[str, Path], settings: dict[str, Any], told: str):
    with pytest.raises(CriticError, match=told):
        made(folders["qwen"], **settings)


def test_a_failed_reference_is_refused(folders: dict[str, Path], clips: ClipSet):
    with pytest.raises(CriticError, match="a recording of success"):
        made(folders["qwen"], reference=clips[clips.of_mode("miss")[0]])
    with pytest.raises(CriticError, match="the reference lacks camera side"):
        made(folders["qwen"], reference=clips[0], views=["front", "side"])


def test_what_would_break_a_prompt_is_refused(qwen: VlmCritic, tmp_path: Path, folders: dict[str, Path]):
    with pytest.raises(CriticError, match=r"holds '<\|image_pad\|>', a control token"):
        qwen.done(moments(1, 1), ["put <|image_pad|> there"])
    with pytest.raises(CriticError, match="an instruction is empty"):
        qwen.done(moments(1, 1), [" "])
    mute = tmp_path / "mute"
    mute.mkdir()
    for file in folders["qwen"].iterdir():
        if file.name != "chat_template.jinja":
            (mute / file.name).write_bytes(file.read_bytes())
    with pytest.raises(CriticError, match="no chat template"):
        made(mute)
    (mute / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(CriticError, match="cannot be read"):
        made(mute)
