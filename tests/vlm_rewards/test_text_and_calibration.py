"""Sentence vectors, paraphrases, calibration, and the measure of what pictures a critic knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vlm_rewards.calibration import fit_platt
from vlm_rewards.domain import Domain
from vlm_rewards.errors import CriticError
from vlm_rewards.losses import hop
from vlm_rewards.text import HashedText, known_share, sentence_encoder, telling_words, varied, words_of


def test_sentences_become_the_same_vectors_everywhere() -> None:
    vectors = HashedText().embed(["Put the red cube on the pad!", "put the RED cube on the pad", "go home", ""])
    assert vectors.shape == (4, HashedText.size) and vectors.dtype == torch.float32
    assert torch.equal(vectors[0], vectors[1])
    assert float(vectors[3].abs().max()) == 0.0
    # a hash that changed between versions or processes would make saved critics deaf
    signs = "".join("+" if float(x) > 0 else "-" for x in HashedText().embed(["red"])[0, :16])
    assert signs == "-+-++-----+-+-++"


def test_words_add_up_to_pairs_never_seen() -> None:
    words = HashedText.size // 2
    told = HashedText().embed(["red cube", "red ball", "blue cube", "blue ball"])[:, :words]
    red_cube, red_ball, blue_cube, blue_ball = told
    assert float((red_ball + blue_cube - red_cube) @ blue_ball) > 0.8
    assert float(red_cube @ red_ball) > 0.3 > abs(float(red_cube @ blue_ball))


def test_paraphrases_keep_the_words_that_tell() -> None:
    telling = telling_words([("put the red cube on the pad", "put the blue can on the pad")])
    assert telling == {"red", "cube", "blue", "can"}
    rng = np.random.default_rng(0)
    made = [words_of(varied("put the red cube on the pad", telling, rng, 0.3)) for _ in range(50)]
    assert all("red" in words and "cube" in words for words in made)
    assert len({" ".join(words) for words in made}) > 20
    assert varied("Put it", telling, rng, 0.0) == "put it"


def test_share_of_known_words() -> None:
    assert known_share("Put the red cube", frozenset({"put", "the", "red"})) == 0.75
    assert known_share("?", frozenset({"put"})) == 0.0


def test_a_text_model_on_disk_embeds_sentences(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "put", "the", "red", "cube", "go", "home"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertModel(config).save_pretrained(tmp_path)
    encoder = sentence_encoder(str(tmp_path))
    alone = encoder.embed(["go home"])
    together = encoder.embed(["put the red cube", "go home"])
    assert together.shape == (2, encoder.size) and encoder.size == 16
    torch.testing.assert_close(together[1:], alone)  # padding says nothing
    torch.testing.assert_close(together.norm(dim=1), torch.ones(2))


def test_a_text_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CriticError, match="is no folder"):
        sentence_encoder(str(tmp_path / "nothing"))
    with pytest.raises(CriticError, match="holds no text model"):
        sentence_encoder(str(tmp_path))


def test_calibration_of_calibrated_logits_changes_nothing() -> None:
    torch.manual_seed(0)
    logits = 2.0 * torch.randn(200_000)
    truths = torch.rand(len(logits)) < torch.sigmoid(logits)
    platt = fit_platt(logits, truths)
    assert platt.scale == pytest.approx(1.0, abs=0.03) and platt.shift == pytest.approx(0.0, abs=0.03)
    twice = fit_platt(3.0 * logits - 1.5, truths)
    assert twice.scale == pytest.approx(1 / 3, abs=0.01) and twice.shift == pytest.approx(0.5, abs=0.03)
    assert fit_platt(3.0 * logits, truths, shifted=False).shift == 0.0


def test_calibration_refuses_what_has_no_answer() -> None:
    logits = torch.linspace(-1, 1, 20)
    with pytest.raises(CriticError, match="frames of both kinds"):
        fit_platt(logits, torch.zeros(20, dtype=torch.bool))
    with pytest.raises(CriticError, match="not likelier true"):
        fit_platt(logits, logits < 0)
    with pytest.raises(CriticError, match="finite"):
        fit_platt(logits.clone().fill_(torch.nan), logits > 0)
    separated = fit_platt(10 * logits, logits > 0)
    assert np.isfinite(separated.scale) and float(separated(torch.tensor(10.0))) < 1.0


def test_hops_are_shares_of_what_is_left_or_was_reached() -> None:
    before, after = torch.tensor([0.2, 0.6, 0.5, 0.0, 1.0, 1.0]), torch.tensor([0.6, 0.3, 0.5, 1.0, 0.0, 1.0])
    torch.testing.assert_close(hop(before, after), torch.tensor([0.5, -0.5, 0.0, 1.0, -1.0, 0.0]))


def test_domain_tells_its_own_kind_from_others() -> None:
    torch.manual_seed(0)
    mixing = torch.randn(12, 12)
    own, others = (torch.randn(n, 12) @ mixing + 5.0 for n in (4000, 2000))
    domain = Domain.of(own, others)
    confidence = domain.confidence(torch.randn(2000, 12) @ mixing + 5.0)
    assert float((confidence > 0.5).float().mean()) > 0.98
    assert float(domain.confidence(torch.randn(100, 12) * 8.0 + 5.0).median()) < 0.05
    assert float(domain.confidence(own.mean(0, keepdim=True))) == pytest.approx(1.0, abs=1e-3)
