"""Training on a tiny dex_track: one seed is one run, however it is interrupted; mistakes are one clear line."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robolearn import cli
from robolearn.config import ConfigError, compose, to_train_config
from robolearn.runs import Run, find_runs
from robolearn.settings import SettingError
from robolearn.train import make_environment, resume, train
from robolearn.trained import Trained
from sim.engines import Engine
from sim.tasks import make_env

TINY = [
    "num_envs=4",
    "task.motions.clips=2",
    "task.motions.objects=[cube]",
    "algo.num_steps=8",
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


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def config(*overrides: str):
    return to_train_config(compose([*TINY, *overrides]))


def learned(run: str | Path):
    """Last checkpoint without its clock, and the metrics without wall times."""
    opened = Run.open(run)
    state = opened.load().state
    del state["elapsed_s"]
    rows = [
        {name: value for name, value in row.items() if not name.startswith("time/") and name != "elapsed_s"}
        for row in opened.metrics()
    ]
    return state, rows


def assert_same(a, b, place=""):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b) or torch.allclose(a, b, rtol=0, atol=0, equal_nan=True), place
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in a:
            assert_same(a[key], b[key], f"{place}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), place
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{place}/{index}")
    else:
        assert a == b, place


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Five iterations, checkpointed at every second one."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    train(config(f"run_dir={path}", "seed=3", "budget.iterations=5", "checkpoint.every_iterations=2"))
    return path


def test_one_seed_is_one_run_whatever_the_checkpoints(uninterrupted):
    train(config("run_dir=again", "seed=3", "budget.iterations=5", "checkpoint.every_s=0.001", "checkpoint.keep=1"))
    assert_same(learned(uninterrupted), learned("again"))
    train(config("run_dir=other", "seed=4", "budget.iterations=5"))
    assert learned("other")[1] != learned("again")[1]


def test_a_continued_run_is_the_uninterrupted_one(uninterrupted):
    train(config("run_dir=parts", "seed=3", "budget.iterations=2"))
    resume("parts", ["budget.iterations=3"])
    result = resume("parts", ["budget.iterations=5"])
    assert result.outcome.iteration == 5 and result.outcome.env_steps == 5 * 4 * 8
    assert_same(learned(uninterrupted), learned("parts"))
    assert Run.open("parts").config["budget"]["iterations"] == 5


def test_a_damaged_last_checkpoint_costs_only_what_came_after_the_one_before(uninterrupted, capfd):
    train(config("run_dir=hurt", "seed=3", "budget.iterations=3", "checkpoint.every_iterations=2"))
    last = Run.open("hurt").checkpoint_paths()[-1]
    last.write_bytes(last.read_bytes()[:-100])
    resume("hurt", ["budget.iterations=5"])
    assert "passed over" in capfd.readouterr().err
    assert_same(learned(uninterrupted), learned("hurt"))


def test_ctrl_c_ends_the_iteration_writes_a_checkpoint_and_tells_how_to_go_on(uninterrupted, capfd):
    def interrupting(settings, seed):
        env = make_environment(settings, seed)
        step, count = env.step, iter(range(10_000))

        def stepping(action):
            if next(count) == 2 * 8 + 3:  # in the middle of the third iteration
                os.kill(os.getpid(), signal.SIGINT)
            return step(action)

        env.step = stepping
        return env

    result = train(config("run_dir=stopped", "seed=3", "budget.iterations=5"), make_env=interrupting)
    assert result.outcome.signal == signal.SIGINT and result.outcome.iteration == 3
    assert "robolearn train resume=stopped" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resume("stopped")
    assert_same(learned(uninterrupted), learned("stopped"))


def test_kill_9_leaves_a_run_that_goes_on(uninterrupted):
    command = [sys.executable, "-m", "robolearn", "train", *TINY, "seed=3", "run_dir=killed"]
    command += ["budget.iterations=100000", "checkpoint.every_iterations=1"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    assert child.stderr.readline().startswith("iteration 1 ")
    child.kill()
    child.communicate(timeout=60)
    last = Run.open("killed").load().iteration if Run.open("killed").checkpoint_paths() else 0
    resume("killed", [f"budget.iterations={max(last, 5)}"])
    rows = learned("killed")[1]
    assert [row["iteration"] for row in rows] == list(range(1, max(last, 5) + 1))
    assert_same(rows[:5], learned(uninterrupted)[1])


def test_the_command_line_trains_reports_and_sweeps(capsys):
    code = cli.main(["train", *TINY, "budget.iterations=1", "--json", "seed=1,2", "-m"])
    out, err = capsys.readouterr()
    assert code == 0, err
    jobs = json.loads(out.strip().splitlines()[-1])["jobs"]
    assert [(job["iteration"], Run.open(job["run"]).seed) for job in jobs] == [(1, 1), (1, 2)]
    assert all(Path(job["run"]).parent.parent.name == "multirun" for job in jobs)
    assert jobs[0]["startup_s"] > 0

    code = cli.main(["train", *TINY, "budget.steps=33", "--json", "curves=true"])
    out, err = capsys.readouterr()
    assert code == 0, err
    report = json.loads(out)
    assert report["iteration"] == 2 and report["env_steps"] == 64 and report["nonfinite"] == {}
    run = Path(report["run"])
    assert run.parent == Path("runs/dex_track") and run.name.endswith("-s0")
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert find_runs("runs") == [run]


def test_a_sweep_checks_every_job_before_the_first_starts():
    assert cli.main(["train", *TINY, "-m", "seed=1", "num_envs=4,0"]) == cli.USER_ERROR
    assert not Path("multirun").exists()


def test_the_time_budget_counts_training_over_continuations():
    first = train(config("run_dir=timed", "budget.minutes=0.001"))
    assert first.outcome.elapsed_s >= 0.06
    again = resume("timed", ["budget.minutes=0.001"])
    assert again.outcome.iteration == first.outcome.iteration  # it was spent
    more = resume("timed", [f"budget.minutes={(first.outcome.elapsed_s + 0.06) / 60}"])
    assert more.outcome.iteration > first.outcome.iteration


def test_metrics_that_are_not_finite_are_reported(capfd):
    def broken(settings, seed):
        env = make_environment(settings, seed)
        step = env.step

        def stepping(action):
            result = step(action)
            result.log["episode/odd"] = math.nan
            return result

        env.step = stepping
        return env

    result = train(config("run_dir=odd", "budget.iterations=2"), make_env=broken)
    assert result.outcome.nonfinite == {"episode/odd": 2}
    assert capfd.readouterr().err.count("episode/odd was nan in iteration 1") == 1
    assert Run.open("odd").metrics()[0]["episode/odd"] is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("num_envs=8", "cannot change 'num_envs'; it may change: budget.minutes"),
        ("algo.lr=1", "cannot change 'algo.lr'"),
        ("budget.minute=1", "unknown setting 'budget.minute'; did you mean 'budget.minutes'"),
        ("budget.minutes=long", "budget.minutes=long: .*could not be converted to Float"),
    ],
)
def test_a_continuation_refuses_what_would_change_the_training(uninterrupted, override, message):
    before = (uninterrupted / "config.yaml").read_bytes()
    with pytest.raises((ConfigError, SettingError), match=message):
        resume(uninterrupted, [override])
    assert (uninterrupted / "config.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["nun_envs=3"], "unknown setting 'nun_envs'; did you mean 'num_envs'? settings: "),
        (["minutes=3"], "unknown setting 'minutes'; did you mean 'budget.minutes'?"),
        (["task=dex_trak"], "unknown task 'dex_trak'; did you mean 'dex_track'? tasks: arm_pick_place, "),
        (["algo=pp"], "unknown algo 'pp'; did you mean 'ppo'? algos: ppo"),
        (["world=gpu2"], "unknown world 'gpu2'"),
        (["experiment=dex_rotat"], "unknown experiment 'dex_rotat'; did you mean 'dex_rotate'?"),
        (["task.motions.clip=3"], "unknown setting 'task.motions.clip'; did you mean 'task.motions.clips'?"),
        (["+task.motion=3"], "unknown setting 'task.motion'; did you mean 'task.motions'?"),
        (["seed=abc"], "seed=abc: Value 'abc' of type 'str' could not be converted to Integer"),
        (["seed"], "cannot read 'seed'; settings are written key=value"),
        (["seed=[1"], "cannot read 'seed=[1'"),
        (["seed=1,2"], "seed=1,2: several values make a sweep with -m"),
        (["num_envs=0"], "num_envs must be greater than 0, got 0"),
        (["budget.minutes=null"], "training would never end: set one of budget.minutes, "),
        (["budget.minutes=-1"], "budget.minutes must be greater than 0, got -1"),
        (["checkpoint.keep=0"], "checkpoint.keep must be greater than 0, got 0"),
        (["algo.lr=-1"], "ppo lr must be greater than 0; got -1"),
        (["device=cud"], "unknown device 'cud'; devices: auto, cpu, cuda, cuda:<number>"),
        (["task.randomize.gravty=[1,2]"], "unknown randomizer 'gravty'; did you mean 'gravity'"),
        (["resume=nowhere"], "nowhere does not exist; runs near it: none"),
    ],
)
def test_a_mistake_is_one_line_that_names_what_is_valid(overrides, message, capsys):
    assert cli.main(["train", *overrides]) == cli.USER_ERROR
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert message in err
    assert list(Path().iterdir()) == []  # no half-made run is left behind


@pytest.mark.parametrize("task", ["arm_reach", "arm_push"])
def test_an_experiment_trains_a_task_for_a_robot_with_the_task_s_own_learner(task):
    config = to_train_config(compose([f"experiment={task}_robot"]))
    assert config.task["name"] == task and config.num_envs == 64 and config.algo["gamma"] == 0.98
    assert config.task["command_parts"] == 10 and config.task["observe_target"]
    env = make_env(task, 2, engine=Engine(threads=1), **{k: v for k, v in config.task.items() if k != "name"})
    assert env.contract.delay_s == pytest.approx(0.04)
    assert ("tool_move" in env.contract.names("state")) == (task == "arm_push")


def test_presets_lists_and_new_entries_of_dictionaries():
    made = to_train_config(
        compose(["experiment=dex_rotate", "task.randomize.object_size=[0.9,1.1]", "algo.hidden=[8]"])
    )
    assert made.task["motions"]["kind"] == "rotate_in_hand"
    assert made.task["randomize"]["object_size"] == [0.9, 1.1] and "object_mass" in made.task["randomize"]
    assert made.algo["hidden"] == [8]


def test_two_processes_train_one_run():
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "robolearn", "train", *TINY, "--json"]
    done = subprocess.run(
        [*command, "run_dir=both", "budget.iterations=2"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.strip())  # one process speaks
    assert report["iteration"] == 2 and report["env_steps"] == 2 * 2 * 4 * 8
    ranks = Run.open("both").load().state["ranks"]
    assert len(ranks) == 2
    assert_same(ranks[0]["learner"]["network"], ranks[1]["learner"]["network"])
    with pytest.raises(AssertionError):
        assert_same(ranks[0]["env"], ranks[1]["env"])  # each has worlds of its own
    before = Path("both/config.yaml").read_bytes()
    assert cli.main(["train", "resume=both", "budget.iterations=3"]) == cli.USER_ERROR
    assert Path("both/config.yaml").read_bytes() == before


def test_a_full_gpu_is_one_line():
    def make_env(config, seed):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0 has ...")

    with pytest.raises(ConfigError, match="num_envs=4 is too much for the GPU: CUDA out of memory; lower num_envs"):
        train(config("run_dir=run", "budget.iterations=1"), make_env)
    assert not Path("run").exists()


@pytest.mark.parametrize("name, valid", [("world=gpux", "gpu"), ("world.name=gpux", "did you mean 'gpu'")])
def test_an_unknown_engine(name, valid, capsys):
    assert cli.main(["train", *TINY, "budget.iterations=1", name]) == 2
    assert valid in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_one_line(capsys):
    pytest.importorskip("mujoco_warp", reason="the GPU engine needs the extra [gpu]")
    assert cli.main(["train", *TINY, "budget.iterations=1", "world=gpu", "run_dir=run"]) == 2
    err = capsys.readouterr().err
    assert "no GPU" in err and "world=cpu" in err and "Traceback" not in err
    assert not Path("run").exists()


def test_training_on_the_gpu_engine(capsys):
    """On Warp's CPU device; the bundle and the evaluation come from it as from any run."""
    pytest.importorskip("mujoco_warp", reason="the GPU engine needs the extra [gpu]")
    words = ["world=gpu", "world.device=cpu", "budget.iterations=2", "run_dir=run"]
    assert cli.main(["train", *TINY, *words]) == 0
    rows = Run.open("run").metrics()
    assert len(rows) == 2 and all(math.isfinite(row["rollout/reward"]) for row in rows)
    assert cli.main(["train", "resume=run", "budget.iterations=3"]) == 0
    assert len(Run.open("run").metrics()) == 3
    assert cli.main(["export", "run=run"]) == 0 and Path("run/bundle").is_dir()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_run_of_a_gpu_is_used_where_there_is_none(caplog):
    train(config("run_dir=run", "budget.iterations=1"))
    file = Path("run/config.yaml")
    file.write_text(file.read_text().replace("name: auto", "name: gpu"))
    with caplog.at_level("INFO"):
        trained = Trained.load("run")
        env = trained.env("train", num_envs=1)
    assert trained.config.world.name == "gpu" and env.device.type == "cpu"
    assert "trained on a GPU" in caplog.text
