"""Randomisation as a user meets it: the list, the page about it, the settings of a run, a film under it, its plot."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from robolearn import cli
from robolearn.config import compose, resumed, to_plain, to_train_config
from robolearn.draws import plot_draws
from robolearn.train import train
from robolearn.trained import Trained
from sim.opengl import RenderError
from sim.randomizers.catalog import KINDS
from sim.randomizers.kind import Kind
from sim.video import SceneRenderer

PAGE = Path(__file__).parents[2] / "docs" / "randomization.md"
SMALL = [
    *("num_envs=8", "budget.iterations=1", "budget.minutes=null", "algo.num_steps=4", "algo.minibatches=1"),
    *("task.motions.clips=2", "task.motions.heldout_clips=3", "task.motions.objects=[cube]"),
    *("evaluate=false", "video=false"),
]


def row(kind: Kind) -> str:
    """A randomiser's line in the page."""
    low, high = kind.range
    cells = [
        f"`<{kind.needs}>_{kind.name}`" if kind.needs else f"`{kind.name}`",
        kind.varies,
        kind.unit_of(kind.operations[0] if kind.operations else ""),
        f"{low:g} to {high:g}",
        ", ".join(kind.times),
        ", ".join(kind.operations) or "-",
        ", ".join(f"`{name}`" for name in (*kind.fields, *kind.data)) or "-",
        ("yes" if kind.privileged else "no") + (", derives" if kind.derive else ""),
    ]
    return f"| {' | '.join(cells)} |"


def test_the_page_says_what_the_randomisers_do():
    section = PAGE.read_text().partition("## What can be randomised")[2]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == [row(kind) for kind in KINDS], "\n".join(row(kind) for kind in KINDS)


def test_the_list_has_names_units_ranges_and_times(capsys):
    assert cli.main(["list", "randomizers", "--json"]) == 0
    found = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["randomizers"]}
    mass = found["object_mass"]
    assert mass["fields"] == ["body_mass", "body_inertia"] and mass["unit"] == "×" and mass["range"] == [0.7, 1.3]
    assert mass["at"] == ["start", "reset", "interval"] and "dex_track" in mass["tasks"] and mass["summary"]
    assert found["object_push"]["data"] == ["xfrc_applied"] and found["hand_damping"]["operations"][0] == "scale"
    assert cli.main(["list", "randomizers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in found:
        assert sum(line.split()[:1] == [name] for line in lines) == 1
    line = next(line for line in lines if line.split()[:1] == ["latency"])
    assert "0 to 2" in line and "control steps" in line and "reset" in line


def test_a_run_keeps_the_randomisers_it_was_made_with():
    """Neither does a default come back that was switched off, nor does one get lost that is no default."""
    for changes, wanted in (
        (["~task.randomize.object_friction"], {"object_mass": [0.7, 1.3]}),
        (["task.randomize.gravity=[1,2]"], {"gravity": [1, 2]}),
        (["task.randomize.object_mass={range: [1, 2], at: reset}"], {"object_mass": {"range": [1, 2], "at": "reset"}}),
        (["task.randomize.object_mass=null"], {"object_mass": None}),
    ):
        config = to_train_config(compose(changes))
        again = to_train_config(resumed(to_plain(config), ()))
        assert again.task["randomize"] == config.task["randomize"]
        assert config.task["randomize"].items() >= wanted.items()
    assert "object_friction" not in to_train_config(compose(["~task.randomize.object_friction"])).task["randomize"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("randomized") / "run"
    settings = ["task.randomize.object_size=[0.9,1.1]", "task.randomize.object_push={}", "task.randomize.latency=[0,2]"]
    return train(to_train_config(compose([*SMALL, *settings, f"run_dir={folder}"]))).run


def test_training_leaves_a_picture_of_what_was_drawn(run):
    picture = matplotlib.image.imread(run / "randomization.png")
    assert picture.shape[0] > 100 and picture.shape[1] > 300 and np.ptp(picture) > 0.9


def test_a_trained_policy_plays_under_other_randomisation(run, capsys):
    renders(run)
    given = ["randomize.object_size=[0.5,0.5]", "randomize.object_push=null", "randomize.gravity_tilt=[0,0.2]"]
    assert cli.main(["play", f"run={run}", "worlds=1", f"out={run}/tilted.mp4", *given, "--json"]) == 0
    paths = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert Path(paths["video"]) == run / "tilted.mp4" and Path(paths["video"]).stat().st_size > 1000
    assert Path(paths["randomization"]) == run / "tilted.randomization.png" and Path(paths["randomization"]).exists()
    assert cli.main(["play", f"run={run}", "randomize.object_sise=[0.5,0.5]"]) == 2
    assert "unknown randomizer 'object_sise'; did you mean 'object_size'" in capsys.readouterr().err


def test_settings_of_play_replace_the_runs_own_alone(run):
    trained = Trained.load(run)
    own = trained.config.task["randomize"]
    env = trained.env(randomize={**own, "object_size": [0.5, 0.5], "object_push": None})
    assert list(env.task.randomizers) == ["object_mass", "object_friction", "object_size", "latency"]
    assert (env.task.randomizers["object_size"].factor == 0.5).all()


def renders(run: Path) -> None:
    env = Trained.load(run).env(num_envs=1)
    try:
        SceneRenderer(env.world.shards[0].physics.model, 16, 16).close()
    except RenderError as error:
        pytest.skip(f"this machine cannot render: {error}")


def test_a_film_shows_each_world_as_it_is(small):
    env = small(0, evaluation=True, randomize={"object_size": [2.0, 2.0], "object_color": [0.0, 0.0]})
    model = env.world.shards[0].physics.model
    size = model.geom_size[-1].copy()
    own = copy.copy(model)
    env.world.write_model(0, own)
    np.testing.assert_allclose(own.geom_size[-1], 2 * size)
    np.testing.assert_allclose(model.geom_size[-1], size)
    assert not own.geom_rgba[-1, :3].any() and model.geom_rgba[-1, :3].any()


@pytest.mark.parametrize("num_envs", [3, 200])
def test_every_panel_shows_its_draws(small, tmp_path, num_envs):
    randomize = {
        "object_mass": [0.5, 2],
        "object_friction": [0.3, 0.3],
        "object_com": {"distribution": "gaussian"},
        "object_push": {},
        "hand_damping": {"each": True, "distribution": "log_uniform"},
        "latency": [0, 3],
    }
    env = small(num_envs, randomize=randomize)
    path = plot_draws(env.task.randomizers.values(), tmp_path / "draws.png", title="all")
    picture = matplotlib.image.imread(path)
    assert picture.shape[:2] == (550, 1520)
    panels = [picture[h : h + 230, w : w + 370, :3] for h in (60, 310) for w in (10, 385, 760, 1135)]
    drawn = [bool((np.ptp(panel, axis=2) < 0.05).all()) for panel in panels]  # gray alone
    assert drawn[2] is False and drawn[0] is True
    darkness = [(panel.mean(axis=2) < 0.7).mean() for panel in panels]
    assert min(darkness[:6]) > 0.005 and max(darkness[6:]) == 0
    assert darkness[0] > 1.3 * darkness[3]  # nothing was pushed yet


def test_nothing_randomised_is_no_picture(tmp_path):
    assert plot_draws([], tmp_path / "draws.png") is None and not list(tmp_path.iterdir())
    assert torch.get_num_threads() == 1
