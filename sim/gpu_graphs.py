"""Work of MuJoCo Warp as captured graphs: one launch, where launching its kernels from Python would take longer."""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable
from typing import Any

import torch

from sim.gpu_device import GpuDevice


class Graphs:
    """Captured graphs of one engine, by key.

    A graph holds the addresses of the arrays that its kernels had when it was captured: `clear` after replacing one.
    On a CUDA device it is a CUDA graph, launched on torch's current stream; on the CPU device Warp replays the recorded
    calls natively, with the very same results as the calls themselves.

    Args:
        device: where to run.
        state: tensors that the work changes; a first run before the capture must leave no trace in them.
    """

    def __init__(self, device: GpuDevice, state: Callable[[], list[torch.Tensor]]) -> None:
        self._device = device
        self._state = state
        self._graphs: dict[Hashable, Any] = {}

    def run(self, key: Hashable, work: Callable[[], None]) -> None:
        """Do ``work``, which must be the same for the same key; captured where it is not yet.

        Raises:
            RuntimeError: torch is capturing a graph of its own, of which a launch cannot become a part.
        """
        if self._device.is_cuda and torch.cuda.is_current_stream_capturing():
            raise RuntimeError("physics runs as a graph, and cannot be captured in another one")
        if key not in self._graphs:
            self._compile(work)
            self._graphs[key] = self._capture(work)
        wp = self._device.wp
        if self._device.is_cuda:
            wp.capture_launch(self._graphs[key], stream=wp.stream_from_torch(self._device.torch))
        else:
            wp.capture_launch(self._graphs[key])

    def clear(self) -> None:
        """Forget all graphs: an array was replaced, or other work is wanted."""
        if self._graphs:
            self._device.synchronize()  # a graph, and the arrays in it, may still be in use
            self._graphs.clear()

    def _compile(self, work: Callable[[], None]) -> None:
        """Run the work once, so that its kernels are compiled and loaded, and put the state back."""
        before = [tensor.clone() for tensor in self._state()]
        with self._device.scope():
            if self._device.is_cuda:  # on Warp's stream, which frees the scratch arrays in the order of their use
                wp = self._device.wp
                own, torchs = self._device.warp.stream, wp.stream_from_torch(self._device.torch)
                own.wait_stream(torchs)
                work()
                torchs.wait_stream(own)
            else:
                work()
        for tensor, saved in zip(self._state(), before, strict=True):
            tensor.copy_(saved)

    def _capture(self, work: Callable[[], None]) -> Any:
        collecting = gc.isenabled()
        gc.disable()  # an array that is freed during the capture would become part of the graph
        try:
            with self._device.scope(), self._device.wp.ScopedCapture(force_module_load=False) as capture:
                work()
        finally:
            if collecting:
                gc.enable()
        return capture.graph
