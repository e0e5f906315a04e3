"""What a rollout is worth: values, advantages, and targets of the value function."""

from __future__ import annotations

import torch

from policies.errors import check_finite
from policies.loss import standardize_
from policies.networks import ActorCritic
from policies.passes import Passes
from policies.ppo_config import PPOConfig
from policies.rollout import Rollout, gae


@torch.no_grad()
def estimate(
    config: PPOConfig,
    network: ActorCritic,
    passes: Passes,
    rollout: Rollout,
    hidden: dict[str, torch.Tensor],
    look: bool,
) -> None:
    """Fill in values (in one pass), bootstrapped rewards, advantages and value targets of a rollout.

    Args:
        config: discounts, and what is normalised.
        network, passes: the value function; its normaliser moves.
        rollout: with everything else.
        hidden: the critic's hidden states before the rollout (N, H) are replaced by those after it.
        look: whether the host may wait for the device; see `_bootstrap`.
    """
    r, norm = rollout, network.value_norm
    z, states = r.obs["critic"], None
    if network.recurrent:
        states = passes.sequence("critic", z[:-1], hidden["critic"], r.keep())
        last = hidden["critic"] = states[-1] * (1.0 - r.done[-1]).unsqueeze(-1)
        z = torch.cat((states, passes.remember("critic", z[-1], last).unsqueeze(0)))
    r.value.copy_(passes.value(z.flatten(0, 1)).view_as(r.value))
    _bootstrap(config.gamma, network, passes, r, states, look)
    gae(r.reward, r.value, r.done, config.gamma, config.lam, out=r.advantage)
    torch.add(r.advantage, r.value[:-1], out=r.target)
    if config.normalize_value:
        norm.update(r.target.unsqueeze(-1))
        r.target.copy_(norm(r.target.unsqueeze(-1)).squeeze(-1))
        r.value.copy_(norm(r.value.unsqueeze(-1)).squeeze(-1))
    if config.normalize_advantage == "batch":
        standardize_(r.advantage)


def _bootstrap(
    gamma: float, network: ActorCritic, passes: Passes, r: Rollout, states: torch.Tensor | None, look: bool
) -> None:
    """Add γ V(final observation) to the reward of steps that ended by the clock.

    Where the host may look, only those are evaluated; on a GPU all are, and `Rollout.clear_final` was called.

    Args:
        states: the critic's hidden states after each step (T, N, H); None without memory.
    """
    final, timeout = r.final.flatten(0, 1), r.timeout.flatten()
    where = torch.nonzero(timeout).squeeze(1) if look else None
    if where is not None:
        if not len(where):
            return
        final = final[where]
        check_finite("final observation 'critic'", final)
    z = network.norm["critic"](final)
    if states is not None:
        h = states.flatten(0, 1)
        z = passes.remember("critic", z, h if where is None else h[where])
    value = passes.value(z)
    if where is None:
        r.reward.view(-1).add_(value.masked_fill(~timeout, 0.0), alpha=gamma)
    else:
        r.reward.view(-1).index_add_(0, where, value, alpha=gamma)
