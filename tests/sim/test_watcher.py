"""A watcher sees what a step left behind before it is gone, may end episodes, and is told where new ones begin."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from robolearn.judge import zero_action
from sim.env import Env, EnvError, Watcher
from sim.experts.arm import ScriptedArm
from sim.selection import Selection

Small = Callable[..., Env]
N, LENGTH = 6, 5
PATHS = pytest.mark.parametrize("dense", [False, True], ids=["ids", "masks"])


class Witness:
    """Remembers what it saw, and ends what it is told to end."""

    def __init__(self, env: Env) -> None:
        self.env = env
        self.stop: torch.Tensor | None = None
        self.steps: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.starts: list[tuple[list[int], torch.Tensor, list[str]]] = []

    def judge(self) -> torch.Tensor | None:
        self.steps.append((self._obs(), self._qpos()))
        return self.stop

    def begun(self, worlds: Selection, reset: bool) -> None:
        self.starts.append((worlds.chosen().tolist(), self._obs(), self.env.instructions()))

    def _obs(self) -> torch.Tensor:
        return self.env.task.observe("critic", self.env.channels).clone()

    def _qpos(self) -> torch.Tensor:
        return torch.cat([shard.physics.bind("qpos") for shard in self.env.world.shards]).clone()


@pytest.fixture
def watched(small: Small) -> Callable[..., tuple[Env, Witness]]:
    def make(dense: bool = False, **settings: object) -> tuple[Env, Witness]:
        env = small(N, task="arm_reach", ends="never", episode_s=0.1 * LENGTH, **settings)
        env.world.dense = dense
        witness = Witness(env)
        env.watcher = witness
        return env, witness

    return make


def act(env: Env, seed: int) -> torch.Tensor:
    return torch.randn(N, env.num_actions, generator=torch.Generator().manual_seed(seed))


def only(*worlds: int) -> torch.Tensor:
    mask = torch.zeros(N, dtype=torch.bool)
    mask[list(worlds)] = True
    return mask


@PATHS
def test_it_sees_the_last_state_of_an_episode_and_the_first_of_the_next(watched, dense: bool) -> None:
    env, witness = watched(dense)
    env.episode_steps[2:4] = 3  # two worlds are ahead of the others
    env.task.goal.step[2:4] = 3
    ended: list[list[int]] = []
    for k in range(2 * LENGTH):
        witness.stop = only(0) if k == 3 else None
        step = env.step(act(env, k)).ended()
        obs, qpos = witness.steps[-1]
        going_on = ~(step.terminated | step.truncated)
        assert torch.equal(obs[going_on], step.obs["critic"][going_on])
        now = torch.cat([shard.physics.bind("qpos") for shard in env.world.shards])
        assert torch.equal(now[going_on], qpos[going_on]) and not (now[~going_on] == qpos[~going_on]).all(1).any()
        if len(step.final_ids):
            worlds, first, asked = witness.starts[-1]
            assert torch.equal(obs[step.final_ids], step.final_obs["critic"])
            assert worlds == step.final_ids.tolist() and asked == env.instructions()
            assert torch.equal(first, step.obs["critic"])
            ended.append(worlds)
    assert ended == [[2, 3], [0], [1, 4, 5], [2, 3], [0], [1, 4, 5]]
    assert [worlds for worlds, _, _ in witness.starts if worlds] == ended
    assert len(witness.steps) == 2 * LENGTH


@PATHS
def test_what_it_ends_is_terminated_and_counted_as_its_own(watched, dense: bool) -> None:
    env, witness = watched(dense)
    witness.stop = only(1, 4)
    step = env.step(act(env, 0)).ended()
    assert torch.equal(step.terminated, only(1, 4)) and not step.truncated.any()
    assert step.final_ids.tolist() == [1, 4] and step.episodes["termination/watcher"].tolist() == [1, 1]
    assert env.episode_steps.tolist() == [1, 0, 1, 1, 0, 1]
    assert step.summary()["termination/watcher"] == 1
    witness.stop = None
    for k in range(3):
        assert not env.step(act(env, k)).terminated.any()
    witness.stop = only(0)
    step = env.step(act(env, 4)).ended()  # the clock of four worlds runs out, too
    assert torch.equal(step.terminated, only(0)) and torch.equal(step.truncated, only(2, 3, 5))
    assert step.episodes["termination/watcher"].tolist() == [1, 0, 0, 0]
    assert step.episodes["seconds"].tolist() == pytest.approx([0.5] * 4)


@PATHS
def test_looking_changes_nothing(watched, small: Small, dense: bool) -> None:
    env, witness = watched(dense)
    alone = small(N, task="arm_reach", ends="never", episode_s=0.1 * LENGTH)
    alone.world.dense = dense
    for k in range(3 * LENGTH):
        x, y = env.step(act(env, k)), alone.step(act(alone, k))
        assert torch.equal(x.obs["policy"], y.obs["policy"]) and torch.equal(x.reward, y.reward)
        assert torch.equal(x.terminated, y.terminated) and torch.equal(x.truncated, y.truncated)
        assert env.channels["progress"].shape == (N,)  # somebody looks in between, too
    assert env.instructions() == alone.instructions()
    env.watcher = None
    seen = len(witness.steps)
    while not len(step := env.step(zero_action(env, {})).ended().final_ids):
        pass
    assert len(step) and len(witness.steps) == seen


def test_it_is_told_of_every_start_at_a_reset(watched) -> None:
    env, witness = watched()
    obs = env.reset()
    worlds, first, _ = witness.starts[-1]
    assert worlds == list(range(N)) and torch.equal(first, obs["critic"])
    env.watcher = None
    env.reset()
    assert len(witness.starts) == 1
    later: Watcher = Witness(env)
    env.watcher = later
    assert env.watcher is later


def test_an_end_may_have_two_causes(small: Small) -> None:
    """As where a critic says done when it is."""

    class Truth(Witness):
        def judge(self) -> torch.Tensor | None:
            return self.env.channels["done"] > 0.5

    env = small(N, task="arm_reach")
    env.watcher = Truth(env)
    arm, causes = ScriptedArm(env), []
    for _ in range(8):
        step = env.step(arm.act())
        if len(step.final_ids):
            assert step.terminated[step.final_ids].all()
            causes += [step.episodes[f"termination/{name}"] for name in ("done", "watcher")]
    assert causes and all((cause == 1).all() for cause in causes)


@pytest.mark.parametrize(
    "answer", [torch.zeros(N), torch.zeros(N - 1, dtype=torch.bool), torch.zeros(N, 1, dtype=torch.bool)]
)
def test_an_answer_that_is_no_mask_is_refused(watched, answer: torch.Tensor) -> None:
    env, witness = watched()
    witness.stop = answer
    with pytest.raises(EnvError, match=r"None or \(6,\) bool, got"):
        env.step(zero_action(env, {}))
