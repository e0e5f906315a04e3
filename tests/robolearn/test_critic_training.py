"""`robolearn train` with a critic: bit-exact continuation, permission, marks, and what comes after."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from robolearn import cli
from robolearn.config import compose, resumed, to_plain, to_train_config
from robolearn.critic_settings import CriticRewardError, RewardSettings
from robolearn.runs import Run
from robolearn.train import resume, train
from tests.robolearn import pixel_critic
from tests.robolearn.test_train import assert_same, learned
from vlm_rewards import registry
from vlm_rewards.calibration import Platt
from vlm_rewards.card_record import Card
from vlm_rewards.domain import Domain, traits
from vlm_rewards.network import CriticNetwork, Shape, normalised
from vlm_rewards.operating_point import OperatingPoint
from vlm_rewards.process import Knowledge, ProcessCritic
from vlm_rewards.text import HASHED, Vocabulary, sentence_encoder

TINY = [
    "task=arm_push",
    "num_envs=8",
    "task.same_color=0",
    "task.front_camera=high",  # what the pixel critic can see
    "task.episode_s=1",
    "algo.num_steps=9",
    "algo.minibatches=2",
    "algo.epochs=2",
    "algo.hidden=[16]",
    "threads=1",
    "world.threads=1",
    "budget.minutes=null",
    "evaluate=false",
    "curves=false",
    "video=false",
]
FORCED = ["reward=process_direct", "reward.force=true"]
SPARING = [
    "reward.share=0.75",
    "reward.every=2",
    "reward.distill=true",
    "reward.confidence=0.01",
    "reward.rehearsal=60",
]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(registry.KINDS, pixel_critic.KIND, "tests.robolearn.pixel_critic")


@pytest.fixture
def pixels() -> str:
    return str(pixel_critic.save(Path("critics/pixels")))


def untrained(folder: Path) -> str:
    """A process critic that nobody trained, saved."""
    torch.manual_seed(0)
    encoder = sentence_encoder(HASHED)
    network = CriticNetwork(Shape(2, 64, 64, encoder.size))
    pictures = torch.randint(0, 255, (4, 2, 64, 64, 3), dtype=torch.uint8)
    seen = network.see(normalised(pictures).unsqueeze(1))
    size = traits(normalised(pictures), seen.near.squeeze(1)).shape[-1]
    ProcessCritic(
        network,
        Knowledge(
            cameras=("front", "wrist"),
            text=HASHED,
            vocabulary=Vocabulary(frozenset("push slide move onto to the it by pushing white pad square cube".split())),
            done=Platt(),
            prefer=Platt(),
            domain=Domain(torch.zeros(size), torch.eye(size), 1e6),
            point=OperatingPoint(0.6, 2),
        ),
    ).save(folder)
    return str(folder)


def config(*overrides: str):
    return to_train_config(compose([*TINY, *overrides]))


def test_a_continued_run_is_the_uninterrupted_one(pixels):
    chosen = [*FORCED, *SPARING, f"reward.critic={pixels}", "seed=3"]
    train(config("run_dir=whole", "budget.iterations=5", "checkpoint.every_iterations=1", *chosen))
    train(config("run_dir=parts", "budget.iterations=1", *chosen))
    resume("parts", ["budget.iterations=3"])
    resume("parts", ["budget.iterations=5"])
    state, rows = learned("whole")
    assert_same((state, rows), learned("parts"))
    reward = state["ranks"][0]["reward"]
    assert reward["calls"] == 45 and reward["student"]["seen"] >= 64 and reward["stage"]["memory"] is not None
    assert rows[-1]["critic/looked"] == pytest.approx(0.75 * 4 / 9) and rows[-1]["critic/moments"] == 6 * 4


def test_a_run_with_a_process_critic_continues_to_the_last_digit():
    """In the middle of episodes, whose first pictures the critic then sees again."""
    chosen = [*FORCED, f"reward.critic={untrained(Path('critics/untrained'))}", "num_envs=5", "algo.num_steps=5"]
    train(config("run_dir=whole", "budget.iterations=3", *chosen))
    train(config("run_dir=parts", "budget.iterations=1", *chosen))
    resume("parts", ["budget.iterations=3"])
    assert_same(learned("whole"), learned("parts"))


def test_a_critic_without_a_card_is_refused_in_one_line_and_a_forced_one_marks_the_run(pixels, capsys):
    asked = ["train", *TINY, "reward=process_direct", f"reward.critic={pixels}", "budget.iterations=1", "run_dir=run"]
    assert cli.main(asked) == cli.USER_ERROR
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "may not drive training: critics/pixels holds no critic card" in err
    assert not Path("run").exists()

    assert cli.main([*asked, "reward.force=true"]) == 0
    mark = "the critic is forced, and the run is marked: critics/pixels holds no critic card"
    assert mark in capsys.readouterr().err
    stored = Run.open("run").config["reward"]
    assert stored["force"] is True and stored["revision"] == "1"
    assert len(stored["marks"]) == 1 and stored["marks"][0].startswith("critics/pixels holds no critic card")
    resume("run", ["budget.iterations=2"])
    assert mark in capsys.readouterr().err
    assert Run.open("run").config["reward"]["marks"] == stored["marks"]


def passed_card(folder: str, threshold: float, debounce: int) -> None:
    lines = {"done": {"operating_point": {"threshold": threshold, "debounce": debounce}}}
    Path(folder, "card.json").write_text(json.dumps(Card("pixels", "1", lines, (), {}).to_dict()))


def test_a_passed_card_gives_permission_and_the_operating_point(pixels, capsys):
    passed_card(pixels, 0.77, 3)
    train(config("run_dir=run", "reward=process_direct", f"reward.critic={pixels}", "budget.iterations=1"))
    stored = Run.open("run").config["reward"]
    assert (stored["threshold"], stored["debounce"], stored["marks"]) == (0.77, 3, [])
    assert "marked" not in capsys.readouterr().err


def test_a_run_does_not_go_on_with_another_critic(pixels, monkeypatch):
    train(config("run_dir=run", *FORCED, f"reward.critic={pixels}", "budget.iterations=1"))
    monkeypatch.setattr(pixel_critic.PixelCritic, "revision", "2")
    with pytest.raises(CriticRewardError, match="rewarded by revision 1 of critic critics/pixels, which is 2 now"):
        resume("run", ["budget.iterations=2"])


def test_a_run_with_a_critic_is_evaluated_by_the_simulator_and_says_that_it_is_marked(pixels, capsys):
    train(config("run_dir=run", *FORCED, f"reward.critic={pixels}", "budget.iterations=1"))
    Path(pixels, "critic.json").unlink()  # an evaluation needs no critic
    capsys.readouterr()
    assert cli.main(["eval", "run=run", "baselines=false", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["success"] == "success" and 0.0 <= found["headline"] <= 1.0
    assert found["marks"] == Run.open("run").config["reward"]["marks"]


@pytest.mark.parametrize("preset", ["truth", "sparse", "elapsed_time", "random_init"])
def test_presets_that_need_no_trained_critic(preset):
    row = train(config("run_dir=run", f"reward={preset}", "budget.iterations=2")).outcome.metrics
    shaping = {"sparse": set()}.get(preset, {"critic/reward_heuristic"})
    assert {name for name in row if name.startswith("critic/reward_")} == {"critic/reward_success", *shaping}
    assert ("episode/false_done" in row) == (preset in ("elapsed_time", "random_init"))
    assert Run.open("run").config["reward"]["name"] == preset
    if preset == "elapsed_time":
        assert row["episode/critic_done"] == row["episode/false_done"] == 1.0 and row["rollout/truncated"] == 0.0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["reward=proces"], "unknown reward 'proces'; did you mean 'process'? rewards: elapsed_time, process"),
        (["reward=process"], "there is no critic for arm_push in critics/arm_push-process; make one with: robolearn"),
        (["reward.critic=nowhere"], "nowhere"),
        (["reward.critic=truth", "reward.every=0"], "reward.every must be 1 or more control steps, got 0"),
        (["reward.critic=truth", "reward.share=1.5"], "reward.share must be greater than 0 and at most 1, got 1.5"),
        (["reward.every=often"], "reward.every=often: Value 'often'"),
        (["reward=truth", "reward.stage.fallback=distilled"], "fallback=distilled needs reward.distill=true"),
        (["reward=truth", "reward.stage.gamma=0.5"], "shapes with gamma 0.5, the learner discounts with 0.98"),
        (["reward=truth", "reward.stage.shaping=naive"], "unknown reward shaping 'naive'"),
        (["reward=truth", "reward.stage.terms.remainin=1"], "unknown reward term 'remainin'; did you mean 'remaining'"),
        (["reward=random_init", "reward.cameras=[top]"], "has no top; its cameras: front, wrist"),
        (["task=dex_track", "reward=process"], "task 'dex_track' cannot leave it to a critic to say when it is done; "),
        (
            ["task=g1_walk", "reward=truth"],
            "task 'g1_walk' has no channel done and progress, by which reward.critic=truth",
        ),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_run(overrides, message, capsys):
    tiny = TINY if not overrides[0].startswith("task=") else [o for o in TINY if not o.startswith("task")]
    assert cli.main(["train", *tiny, "budget.iterations=1", "run_dir=run", *overrides]) == cli.USER_ERROR
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert message in err
    assert not Path("run").exists()


def test_distilling_falls_back_on_the_distilled_answer():
    assert RewardSettings(critic="truth", distill=True).stage.fallback == "distilled"
    assert RewardSettings(critic="truth", every=2).stage.fallback == "hold"
    with pytest.raises(CriticRewardError, match="fallback=drop and reward.distill=true contradict"):
        RewardSettings(critic="truth", distill=True, stage={"fallback": "drop"})
    sparing = to_train_config(compose(["reward=process"])).reward
    assert (sparing.share, sparing.every, sparing.distill, sparing.critic) == (0.25, 4, True, "auto")


def test_a_run_of_a_preset_that_is_gone_can_still_be_read():
    stored = to_plain(config("run_dir=run", "reward=truth", "reward.stage.bonus=3", "budget.iterations=1"))
    stored["reward"]["name"] = "of_a_former_version"
    again = to_train_config(resumed(stored, ["budget.iterations=9"]))
    assert again.reward.stage.bonus == 3 and again.reward.critic == "truth"
    assert again.reward.name == "of_a_former_version" and again.budget.iterations == 9
