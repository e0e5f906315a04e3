"""The zero-shot text score: its formula, and CLIP, SigLIP and SigLIP 2 models from disk."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from tests.vlm_rewards.tiny_encoders import SAVERS, save_clip
from vlm_rewards.critic import Capability
from vlm_rewards.errors import CriticError, MissingCapability
from vlm_rewards.frames import Frames
from vlm_rewards.models import quiet
from vlm_rewards.registry import load_critic
from vlm_rewards.zero_shot import ZeroShotCritic, goal_baseline_score

GOAL, BASELINE = "put the red cube on the white pad", "a robot arm at a table"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("encoders")
    return {kind: save(root / kind) for kind, save in SAVERS.items()}


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """(6, 2, 40, 56, 3): smooth pictures with edges, of two cameras."""
    made = torch.Generator().manual_seed(0)
    coarse = torch.rand(12, 3, 5, 7, generator=made) * 255
    fine = torch.nn.functional.interpolate(coarse, (40, 56), mode="bilinear")
    fine[:, :, 10:20, 15:30] = torch.tensor([200.0, 30.0, 60.0]).view(3, 1, 1)
    return fine.permute(0, 2, 3, 1).to(torch.uint8).unflatten(0, (6, 2)).contiguous()


def seen(pictures: torch.Tensor) -> Frames:
    return Frames.now(pictures, ("front", "wrist")[: pictures.shape[1]])


def ask(critic: Any, pictures: torch.Tensor, instruction: str = GOAL) -> torch.Tensor:
    answer = critic.score(seen(pictures), [instruction] * len(pictures))
    assert bool(answer.valid.all())
    values: torch.Tensor = answer.values
    return values


def by_hand(folder: Path, pictures: np.ndarray, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings by the model, processor and tokenizer of transformers, without our code."""
    with quiet():
        model = AutoModel.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    with torch.no_grad():
        image = model.get_image_features(**processor(images=list(pictures), return_tensors="pt")).pooler_output
        texts = texts if model.config.model_type == "clip" else [text.lower() for text in texts]
        ids = tokenizer(texts, padding="max_length", max_length=model.config.text_config.max_position_embeddings)
        text = model.get_text_features(input_ids=torch.tensor(ids["input_ids"])).pooler_output
    return tuple((x / x.norm(dim=-1, keepdim=True)).double().numpy() for x in (image, text))  # type: ignore[return-value]


def by_formula(s: np.ndarray, g: np.ndarray, b: np.ndarray, alpha: float) -> np.ndarray:
    d = g - b
    p = alpha * np.outer(d, d) / (d @ d) + (1 - alpha) * np.eye(len(d))
    return 1 - 0.5 * np.linalg.norm((s - g) @ p, axis=-1) ** 2


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_the_formula_agrees_with_the_projection_written_down(alpha: float) -> None:
    rng = np.random.default_rng(0)
    s, g, b = rng.normal(size=(7, 16)), rng.normal(size=16) * 0.2, rng.normal(size=16) * 0.2
    s /= np.linalg.norm(s, axis=-1, keepdims=True)
    ours = goal_baseline_score(torch.from_numpy(s), torch.from_numpy(g), torch.from_numpy(b), alpha)
    np.testing.assert_allclose(ours.numpy(), by_formula(s, g, b, alpha), atol=1e-12)


def test_without_projection_the_score_is_the_cosine() -> None:
    s, g = (
        torch.nn.functional.normalize(torch.randn(9, 8), dim=-1),
        torch.nn.functional.normalize(torch.randn(8), dim=0),
    )
    torch.testing.assert_close(goal_baseline_score(s, g, torch.randn(8), 0.0), s @ g)


def test_with_full_projection_only_the_line_counts() -> None:
    g, b, s = torch.randn(8), torch.randn(8), torch.randn(5, 8)
    across = torch.randn(5, 8)
    across -= (across @ (g - b)).unsqueeze(1) * (g - b) / (g - b).square().sum()
    full = goal_baseline_score(s, g, b, 1.0)
    torch.testing.assert_close(goal_baseline_score(s + across, g, b, 1.0), full, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(goal_baseline_score(s + across, g, b, 0.5), goal_baseline_score(s, g, b, 0.5), atol=1e-2)


@pytest.mark.parametrize("kind", SAVERS)
def test_a_model_from_disk_agrees_with_transformers(
    kind: str, folders: dict[str, Path], pictures: torch.Tensor
) -> None:
    critic = load_critic(folders[kind], baseline=BASELINE, goals=["{}", "Done: {}"], alpha=0.4)
    assert isinstance(critic, ZeroShotCritic)
    flat = pictures.flatten(0, 1).numpy()
    image, text = by_hand(folders[kind], flat, [GOAL, f"Done: {GOAL}", BASELINE])
    expected = by_formula(image, text[:2].mean(0), text[2], 0.4).reshape(6, 2).mean(1)
    # Pillow and torch may round a resized pixel differently, by one level of 255.
    np.testing.assert_allclose(ask(critic, pictures).numpy(), expected, atol=2e-3)
    spread = expected.max() - expected.min()
    assert np.abs(ask(critic, pictures).numpy() - expected).max() < 0.05 * spread


def test_batches_do_not_change_scores(folders: dict[str, Path], pictures: torch.Tensor) -> None:
    whole, parts = (load_critic(folders["clip"], batch_size=size) for size in (64, 5))
    torch.testing.assert_close(ask(whole, pictures), ask(parts, pictures), atol=1e-5, rtol=0)
    assert whole.revision == parts.revision
    assert len(whole.score(seen(pictures[:0]), [])) == 0


def test_each_moment_is_compared_with_its_own_instruction(folders: dict[str, Path], pictures: torch.Tensor) -> None:
    critic = load_critic(folders["clip"])
    mixed = critic.score(seen(pictures), [GOAL, "reach the blue ball"] * 3).values
    torch.testing.assert_close(mixed[::2], ask(critic, pictures)[::2], atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed[1::2], ask(critic, pictures, "reach the blue ball")[1::2], atol=1e-5, rtol=0)


def test_a_text_is_embedded_once(folders: dict[str, Path], pictures: torch.Tensor) -> None:
    critic = load_critic(folders["clip"])
    read: list[int] = []
    critic._encoder._model.text_model.register_forward_hook(lambda *_: read.append(1))  # type: ignore[attr-defined]
    ask(critic, pictures)
    ask(critic, pictures[:3])
    assert len(read) == 1
    ask(critic, pictures, "another")
    assert len(read) == 2


def test_one_camera_can_be_named(folders: dict[str, Path], pictures: torch.Tensor) -> None:
    both, wrist = load_critic(folders["clip"]), load_critic(folders["clip"], camera="wrist")
    front = load_critic(folders["clip"], camera="front")
    torch.testing.assert_close(ask(both, pictures), (ask(front, pictures) + ask(wrist, pictures)) / 2)
    with pytest.raises(CriticError, match="was made for cameras overhead"):
        ask(load_critic(folders["clip"], camera="overhead"), pictures)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_preference_is_the_models_own_probability(kind: str, folders: dict[str, Path], pictures: torch.Tensor) -> None:
    critic = load_critic(folders[kind], alpha=0.0, camera="front")
    answer = critic.prefer(seen(pictures[:3]), seen(pictures[3:]), [GOAL] * 3)
    image, text = by_hand(folders[kind], pictures[:, 0].numpy(), [GOAL])
    with quiet():
        scale = AutoModel.from_pretrained(folders[kind]).logit_scale.exp().item()
    odds = np.exp(scale * (image @ text[0]))
    np.testing.assert_allclose(answer.values.numpy(), odds[3:] / (odds[:3] + odds[3:]), atol=5e-3)


def test_done_needs_a_score_of_success(folders: dict[str, Path], pictures: torch.Tensor) -> None:
    plain = load_critic(folders["clip"])
    with pytest.raises(MissingCapability):
        plain.done(seen(pictures), [GOAL] * 6)
    scores = ask(plain, pictures)
    middle = float(scores.median())
    critic = load_critic(folders["clip"], success_score=middle, scale=50.0)
    assert critic.capabilities == {Capability.SCORE, Capability.PREFER, Capability.DONE}
    expected = torch.sigmoid(50.0 * (scores - middle))
    torch.testing.assert_close(critic.done(seen(pictures), [GOAL] * 6).values, expected)


def test_a_goal_that_is_the_baseline_gives_no_answer(folders: dict[str, Path], pictures: torch.Tensor) -> None:
    critic = load_critic(folders["clip"], baseline=GOAL)
    answer = critic.score(seen(pictures[:2]), [GOAL, "something else"])
    assert answer.valid.tolist() == [False, True] and "mean the same" in answer.reasons[0]
    assert bool(torch.isnan(answer.values[0]))
    assert ask(load_critic(folders["clip"], baseline=GOAL, alpha=0.0), pictures).isfinite().all()


def test_a_revision_follows_from_model_and_settings(folders: dict[str, Path]) -> None:
    def revision(kind: str = "clip", **settings: Any) -> str:
        return str(load_critic(folders[kind], **settings).revision)

    plain = revision()
    assert plain == revision(baseline=[BASELINE], goals=["{}"], batch_size=3)
    others = [revision(alpha=0.4), revision(baseline="a table"), revision(goals="done: {}"), revision(camera="front")]
    assert len({plain, *others, revision("siglip")}) == 6


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"alhpa": 0.1}, "zero-shot critic: unknown setting 'alhpa'; did you mean 'alpha'"),
        ({"alpha": 1.5}, "alpha is from 0"),
        ({"alpha": "much"}, "setting alpha is float, got 'much'"),
        ({"batch_size": 0}, "batch_size is at least 1"),
        ({"goals": "done"}, "templates with {}"),
        ({"goals": []}, "templates with {}"),
        ({"baseline": " "}, "baseline is a text"),
        ({"scale": 0.0}, "scale is positive"),
        ({"dtype": "float8"}, "unknown dtype 'float8'"),
        ({"device": "cuda:99"}, "cannot use device 'cuda:99'"),
        ({"baseline": "a robot arm " * 20}, "too many for a model that reads 77"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], said: str, folders: dict[str, Path]) -> None:
    with pytest.raises(CriticError) as caught:
        load_critic(folders["clip"], **settings)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_half_precision_gives_nearly_the_same_scores(folders: dict[str, Path], pictures: torch.Tensor) -> None:
    half = load_critic(folders["clip"], dtype="bfloat16")
    torch.testing.assert_close(ask(half, pictures), ask(load_critic(folders["clip"]), pictures), atol=0.03, rtol=0)


def damaged(folders: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(folders["clip"], tmp_path / "damaged")


@pytest.mark.parametrize(
    "name, said",
    [
        ("model.safetensors", "cannot be read"),
        ("preprocessor_config.json", "no image processor"),
        ("tokenizer.json", "no tokenizer"),
    ],
)
def test_damaged_files(name: str, said: str, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = damaged(folders, tmp_path)
    (folder / name).write_bytes((folder / name).read_bytes()[:100])
    with pytest.raises(CriticError, match=said) as caught:
        load_critic(folder)
    assert "\n" not in str(caught.value)


def test_weights_that_lack_tensors_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = damaged(folders, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CriticError, match="lack 1 of the model's tensors, such as visual_projection.weight"):
        load_critic(folder)


def test_a_processor_of_another_size_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = damaged(folders, tmp_path)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings["crop_size"] = {"height": 24, "width": 24}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(CriticError, match="the model takes 32x32"):
        load_critic(folder)


@pytest.mark.skipif("sentencepiece" in sys.modules, reason="the tokenizer's package is installed")
def test_a_tokenizer_that_needs_another_package_names_it(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["siglip"], tmp_path / "siglip")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": "SiglipTokenizer"}))
    with pytest.raises(CriticError, match="pip install sentencepiece"):
        load_critic(folder)


def test_nothing_is_learnt_from_scores(tmp_path: Path, pictures: torch.Tensor) -> None:
    critic = load_critic(save_clip(tmp_path / "clip", seed=3))
    weight = torch.ones(6, requires_grad=True)
    (ask(critic, pictures) * weight).sum().backward()
    assert weight.grad is not None and bool(weight.grad.isfinite().all())
