"""The CPU engine: the same numbers as plain MuJoCo, per-world fields, faults that are seen and stay in their world."""

from __future__ import annotations

import copy
import logging
import subprocess
import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from sim.mujoco_cpu import MujocoCpu
from sim.physics import PhysicsError
from sim.selection import Selection

XML = """
<mujoco>
  <option timestep="0.005"/>
  <worldbody>
    <geom name="floor" type="plane" size="2 2 .1"/>
    <body name="slider" pos="0 0 .5">
      <joint name="x" type="slide" axis="1 0 0" damping="1"/>
      <geom type="box" size=".05 .05 .05"/>
      <body name="arm" pos=".1 0 0">
        <joint name="swing" axis="0 1 0" damping=".01"/>
        <geom type="capsule" fromto="0 0 0 .2 0 0" size=".02"/>
        <site name="tip" pos=".2 0 0"/>
      </body>
    </body>
    <body name="ball" pos=".3 .3 .2">
      <freejoint name="ball"/>
      <geom name="ball" type="sphere" size=".05" condim="6"/>
    </body>
  </worldbody>
  <actuator>
    <position name="x" joint="x" kp="50" kv="5"/>
    <motor name="swing" joint="swing" gear="1"/>
  </actuator>
  <sensor><framepos name="tip" objtype="site" objname="tip"/></sensor>
</mujoco>
"""
MODEL = mujoco.MjModel.from_xml_string(XML)
N = 5


def controls(steps: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (steps, N, MODEL.nu))


def sick(physics: MujocoCpu) -> list[int]:
    return torch.nonzero(physics.unusable()).flatten().tolist()


def rollout(physics: MujocoCpu, ctrl: np.ndarray) -> np.ndarray:
    """States (T, N, nq + nv) under controls (T, N, nu), two physics steps each."""
    out = []
    for row in ctrl:
        physics.bind("ctrl").copy_(torch.from_numpy(row))
        physics.step(2)
        out.append(torch.cat([physics.bind("qpos"), physics.bind("qvel")], 1).numpy().copy())
    return np.stack(out)


@pytest.mark.parametrize("threads", [1, 2])
def test_bit_identical_to_a_loop_over_one_mjdata(threads):
    physics = MujocoCpu(MODEL, N, threads)
    tip, position = physics.bind("sensordata"), physics.bind("site_xpos")
    ctrl = controls(40)
    states = rollout(physics, ctrl)
    model = copy.copy(MODEL)
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    for i in range(N):
        data = mujoco.MjData(model)
        for t in range(len(ctrl)):
            data.ctrl[:] = ctrl[t, i]
            mujoco.mj_step(model, data, 2)
            np.testing.assert_array_equal(states[t, i], np.concatenate([data.qpos, data.qvel]))
        mujoco.mj_fwdPosition(model, data)
        mujoco.mj_sensorPos(model, data)
        # up to date with the state, not one step behind as mj_step leaves them
        np.testing.assert_array_equal(tip[i].numpy(), data.sensordata)
        np.testing.assert_array_equal(position[i].numpy(), data.site_xpos)


def test_the_callers_model_is_left_alone():
    flags = MODEL.opt.disableflags
    physics = MujocoCpu(MODEL, 1, 1)
    physics.model.opt.timestep = 1.0
    assert MODEL.opt.disableflags == flags and MODEL.opt.timestep == 0.005


BALL_FIELDS = [("body_mass", MODEL.body("ball").id), ("geom_friction", MODEL.geom("ball").id)]


@pytest.mark.parametrize("field, element", BALL_FIELDS)
def test_an_expanded_field_changes_only_its_world(field, element):
    plain, changed = MujocoCpu(MODEL, N, 1), MujocoCpu(MODEL, N, 1)
    for physics in (plain, changed):
        physics.bind("qvel")[:, MODEL.joint("ball").dofadr[0]] = 2.0  # rolls and slides along the floor
    changed.expand(field)[3, element] *= 3.0
    changed.set_const(Selection(torch.tensor([3])))
    for physics in (plain, changed):
        physics.bind("xfrc_applied")[:, MODEL.body("ball").id, 0] = 0.3
    a, b = rollout(plain, controls(60)), rollout(changed, controls(60))
    others = [0, 1, 2, 4]
    np.testing.assert_array_equal(a[:, others], b[:, others])
    assert np.abs(a[-1, 3] - b[-1, 3]).max() > 1e-3
    assert MODEL.body_mass[MODEL.body("ball").id] == changed.model.body_mass[MODEL.body("ball").id]


@pytest.mark.parametrize(
    "field, value, reason",
    [
        ("qpos", np.nan, "non-finite or huge position"),
        ("qvel", np.inf, "non-finite or huge"),
        ("ctrl", np.nan, "non-finite or huge control"),
        ("xfrc_applied", 1e12, "huge"),
    ],
)
def test_a_fault_is_reported_with_its_world_and_stays_there(field, value, reason):
    clean, faulty = MujocoCpu(MODEL, N, 2), MujocoCpu(MODEL, N, 2)
    ctrl = controls(10)
    rollout(clean, ctrl[:5]), rollout(faulty, ctrl[:5])
    assert not sick(faulty)
    faulty.bind(field)[2].reshape(-1)[-1] = value
    if field == "ctrl":  # rollout() writes the controls
        faulty.step(2)
        clean.step(2)
    found = sick(faulty) if field == "ctrl" else []
    a, b = rollout(clean, ctrl[5:]), rollout(faulty, ctrl[5:])
    assert (found or sick(faulty)) == [2] and reason in faulty.reasons(np.array([2]))[0]
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(a[:, others], b[:, others])
    assert not sick(clean)


def test_every_sick_world_is_named():
    physics = MujocoCpu(MODEL, N, 2)
    physics.bind("qpos")[[0, 4], 0] = torch.nan
    physics.bind("qvel")[2, 1] = 1e4
    physics.step(1)
    assert sick(physics) == [0, 2, 4]
    reasons = physics.reasons(np.array([0, 2, 4]))
    assert len(reasons) == 3 and "speed" in reasons[1] and "above 500" in reasons[1]


def test_the_speed_limit_is_the_callers():
    physics = MujocoCpu(MODEL, 2, 1, max_speed=3.0)
    physics.bind("qvel")[1, 1] = 3.5
    physics.step(1)
    assert sick(physics) == [1]


def test_reset_restores_the_default_state_and_clears_health():
    physics = MujocoCpu(MODEL, N, 1)
    first = rollout(physics, controls(8))
    physics.bind("qpos")[1] = torch.nan
    physics.bind("xfrc_applied")[3] = 5.0
    physics.step(1)
    assert sick(physics) == [1]
    before = physics.bind("qpos").clone()
    physics.reset(Selection(torch.tensor([1, 3])))
    assert not sick(physics)
    qpos = physics.bind("qpos")
    assert torch.equal(qpos[[0, 2, 4]], before[[0, 2, 4]])
    np.testing.assert_array_equal(qpos[1].numpy(), MODEL.qpos0)
    assert not physics.bind("xfrc_applied")[3].any() and not physics.bind("ctrl")[1].any()
    assert not physics.bind("qacc_warmstart")[1].any()
    physics.reset()
    np.testing.assert_array_equal(rollout(physics, controls(8)), first)


def test_forward_brings_positions_up_to_date():
    physics = MujocoCpu(MODEL, 3, 1)
    physics.forward()
    tip = physics.bind("sensordata")
    physics.forward()
    before = tip.clone()
    physics.bind("qpos")[1, 0] += 0.25
    physics.bind("qpos")[2, 0] += 0.5
    physics.forward(Selection(torch.tensor([1])))
    assert tip[1, 0] - before[1, 0] == pytest.approx(0.25)
    assert torch.equal(tip[[0, 2]], before[[0, 2]])


def test_state_continues_bit_for_bit_with_expanded_fields():
    ctrl = controls(40)
    a = MujocoCpu(MODEL, N, 1)
    a.expand("body_mass")[:, 3] *= torch.linspace(0.5, 2, N, dtype=torch.float64)
    a.expand("geom_friction")[:, 3, 0] *= torch.linspace(0.1, 1, N, dtype=torch.float64)
    a.set_const()
    rollout(a, ctrl[:20])
    state = {k: copy.deepcopy(v) for k, v in a.state_dict().items()}
    rest = rollout(a, ctrl[20:])
    b = MujocoCpu(MODEL, N, 2)
    rollout(b, ctrl[:3])  # a past of its own
    b.load_state_dict(state)
    np.testing.assert_array_equal(rollout(b, ctrl[20:]), rest)
    assert torch.equal(b.expand("body_mass"), a.expand("body_mass"))
    again = a.state_dict()
    a.load_state_dict(state)
    assert not torch.equal(again["state"], a.state_dict()["state"])
    np.testing.assert_array_equal(rollout(a, ctrl[20:]), rest)


def test_a_state_without_expanded_fields_undoes_those_of_the_engine():
    ctrl = controls(20)
    plain, changed = MujocoCpu(MODEL, N, 1), MujocoCpu(MODEL, N, 1)
    changed.expand("geom_friction")[:, :, 0] *= 3.0
    changed.expand("opt.gravity")[:] = 0.0
    changed.set_const()
    changed.load_state_dict(plain.state_dict())
    np.testing.assert_array_equal(rollout(changed, ctrl), rollout(plain, ctrl))


def test_a_sick_world_is_still_sick_after_loading():
    a, b = MujocoCpu(MODEL, N, 1), MujocoCpu(MODEL, N, 1)
    a.bind("qpos")[2, 0] = torch.nan
    a.step(1)
    b.load_state_dict(a.state_dict())
    assert sick(b) == [2]
    b.load_state_dict(MujocoCpu(MODEL, N, 1).state_dict())
    assert not sick(b)


def test_mistakes_are_one_clear_line():
    with pytest.raises(PhysicsError, match="at least 1, got 0"):
        MujocoCpu(MODEL, 0)
    with pytest.raises(PhysicsError, match="threads must be at least 0"):
        MujocoCpu(MODEL, 1, -1)
    physics = MujocoCpu(MODEL, 2, 1)
    with pytest.raises(PhysicsError, match="qposs"):
        physics.bind("qposs")
    with pytest.raises(PhysicsError, match="body_maas"):
        physics.expand("body_maas")
    with pytest.raises(PhysicsError, match="shape"):
        physics.load_state_dict(MujocoCpu(MODEL, 3, 1).state_dict())


DIVERGE = """
import mujoco, torch
from sim.mujoco_cpu import MujocoCpu
from tests_xml import XML
physics = MujocoCpu(mujoco.MjModel.from_xml_string(XML), 4, 2)
physics.bind("qpos")[1, 0] = torch.nan
physics.step(3)
assert physics.unusable().tolist() == [False, True, False, False]
"""


def test_a_divergence_leaves_no_file_and_prints_nothing(tmp_path):
    (tmp_path / "tests_xml.py").write_text(f"XML = '''{XML}'''")
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", DIVERGE],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{root}:{tmp_path}", "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""
    assert [file.name for file in tmp_path.iterdir()] == ["tests_xml.py"]


def test_the_environment_says_which_world_diverged(small, caplog):
    env = small(4)
    env.world.shards[0].physics.bind("qpos")[1, 3] = torch.nan
    with caplog.at_level(logging.WARNING):
        env.step(torch.zeros(4, env.num_actions))
    assert "world 1 diverged" in caplog.text and "position" in caplog.text
