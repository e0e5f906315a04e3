"""Work of MuJoCo Warp as captured graphs: one launch, where launching its kernels from Python would take longer."""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable
from typing import Any

import torch

from sim.gpu_device import GpuDevice


class Graphs:
    """Captured graphs of one engine, by key.

    The first time, work is done call by call, which compiles its kernels; the second time it is captured, and from then
    on launched. A graph holds the addresses of the arrays that its kernels had when it was captured: `clear` after
    replacing one.

    On a CUDA device these are CUDA graphs, launched on torch's current stream. On the CPU device Warp replays the
    recorded calls natively, with the very same results as the calls themselves.

    Args:
        device: where to run.
    """

    def __init__(self, device: GpuDevice) -> None:
        self._device = device
        self._done: set[Hashable] = set()
        self._graphs: dict[Hashable, Any] = {}

    def run(self, key: Hashable, work: Callable[[], None]) -> None:
        """Do ``work``, which must be the same for the same key.

        Raises:
            RuntimeError: torch is capturing a graph of its own, of which a launch cannot become a part.
        """
        if self._device.is_cuda and torch.cuda.is_current_stream_capturing():
            raise RuntimeError("physics runs as a graph, and cannot be captured in another one")
        if key not in self._done:
            self._call(work)
            self._done.add(key)
            return
        if key not in self._graphs:
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
        self._done.clear()

    def _call(self, work: Callable[[], None]) -> None:
        """Do the work call by call, in order with what torch does."""
        if not self._device.is_cuda:
            with self._device.scope():
                work()
            return
        # on Warp's own stream, in whose order it also frees the scratch arrays
        own, torchs = self._device.warp.stream, self._device.wp.stream_from_torch(self._device.torch)
        own.wait_stream(torchs)
        with self._device.scope():
            work()
        torchs.wait_stream(own)

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
