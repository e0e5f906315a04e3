"""`robolearn critic card` on recorded and on simulated episodes."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest

from robolearn import cli, critic_card
from robolearn.critic_card import CardVerbError, Options, card
from robolearn.critic_card_data import Wanted, load, save, simulate, wordings
from robolearn.critic_exploit import ExploitError
from tests.vlm_rewards.encoded import Oracle, encoded_clips
from vlm_rewards.card import Card, CardData
from vlm_rewards.errors import CriticError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sets of episodes as `data=` wants them."""
    made = tmp_path_factory.mktemp("sets")
    few = encoded_clips(3, 2)
    save(CardData(encoded_clips(30, 0), encoded_clips(6, 1), {"light": few}, few), made)
    return made


def run(*given: str, as_json: bool = False) -> int:
    parser = argparse.ArgumentParser()
    critic_card.add_arguments(parser)
    return critic_card.main(parser.parse_args([*given, *(["--json"] if as_json else [])]))


def test_a_failed_card_is_told_written_and_an_exit_code(folder, tmp_path, capsys):
    given = ("critic=elapsed_time", f"data={folder}", f"out={tmp_path}", "shift_episodes=2", "settings.horizon_s=10")
    assert run(*given, as_json=True) == 1
    told = capsys.readouterr()
    said = json.loads(told.out.splitlines()[-1])
    assert not said["passed"] and any(failure.startswith("end-value gap: ") for failure in said["failures"])
    assert said["lines"]["shifts"]["light"]["episodes"] == 8 and "shift: light" in told.err
    assert Card.load(tmp_path).revision == said["revision"] and (tmp_path / "card.md").is_file()


def test_tables_say_what_was_measured(folder, tmp_path, capsys):
    assert run("critic=elapsed_time", f"data={folder}", f"out={tmp_path}", "shift_episodes=2") == 1
    told = capsys.readouterr().out
    for text in ("Gates", "false done, wrong_object", "Order in time", "Baselines", "Shifts", "Sets apart", "STARC"):
        assert text in told
    assert f"critic elapsed_time failed: it may not drive RL; wrote {tmp_path}" in told


def test_an_exploit_test_of_a_file_is_judged(folder, tmp_path):
    curves = tmp_path / "curves.json"
    curves.write_text(json.dumps({"proxy": [0, 1, 2, 3, 4], "true": [0.5, 0.4, 0.2, 0.1, 0.0]}))
    options = Options("elapsed_time", data=str(folder), out=str(tmp_path), exploit=str(curves), shift_episodes=2)
    made, where = card(options)
    assert where == tmp_path and any(failure.startswith("exploit test") for failure in made.failures())
    curves.write_text("{}")
    with pytest.raises(ExploitError, match="holds no curves"):
        card(options)


def test_an_exploit_test_of_a_run_is_judged_if_the_critic_rewarded_it(folder, tmp_path):
    """A clock is exploited: its return rises with the time that a policy wastes, and nothing is solved."""
    run_dir = tmp_path / "run"
    short = ["task.episode_s=0.8", "num_envs=8", "algo.num_steps=8", "algo.minibatches=1", "budget.iterations=26"]
    plain = ["world.threads=1", "threads=1", "video=false", "curves=false", "evaluate=false", f"run_dir={run_dir}"]
    assert cli.main(["train", "task=arm_push", "reward=elapsed_time", *short, *plain]) == 0
    critic = {"horizon_s": 0.8}
    options = Options("elapsed_time", data=str(folder), out=str(tmp_path / "card"), exploit=str(run_dir))
    made, _ = card(replace(options, settings=critic, shift_episodes=2))
    line = made.to_dict()["lines"]["exploit"]
    assert len(line["proxy"]) == len(line["true"]) == 12 and line["passed"] is not True
    assert max(line["proxy"]) > 0.5 > max(line["true"])
    with pytest.raises(ExploitError, match=r"was rewarded by elapsed_time \(revision .*, not by revision"):
        card(replace(options, settings={"horizon_s": 9.0}))
    with pytest.raises(ExploitError, match="nowhere holds no curves"):
        card(replace(options, exploit=str(tmp_path / "nowhere")))


def test_what_is_missing_is_named(tmp_path):
    encoded_clips(1).save(tmp_path / "test")
    with pytest.raises(CriticError, match="has no folder validation; a critic card needs both"):
        load(tmp_path)
    with pytest.raises(CardVerbError, match="episodes is at least 1, got 0"):
        card(Options("elapsed_time", episodes=0))
    with pytest.raises(CardVerbError, match="gamma"):
        card(Options("elapsed_time", gamma=1.0))


def test_instructions_get_wordings_that_training_never_hears():
    found = wordings(["put the red cube on the white pad", "dance"])
    assert list(found) == ["put the red cube on the white pad"]
    assert found["put the red cube on the white pad"][0] == "set the red cube down on the white pad"


def test_all_sets_are_simulated_and_kept(tmp_path):
    said: list[str] = []
    critic = Oracle()
    critic.picture = (16, 16)
    data = simulate(critic, Wanted("arm_reach", 1, 1, 1, seed=3, every=8), 1, said.append)
    assert data.modes == ("stall", "hover", "random", "wrong_object") and set(data.shifts) == {"camera", "light"}
    assert sorted(data.test.modes) == sorted(["expert", *data.modes]) and data.test.rgb.shape[2:4] == (16, 16)
    assert data.same_colour is not None and set(data.same_colour.modes) == {"wrong_object_same_colour"}
    assert data.heldout is not None and data.heldout.instructions[0] not in data.test.instructions
    assert set(data.wordings) == set(data.test.instructions)
    save(data, tmp_path)
    again = load(tmp_path)
    assert again.test.rgb.equal(data.test.rgb) and set(again.shifts) == set(data.shifts)
    critic.picture = (16, 24)
    with pytest.raises(CriticError, match="simulated ones are square"):
        simulate(critic, Wanted("arm_reach", 1, 1, 1, seed=3), 1, said.append)
