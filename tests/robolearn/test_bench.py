"""Speed measurements: they run at a tiny size, give sane ratios, and refuse impossible sizes."""

from __future__ import annotations

import dataclasses
import json

import pytest

from robolearn import cli
from robolearn.bench import BENCHMARKS
from robolearn.bench_all import plan
from robolearn.bench_cameras import bench_cameras
from robolearn.bench_sim import BenchError, bench_sim
from robolearn.bench_start import bench_start
from robolearn.config import compose
from robolearn.errors import RobolearnError

TINY = {"num_envs": 8, "steps": 3, "repeats": 1, "workers": 1, "threads": 1}


def test_a_tiny_benchmark_from_the_command_line(capfd):
    words = [f"{name}={value}" for name, value in TINY.items()]
    assert cli.main(["bench", "sim", *words, "--json"]) == 0
    out, err = capfd.readouterr()
    result = json.loads(out.splitlines()[-1])
    assert result["num_envs"] == 8 and result["task"] == "dex_track" and result["async_workers"] == 1
    assert result["decimation"] == 2 and result["shards"] == 8 and "versions" in result
    for name in ("env_steps_per_s", "raw_steps_per_s", "async_steps_per_s"):
        assert 10 < result[name] < 1e7, name
    assert result["env/raw"] == pytest.approx(result["env_steps_per_s"] / result["raw_steps_per_s"])
    assert result["env/async"] == pytest.approx(result["env_steps_per_s"] / result["async_steps_per_s"])
    # an environment that skipped its physics, or stepped it twice, would stand out even on a busy machine
    assert 0.02 < result["env/raw"] < 20
    assert "measurement 1 of 1" in err and "measurement" not in out


CAMERAS = {"num_envs": 9, "height": 16, "width": 24, "seconds": 0.05, "repeats": 1, "threads": 1}


def test_a_tiny_camera_benchmark_from_the_command_line(capfd):
    words = [f"{name}={value}" for name, value in CAMERAS.items()]
    code = cli.main(["bench", "cameras", *words, "cameras=[front]", "depth=true", "--json"])
    out, err = capfd.readouterr()
    if code == 2 and "cannot render" in err:
        pytest.skip(f"this machine cannot render: {err}")
    assert code == 0
    result = json.loads(out.splitlines()[-1])
    assert result["benchmark"] == "cameras" and result["cameras"] == ["front"] and result["depth"] is True
    assert result["num_envs"] == 9 and (result["height"], result["width"]) == (16, 24) and "versions" in result
    for name in ("batch", "masked", "renderer"):
        assert 5 < result[f"{name}_pictures_per_s"] < 1e6, name
    assert result["batch/renderer"] == pytest.approx(result["batch_pictures_per_s"] / result["renderer_pictures_per_s"])
    assert "measurement 1 of 1" in err
    assert cli.main(["bench", "cameras", *words]) == 0
    out, _ = capfd.readouterr()
    assert "all worlds" in out and "mujoco.Renderer" in out and "front wrist" in out


@pytest.mark.parametrize("name, value", [("num_envs", 0), ("repeats", 0), ("seconds", 0), ("seconds", float("nan"))])
def test_impossible_camera_benchmarks(name, value):
    with pytest.raises(BenchError, match=f"{name} must be .*got {value}"):
        bench_cameras(**{**CAMERAS, name: value})


@pytest.mark.parametrize(
    "name, value", [*((name, 0) for name in ("num_envs", "steps", "repeats")), ("workers", -1), ("threads", -1)]
)
def test_impossible_sizes(name, value):
    with pytest.raises(RobolearnError, match=rf"{name}.*at least [01].*got {value}"):
        bench_sim(**{**TINY, name: value})


def test_unknown_names(capfd):
    with pytest.raises(RobolearnError, match="did you mean 'dex_track'"):
        bench_sim(**{**TINY, "task": "dex_trac"})
    assert cli.main(["bench", "simm"]) == 2
    assert cli.main(["bench", "sim", "num_env=3"]) == 2
    out, err = capfd.readouterr()
    assert "did you mean 'sim'" in err and "did you mean 'num_envs'" in err and out == ""
    assert issubclass(BenchError, RobolearnError)


def test_everything_at_a_tiny_size_one_line_each(tmp_path, capfd):
    out = tmp_path / "results.jsonl"
    assert cli.main(["bench", "all", "quick=true", "world=cpu", "--json", "--out", str(out)]) == 0
    printed, err = capfd.readouterr()
    results = [json.loads(line) for line in printed.splitlines()]
    assert [result["benchmark"] for result in results] == ["sim", "cameras", "learn"]
    assert [json.loads(line) for line in out.read_text().splitlines()] == results
    for result in results:
        assert result["command"].startswith(f"robolearn bench {result['benchmark']}") and result["command"] in err
        assert result["world"] == "cpu" and result["num_envs"] > 0 and result["versions"]["machine"]
    learn = results[2]
    assert learn["samples_per_iteration"] == 8 * 4 and learn["memory_mb"] > 0
    assert learn["samples_per_s"] < min(learn["collect_samples_per_s"], learn["learn_samples_per_s"])


def test_a_failing_benchmark_does_not_keep_the_others_back(monkeypatch, capfd):
    plan = [("sim", ["task=dex_trac"]), ("sim", ["num_envs=2", "steps=1", "repeats=1", "workers=0"])]
    monkeypatch.setattr("robolearn.bench_all.plan", lambda engine, quick: plan)
    assert cli.main(["bench", "all", "world=cpu", "--json"]) == 1
    out, err = capfd.readouterr()
    assert "did you mean 'dex_track'" in err and len(out.splitlines()) == 1


def test_plans_name_benchmarks_and_settings_that_exist():
    for engine in ("cpu", "gpu"):
        for quick in (False, True):
            for name, words in plan(engine, quick):
                options = BENCHMARKS[name][0]
                own = {item.name for item in dataclasses.fields(options)}
                given = {word.partition("=")[0].partition(".")[0] for word in words}
                if name in ("learn", "start"):
                    compose([word for word in words if word.partition("=")[0] not in own])
                else:
                    assert given <= own, (name, words)


def test_the_bare_gpu_engine_on_warps_cpu_device():
    pytest.importorskip("mujoco_warp", reason="the GPU engine needs the extra [gpu]")
    cube = {"motions": {"objects": ["cube"], "clips": 2}}
    result = bench_sim(**{**TINY, "workers": 0}, world="gpu", device="cpu", settings=cube)
    assert result["world"] == "gpu" and result["shards"] == 1
    assert 0.02 < result["env/raw"] < 20


def test_starting_is_timed_in_a_process_of_its_own():
    result = bench_start(["num_envs=2", "task.motions.clips=2", "algo.num_steps=4", "algo.minibatches=1"], repeats=1)
    assert 0.5 < result["warm_s"] < 120 and result["cold_s"] is None and result["memory_mb"] > 50
    with pytest.raises(BenchError, match="status 2: .*num_envs"):
        bench_start(["num_envs=0"], repeats=1)


def test_a_results_file_that_cannot_be_written(capfd):
    words = [f"{name}={value}" for name, value in TINY.items() if name != "workers"]
    assert cli.main(["bench", "sim", *words, "workers=0", "--out", "/no/such/folder/x.jsonl"]) == 2
    assert "cannot write /no/such/folder/x.jsonl" in capfd.readouterr().err
