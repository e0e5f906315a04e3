"""The demonstration and the evaluation table, end to end on a small task."""

from __future__ import annotations

import io
import json

import pytest

from robolearn.bundle import Bundle
from robolearn.demo import Options, demo
from robolearn.evaluate import print_table
from robolearn.files import to_json

SMALL = [
    "num_envs=4",
    "budget.iterations=2",
    "budget.minutes=null",
    "task.motions.clips=2",
    "task.motions.heldout_clips=2",
    "task.motions.objects=[cube]",
    "algo.num_steps=4",
    "algo.minibatches=1",
    "video=false",
]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "run"
    return demo(Options(seed=3, out=str(folder), settings=SMALL))


def test_it_leaves_what_it_names(result):
    bundle = Bundle.load(result["bundle"], robot="allegro_right")
    assert bundle.contract.task == "dex_track" and bundle.provenance["seed"] == 3
    assert result["curves"].endswith("curves.png") and result["video"] is None
    assert result["env_steps"] == 2 * 4 * 4 and result["peak_memory_gb"] > 0


def test_every_baseline_stands_beside_the_policy(result):
    rows = set(result["rows"])
    assert {"policy", "policy, sensor noise", "policy, held-out objects", "kinematic replay"} <= rows
    assert "untrained policy" in rows and any(name.startswith("constant flexion") for name in rows)
    best = max(row["tight"]["mean"] for name, row in result["rows"].items() if not name.startswith("policy"))
    assert result["margin"] == pytest.approx(100 * (result["headline"] - best))


def test_the_result_is_plain_json_and_prints(result):
    assert json.loads(json.dumps(to_json(result)))["success"] == "tight"
    out = io.StringIO()
    print_table(result, out)
    assert "kinematic replay" in out.getvalue() and "tight %" in out.getvalue()
