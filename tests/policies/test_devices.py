"""A learner whose host must not look at its device: on a CPU with eyes shut, and on torch's device without numbers."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from policies.errors import NonFiniteError
from policies.fetch import fetch
from policies.moved import Moved
from policies.ppo import PPO, PPOConfig
from policies.toy import PointMass, ToyEnv, ToyStep


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def make(env: ToyEnv, seed: int = 1, watch: bool = False, **settings: Any) -> PPO:
    config = PPOConfig(**{"hidden": (32, 32), "gru_hidden": 32, **settings})
    ppo = PPO(env.observation_dims, env.num_actions, env.num_envs, config, seed)
    ppo._watch = watch
    return ppo


@pytest.mark.parametrize("network", ["mlp", "gru"])
def test_with_eyes_shut_the_learner_learns_the_same(network: str) -> None:
    """Final observations are evaluated in other batches then, which rounds differently; all else is equal."""
    learned = []
    for watch in (True, False):
        env = PointMass(32, horizon=9, seed=4)
        ppo = make(env, watch=watch, network=network)
        learned.append(([ppo.iterate(env) for _ in range(3)], ppo.optimizer.flat.detach()))
    for seen, unseen in zip(learned[0][0], learned[1][0], strict=True):
        assert seen["rollout/truncated"] > 0.05
        assert {k: v for k, v in unseen.items() if "time/" not in k} == pytest.approx(
            {k: v for k, v in seen.items() if "time/" not in k}, rel=1e-3, abs=1e-4
        )
    assert torch.allclose(learned[0][1], learned[1][1], atol=1e-4)


def test_dense_steps_are_learned_from() -> None:
    """Rows of worlds whose episode goes on say nothing; here they say NaN."""

    class Dense(PointMass):
        def step(self, action: torch.Tensor) -> ToyStep:
            step = super().step(action)
            assert len(step.final_ids) == self.num_envs
            alive = ~(step.terminated | step.truncated)
            step.final_obs["critic"][alive] = math.nan
            step.episodes["late"] = torch.where(alive, math.nan, 1.0)
            return step

    env = Dense(128, seed=1, dense=True)
    ppo = make(env)
    metrics = [ppo.iterate(env) for _ in range(25)]
    assert metrics[-1]["rollout/reward"] > 0.7
    assert metrics[-1]["episode/late"] == 1.0
    assert metrics[-1]["episode/length"] == pytest.approx(60.0)


class Faulty(PointMass):
    """Spoils one quantity in the third step of the second rollout."""

    def __init__(self, what: str) -> None:
        super().__init__(32, horizon=20)
        self.what, self.steps = what, 0

    def step(self, action: torch.Tensor) -> ToyStep:
        step = super().step(action)
        self.steps += 1
        if self.steps == 16 + 3:
            if self.what == "observation":
                step.obs["critic"][4:6, 1] = math.inf
            elif self.what == "reward":
                step.rewards["effort"][7] = math.nan
                step.reward = step.rewards["near"] + step.rewards["effort"]
        if self.what == "final" and self.steps > 16:
            step.final_obs["critic"][:] = math.nan
        return step


@pytest.mark.parametrize("watch", [True, False])
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("observation", r"^observation 'critic': 2 of 256 values.*worlds \[4, 5\] \(rollout step 3\)$"),
        ("reward", r"^reward term 'effort': 1 of 32 values.*worlds \[7\] \(rollout step 2\)$"),
        ("final", r"^final observation 'critic': \d+ of \d+ values"),
    ],
)
def test_bad_numbers_are_named_in_time_or_afterwards(what: str, message: str, watch: bool) -> None:
    env = Faulty(what)
    ppo = make(env, watch=watch)
    ppo.iterate(env)
    before = {name: value.clone() for name, value in ppo.network.state_dict().items()}
    with pytest.raises(NonFiniteError, match=message):
        ppo.iterate(env)
    assert all(torch.equal(value, before[name]) for name, value in ppo.network.state_dict().items())


class Unread:
    """Stands in for torch's Adam, whose kernel does not know the device ``meta``."""

    def __init__(self, params: Any, lr: torch.Tensor, **settings: Any) -> None:
        self.state: dict[Any, Any] = {}

    def step(self) -> None:
        return None


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"network": "gru"},
        {"minibatches": 3, "value_clip": 0.2, "normalize_advantage": "minibatch", "entropy_coef": 0.01},
        {"schedule": "fixed", "normalize_value": False, "normalize_obs": False, "imitation_coef": 1.0},
    ],
)
def test_an_iteration_reads_the_device_three_times(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors on ``meta`` have no numbers: to read one, to count, or to meet a tensor of the CPU is an error there."""
    reads = []

    def count(tensors: Mapping[str, torch.Tensor]) -> dict[str, list[float]]:
        reads.append(sorted(tensors))
        return {name: [0.0] * value.numel() for name, value in tensors.items()}

    cpu_generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": cpu_generator())
    monkeypatch.setattr(torch.optim, "Adam", Unread)
    for module in ("checks", "tally", "update"):
        monkeypatch.setattr(f"policies.{module}.fetch", count)
    env = PointMass(25, device="meta")
    config = PPOConfig(**{"hidden": (8,), "gru_hidden": 8, "num_steps": 5, **settings})
    ppo = PPO(env.observation_dims, env.num_actions, 25, config, device="meta")
    ppo.imitation = lambda batch: batch.mean.square().mean()
    for norm in (*(ppo.network.norm[group] for group in ("policy", "critic")), ppo.network.value_norm):
        norm._begun = True  # the very first rollout asks each whether it is
    for _ in range(2):
        ppo.iterate(env)
    assert len(reads) == 6
    with pytest.raises((RuntimeError, NotImplementedError)):
        fetch({"x": ppo.rollout.reward})


def test_a_state_of_a_gpu_is_continued_on_a_cpu() -> None:
    """With its weights, moments and statistics; the random numbers are others, since generators differ."""
    env = PointMass(32, seed=5)
    ppo = make(env, watch=True)
    for _ in range(3):
        ppo.iterate(env)
    state, worlds = ppo.state_dict(), env.state_dict()
    state |= {"device": "cuda", "generator": torch.zeros(16, dtype=torch.uint8)}
    rewards = []
    for _ in range(2):
        other = make(env, watch=True, seed=8)
        other.load_state_dict(state)
        env.load_state_dict(worlds)
        for name, moment in other.optimizer.state_dict()["moments"].items():
            assert torch.equal(moment, state["optimizer"]["moments"][name])
        assert other.optimizer.lr == state["optimizer"]["lr"]
        rewards.append(other.iterate(env)["rollout/reward"])
        assert other.iteration == 4
        noise = other.rollout.noise.clone()
    assert rewards[0] == rewards[1]
    fresh = make(env, watch=True, seed=8)
    fresh.iterate(env)
    assert not torch.equal(fresh.rollout.noise, noise)  # no draw is made again


def test_an_environment_of_another_device_is_carried_over() -> None:
    env = PointMass(6, horizon=1, seed=0)
    moved = Moved(env, torch.device("meta"))
    assert (moved.num_envs, moved.num_actions, moved.observation_dims) == (6, 2, env.observation_dims)
    assert {value.device.type for value in moved.reset().values()} == {"meta"}
    step = moved.step(torch.zeros(6, 2))
    assert len(step.final_ids) == 6
    for value in (step.reward, step.terminated, step.truncated, step.final_ids):
        assert value.device.type == "meta"
    for values in (step.obs, step.rewards, step.final_obs):
        assert values
        assert {value.device.type for value in values.values()} == {"meta"}


def test_fetch_gives_back_every_number() -> None:
    tensors = {
        "a": torch.tensor([[1.5, 2.0], [3.0, -1.0]]),
        "b": torch.tensor(7),
        "c": torch.zeros(0),
        "d": torch.tensor([True]),
    }
    assert fetch(tensors) == {"a": [1.5, 2.0, 3.0, -1.0], "b": [7.0], "c": [], "d": [1.0]}
    assert fetch({}) == {}
