"""What stands between a user and a GPU: devices, drivers, models, names, buffers and memory, each one clear line."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from sim.gpu_capacity import NCONMAX, NJMAX, Capacity, bytes_per_world, memory_text, overflow_text, probe
from sim.gpu_device import GpuNotAvailable, check_warp, explain_no_cuda, is_out_of_memory, open_device
from sim.mujoco_gpu import MujocoGpu
from sim.physics import PhysicsError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mujoco_warp") is None, reason="MuJoCo Warp is optional: pip install 'robolearn[gpu]'"
)

PILE = """
<mujoco>
  <option timestep="0.004"/>
  <worldbody>
    <geom type="plane" size="2 2 .1"/>
    <replicate count="{count}" offset="0 0 .0998">
      <body pos="0 0 .0499"><joint type="slide" axis="0 0 1"/><geom type="box" size=".05 .05 .05"/></body>
    </replicate>
  </worldbody>
  <keyframe><key name="start"/></keyframe>
</mujoco>
"""
JOINT = """
<mujoco>
  <option>{option}</option>
  <worldbody><body><joint name="j" axis="0 1 0"/><geom size=".1"/></body></worldbody>
  <actuator><motor joint="j" {actuator}/></actuator>
</mujoco>
"""


def compiled(text: str, **parts: Any) -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(text.format(**parts))


def all_pairs(model: mujoco.MjModel) -> np.ndarray:
    return np.stack(np.triu_indices(model.ngeom, k=1), axis=1)


def test_a_probe_finds_room_for_what_the_model_does() -> None:
    small, tall = compiled(PILE, count=1), compiled(PILE, count=12)
    assert probe(small, all_pairs(small)) == Capacity(NCONMAX, NJMAX)
    found = probe(tall, all_pairs(tall))
    data = mujoco.MjData(tall)
    mujoco.mj_forward(tall, data)
    assert data.ncon == 48 and found.nconmax >= 1.5 * data.ncon and found.njmax >= 1.5 * data.nefc
    assert found == probe(tall, all_pairs(tall)), "the same every time"
    physics = MujocoGpu(tall, 2, device="cpu")
    physics.step(3)
    physics.check()
    assert physics.capacity == found


def test_overflow_says_what_where_and_which_setting() -> None:
    kinds = importlib.import_module("mujoco_warp").OverflowType
    sizes = Capacity(nconmax=48, njmax=64)
    assert overflow_text(np.zeros(8, np.int32), sizes, kinds) == ""
    harmless = np.full(8, int(kinds.ITERATIONS | kinds.LS_ITERATIONS), np.int32)
    assert overflow_text(harmless, sizes, kinds) == ""
    flags = np.array([0, kinds.NEFC, 0, kinds.NEFC | kinds.ITERATIONS], np.int32)
    assert "2 of 4 worlds needed more than njmax=64" in overflow_text(flags, sizes, kinds)
    flags[:] = int(kinds.BROADPHASE | kinds.NARROWPHASE)
    text = overflow_text(flags, sizes, kinds)
    assert "4 worlds had more than 192 contacts" in text and "world.nconmax=96" in text and "njmax" not in text
    assert "contact_sensor_maxmatch" in overflow_text(np.array([int(kinds.CONTACT_MATCH)]), sizes, kinds)


def test_memory_that_ran_out_says_how_many_worlds_fit() -> None:
    text = memory_text(worlds=100_000, per_world=400e3, free=24e9, device_name="GPU X")
    assert text == (
        "100000 worlds do not fit in the memory of GPU X: they take about 37.3 GiB, 22.4 GiB are free; "
        "about 54000 fit: lower num_envs"
    )
    assert is_out_of_memory(RuntimeError("Failed to allocate 123 bytes on device 'cuda:0'"))
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("Kernel not found"))


def test_a_world_takes_what_its_arrays_take() -> None:
    device, model = open_device("cpu"), compiled(PILE, count=4)
    sizes = [bytes_per_world(device, model, Capacity(48, rows)) for rows in (64, 128)]
    assert 1e4 < sizes[0] < 1e6
    assert sizes[1] - sizes[0] > 64 * 4 * model.nv, "a row of the Jacobian for each constraint"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_one_line() -> None:
    with pytest.raises(GpuNotAvailable, match=r"no GPU: .*world=cpu"):
        MujocoGpu(compiled(PILE, count=1), 1, device="cuda:0")


def test_what_keeps_torch_from_a_gpu() -> None:
    assert "built without CUDA; install a CUDA build" in explain_no_cuda("2.13.0+cpu", None, None)
    assert "no NVIDIA driver" in explain_no_cuda("2.13.0", "12.8", None)
    assert "the driver offers CUDA 12.2; see nvidia-smi" in explain_no_cuda("2.13.0", "12.8", (12, 2))


@pytest.mark.parametrize(
    "driver, devices, message",
    [
        ((11, 8), 0, "cannot use cuda:0: its toolkit is CUDA 12.9, the driver offers CUDA 11.8"),
        ((12, 2), 1, "needs a driver for CUDA 12.4 or newer, this one offers 12.2"),
    ],
)
def test_a_driver_that_is_too_old(driver: tuple[int, int], devices: int, message: str) -> None:
    versions = SimpleNamespace(
        config=SimpleNamespace(version="1.19.0"),
        get_cuda_driver_version=lambda: driver,
        get_cuda_toolkit_version=lambda: (12, 9),
        get_cuda_device_count=lambda: devices,
        is_conditional_graph_supported=lambda: driver >= (12, 4),
    )
    with pytest.raises(GpuNotAvailable, match=message):
        check_warp(versions, 0)


@pytest.mark.parametrize(
    "parts, message",
    [
        ({"actuator": 'armature=".1"'}, "leaves out the actuators' armature.*world=cpu"),
        ({"option": '<flag sleep="enable"/>'}, "cannot sleep"),
    ],
)
def test_what_warp_lacks_is_named(parts: dict[str, str], message: str) -> None:
    with pytest.raises(PhysicsError, match=message):
        MujocoGpu(compiled(JOINT, **{"actuator": "", "option": "", **parts}), 1, device="cpu")


def test_what_warp_refuses_or_ignores_is_named() -> None:
    model = compiled(JOINT, actuator="", option="")
    model.opt.disableactuator = 1
    with pytest.raises(PhysicsError, match="disabled actuator groups"):
        MujocoGpu(model, 1, device="cpu")
    model.opt.disableactuator = 0
    model.opt.solver = mujoco.mjtSolver.mjSOL_PGS
    with pytest.raises(PhysicsError, match="cannot simulate this model: .*PGS.*world=cpu"):
        MujocoGpu(model, 1, device="cpu")


def test_mistakes_are_one_clear_line() -> None:
    model = compiled(JOINT, actuator='damping=".1"', option="")
    for settings, message in (
        ({"nworld": 0}, "worlds must be at least 1"),
        ({"nworld": 1, "nconmax": 0}, "nconmax must be at least 1"),
        ({"nworld": 1, "device": "gpu"}, "unknown device 'gpu'; devices: cuda:0"),
        ({"nworld": 1, "device": "meta"}, "'meta' is not one"),
    ):
        with pytest.raises(PhysicsError, match=message):
            MujocoGpu(model, **{"device": "cpu", **settings})
    physics = MujocoGpu(model, 2, device="cpu")
    for name, message in (
        ("qposs", "did you mean 'qpos'"),
        ("body_mass", r"use expand\('body_mass'\)"),
        ("ncon", "world=cpu has it"),
        ("contact", "world=cpu has it"),
        ("qLD", "world=cpu has it"),
    ):
        with pytest.raises(PhysicsError, match=message):
            physics.bind(name)
    for name, message in (
        ("body_maas", "did you mean 'body_mass'"),
        ("qpos", r"use bind\('qpos'\)"),
        ("opt.gravty", "did you mean 'opt.gravity'"),
        ("opt.impratio", "inverse square root"),
        ("geom_priority", "shares it between worlds"),
        ("dof_damping", "added the actuators' damping"),
    ):
        with pytest.raises(PhysicsError, match=message):
            physics.expand(name)
    with pytest.raises(PhysicsError, match=r"time of shape \(3,\).*need \(2,\)"):
        physics.load_state_dict(MujocoGpu(model, 3, device="cpu").state_dict())
    with pytest.raises(PhysicsError, match="not of the GPU engine"):
        physics.load_state_dict({"state": torch.zeros(2, 3)})


QUIET = """
import mujoco
from sim.mujoco_gpu import MujocoGpu
physics = MujocoGpu(mujoco.MjModel.from_xml_string(open("model.xml").read()), 2, device="cpu")
physics.step(1)
"""


def test_nothing_is_printed(tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text(JOINT.format(actuator="", option=""))
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", QUIET],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""
