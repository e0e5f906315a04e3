"""How the networks are run: eagerly or compiled, in single precision or with bfloat16 products."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import torch

from policies.errors import PolicyConfigError
from policies.fused import Workspace
from policies.networks import GRU, MLP, ActorCritic
from policies.ppo_config import PPOConfig
from policies.rollout import GROUPS

F = TypeVar("F", bound=Callable[..., Any])


class Passes:
    """Passes through the networks of an `ActorCritic`; whatever goes in and comes out is float32.

    Args:
        network: its parameters are used where they are.
        config: precision, and whether to compile.
        rows: largest batch of `head`; `value` splits larger ones.
        device: where the network is.
    """

    def __init__(self, network: ActorCritic, config: PPOConfig, rows: int, device: torch.device) -> None:
        self.network = network
        self._rows, self._normalize_value = rows, config.normalize_value
        self._bfloat16 = config.precision == "bf16"
        self._device_type = device.type
        mlps = {"policy": network.actor, "critic": network.critic}
        # A workspace saves a CPU page faults; a GPU's allocator has none, and a compiler plans memory itself.
        lean = device.type == "cpu" and config.compile == "none" and not self._bfloat16
        self._mlps: dict[str, MLP | Workspace] = {g: Workspace(mlps[g], rows) if lean else mlps[g] for g in GROUPS}
        self._head = compiled(self._run_head, config.compile)
        self._cell = compiled(self._run_cell, config.compile)

    def head(self, group: str, x: torch.Tensor) -> torch.Tensor:
        """Outputs (B, A) or (B, 1) of the MLP of ``group`` for normalised observations or hidden states (B, d)."""
        mlp = self._mlps[group]
        return mlp(x) if isinstance(mlp, Workspace) else self._head(mlp, x)

    def value(self, z: torch.Tensor) -> torch.Tensor:
        """Values (B,) in units of the reward, of normalised observations or hidden states (B, d)."""
        value = torch.cat([self.head("critic", part) for part in z.split(self._rows)])
        return (self.network.value_norm.undo(value) if self._normalize_value else value).squeeze(-1)

    def remember(self, group: str, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """Hidden states (B, H) after one step: observations ``x`` (B, d), hidden states ``h`` before it."""
        return self._cell(self.network.memory[group], x, h)

    def sequence(self, group: str, x: torch.Tensor, h: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """Hidden states (T, B, H) after each of T steps; see `GRU.sequence`.

        Never compiled: a compiler writes its steps out one after the other, and takes minutes for them.
        """
        with self._autocast():
            return self.network.memory[group].sequence(x, h, keep)

    def minibatch(self, group: str, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Outputs (B, A) or (B, 1) of the network of ``group`` for a minibatch of `Rollout.shuffle`."""
        x = batch[group]
        if self.network.recurrent:
            start = batch[f"hidden/{group}"]
            keep = batch["keep"].view(-1, len(start))
            x = self.sequence(group, x.view(len(keep), len(start), -1), start, keep).flatten(0, 1)
        return self.head(group, x)

    def _run_head(self, mlp: MLP, x: torch.Tensor) -> torch.Tensor:
        with self._autocast():
            x = mlp.hidden(x)
        return mlp.output(x.float())

    def _run_cell(self, gru: GRU, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        with self._autocast():
            return gru(x, h)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        # Casts of weights are not kept for later: weights change in place, and a CUDA graph could not see into a cache.
        if not self._bfloat16:
            return contextlib.nullcontext()
        return torch.autocast(self._device_type, torch.bfloat16, cache_enabled=False)


def compiled(function: F, how: str) -> F:
    """``function`` run by ``torch.compile`` as the setting ``compile`` says; nothing is compiled before its first call.

    CUDA graphs are left to `policies.captured`, which records whole updates.

    Raises:
        PolicyConfigError: from its first call, where torch cannot compile; why is said.
    """
    if how == "none":
        return function
    import torch._dynamo

    # Every learner of a process (of a sweep, say) needs its own; beyond the limit nothing would be compiled any more.
    torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, 256)
    # Batches come in many sizes, for each of which something would be compiled otherwise.
    fast = torch.compile(function, dynamic=True, mode="max-autotune-no-cudagraphs" if how == "max" else None)

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        try:
            return fast(*args)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise PolicyConfigError(f"ppo compile={how} does not work here, compile=none does: {reason}") from error

    return cast(F, run)
