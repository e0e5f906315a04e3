"""Every task on both engines: the same numbers from the same states, and drift as fast as rounding alone drifts.

The GPU engine runs on Warp's CPU device, and on a GPU where there is one. It computes in float32, and close to the
moment at which a contact opens or closes, two roundings of one state may disagree on whether it is there: then a step
differs by what a contact does. So tolerances are stated for the median and nine of ten samples, and the rest is held
against the CPU engine's own answer to a change of its state by one part in a million.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from sim.engines import Engine
from sim.env import Env
from sim.step import Step
from sim.tasks import list_tasks, make_env

pytest.importorskip("mujoco_warp", reason="the GPU engine needs the extra [gpu]")

N = 6
MEDIAN, NINE_OF_TEN = 1e-4, 5e-3
"""Largest differences of observations and rewards after one control step, in their own units."""
STATE = ("time", "qpos", "qvel", "act", "ctrl", "qacc_warmstart")
_QUICK = {"rate_hz": 50.0, "substeps": 4, "tool_step": 0.008, "distinct": True}
ARMS = {
    "arm_reach": {"shapes": ["can", "ball"], **_QUICK},
    "arm_push": {"shapes": ["cube", "puck"], **_QUICK},
    "arm_pick_place": {"shapes": ["cube", "ball"], **_QUICK},
}
"""Fewer scenes and physics steps, since every scene is compiled; between them every shape is there."""
MakeEnv = Callable[..., Env]


DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(scope="module", params=DEVICES)
def make(clip_folder: Any, request: pytest.FixtureRequest) -> MakeEnv:
    settings = {"dex_track": {"motions": {"folder": str(clip_folder)}}, **ARMS}

    def make(task: str, engine: str, **more: Any) -> Env:
        chosen = Engine("gpu", device=request.param) if engine == "gpu" else Engine(threads=1)
        env = make_env(task, N, seed=3, engine=chosen, **settings.get(task, {}), **more)
        env.world.dense = engine == "gpu"
        return env

    return make


@pytest.fixture(scope="module", params=list_tasks())
def task(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def pair(make: MakeEnv, task: str) -> tuple[Env, Env]:
    return make(task, "cpu"), make(task, "gpu")


def copy_state(source: Env, target: Env) -> None:
    """Bring an environment on one engine into the state of one on another."""
    target.load_state_dict({**source.state_dict(), "world": target.world.state_dict()})
    for a, b in zip(source.world.shards, target.world.shards, strict=True):
        for name in STATE:
            b.physics.bind(name).copy_(a.physics.bind(name))
        for name, values in a.physics.state_dict()["expanded"].items():
            b.physics.expand(name).copy_(values)
        b.physics.forward()
    target._senses.read()
    target._senses.restore({name: source._senses.seen[name] for name in source._senses.raw})


def random_actions(env: Env, steps: int, scale: float = 0.5) -> torch.Tensor:
    return scale * torch.randn(steps, N, env.num_actions, generator=torch.Generator().manual_seed(0))


def on_host(step: Step) -> Step:
    """The same step with its tensors on the CPU."""
    parts = {"rewards": step.rewards, "obs": step.obs}
    moved: dict[str, Any] = {name: {k: v.cpu() for k, v in part.items()} for name, part in parts.items()}
    return replace(step, terminated=step.terminated.cpu(), truncated=step.truncated.cpu(), **moved)


def assert_same(x: Step, y: Step) -> None:
    """Equal bit for bit; on a GPU, where contacts are ordered by chance, up to a few roundings in most worlds."""
    for a, b in [*((value, y.obs[group]) for group, value in x.obs.items()), (x.reward, y.reward)]:
        if a.device.type == "cpu":
            assert torch.equal(a, b)
        else:
            assert (a - b).abs().median() < 1e-3


def test_both_engines_show_the_same_start(pair):
    cpu, gpu = pair
    cpu.reset(7), gpu.reset(7)
    assert cpu.contract == gpu.contract and cpu.observation_dims == gpu.observation_dims
    for name, value in cpu.channels.items():
        assert torch.allclose(value, gpu.channels[name].cpu(), atol=1e-5), name


def test_one_step_from_the_same_state_agrees_term_by_term(pair):
    cpu, gpu = pair
    differences: dict[str, list[torch.Tensor]] = {}
    for action in random_actions(cpu, 40):
        copy_state(cpu, gpu)
        x, y = cpu.step(action), on_host(gpu.step(action))
        assert (x.terminated == y.terminated).float().mean() > 0.8  # near a bound rounding decides
        if torch.equal(x.terminated, y.terminated):
            assert torch.equal(x.truncated, y.truncated)
        going_on = ~(x.terminated | x.truncated | y.terminated | y.truncated)
        for name, value in x.rewards.items():
            differences.setdefault(f"reward {name}", []).append((value - y.rewards[name])[going_on].abs())
        for group, terms in cpu.task.observations.items():
            for name, term in terms.items():
                a, b = (term.func(env.channels, **term.params).cpu() for env in pair)
                worst = (a - b).abs().amax(1) if a.shape[1] else a.new_zeros(N)
                differences.setdefault(f"{group} {name}", []).append(worst[going_on])
    for name, parts in differences.items():
        values = torch.cat(parts)
        assert len(values) > 20 * N
        assert values.median() <= MEDIAN, f"{name}: median {values.median():.1e}"
        assert values.quantile(0.9) <= NINE_OF_TEN, f"{name}: nine of ten {values.quantile(0.9):.1e}"


def positions(env: Env) -> torch.Tensor:
    """(N, nq) of all worlds."""
    return torch.cat([shard.physics.bind("qpos").cpu().double() for shard in env.world.shards])


def test_trajectories_drift_no_faster_than_rounding_explains(make, task, pair):
    """The GPU engine leaves the CPU engine's path as a CPU engine does whose state was changed in the seventh digit."""
    cpu, gpu = pair
    nudged = [make(task, "cpu") for _ in range(4)]
    cpu.reset(11)
    for action in random_actions(cpu, 5, 0.2):
        cpu.step(action)  # references start at rest on the very edge of contact
    for env in (gpu, *nudged):
        copy_state(cpu, env)
    generator = torch.Generator().manual_seed(1)
    for env in nudged:
        for shard in env.world.shards:
            qpos = shard.physics.bind("qpos")
            qpos += 1e-6 * torch.randn(qpos.shape, generator=generator, dtype=qpos.dtype)
    drift, spread = [], []
    for action in random_actions(cpu, 20, 0.2):
        for env in (cpu, gpu, *nudged):
            command, _ = env.task.action.decode(env.channels, action.to(env.device))
            env.world.command(command)
            env.world.step(env.task.decimation)
        drift.append((positions(gpu) - positions(cpu)).abs().amax(1))
        spread.append(torch.stack([(positions(env) - positions(cpu)).abs().amax(1) for env in nudged]).amax(0))
    far, allowed = torch.stack(drift), torch.stack(spread)
    assert torch.isfinite(far).all()
    # in a world by itself a contact may flip in one and not in the four others; of most worlds it may not
    assert (far.amax(0) <= 10.0 * allowed.amax(0) + 1e-5).float().mean() >= 0.5
    assert far.median() <= 10.0 * allowed.median() + 1e-5


def test_randomisation_touches_the_same_fields(make, task, pair):
    cpu, gpu = pair
    for a, b in zip(cpu.world.shards, gpu.world.shards, strict=True):
        mine, theirs = (shard.physics.state_dict()["expanded"] for shard in (a, b))
        declared = {name for randomizer in cpu.task.randomizers.values() for name in randomizer.fields}
        assert declared <= mine.keys() and declared <= theirs.keys()
        for name in declared:
            assert mine[name].shape == theirs[name].shape, name
            if a is cpu.world.shards[0]:
                assert torch.allclose(mine[name].double(), theirs[name].cpu().double(), rtol=1e-5), name


def test_one_seed_gives_one_run(make, task):
    first, again = make(task, "gpu"), make(task, "gpu")
    for action in random_actions(first, 15):
        assert_same(first.step(action), again.step(action))
    first.check()


def test_a_run_continues_bit_for_bit(make, task):
    env, resumed = make(task, "gpu"), make(task, "gpu")
    actions = random_actions(env, 20)
    for action in actions[:8]:
        env.step(action)
    resumed.load_state_dict(env.state_dict())
    for action in actions[8:]:
        assert_same(env.step(action), resumed.step(action))


def test_a_world_that_diverges_stays_alone(make, task):
    env = make(task, "gpu")
    actions = random_actions(env, 6)
    env.step(actions[0])
    shard = env.world.shards[-1]
    shard.physics.bind("qpos")[-1, 2] = torch.nan
    step = env.step(actions[1])
    assert step.terminated[-1] and float(step.log["world/diverged"]) == 1.0 and env.diverged == 1
    for value in (*step.obs.values(), *step.rewards.values(), *step.final_obs.values()):
        assert torch.isfinite(value).all()
    for action in actions[2:]:
        step = env.step(action)
        assert torch.isfinite(step.obs["policy"]).all()
    assert env.diverged == 1
