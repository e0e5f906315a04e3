"""Where the learner computes: ``device=auto``, ``cpu``, ``cuda`` or ``cuda:<number>``."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from robolearn.errors import RobolearnError

if TYPE_CHECKING:
    import torch


class DeviceError(RobolearnError):
    """A device that does not exist, or that this machine or this process does not have."""


def check_name(device: str) -> None:
    """Raise `DeviceError` unless ``device`` is a name of a device."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise DeviceError(f"unknown device {device!r}; devices: auto, cpu, cuda, cuda:<number>")


def learner_device(device: str, follow: torch.device | str) -> torch.device:
    """The device that the setting ``device`` means in this process.

    Args:
        device: ``auto`` is ``follow``; ``cuda`` is the current GPU, under ``torchrun`` the one with the process's
            local rank.
        follow: where the environment's tensors are.

    Raises:
        DeviceError: no such device here: what was asked, what torch reports, and what to do.
    """
    import torch

    check_name(device)
    if device in ("auto", "cpu"):
        return torch.device(follow if device == "auto" else "cpu")
    if not torch.cuda.is_available():
        raise DeviceError(f"device={device}: {_why_no_gpu()}, or use device=cpu (robolearn doctor tells more)")
    here, count = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    there = ", ".join(f"cuda:{i}" for i in range(count))
    if device == "cuda":
        index = int(os.environ.get("LOCAL_RANK", "0")) if here > 1 else torch.cuda.current_device()
        if index >= count:
            raise DeviceError(
                f"device=cuda: {here} processes on this machine need a GPU each, torch reports {there}; start "
                f"{count}, or use device=cpu"
            )
        return torch.device("cuda", index)
    index = int(device.partition(":")[2])
    if index >= count:
        raise DeviceError(f"device={device}: torch reports {there}; use one of these, or device=cpu")
    if here > 1:
        raise DeviceError(f"device={device} is one GPU for {here} processes; device=cuda gives each its own")
    return torch.device("cuda", index)


def _why_no_gpu() -> str:
    """What torch reports of a missing GPU, and what helps."""
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA; install a CUDA build of it"
    found = f"torch {torch.__version__} (CUDA {torch.version.cuda}) finds no GPU that it can use"
    return f"{found}; see nvidia-smi and CUDA_VISIBLE_DEVICES"
