"""The doctor tells what is there, what is not, and never fails."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from robolearn import cli, doctor


@pytest.fixture(scope="module")
def findings():
    return {finding.name: finding for finding in doctor.examine()}


def test_it_looks_at_everything(findings):
    extras = {f"extra [{name}]" for name in ("gpu", "vlm", "real", "view", "assets", "ray", "dev")}
    assert {
        "python",
        "processor",
        "memory",
        "gpu",
        "rendering",
        "ffmpeg",
        "ros 2",
        "pinned versions",
    } <= findings.keys()
    assert extras <= findings.keys()
    assert findings["python"].ok and findings["processor"].ok and findings["ffmpeg"].ok


def test_a_missing_extra_comes_with_the_command_that_installs_it(findings):
    for name, finding in findings.items():
        if name.startswith("extra") and not finding.ok:
            extra = name.removeprefix("extra ")
            assert finding.advice == f"pip install -c constraints.txt -e '.{extra}'"
            assert finding.detail.startswith("missing: ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_the_engine_cannot_use_is_not_called_usable(findings, monkeypatch):
    assert not findings["gpu"].ok
    for name, value in (("is_available", True), ("device_count", 1), ("get_device_name", "GPU X")):
        monkeypatch.setattr(torch.cuda, name, lambda *args, value=value: value)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=24 * 2**30))
    found = doctor._gpu()  # torch says yes, Warp finds no driver or is not installed
    assert not found.ok and "GPU X, 24 GiB" in found.detail and "Warp" in found.advice


def test_rendering_is_really_tried(findings, monkeypatch):
    if findings["rendering"].ok:
        assert "16x16" in findings["rendering"].detail
    monkeypatch.setenv("MUJOCO_GL", "disable")
    broken = doctor._rendering()
    assert not broken.ok and "MUJOCO_GL=disable" in broken.detail and broken.advice


def test_the_report_is_a_table(findings, capsys):
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for name in findings:
        assert name in out  # brackets of the extras too


def test_pins_hold_for_this_python():
    text = """# comment
a==1.2.3
b.c==1.0; python_version < "3.9"
b.c==2.0; python_version >= "3.9"
d==4; python_version >= "3.99"
"""
    assert doctor.pins(text) == {"a": "1.2.3", "b.c": "2.0"}


def test_the_doctor_needs_no_display():
    done = subprocess.run(
        [sys.executable, "-m", "robolearn", "doctor", "--json"],
        capture_output=True,
        text=True,
        env={"PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["findings"]
