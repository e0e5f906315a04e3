"""The GPU engine on Warp's CPU device: resets, faults, overflows, continuation, and what is captured when."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from sim.gpu_capacity import CapacityError
from sim.mujoco_gpu import MujocoGpu
from sim.selection import Selection
from tests.sim.gpu_scenes import N, model_of, prepared, rollout

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mujoco_warp") is None, reason="MuJoCo Warp is optional: pip install 'robolearn[gpu]'"
)


@pytest.mark.parametrize("dense", [False, True])
def test_reset_leaves_other_worlds_alone_and_no_trace_in_its_own(dense: bool) -> None:
    physics, fresh = prepared("arm"), MujocoGpu(model_of("arm"), N, device="cpu")
    for engine in (physics, fresh):
        engine.bind("sensordata")
        engine.bind("qfrc_actuator")
    rollout(physics, 5)
    physics.bind("qvel")[1] = torch.nan
    physics.bind("xfrc_applied")[2] = 0.1
    physics.step(2)
    before = physics.state_dict()["state"]
    physics.reset(Selection.of(torch.tensor([False, True, True, False]), dense))
    after = physics.state_dict()["state"]
    for name, values in after.items():
        assert torch.equal(values[[0, 3]], before[name][[0, 3]]), name
    assert torch.isfinite(physics.bind("sensordata")).all() and torch.isfinite(physics.bind("qfrc_actuator")).all()
    np.testing.assert_array_equal(after["qpos"][1], model_of("arm").qpos0)
    np.testing.assert_allclose(after["mocap_pos"][2, 0], [0.2, 0.1, 0.4], atol=1e-6)
    assert not after["qacc_warmstart"][1].any() and not after["xfrc_applied"][2].any() and not after["act"][1].any()
    assert torch.equal(rollout(physics, 5)[:, 1:3], rollout(fresh, 5)[:, 1:3])


FAULTS = [
    ("qpos", torch.nan, "position"),
    ("qvel", torch.inf, "velocity"),
    ("ctrl", torch.nan, "control"),
    ("qvel", 600.0, "speed"),
]


@pytest.mark.parametrize("field, value, reason", FAULTS)
def test_a_fault_is_seen_stays_and_ends_with_a_reset(field: str, value: float, reason: str) -> None:
    physics, clean = prepared("arm"), prepared("arm")
    assert not physics.unusable().any()
    physics.bind(field)[2, 0] = value
    if field != "qvel":
        physics.step(1)
        clean.step(1)
    assert physics.unusable().tolist() == [False, False, True, False]
    assert reason in physics.reasons(np.array([2]))[0]
    physics.bind(field)[2, 0] = 0.0
    assert physics.unusable().tolist() == [False, False, True, False], "until it is reset"
    assert torch.equal(rollout(physics, 3)[:, [0, 1, 3]], rollout(clean, 3)[:, [0, 1, 3]])
    physics.reset(Selection(torch.tensor([2])))
    assert not physics.unusable().any()


def test_left_out_contacts_and_constraints_are_errors_even_after_a_reset() -> None:
    physics = MujocoGpu(model_of("box"), N, device="cpu", nconmax=2, njmax=200)
    physics.step(1)
    physics.reset()
    with pytest.raises(CapacityError, match=r"contacts.*nconmax=2 each; set world.nconmax=4"):
        physics.check()
    physics.check()  # once each
    physics = MujocoGpu(model_of("box"), N, device="cpu", njmax=8)
    physics.bind("qpos")[:2, 2] = 1.0  # two in the air
    physics.step(1)
    with pytest.raises(CapacityError, match=r"constraints.*2 of 4 worlds.*njmax=8 rows.*set world.njmax=16"):
        physics.check()
    roomy = prepared("box")
    roomy.step(5)
    roomy.check()


def test_a_saved_state_continues_bit_for_bit() -> None:
    def engine() -> MujocoGpu:
        physics = prepared("arm")
        physics.bind("sensordata")
        return physics

    a = engine()
    a.expand("body_mass").mul_(torch.linspace(0.5, 2.0, N).unsqueeze(1))
    a.expand("opt.gravity")[1] = 0.0
    a.set_const()
    rollout(a, 5)
    a.bind("xfrc_applied")[0, 2, 0] = 0.2
    a.bind("mocap_pos")[1, 0, 2] = 0.7
    state = a.state_dict()
    seen = a.bind("sensordata").clone()
    rest = rollout(a, 5)
    b = MujocoGpu(model_of("arm"), N, device="cpu")
    b.expand("dof_damping").fill_(9.0)  # a past of its own, which must go
    rollout(b, 2)
    b.load_state_dict(state)
    assert torch.equal(b.bind("sensordata"), seen)
    assert torch.equal(rollout(b, 5), rest)
    assert torch.equal(b.expand("body_invweight0"), a.expand("body_invweight0"))
    a.load_state_dict(state)
    assert torch.equal(rollout(a, 5), rest)


def test_equal_states_give_equal_results_called_or_replayed() -> None:
    called, replayed = prepared("hand"), prepared("hand")
    called.step(4)
    for _ in range(4):  # called, captured and launched, launched, launched
        replayed.step(1)
    for field in ("qpos", "qvel"):
        assert torch.equal(called.bind(field), replayed.bind(field))
    np.testing.assert_allclose(replayed.bind("time"), 4 * replayed.model.opt.timestep, rtol=1e-6)


def test_a_field_bound_late_is_kept_up_to_date_too() -> None:
    early, late = prepared("arm"), prepared("arm")
    tip = early.bind("sensordata")
    for engine in (early, late):
        for _ in range(3):
            engine.step(1)
    assert not torch.equal(late.bind("sensordata"), tip), "of one step before"
    late.step(1)
    early.step(1)
    assert torch.equal(late.bind("sensordata"), tip)


def test_without_refresh_the_state_is_the_same_and_kinematics_wait() -> None:
    a, b = prepared("arm"), prepared("arm")
    tips = [engine.bind("site_xpos") for engine in (a, b)]
    a.step(2, refresh=True)
    b.step(2, refresh=False)
    assert torch.equal(a.bind("qpos"), b.bind("qpos")) and not torch.equal(*tips)
    b.forward()
    assert torch.equal(*tips)


def test_the_callers_model_is_left_alone() -> None:
    model = model_of("box")
    flags = model.opt.disableflags
    physics = MujocoGpu(model, 1, device="cpu")
    physics.model.opt.timestep = 1.0
    assert model.opt.disableflags == flags and model.opt.timestep == 0.005
