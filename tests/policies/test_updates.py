"""Updates that are read late, compiled, or of lower precision, each against the plain one."""

import math
import shutil
from typing import Any

import pytest
import torch

from policies.errors import NonFiniteError, PolicyConfigError
from policies.loss import Minibatch
from policies.passes import compiled
from policies.ppo import PPO, PPOConfig
from policies.toy import PointMass, Recall, ToyEnv


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def make(env: ToyEnv, seed: int = 1, watch: bool = True, **settings: Any) -> PPO:
    config = PPOConfig(**{"hidden": (32, 32), "gru_hidden": 32, **settings})
    ppo = PPO(env.observation_dims, env.num_actions, env.num_envs, config, seed)
    ppo._watch = watch
    return ppo


def untimed(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if "time/" not in name}


RECORDED = {
    # network: (norm of all parameters, some of them, metrics of the third iteration)
    "mlp": (
        7.795703655885133,
        [0.1088726, 0.1305853, -0.1373097, -0.1433229, 0.1541348, -0.2495672, 0.0046393],
        {"rollout/reward": 0.1261562, "loss/value": 0.3365924, "policy/kl": 0.0233299, "policy/lr": 0.01},
    ),
    "gru": (
        14.963447368691595,
        [-0.0580289, -0.081346, 0.0227256, 0.1229225, 0.1383209, -0.2186273, -0.0947883],
        {"rollout/reward": 0.1419619, "loss/value": 0.3503298, "policy/kl": 0.0066628, "policy/lr": 0.01},
    ),
}
"""Of the learner when every minibatch's figures were read by the host, and clipping and schedule were its floats."""


@pytest.mark.parametrize("network", RECORDED)
def test_learning_gives_the_numbers_it_always_gave(network: str) -> None:
    env = PointMass(64, seed=3)
    ppo = make(env, network=network, max_grad_norm=0.3)
    metrics = [ppo.iterate(env) for _ in range(3)][-1]
    norm, some, expected = RECORDED[network]
    flat = ppo.optimizer.flat.detach().double()
    # On the processor where they were recorded they agree to the last bit; other kernels round otherwise.
    assert float(flat.norm()) == pytest.approx(norm, rel=1e-4)
    assert flat[:: len(flat) // 6].tolist() == pytest.approx(some, abs=1e-3)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("fault", [0, 5])
def test_a_fault_found_late_has_moved_nothing(fault: int) -> None:
    """Read at the end or after every minibatch: parameters, moments and rate are those before the faulty one."""
    states = []
    for watch in (True, False):
        env = PointMass(32, seed=5)
        ppo = make(env, watch=watch, imitation_coef=1.0, lr=1e-6, lr_min=1e-7)  # so that the rate keeps rising
        ppo.imitation = lambda batch: batch.mean.square().mean()
        ppo.iterate(env)
        calls = []

        def faulty(batch: Minibatch, calls: list[int] = calls) -> torch.Tensor:
            calls.append(0)
            return batch.mean.square().mean() * (math.nan if len(calls) == fault + 1 else 1.0)

        ppo.imitation = faulty
        with pytest.raises(NonFiniteError, match=r"loss/imitation, gradient of the policy \(iteration 1\)"):
            ppo.iterate(env)
        assert len(calls) == (fault + 1 if watch else 16)
        states.append(ppo.optimizer.state_dict() | {"flat": ppo.optimizer.flat.detach().clone()})
    seen, unseen = states
    assert seen["lr"] == unseen["lr"] == pytest.approx(1e-6 * 1.5 ** (15 + max(0, fault - 1)))
    assert torch.allclose(seen["flat"], unseen["flat"], atol=1e-5)
    assert seen["moments"]["step"] == unseen["moments"]["step"] == 16 + fault
    for name, moment in seen["moments"].items():
        assert torch.allclose(moment, unseen["moments"][name], atol=1e-5), name
    ppo.imitation = None
    ppo.iterate(env)  # the learner can go on
    assert ppo.optimizer.adam.state[ppo.optimizer.flat]["step"] == 16 + fault + 16


@pytest.mark.parametrize(("network", "iterations"), [("mlp", 25), ("gru", 10)])
def test_bfloat16_learns_as_single_precision_does(network: str, iterations: int) -> None:
    rewards = {}
    for precision in ("fp32", "bf16"):
        env = PointMass(128, seed=2) if network == "mlp" else Recall(64, seed=3)
        ppo = make(env, precision=precision, network=network, lr=3e-3)
        rewards[precision] = [ppo.iterate(env)["rollout/reward"] for _ in range(iterations)]
        assert all(value.dtype == torch.float32 for value in ppo.network.parameters())
        assert ppo.rollout.mean.dtype == ppo.rollout.value.dtype == torch.float32
    assert rewards["bf16"] != rewards["fp32"]
    assert rewards["bf16"][-1] == pytest.approx(rewards["fp32"][-1], abs=0.1)
    assert rewards["bf16"][-1] > rewards["bf16"][0] + 0.3


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ for a CPU")
def test_compiled_and_plain_agree() -> None:
    results = []
    for how in ("none", "default"):
        env = PointMass(32, seed=3, horizon=3)
        ppo = make(env, hidden=(8,), num_steps=4, epochs=2, compile=how, value_clip=0.2)
        # Plain loops: to find out what vectors this processor and compiler can do takes longer than all else.
        with torch._inductor.config.patch({"cpp.vec_isa_ok": False}):
            results.append(([untimed(ppo.iterate(env)) for _ in range(3)], ppo.optimizer.flat.detach()))
    (plain, parameters), (fast, fast_parameters) = results
    for a, b in zip(plain, fast, strict=True):
        assert b == pytest.approx(a, rel=1e-3, abs=1e-5)
    assert torch.allclose(parameters, fast_parameters, atol=1e-5)


def test_what_cannot_be_compiled_is_one_line() -> None:
    def shifted(x: torch.Tensor) -> torch.Tensor:
        return (x + 1.25).sin()

    run = compiled(shifted, "default")
    with (
        torch._inductor.config.patch({"cpp.cxx": ("/nowhere/g++",)}),
        pytest.raises(
            PolicyConfigError, match="^ppo compile=default does not work here, compile=none does: .*[Cc]ompiler"
        ),
    ):
        run(torch.zeros(3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"compile": "yes"}, "unknown ppo compile 'yes'.*default, max, none"),
        ({"precision": "fp16"}, "unknown ppo precision 'fp16'.*bf16, fp32"),
        ({"cuda_graph": "on"}, "cuda_graph must be true, false or none; got 'on'"),
    ],
)
def test_impossible_choices_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyConfigError, match=message):
        PPOConfig.from_dict(settings)
