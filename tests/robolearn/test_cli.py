"""The command line as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field

import pytest

from robolearn import __version__, cli, settings
from robolearn.files import json_line
from robolearn.settings import MISSING, SettingError


def test_help_lists_every_verb_with_its_summary(capsys):
    for arguments in ([], ["--help"], ["help"]):
        assert cli.main(arguments) == 0
        out = capsys.readouterr().out
        for verb, module in cli.VERBS.items():
            assert f"  {verb}" in out and cli.summary(module) in out


def test_help_is_instant_because_nothing_heavy_is_imported():
    code = "import sys; from robolearn import cli; cli.main(['--help']); print(*sys.modules)"
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    took = time.monotonic() - started
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "mujoco", "numpy", "hydra", "omegaconf", "rich", "matplotlib"}
    assert took < 2.0  # 0.1 s on an idle machine


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"robolearn {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "unknown verb 'trian'; did you mean 'train'? verbs: "),
        (["train", "--fast"], "unrecognized arguments: --fast (see robolearn train --help)"),
        (["list", "task"], "unknown kind 'task'; did you mean 'tasks'? kinds: "),
        (["list", "tasks", "robots"], "unrecognized arguments: robots"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("robolearn: ") and err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize("verb", [verb for verb, module in cli.VERBS.items() if cli.summary(module)])
def test_every_verb_explains_itself(verb, capsys):
    assert cli.main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: robolearn {verb}")


def test_train_help_shows_settings_with_defaults(capsys):
    cli.main(["train", "--help"])
    out = capsys.readouterr().out
    assert "num_envs" in out and "[512]" in out and "budget.minutes" in out and "[6.0]" in out


def test_flags_may_stand_between_the_settings_of_a_sub_verb_too(capsys):
    assert cli.main(["critic", "card", "--json", "critic=nowhere", "task=arm_push"]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert cli.main(["critic", "card", "critic=nowhere", "--json", "tsk=arm_push"]) == 2
    assert "unknown setting 'tsk'; did you mean 'task'?" in capsys.readouterr().err
    assert cli.main(["critic", "crad"]) == 2
    assert "invalid choice: 'crad'" in capsys.readouterr().err


def test_a_task_comes_with_its_own_learner(capsys):
    assert cli.main(["train", "task=arm_push", "algo.lam=0.9", "--cfg"]) == 0
    out = capsys.readouterr().out
    assert "num_envs: 64\n" in out and "gamma: 0.98\n" in out and "lam: 0.9\n" in out


def test_cfg_prints_the_whole_configuration(capsys):
    assert cli.main(["train", "seed=5", "--cfg"]) == 0
    out = capsys.readouterr().out
    assert "seed: 5\n" in out and "gamma: 0.97" in out and "robot: allegro" in out


def test_list_names_what_settings_accept(capsys):
    assert cli.main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    names = {kind: [entry["name"] for entry in entries] for kind, entries in found.items()}
    assert "dex_track" in names["tasks"] and "ppo" in names["algos"] and "dex_rotate" in names["experiments"]
    assert "allegro" in names["robots"] and "object_mass" in names["randomizers"] and len(names["objects"]) >= 12
    assert cli.main(["list", "tasks"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("tasks\n") and "\n  dex_track " in shown


def test_ctrl_c_is_130(tmp_path, monkeypatch, capsys):
    code = "import os, signal\nSUMMARY = 'wait'\n\ndef add_arguments(parser):\n    pass\n\n"
    code += "def main(args):\n    os.kill(os.getpid(), signal.SIGINT)\n    return 0\n"
    (tmp_path / "waiting_verb.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(cli.VERBS, "wait", "waiting_verb")
    assert cli.main(["wait"]) == 130
    assert capsys.readouterr().err == "robolearn: interrupted\n"


def test_a_reader_that_leaves_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "robolearn", "--help"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_rendering_is_set_up_before_mujoco_is_imported():
    code = "import os, robolearn; print(os.environ.get('MUJOCO_GL'))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"MUJOCO_GL": "osmesa"}
    )
    assert done.stdout.strip() == "osmesa"  # the user's choice stands


@dataclass
class Inner:
    depth: int = 1
    """How deep."""


@dataclass
class Options:
    run: str = MISSING
    """Which run."""
    episodes: int = 100
    """How many."""
    rate: float | None = None
    quiet: bool = False
    names: list[str] = field(default_factory=list)
    inner: Inner = field(default_factory=Inner)
    task: dict[str, float] = field(default_factory=dict)


def test_settings_become_typed_values():
    given = ["run=a b", "episodes=7", "rate=2", "quiet=true", "names=[x,y]", "inner.depth=3", "task.new=0.5"]
    made = settings.parse(Options, given)
    assert made == Options("a b", 7, 2.0, True, ["x", "y"], Inner(3), {"new": 0.5})
    assert settings.parse(Options, ["run=x"]) == Options("x")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "run=... must be given"),
        (["run=x", "episode=3"], "unknown setting 'episode'; did you mean 'episodes'?"),
        (["run=x", "depth=3"], "unknown setting 'depth'; did you mean 'inner.depth'?"),
        (
            ["run=x", "inner.dept=3"],
            "unknown setting 'inner.dept'; did you mean 'inner.depth'? settings: inner.depth",
        ),
        (["run=x", "episodes=many"], "episodes=many: Value 'many' of type 'str' could not be converted to Integer"),
        (["run=x", "episodes=null"], "episodes=null: "),
        (["run=x", "episodes"], "cannot read 'episodes'"),
        (["run=x", "~rate"], "'~rate' is not a setting here; write key=value"),
        (["run=x", "episodes=1,2"], "'episodes=1,2' is not a setting here"),
    ],
)
def test_wrong_settings_are_explained(given, message):
    with pytest.raises(SettingError) as caught:
        settings.parse(Options, given)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_describe_shows_help_and_defaults():
    lines = settings.describe(Options).splitlines()
    assert any(line.split() == ["run", "Which", "run.", "[required]"] for line in lines)
    assert any("inner.depth" in line and "How deep.  [1]" in line for line in lines)


def test_json_is_strict_and_one_line():
    line = json_line({"a": float("nan"), "b": [1, float("inf")], "c": (True, None), "d": {1: "x\ny"}})
    assert "\n" not in line
    assert json.loads(line) == {"a": None, "b": [1, None], "c": [True, None], "d": {"1": "x\ny"}}
