"""Minibatches through `policies.captured`, with a recorder that behaves on a CPU as a CUDA graph does on a GPU."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from policies.loss import Minibatch
from policies.ppo import PPO, PPOConfig
from policies.toy import PointMass, ToyEnv
from policies.update import Update


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class TapeRecorder:
    """Notes every operation while work runs, undoes what it did, and repeats the operations on replay.

    Numbers that the host computed during the recording, and tensors made outside of it, stay as they were: as in a
    CUDA graph. A replay that gives other results than the work itself shows that the work is not fit for one.
    """

    def __init__(self) -> None:
        self.warm_ups, self.recordings, self.replays = 0, 0, 0

    def warm_up(self, work: Callable[[], None]) -> None:
        self.warm_ups += 1
        work()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self.recordings += 1
        tape = _Tape()
        with tape:
            work()
        tape.undo()

        def replay() -> None:
            self.replays += 1
            tape.replay()

        return replay


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self._operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self._made: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("the host reads a number during a recording")
        for argument, value in [*zip(func._schema.arguments, args, strict=False), *_named(func, kwargs)]:
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in _tensors(value):
                    self._keep(tensor)
        out = func(*args, **kwargs)
        given = {tensor.untyped_storage().data_ptr() for tensor in _tensors((args, kwargs))}
        self._made |= {tensor.untyped_storage().data_ptr() for tensor in _tensors(out)} - given
        self._operations.append((func, args, kwargs, out))
        return out

    def undo(self) -> None:
        """Bring back what the recorded operations wrote to."""
        for storage, before in self._before.values():
            storage.copy_(before)

    def replay(self) -> None:
        """Do every operation again; results go to where they went in the recording."""
        with torch.no_grad():
            for func, args, kwargs, out in self._operations:
                again = func(*args, **kwargs)
                for old, new in zip(_tensors(out), _tensors(again), strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)

    def _keep(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._made:
            self._before.setdefault(storage.data_ptr(), (storage, storage.clone()))


def _named(func: Any, kwargs: dict[str, Any]) -> list[tuple[Any, Any]]:
    return [(argument, kwargs[argument.name]) for argument in func._schema.arguments if argument.name in kwargs]


def _tensors(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def make(env: ToyEnv, seed: int = 1, watch: bool = True, **settings: Any) -> PPO:
    config = PPOConfig(**{"hidden": (32, 32), "gru_hidden": 32, **settings})
    ppo = PPO(env.observation_dims, env.num_actions, env.num_envs, config, seed)
    ppo._watch = watch
    return ppo


def record(ppo: PPO, recorder: Any) -> None:
    ppo._update = Update(ppo.config, ppo.network, ppo.passes, ppo.optimizer, recorder)


def untimed(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if "time/" not in name}


@pytest.mark.parametrize(
    "settings",
    [
        {"minibatches": 3, "value_clip": 0.2},
        {"network": "gru", "max_grad_norm": 0.1},
        {"precision": "bf16"},
        {"schedule": "fixed", "normalize_value": False},
    ],
)
def test_a_recorded_update_is_the_update(settings: dict[str, Any]) -> None:
    """To the last bit; minibatches come in two sizes, and the learning rate and clipping change in between."""
    results = []
    for recorder in (None, TapeRecorder()):
        env = PointMass(25, seed=5)
        ppo = make(env, watch=False, num_steps=5, lr=3e-3, **settings)
        if recorder is not None:
            record(ppo, recorder)
        results.append([untimed(ppo.iterate(env)) for _ in range(4)])
        flat = ppo.optimizer.flat.detach().clone()
        results.append(flat)
    sizes = 2 if 25 * 5 % ppo.config.minibatches else 1
    updates = 4 * ppo.config.epochs * ppo.config.minibatches
    assert (recorder.warm_ups, recorder.recordings) == (3 * sizes, sizes)
    assert recorder.warm_ups + recorder.replays == updates
    assert results[0] == results[2]
    assert torch.equal(results[1], results[3])


def test_a_recording_outlives_no_loaded_state() -> None:
    env = PointMass(16, seed=5)
    ppo = make(env, watch=False)
    record(ppo, recorder := TapeRecorder())
    for _ in range(2):
        ppo.iterate(env)
    state, worlds = ppo.state_dict(), env.state_dict()
    first = untimed(ppo.iterate(env))
    recordings = recorder.recordings
    ppo.load_state_dict(state)
    env.load_state_dict(worlds)
    assert untimed(ppo.iterate(env)) == first
    assert recorder.recordings == recordings + 1


class Refusing(TapeRecorder):
    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self.recordings += 1
        raise RuntimeError("operation not permitted when stream is capturing\nand more")


def test_where_nothing_can_be_recorded_one_warning_says_so(caplog: pytest.LogCaptureFixture) -> None:
    results = []
    for recorder in (None, Refusing()):
        env = PointMass(16, seed=5)
        ppo = make(env)
        if recorder is not None:
            record(ppo, recorder)
        with caplog.at_level(logging.WARNING):
            results.append([untimed(ppo.iterate(env)) for _ in range(2)])
    assert results[0] == results[1]
    assert recorder.recordings == 1
    assert [r.getMessage() for r in caplog.records] == [
        "no CUDA graph of the update, which is slower (algo.cuda_graph=false: none): "
        "operation not permitted when stream is capturing"
    ]


def test_an_imitation_hook_is_not_recorded() -> None:
    env = PointMass(16, seed=5)
    ppo = make(env, imitation_coef=1.0)
    record(ppo, recorder := TapeRecorder())
    seen = []

    def imitate(batch: Minibatch) -> torch.Tensor:
        seen.append(len(batch.index))
        return batch.mean.square().mean()

    ppo.imitation = imitate
    for _ in range(2):
        ppo.iterate(env)
    assert len(seen) == 2 * ppo.config.epochs * ppo.config.minibatches
    assert recorder.recordings == recorder.warm_ups == 0
