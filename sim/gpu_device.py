"""Where the GPU engine runs: MuJoCo Warp and its device, or one line that says what is missing."""

from __future__ import annotations

import contextlib
import copy
import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mujoco
import torch

from sim.physics import PhysicsError

CONDITIONAL_DRIVER = (12, 4)
"""CUDA version that a driver must offer: the constraint solver's loop is a conditional node of a captured graph."""

_UNKNOWN_TO_WARP = int(mujoco.mjtDisableBit.mjDSBL_AUTORESET) | int(mujoco.mjtDisableBit.mjDSBL_MIDPHASE)


class GpuNotAvailable(PhysicsError):
    """The engine cannot run here: no GPU, none visible, a driver that is too old, or the extra [gpu] is missing."""


@dataclass(frozen=True)
class GpuDevice:
    """The modules and the device that an engine works with.

    Attributes:
        wp, mjw: the modules ``warp`` and ``mujoco_warp``.
        warp: the device, for Warp.
        torch: the same device, for torch.
    """

    wp: Any
    mjw: Any
    warp: Any
    torch: torch.device

    @property
    def is_cuda(self) -> bool:
        return self.torch.type == "cuda"

    def scope(self) -> Any:
        """Context in which Warp allocates and launches on this device."""
        return self.wp.ScopedDevice(self.warp)

    def synchronize(self) -> None:
        """Wait until all work on the device is done; only where arrays are made or replaced."""
        if self.is_cuda:
            torch.cuda.synchronize(self.torch)


def open_device(name: str) -> GpuDevice:
    """Find a device by torch's name for it, ``cuda:0`` or ``cpu``.

    Warp's banner and its compiler's chatter are off, unless ``warp.config.log_level`` was changed before.

    Raises:
        GpuNotAvailable: it cannot be used; what is missing is said.
        PhysicsError: no such name.
    """
    try:
        wanted = torch.device(name)
    except RuntimeError as error:
        raise PhysicsError(f"unknown device {name!r}; devices: cuda:0 (or another number), cpu") from error
    if wanted.type == "cuda":
        index = _cuda_index(wanted)
        wp, mjw = _load(quiet_native=False)
        check_warp(wp, index)
        return GpuDevice(wp, mjw, wp.get_device(f"cuda:{index}"), torch.device("cuda", index))
    if wanted.type != "cpu":
        raise PhysicsError(f"device {name!r} is not one that MuJoCo Warp runs on; devices: cuda:0, cpu")
    wp, mjw = _load(quiet_native=True)
    return GpuDevice(wp, mjw, wp.get_device("cpu"), torch.device("cpu"))


def explain_no_cuda(torch_version: str, torch_cuda: str | None, driver: tuple[int, int] | None) -> str:
    """Why torch sees no GPU, and what helps: its build, the driver, or there being none."""
    if torch_cuda is None:
        found = f"torch {torch_version} is built without CUDA"
        remedy = "install a CUDA build of torch (https://pytorch.org/get-started)"
    elif driver is None:
        found = "no NVIDIA driver was found"
        remedy = "install one"
    else:
        found = f"torch {torch_version} (CUDA {torch_cuda}) finds no GPU, the driver offers CUDA {_dotted(driver)}"
        remedy = "see nvidia-smi and CUDA_VISIBLE_DEVICES"
    return f"no GPU: {found}; {remedy}, or train with world=cpu"


def put_model(device: GpuDevice, model: mujoco.MjModel) -> Any:
    """The model on the device.

    Raises:
        PhysicsError: it has something that MuJoCo Warp lacks, or would leave out in silence.
    """
    if left_out := _left_out(model):
        raise PhysicsError(f"MuJoCo Warp leaves out {left_out}; world=cpu supports it")
    if model.opt.enableflags & int(mujoco.mjtEnableBit.mjENBL_SLEEP):
        raise PhysicsError("worlds cannot sleep: remove the flag 'sleep' from the model's options")
    known = copy.copy(model)  # Warp never resets a world by itself, and refuses the flag that says so
    known.opt.disableflags &= ~_UNKNOWN_TO_WARP
    try:
        with device.scope():
            warp_model = device.mjw.put_model(known)
    except (NotImplementedError, ValueError) as error:
        raise PhysicsError(f"MuJoCo Warp cannot simulate this model: {error} world=cpu supports it") from error
    warp_model.opt.warn_overflow = 0  # `MujocoGpu.check` reports it once, not every step
    return warp_model


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of Warp, torch or CUDA says that memory has run out."""
    text = str(error).lower()
    return isinstance(error, torch.cuda.OutOfMemoryError) or "failed to allocate" in text or "out of memory" in text


def _left_out(model: mujoco.MjModel) -> str:
    """What MuJoCo Warp 3.17 ignores without a word, so that its results would differ from the CPU engine's."""
    if (model.actuator_armature != 0).any():
        return "the actuators' armature (give it to their joints)"
    if model.opt.disableactuator:
        return "disabled actuator groups"
    return ""


def _cuda_index(wanted: torch.device) -> int:
    if not torch.cuda.is_available():
        driver = _load(quiet_native=True)[0].get_cuda_driver_version() if torch.version.cuda else None
        raise GpuNotAvailable(explain_no_cuda(torch.__version__, torch.version.cuda, driver))
    index = torch.cuda.current_device() if wanted.index is None else wanted.index
    if index >= torch.cuda.device_count():
        there = ", ".join(f"cuda:{i}" for i in range(torch.cuda.device_count()))
        raise GpuNotAvailable(f"no GPU cuda:{index}; GPUs here: {there}")
    return index


def check_warp(wp: Any, index: int) -> None:
    """Warp comes with its own CUDA toolkit: what torch can use, it may not."""
    driver = wp.get_cuda_driver_version()
    version = wp.config.version
    if wp.get_cuda_device_count() <= index:
        offers = "offers no version of CUDA" if driver is None else f"offers CUDA {_dotted(driver)}"
        toolkit = wp.get_cuda_toolkit_version()
        needs = f"its toolkit is CUDA {_dotted(toolkit)}" if toolkit else "it is built without CUDA"
        raise GpuNotAvailable(f"Warp {version} cannot use cuda:{index}: {needs}, the driver {offers}; update it")
    if not wp.is_conditional_graph_supported():
        raise GpuNotAvailable(
            f"MuJoCo Warp needs a driver for CUDA {_dotted(CONDITIONAL_DRIVER)} or newer, this one offers "
            f"{_dotted(driver) if driver else 'none'}; update the driver, or train with world=cpu"
        )
    if not wp.is_mempool_supported(f"cuda:{index}"):
        raise GpuNotAvailable(f"cuda:{index} has no memory pools, without which no CUDA graph can allocate")
    wp.set_mempool_enabled(f"cuda:{index}", True)


def _load(quiet_native: bool) -> tuple[Any, Any]:
    """The modules ``warp`` and ``mujoco_warp``, initialised."""
    try:
        wp = importlib.import_module("warp")
        if wp.config.log_level == wp.LOG_INFO:
            wp.config.log_level = wp.LOG_WARNING
        with _native_silence() if quiet_native else contextlib.nullcontext():
            wp.init()
        return wp, importlib.import_module("mujoco_warp")
    except ImportError as error:
        raise GpuNotAvailable(
            f"the GPU engine needs MuJoCo Warp ({error}): pip install 'robolearn[gpu]', or train with world=cpu"
        ) from error


@contextlib.contextmanager
def _native_silence() -> Iterator[None]:
    """Keep native code off standard error: Warp's own reports a missing CUDA driver there, where none is asked for."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
