"""Adam over parameters that lie in one flat tensor, steered by tensors that the host need not read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class FlatAdam:
    """Adam whose parameters and gradients are views of two flat tensors.

    One fused kernel then updates everything, and one all-reduce carries all gradients together with `extra` scalars.
    Nothing in `step` waits for a GPU: what decides about it are tensors on the device.

    Args:
        networks: parameter lists; each list's gradient norm is clipped on its own.
        lr: learning rate.
        max_norm: bound of each gradient norm.
        extra: how many scalars travel with the gradients.

    Attributes:
        flat, grad: parameters and gradients (n,).
        message: gradients, then the extra scalars: what data-parallel ranks average.
        rate: the learning rate, a scalar on the device.
        skip: a scalar on the device; while it is 1, `step` leaves everything as it is.
    """

    def __init__(self, networks: Sequence[Sequence[nn.Parameter]], lr: float, max_norm: float, extra: int = 0) -> None:
        params = [p for network in networks for p in network]
        device = params[0].device
        flat = torch.cat([p.detach().reshape(-1) for p in params])
        self.message = torch.zeros(flat.numel() + extra, device=device)
        self.grad = self.message[: flat.numel()]
        self.extra = self.message[flat.numel() :]
        self.flat = nn.Parameter(flat)
        self.flat.grad = self.grad
        self._parts: list[torch.Tensor] = []
        offset = 0
        for network in networks:
            first = offset
            for p in network:
                here = slice(offset, offset + p.numel())
                p.data = flat[here].view_as(p)
                p.grad = self.grad[here].view_as(p)
                offset = here.stop
            self._parts.append(self.grad[first:offset])
        on_gpu = device.type == "cuda"
        # The CUDA kernel reads a rate of single precision; on a CPU double precision keeps what a float would give.
        self.rate = torch.full((), lr, dtype=torch.float32 if on_gpu else torch.float64, device=device)
        self.skip = torch.zeros((), device=device)
        self._limit = torch.full((), max_norm, dtype=torch.float64, device=device)
        self._one = torch.ones((), dtype=torch.float64, device=device)
        self.adam = torch.optim.Adam([self.flat], lr=self.rate, fused=True, capturable=on_gpu)
        # The flag by which torch's gradient scaler makes fused optimisers leave out a step.
        setattr(self.adam, "found_inf", self.skip)  # noqa: B010

    @property
    def lr(self) -> float:
        """The learning rate; the host waits for it."""
        return float(self.rate)

    def zero_grad(self) -> None:
        """Clear gradients and extra scalars."""
        self.message.zero_()

    def grad_norms(self) -> torch.Tensor:
        """Gradient norm of each network, (len(networks),)."""
        return torch.stack([part.norm() for part in self._parts])

    def step(self, norms: torch.Tensor) -> None:
        """Scale each network's gradient down to the bound, given the norms (len(networks),), and take one step."""
        norms = norms.double()
        scales = torch.where(norms > self._limit, self._limit / (norms + 1e-6), self._one).float()
        for part, scale in zip(self._parts, scales.unbind(), strict=True):
            part.mul_(scale)
        self.adam.step()

    def state_dict(self) -> dict[str, Any]:
        """Adam's moments and step count, copied, and the learning rate."""
        moments = {k: v.clone() for k, v in self.adam.state[self.flat].items()} if self.adam.state else {}
        return {"lr": self.lr, "moments": moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, on whatever device it was."""
        self.rate.fill_(state["lr"])
        self.adam.state.clear()
        if state["moments"]:
            self.adam.state[self.flat] = {k: v.to(self.flat.device).clone() for k, v in state["moments"].items()}
