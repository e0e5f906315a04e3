"""Critic cards of critics whose faults are known: what passes, what fails, and what the message names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.vlm_rewards.encoded import BlindToDrops, Comparing, Oracle, Scoring, Unsure, encoded_clips
from vlm_rewards.baselines import ElapsedTime
from vlm_rewards.cache import Cached
from vlm_rewards.card import Card, CardData, Measuring, make_card, require_card
from vlm_rewards.card_lines import NOT_GIVEN, NOT_OFFERED
from vlm_rewards.critic import Critic, Judged, Window
from vlm_rewards.errors import CriticError
from vlm_rewards.operating_point import OperatingPoint
from vlm_rewards.registry import write_description

QUICK = Measuring(shift_episodes=2, seconds=0.0)


@pytest.fixture(scope="module")
def data() -> CardData:
    return CardData(encoded_clips(32, 0), encoded_clips(12, 1))


@pytest.fixture(scope="module")
def oracle(data: CardData) -> Card:
    heldout = encoded_clips(3, 2, ("expert", "wrong_object"))
    extra = CardData(data.test, data.validation, {"camera": encoded_clips(3, 3)}, heldout, heldout)
    return make_card(Oracle(), extra, QUICK, exploit=([0, 1, 2, 3, 4], [0, 0.2, 0.5, 0.8, 0.9]))


@pytest.fixture(scope="module")
def blind(data: CardData) -> Card:
    return make_card(BlindToDrops(), data, QUICK)


def test_who_says_the_truth_passes_every_gate(oracle):
    assert oracle.passed and oracle.failures() == []
    lines = oracle.lines
    assert lines["order"]["successes"]["voc"] > 0.999 and lines["order"]["successes"]["vroc"] > 0.999
    assert lines["end"]["gap"] == pytest.approx(lines["end"]["true_gap"], abs=0.01)
    assert set(lines["done"]["modes"]) == {"miss", "drop", "wrong_object", "swapped_instruction"}
    assert (
        lines["done"]["success_recall"]["rate"] == 1.0 and lines["done"]["operating_point"]["chosen"] == "on validation"
    )
    assert lines["prompt_swap"]["told_apart"]["rate"] == 1.0
    assert lines["distance"]["progress"]["epic"]["critic"] < 0.01
    assert lines["distance"]["progress"]["starc"]["critic"] < 0.05
    assert lines["distance"]["done"]["epic"]["random"] == pytest.approx(0.707, abs=0.06)
    assert lines["preference"]["from"] == "value" and lines["preference"]["rate"] > 0.99
    assert lines["heldout"]["modes"]["wrong_object"]["false_done"] == 0.0
    assert lines["speed"]["batch_64"]["p50_ms"] <= lines["speed"]["batch_1"]["p50_ms"]


def test_every_baseline_and_shift_is_on_the_card(oracle):
    assert list(oracle.lines["baselines"]) == ["critic", "elapsed time", "random network", "proprioception"]
    assert oracle.lines["baselines"]["elapsed time"]["voc"] == pytest.approx(1.0)
    assert abs(oracle.lines["baselines"]["elapsed time"]["end_gap"]) < 0.2
    shifts = oracle.lines["shifts"]
    assert list(shifts) == ["none", "camera", "front view alone", "wrist view alone", "runs on", "paraphrase"]
    assert shifts["wrist view alone"]["end_gap"] == 0.0  # the truth is written into the front view
    assert shifts["front view alone"]["end_gap"] == shifts["none"]["end_gap"] == shifts["paraphrase"]["end_gap"]
    assert shifts["camera"]["episodes"] == 8


def test_a_card_keeps_what_was_measured(oracle, tmp_path):
    oracle.save(tmp_path)
    assert Card.load(tmp_path) == oracle
    text = (tmp_path / "card.md").read_text()
    assert "passed: it may drive RL" in text and "| false done, drop | 0.000 |" in text
    plots = {path.stem for path in tmp_path.glob("*.png")}
    names = ("value", "false_done", "reliability", "shifts", "baselines", "exploit")
    assert plots == {f"card_{name}" for name in names} and all(f"card_{name}.png" in text for name in names)
    (tmp_path / "card.json").write_text('{"format": 1}')
    with pytest.raises(CriticError, match="cannot be read"):
        Card.load(tmp_path)


def test_elapsed_time_has_perfect_order_and_fails(data):
    card = make_card(ElapsedTime(10.0), data, QUICK)
    assert card.lines["order"]["successes"]["voc"] == pytest.approx(1.0)
    assert card.lines["order"]["successes"]["vroc"] == pytest.approx(-1.0)
    failed = " ".join(card.failures())
    assert "end-value gap: " in failed and "end-value gap beyond elapsed time" in failed
    assert "VOC" not in failed


def test_who_cannot_see_a_failure_fails_on_that_mode_by_name(blind):
    false_done = [failure for failure in blind.failures() if failure.startswith("false done")]
    assert len(false_done) == 1 and false_done[0].startswith("false done, drop: 1, wanted <= 0.05 (95% up to 1.00, 32")


def test_who_is_right_but_miscalibrated_fails_on_that_alone(data):
    card = make_card(Unsure(), data, QUICK)
    assert len(card.failures()) == 1 and card.failures()[0].startswith("calibration error (ECE): 0.3")
    assert card.lines["done"]["operating_point"]["threshold"] < 0.7


def test_the_critics_own_operating_point_counts(data):
    critic = Oracle()
    critic.operating_point = OperatingPoint(0.995, 2)
    card = make_card(critic, data, QUICK)
    assert card.lines["done"]["operating_point"]["chosen"] == "by the critic"
    assert card.lines["done"]["success_recall"]["rate"] == 0.0
    assert any("step precision of done: not judged" in failure for failure in card.failures())


def test_lines_without_their_capability_say_so_and_block(data):
    card = make_card(Scoring(), data, QUICK)
    assert card.lines["order"]["from"] == "score" and card.lines["order"]["successes"]["voc"] > 0.99
    assert card.lines["done"] == card.lines["calibration"] == NOT_OFFERED
    assert card.lines["end"].startswith(NOT_OFFERED) and card.lines["heldout"] == NOT_GIVEN
    assert "false done: not judged (not offered)" in card.failures()
    assert "end-value gap: not judged (not offered: a score has no fixed scale)" in card.failures()


def test_a_critic_that_compares_is_judged_by_its_deltas_and_preferences(data):
    card = make_card(Comparing(), data, QUICK)
    assert card.lines["order"]["from"] == "delta" and card.lines["end"]["gap"] > 0.7
    preference = card.lines["preference"]
    assert preference["from"] == "prefer" and preference["rate"] > 0.99
    assert preference["abstained"] == pytest.approx(0.2, abs=0.01)


def test_invalid_answers_are_counted_and_do_not_fire(data):
    class Tired(Oracle):
        def _done(self, now, instructions):
            judged = super()._done(now, instructions)
            values = judged.values.clone()
            values[::2] = torch.nan
            return Judged(values)

    card = make_card(Tired(), data, QUICK)
    answers = card.lines["answers"]
    assert answers["invalid_share"] == pytest.approx(0.25, abs=0.01)
    assert list(answers["reasons"]) == ["the critic's answer is not a finite number"]
    assert card.lines["done"]["steps"]["recall"] == pytest.approx(0.5, abs=0.05)


@pytest.mark.filterwarnings("error")
def test_a_critic_that_never_answers_gets_a_card_and_does_not_pass(data, tmp_path):
    class Gone(Oracle):
        def _value(self, now, start, instructions):
            return Judged(torch.full((len(now),), torch.nan), reasons=["stale: nobody there"] * len(now))

        def _done(self, now, instructions):
            return self._value(now, now, instructions)

    card = make_card(Gone(), data, QUICK)
    assert card.lines["answers"]["invalid_share"] == card.lines["answers"]["stale_share"] == 1.0
    assert all("not judged" in failure for failure in card.failures() if "false done" not in failure)
    card.save(tmp_path)
    assert Card.load(tmp_path).failures() == card.failures()


def test_a_window_of_pictures_is_filled_and_shifted(data):
    class Slow(Oracle):
        """Sees how fast things go: without its history it would know nothing."""

        window = Window(3, 0.2)

        def _value(self, now, start, instructions):
            assert now.rgb.shape[1] == start.rgb.shape[1] == 3
            judged = super()._value(now, start, instructions)
            moved = (now.rgb[:, -1] != now.rgb[:, 0]).flatten(1).any(1)
            return Judged(torch.where(moved, judged.values, 0.0))

    card = make_card(Slow(), data, QUICK)
    assert card.lines["order"]["successes"]["voc"] > 0.99
    assert {"window x0.5", "window x2"} <= set(card.lines["shifts"])
    assert card.lines["shifts"]["runs on"]["voc"] < 0.7  # a window past the success


def test_a_cached_critic_is_judged_as_itself(data):
    cached = Cached(Oracle())
    card = make_card(cached, data, QUICK)
    assert card.passed and card.revision == "1"
    assert card.lines["speed"]["cache"]["hits"] > 0


def test_few_episodes_and_missing_modes_are_not_judged(data):
    few = CardData(data.test.subset([*range(32), *range(64, 80)]), data.validation, modes=("hover",))
    failures = make_card(Oracle(), few, QUICK).failures()
    assert failures == [
        "false done, drop: not judged (16 episodes; 30 are needed)",
        "false done, hover: not judged (0 episodes; 30 are needed)",
    ]


def test_what_cannot_be_carded(data):
    nameless = Oracle()
    nameless.revision = ""
    with pytest.raises(CriticError, match="no revision"):
        make_card(nameless, data, QUICK)
    ahead = Oracle()
    ahead.window = Window(causal=False)
    with pytest.raises(CriticError, match="whole recordings"):
        make_card(ahead, data, QUICK)
    with pytest.raises(CriticError, match="no successes"):
        make_card(Oracle(), CardData(data.test.subset([40, 41]), data.validation), QUICK)


def judged_folder(card: Card, folder: Path) -> Path:
    """A critic's folder with a card."""
    folder.mkdir()
    write_description(folder, "process")
    card.save(folder)
    return folder


def test_training_is_permitted_by_a_passed_card_of_the_same_revision(oracle, tmp_path):
    folder = judged_folder(oracle, tmp_path / "critic")
    mark = require_card(folder, critic=Oracle())
    assert not mark.forced and mark.failures == () and mark.revision == "1" and mark.debounce == 1
    newer = Oracle()
    newer.revision = "2"
    with pytest.raises(CriticError, match="card is of revision '1', the critic is '2'.*force=true"):
        require_card(folder, critic=newer)
    forced = require_card(folder, force=True, critic=newer)
    assert forced.forced and "revision '1'" in forced.failures[0]
    known: Critic = Oracle()
    known.folder = folder  # type: ignore[attr-defined]
    assert not require_card(known).forced


def test_training_is_refused_without_a_card_and_with_a_failed_one(blind, tmp_path):
    with pytest.raises(CriticError, match="no critic card; robolearn critic card critic=.* makes it"):
        require_card(tmp_path / "nothing", critic=Oracle())
    with pytest.raises(CriticError, match="'oracle' has no folder"):
        require_card(Oracle())
    folder = judged_folder(blind, tmp_path / "critic")
    with pytest.raises(CriticError, match="false done, drop: 1, wanted <= 0.05.*force=true"):
        require_card(folder, critic=BlindToDrops())
    mark = require_card(folder, force=True, critic=BlindToDrops())
    assert mark.forced and any("drop" in failure for failure in mark.failures)


def test_one_seed_gives_one_card(data):
    few = CardData(data.test.subset(range(0, 128, 8)), data.validation)
    first, second = (make_card(Oracle(), few, QUICK).to_dict()["lines"] for _ in range(2))
    assert first.pop("speed") != second.pop("speed")
    assert json.dumps(first) == json.dumps(second)
