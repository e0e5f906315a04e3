"""Speed measurements: they run at a tiny size, give sane ratios, and refuse impossible sizes."""

from __future__ import annotations

import json

import pytest

from robolearn import cli
from robolearn.bench_cameras import bench_cameras
from robolearn.bench_sim import BenchError, bench_sim
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
