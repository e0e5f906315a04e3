"""Commands that lead in a line over a control step, against an actuator that integrates what it is told."""

from __future__ import annotations

import mujoco
import pytest
import torch

from sim.errors import EnvError
from sim.mujoco_cpu import MujocoCpu
from sim.ramp import CommandRamp
from sim.selection import Selection
from sim.world import Shard, Source, World

DT = 0.01
INTEGRATOR = mujoco.MjModel.from_xml_string(f"""
<mujoco>
  <option timestep="{DT}"/>
  <worldbody><body><joint name="slide" type="slide" axis="1 0 0"/><geom size=".1"/></body></worldbody>
  <actuator><general joint="slide" dyntype="integrator" gainprm="0"/></actuator>
</mujoco>""")


def world(count: int = 2) -> World:
    physics = MujocoCpu(INTEGRATOR, count, 1)
    return World([Shard(physics, 0, count, "integrator")], {"pos": Source("qpos", "joint", ("slide",))})


def ramped(worlds: World, decimation: int, parts: int, lag: tuple[int, int] = (0, 0)) -> CommandRamp:
    return CommandRamp(worlds, decimation, parts, lag, torch.Generator().manual_seed(0))


def told(worlds: World) -> torch.Tensor:
    """What the actuators were told, summed over time."""
    return worlds.shards[0].physics.bind("act")[:, 0].double()


def test_a_jump_is_in_force_for_the_whole_step():
    worlds = world()
    ramp = ramped(worlds, 20, 1)
    ramp.aim(torch.tensor([[1.0], [2.0]]))
    ramp.step()
    assert torch.allclose(told(worlds), torch.tensor([1.0, 2.0], dtype=torch.float64) * 20 * DT)


def test_a_ramp_leads_from_the_last_command_to_the_new_one():
    worlds = world()
    ramp = ramped(worlds, 20, 4)
    ramp.aim(torch.tensor([[1.0], [2.0]]))
    ramp.step()
    first = 5 * DT * (0.25 + 0.5 + 0.75 + 1.0)
    assert torch.allclose(told(worlds), torch.tensor([1.0, 2.0], dtype=torch.float64) * first)
    ramp.aim(torch.tensor([[1.0], [0.0]]))
    ramp.step()
    expected = torch.tensor([first + 20 * DT, 2 * first + 5 * DT * (1.5 + 1.0 + 0.5)], dtype=torch.float64)
    assert torch.allclose(told(worlds), expected)


def test_an_episode_s_first_line_starts_where_it_is_held_and_others_go_on():
    worlds = world()
    ramp = ramped(worlds, 4, 2)
    ramp.aim(torch.tensor([[1.0], [1.0]]))
    ramp.step()
    before = told(worlds).clone()
    ramp.hold(Selection.of(torch.tensor([False, True]), False), torch.tensor([[3.0]]))
    ramp.aim(torch.tensor([[1.0], [1.0]]))
    ramp.step()
    assert torch.allclose(told(worlds) - before, torch.tensor([4 * DT, 2 * DT * (2.0 + 1.0)], dtype=torch.float64))


def test_a_ramp_goes_on_from_where_it_was_saved():
    one, two = world(), world()
    ramp, again = ramped(one, 4, 2), ramped(two, 4, 2)
    ramp.aim(torch.tensor([[1.0], [2.0]]))
    ramp.step()
    again.load_state_dict(ramp.state_dict())
    before = told(one).clone()
    for each in (ramp, again):
        each.aim(torch.zeros(2, 1))
        each.step()
    assert torch.allclose(told(one) - before, told(two))


def test_a_late_line_is_the_same_line_later():
    worlds = world()
    ramp = ramped(worlds, 20, 4, lag=(2, 2))
    ramp.hold(Selection.all(2, torch.device("cpu")), torch.zeros(2, 1))
    ramp.aim(torch.tensor([[1.0], [2.0]]))
    ramp.step()
    first = 5 * DT * (0.25 + 0.5)  # the line's first half, in the step's second half
    assert torch.allclose(told(worlds), torch.tensor([1.0, 2.0], dtype=torch.float64) * first)
    ramp.aim(torch.tensor([[0.0], [2.0]]))
    ramp.step()
    rest = torch.tensor([0.75 + 1.0 + 0.75 + 0.5, 2 * (0.75 + 1.0) + 2 * 2.0], dtype=torch.float64) * 5 * DT
    expected = torch.tensor([1.0, 2.0], dtype=torch.float64) * first + rest
    assert torch.allclose(told(worlds), expected)
    assert ramp.delay == 0.5


def test_lags_are_drawn_for_each_episode_within_their_bounds():
    worlds = world(200)
    ramp = ramped(worlds, 20, 4, lag=(1, 3))
    ramp.hold(Selection.all(200, torch.device("cpu")), torch.zeros(200, 1))
    ramp.aim(torch.ones(200, 1))
    ramp.step()
    sums = [5 * DT * sum((k + 1) / 4 for k in range(4 - late)) for late in (1, 2, 3)]
    near = (told(worlds)[:, None] - torch.tensor(sums, dtype=torch.float64)).abs() < 1e-6
    assert bool(near.any(1).all()) and bool(near.any(0).all())


@pytest.mark.parametrize("parts, lag", [(1, (0, 1)), (4, (0, 5)), (4, (3, 2)), (4, (-1, 2))])
def test_an_impossible_lag_is_refused(parts, lag):
    with pytest.raises(EnvError, match="the lag of commands"):
        ramped(world(), 20, parts, lag)


@pytest.mark.parametrize("parts", [0, 3, 21])
def test_a_step_that_cannot_be_cut_is_refused(parts):
    with pytest.raises(EnvError, match="cannot be cut"):
        ramped(world(), 20, parts)


def test_a_task_s_setting_reaches_its_worlds(small):
    jumps, ramps = (small(2, "arm_reach", command_parts=parts) for parts in (1, 5))
    for env in (jumps, ramps):
        env.reset(seed=3)
    starts = jumps.channels["tool_pos"].clone()
    assert torch.equal(starts, ramps.channels["tool_pos"])
    action = torch.full((2, 3), 0.8)
    for env in (jumps, ramps):
        env.step(action)
    moved = [torch.linalg.vector_norm(env.channels["tool_pos"] - starts, dim=1) for env in (jumps, ramps)]
    assert bool((moved[1] < 0.95 * moved[0]).all()) and bool((moved[1] > 0.3 * moved[0]).all())
