"""Behaviour of PPO through its front: learning, bootstrapping, the schedule, resuming, and errors."""

import math
from typing import Any

import pytest
import torch

from policies.errors import NonFiniteError, PolicyConfigError, PolicyStateError
from policies.loss import Minibatch
from policies.ppo import PPO, PPOConfig
from policies.toy import PointMass, Recall, ToyEnv, ToyStep


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def make(env: ToyEnv, seed: int = 1, **settings: Any) -> PPO:
    config = PPOConfig(**{"hidden": (32, 32), "gru_hidden": 32, **settings})
    return PPO(env.observation_dims, env.num_actions, env.num_envs, config, seed)


class Constant(ToyEnv):
    """One state, reward 1; every third step ends the episode, as a time-out or as a failure."""

    def __init__(self, failing: bool) -> None:
        super().__init__(64, 1, {"policy": 1, "critic": 1}, 10**6 if failing else 3, 0)
        self.failing = failing

    def _begin(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"age": torch.zeros(len(ids))}

    def _observe(self) -> dict[str, torch.Tensor]:
        return {group: torch.ones(self.num_envs, 1) for group in ("policy", "critic")}

    def _advance(self, action: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        self.state["age"] += 1
        failed = (self.state["age"] >= 3) & self.failing
        return {"one": torch.ones(self.num_envs)}, failed


@pytest.mark.parametrize("normalize_value", [False, True])
def test_time_out_is_bootstrapped(normalize_value: bool) -> None:
    env = Constant(failing=False)
    settings: dict[str, Any] = {"normalize_value": normalize_value, "schedule": "fixed", "lr": 3e-3}
    ppo = make(env, gamma=0.8, lam=0.9, num_steps=8, value_coef=2.0, normalize_obs=False, **settings)
    for _ in range(50):
        ppo.iterate(env)
    value = ppo.network.critic(ppo.network.norm["critic"](torch.ones(1, 1)))
    value = ppo.network.value_norm.undo(value) if normalize_value else value
    assert value.item() == pytest.approx(1 / (1 - 0.8), rel=0.05)


def test_failure_is_not_bootstrapped() -> None:
    env = Constant(failing=True)
    plain = {"normalize_obs": False, "normalize_value": False}
    ppo = make(env, gamma=0.9, lam=1.0, num_steps=9, schedule="fixed", lr=1e-3, **plain)
    for _ in range(60):
        metrics = ppo.iterate(env)
    assert metrics["rollout/terminated"] == pytest.approx(1 / 3, abs=0.01)
    assert metrics["rollout/truncated"] == 0.0
    # Returns of three steps, 1 + .9 + .81, 1 + .9 and 1, equally frequent.
    assert float(ppo.rollout.target.mean()) == pytest.approx((2.71 + 1.9 + 1.0) / 3, rel=0.03)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_learns_a_point_mass(seed: int) -> None:
    env = PointMass(128, seed=seed)
    ppo = make(env, seed=seed)
    rewards = [ppo.iterate(env)["rollout/reward"] for _ in range(30)]
    assert rewards[0] < 0.4  # what random actions get
    assert rewards[-1] > 0.75
    # Played without noise; parameters and statistics stay put.
    before = {k: v.clone() for k, v in ppo.network.state_dict().items()}
    obs, played = env.reset(), []
    for _ in range(60):
        step = env.step(ppo.act(obs["policy"]))
        obs = step.obs
        played.append(float(step.reward.mean()))
    assert sum(played) / len(played) > 0.8
    assert all(torch.equal(v, before[k]) for k, v in ppo.network.state_dict().items())


def test_memory_is_learned_by_a_gru_and_not_by_an_mlp() -> None:
    rewards = {}
    for network in ("mlp", "gru"):
        env = Recall(64, seed=3)
        ppo = make(env, network=network, hidden=(32,), lr=3e-3)
        rewards[network] = [ppo.iterate(env)["rollout/reward"] for _ in range(10)][-1]
    assert rewards["mlp"] < 0.15
    assert rewards["gru"] > 0.6
    # Played with memory, and forgetting at the ends of episodes.
    obs, ended, total = env.reset(), None, 0.0
    for _ in range(24):
        step = env.step(ppo.act(obs["policy"], ended))
        obs, ended = step.obs, step.terminated | step.truncated
        total += float(step.reward.mean()) / 24
    assert total > 0.7


def test_recurrent_replay_reproduces_the_rollout() -> None:
    env = Recall(32, seed=0)
    ppo = make(env, network="gru", epochs=1, minibatches=2)
    ppo.iterate(env)
    ppo._collect(env)
    for batch in ppo.rollout.shuffle(3, True, ppo.generator):
        assert torch.allclose(ppo.passes.minibatch("policy", batch), batch["mean"], atol=1e-6)


def test_the_schedule_follows_the_kl() -> None:
    rates = {}
    for desired in (1e-7, 1e3):
        env = PointMass(64)
        ppo = make(env, desired_kl=desired, lr=1e-3, lr_min=1e-4, lr_max=5e-3)
        rates[desired] = [ppo.iterate(env)["policy/lr"] for _ in range(2)][-1]
    assert rates == {1e-7: 1e-4, 1e3: 5e-3}
    fixed = make(env, schedule="fixed", lr=1e-3)
    assert fixed.iterate(env)["policy/lr"] == 1e-3


@pytest.mark.parametrize("network", ["mlp", "gru"])
def test_resumed_and_uninterrupted_runs_agree_bit_for_bit(network: str, tmp_path: Any) -> None:
    env = PointMass(32, seed=5)
    ppo = make(env, network=network, normalize_value=True)
    for _ in range(3):
        ppo.iterate(env)
    torch.save({"ppo": ppo.state_dict(), "env": env.state_dict()}, tmp_path / "state.pt")
    after = [ppo.iterate(env) for _ in range(3)]

    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    env2 = PointMass(32, seed=99)
    ppo2 = make(env2, seed=99, network=network, normalize_value=True)
    ppo2.load_state_dict(saved["ppo"])
    env2.load_state_dict(saved["env"])
    torch.rand(7)  # the global generator plays no part
    resumed = [ppo2.iterate(env2) for _ in range(3)]
    for a, b in zip(after, resumed, strict=True):
        assert {k: v for k, v in a.items() if "time/" not in k} == {k: v for k, v in b.items() if "time/" not in k}
    for name, value in ppo.network.state_dict().items():
        assert torch.equal(value, ppo2.network.state_dict()[name]), name
    assert ppo2.iteration == 6
    assert ppo2.env_steps == 6 * 32 * 16


def test_a_state_of_another_shape_is_refused_and_changes_nothing() -> None:
    env = PointMass(16)
    ppo, other = make(env), make(env, hidden=(16,))
    before = ppo.optimizer.flat.clone()
    with pytest.raises(PolicyStateError, match=r"hidden \[16\].*\[32, 32\]"):
        ppo.load_state_dict(other.state_dict())
    assert torch.equal(before, ppo.optimizer.flat)
    with pytest.raises(PolicyStateError, match="num_envs is 8"):
        ppo.iterate(PointMass(8))


class Faulty(PointMass):
    """Spoils one quantity in the third step of the second rollout."""

    def __init__(self, what: str) -> None:
        super().__init__(32)
        self.what, self.steps = what, 0

    def step(self, action: torch.Tensor) -> ToyStep:
        step = super().step(action)
        self.steps += 1
        if self.steps == 16 + 3:
            if self.what == "observation":
                step.obs["critic"][4:6, 1] = math.nan
            elif self.what == "reward":
                step.rewards["effort"][7] = math.inf
                step.reward = step.rewards["near"] + step.rewards["effort"]
        return step


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("observation", r"observation 'critic': 2 of 256 values.*worlds \[4, 5\] \(rollout step 3\)"),
        ("reward", r"reward term 'effort': 1 of 32 values.*worlds \[7\] \(rollout step 2\)"),
    ],
)
def test_bad_numbers_from_the_environment_are_named(what: str, message: str) -> None:
    env = Faulty(what)
    ppo = make(env)
    ppo.iterate(env)
    with pytest.raises(NonFiniteError, match=message):
        ppo.iterate(env)


def test_bad_losses_and_gradients_never_reach_the_parameters() -> None:
    env = PointMass(32)
    ppo = make(env, imitation_coef=1.0)
    ppo.iterate(env)
    before = ppo.optimizer.flat.clone()
    ppo.imitation = lambda batch: batch.mean.sum() * math.nan
    with pytest.raises(NonFiniteError, match="loss/imitation, gradient of the policy"):
        ppo.iterate(env)
    assert torch.equal(before, ppo.optimizer.flat)


def test_imitation_hook_pulls_the_mean_to_the_expert() -> None:
    env = PointMass(64, seed=2)
    ppo = make(env, imitation_coef=5.0, schedule="fixed", lr=2e-3)

    def expert(batch: Minibatch) -> torch.Tensor:
        x, _, target = batch.obs["policy"].chunk(3, -1)
        steps, worlds = batch.index // 64, batch.index % 64
        assert torch.equal(ppo.rollout.raw["policy"][steps, worlds], batch.obs["policy"])
        return (batch.mean - 0.5 * (target - x)).square().sum(-1).mean()

    ppo.imitation = expert
    for _ in range(40):
        ppo.iterate(env)
    obs = env.reset()["policy"]
    x, _, target = obs.chunk(3, -1)
    error = (ppo.act(obs) - 0.5 * (target - x)).abs().mean()
    assert float(error) < 0.1


def test_reward_stage_replaces_the_reward() -> None:
    env = PointMass(16)
    ppo = make(env)
    ppo.reward_stage = lambda step: step.rewards["near"] * 0.0 + 2.0
    metrics = ppo.iterate(env)
    assert metrics["rollout/reward"] == 2.0
    assert 0.0 < metrics["reward/near"] < 1.0


@pytest.mark.parametrize(
    "settings", [{"value_clip": 0.2}, {"normalize_advantage": "minibatch"}, {"entropy_coef": 0.01}]
)
def test_options_learn_too(settings: dict[str, Any]) -> None:
    env = PointMass(128, seed=1)
    ppo = make(env, minibatches=3, activation="tanh", **settings)
    rewards = [ppo.iterate(env)["rollout/reward"] for _ in range(15)]
    assert rewards[-1] > rewards[0] + 0.2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gama": 0.9}, "unknown ppo setting 'gama'; did you mean 'gamma'?"),
        ({"gamma": 1.5}, "gamma must be between 0 and 1; got 1.5"),
        ({"lr": -1.0}, "lr must be greater than 0; got -1.0"),
        ({"clip": math.nan}, "clip must be a finite number"),
        ({"epochs": 1.5}, "epochs must be an integer; got 1.5"),
        ({"num_steps": 0}, "num_steps must be greater than 0"),
        ({"network": "lstm"}, "unknown ppo network 'lstm'.*gru, mlp"),
        ({"hidden": []}, "hidden must be a list of positive sizes"),
        ({"normalize_obs": "yes"}, "normalize_obs must be true or false"),
        ({"lr_min": 1.0}, "lr_min must be at most lr_max"),
        ({"value_clip": 0.0}, "value_clip must be greater than 0, or none"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyConfigError, match=message):
        PPOConfig.from_dict(settings)


def test_more_minibatches_than_samples_are_refused() -> None:
    with pytest.raises(PolicyConfigError, match="minibatches must be at most 2 with 2 worlds; got 4"):
        make(Recall(2), network="gru")
