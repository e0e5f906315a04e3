"""Adam over parameters that lie in one flat tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class FlatAdam:
    """Adam whose parameters and gradients are views of two flat tensors.

    One fused kernel then updates everything, one call clips a whole network, and one all-reduce carries all
    gradients together with `extra` scalars.

    Args:
        networks: parameter lists; each list's gradient norm is clipped on its own.
        lr: learning rate.
        extra: how many scalars travel with the gradients.
    """

    def __init__(self, networks: Sequence[Sequence[nn.Parameter]], lr: float, extra: int = 0) -> None:
        params = [p for network in networks for p in network]
        device = params[0].device
        flat = torch.cat([p.detach().reshape(-1) for p in params])
        self.message = torch.zeros(flat.numel() + extra, device=device)
        """Gradients, then the extra scalars: what data-parallel ranks average."""
        self.grad = self.message[: flat.numel()]
        self.extra = self.message[flat.numel() :]
        self.flat = nn.Parameter(flat)
        self.flat.grad = self.grad
        self.slices: list[slice] = []
        offset = 0
        for network in networks:
            first = offset
            for p in network:
                here = slice(offset, offset + p.numel())
                p.data = flat[here].view_as(p)
                p.grad = self.grad[here].view_as(p)
                offset = here.stop
            self.slices.append(slice(first, offset))
        self.adam = torch.optim.Adam([self.flat], lr=lr, fused=True)

    @property
    def lr(self) -> float:
        """The learning rate."""
        return self.adam.param_groups[0]["lr"]

    @lr.setter
    def lr(self, value: float) -> None:
        self.adam.param_groups[0]["lr"] = value

    def zero_grad(self) -> None:
        """Clear gradients and extra scalars."""
        self.message.zero_()

    def grad_norms(self) -> torch.Tensor:
        """Gradient norm of each network, (len(networks),)."""
        return torch.stack([self.grad[s].norm() for s in self.slices])

    def step(self, norms: Sequence[float], max_norm: float) -> None:
        """Scale each network's gradient down to ``max_norm``, given its norm, and take one step."""
        for where, norm in zip(self.slices, norms, strict=True):
            if norm > max_norm:
                self.grad[where].mul_(max_norm / (norm + 1e-6))
        self.adam.step()

    def state_dict(self) -> dict[str, Any]:
        """Adam's moments and step count, copied, and the learning rate."""
        moments = {k: v.clone() for k, v in self.adam.state[self.flat].items()} if self.adam.state else {}
        return {"lr": self.lr, "moments": moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.lr = state["lr"]
        self.adam.state.clear()
        if state["moments"]:
            self.adam.state[self.flat] = {k: v.to(self.flat.device).clone() for k, v in state["moments"].items()}
