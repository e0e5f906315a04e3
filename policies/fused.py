"""The forward and backward pass of an MLP in memory that is allocated once.

Fresh megabyte-sized tensors cost page faults: on a CPU that is as much time as all activations of a small
network together. Here hidden activations and their gradients live in a workspace, and activations are
replaced by their derivatives in place on the way back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from policies.networks import MLP


class Workspace:
    """Runs one `MLP` on batches of up to a fixed number of rows; the same function as calling the module.

    One forward pass may be pending at a time: its backward pass must come before the next forward pass.

    Args:
        mlp: the network.
        rows: largest batch.
    """

    def __init__(self, mlp: MLP, rows: int) -> None:
        self.mlp = mlp
        like = mlp.layers[0].weight
        widths = [layer.out_features for layer in mlp.layers[:-1]]
        self.hidden = [like.new_empty(rows, width) for width in widths]
        self.grad = [like.new_empty(rows, width) for width in widths]
        self.weight_grad = [torch.empty_like(layer.weight) for layer in mlp.layers]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``x`` (B, inputs) to (B, outputs), differentiable once."""
        return _Run.apply(x, self, *self.mlp.parameters())


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, work: Workspace, *params: torch.Tensor) -> torch.Tensor:
        ctx.work, ctx.inputs = work, [x]
        rows = x.shape[0]
        for k, (weight, bias) in enumerate(zip(params[0:-2:2], params[1:-2:2], strict=True)):
            h = torch.addmm(bias, ctx.inputs[-1], weight.t(), out=work.hidden[k][:rows])
            ctx.inputs.append(_activate_(h, work.grad[k][:rows], work.mlp.activation))
        return torch.addmm(params[-1], ctx.inputs[-1], params[-2].t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        work, inputs = ctx.work, ctx.inputs
        layers = work.mlp.layers
        grads: list[torch.Tensor] = []
        for k in range(len(layers) - 1, -1, -1):
            x = inputs[k]
            grads[:0] = (torch.mm(grad.t(), x, out=work.weight_grad[k]), grad.sum(0))
            if k > 0:
                grad = torch.mm(grad, layers[k].weight, out=work.grad[k - 1][: x.shape[0]])
                _multiply_by_derivative_(grad, x, work.mlp.activation)
        first = torch.mm(grad, layers[0].weight) if ctx.needs_input_grad[0] else None
        return first, None, *grads


def _activate_(x: torch.Tensor, scratch: torch.Tensor, activation: str) -> torch.Tensor:
    """Apply the activation to ``x`` in place.

    ELU is max(x, exp(min(x, 0)) - 1). PyTorch's vectorised sigmoid takes half the time of its exponential on
    a CPU, and exp(x) = 1 / (1 / σ(x) - 1); the difference to ``torch.nn.functional.elu`` stays below 3e-7.
    """
    if activation == "elu":
        torch.clamp(x, max=0.0, out=scratch).sigmoid_().reciprocal_().sub_(1.0).reciprocal_().sub_(1.0)
        return torch.maximum(x, scratch, out=x)
    return x.relu_() if activation == "relu" else x.tanh_()


def _multiply_by_derivative_(grad: torch.Tensor, h: torch.Tensor, activation: str) -> None:
    """Multiply ``grad`` by the activation's derivative, given its output ``h``, which is overwritten."""
    if activation == "elu":
        grad.addcmul_(grad, h.clamp_(max=0.0))  # 1 where h > 0, else exp(x) = h + 1
    elif activation == "relu":
        grad.mul_(h.sign_())
    else:
        grad.addcmul_(grad, h.square_(), value=-1.0)
