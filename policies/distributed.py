"""Data-parallel training under ``torchrun``: every rank steps its own worlds, all ranks share one learner.

Sums over ranks come from one all-reduce, whose result is the same bits on every rank; whatever is derived
from it (gradients, statistics, the learning rate) therefore stays identical without a further broadcast.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist


def init_from_env() -> tuple[int, int]:
    """Join the process group that ``torchrun`` describes in the environment; return ``(rank, world_size)``.

    Tensors on a GPU are averaged by NCCL, others by gloo. Where there are GPUs, this process's current one becomes that
    with its local rank. Outside ``torchrun`` (no ``WORLD_SIZE``, or 1) nothing is started and the answer is ``(0, 1)``.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        gpus = torch.cuda.device_count() if torch.cuda.is_available() and dist.is_nccl_available() else 0
        if gpus:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % gpus)
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo")
    return rank(), world_size()


def rank() -> int:
    """This process's rank; 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_over_ranks_(value: torch.Tensor) -> torch.Tensor:
    """Replace ``value`` by its sum over ranks, in place; nothing happens in a single process."""
    if world_size() > 1:
        dist.all_reduce(value)
    return value


def mean_over_ranks_(value: torch.Tensor) -> torch.Tensor:
    """Replace ``value`` by its mean over ranks, in place; nothing happens in a single process."""
    return sum_over_ranks_(value).div_(world_size()) if world_size() > 1 else value


def copy_from_first_rank_(value: torch.Tensor) -> torch.Tensor:
    """Replace ``value`` by rank 0's, in place."""
    if world_size() > 1:
        dist.broadcast(value, src=0)
    return value
