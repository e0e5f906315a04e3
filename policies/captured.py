"""Work on minibatches as CUDA graphs: one launch, where launching its kernels from Python would take longer."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

log = logging.getLogger(__name__)

Batch = Mapping[str, torch.Tensor]
WARM_UP = 3
"""Calls of each size before the recording: libraries choose kernels, compilers compile, optimisers make their state."""


class Recorder(Protocol):
    """Runs work so that it can be recorded, and records it."""

    def warm_up(self, work: Callable[[], None]) -> None:
        """Do ``work`` once, unrecorded."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """What does ``work``, as it was recorded, when called; recording alone does nothing.

        Raises:
            RuntimeError: it cannot be recorded.
        """


class CudaRecorder:
    """Records CUDA graphs of one device, on a stream of their own, as captures have to be."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def warm_up(self, work: Callable[[], None]) -> None:
        """See `Recorder`."""
        here = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            work()
        here.wait_stream(self._stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """See `Recorder`."""
        graph = torch.cuda.CUDAGraph()
        collecting = gc.isenabled()
        gc.disable()  # what is freed during a capture spoils it
        try:
            # Other threads (a communication watchdog, say) may call CUDA meanwhile.
            with (
                torch.cuda.device(self._device),
                torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
            ):
                work()
        finally:
            if collecting:
                gc.enable()
        return graph.replay


@dataclass
class _Size:
    """What belongs to one size of minibatch: its buffers, how often it came, what replays the work."""

    buffers: dict[str, torch.Tensor]
    calls: int = 0
    replay: Callable[[], None] | None = None


class Captured:
    """Does some work on every minibatch it is called with, from a recording as soon as there is one.

    Each size of minibatch has buffers of its own, into which every minibatch is copied, since a recording reads
    addresses. The first calls do the work itself, so no minibatch is seen twice or left out. What the work changes, it
    must change in place. If it cannot be recorded, a warning says so once, and it goes on being done as it is.

    Args:
        work: what to do with a minibatch.
        recorder: how to record.
    """

    def __init__(self, work: Callable[[Batch], None], recorder: Recorder) -> None:
        self._work = work
        self._recorder = recorder
        self._sizes: dict[tuple[torch.Size, ...], _Size] = {}
        self._recordable = True

    def forget(self) -> None:
        """Drop all recordings: something they use lies elsewhere now."""
        self._sizes.clear()

    def __call__(self, batch: Batch) -> None:
        """Do the work on ``batch``."""
        if not self._recordable:
            self._work(batch)
            return
        size = self._size(batch)
        for name, buffer in size.buffers.items():
            buffer.copy_(batch[name])
        size.calls += 1
        if size.calls <= WARM_UP:
            self._recorder.warm_up(lambda: self._work(size.buffers))
            return
        if size.replay is None:
            try:
                size.replay = self._recorder.record(lambda: self._work(size.buffers))
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                log.warning("no CUDA graph of the update, which is slower (algo.cuda_graph=false: none): %s", reason)
                self._recordable = False
                self._sizes.clear()
                self._work(batch)
                return
        size.replay()

    def _size(self, batch: Batch) -> _Size:
        key = tuple(value.shape for value in batch.values())
        if key not in self._sizes:
            self._sizes[key] = _Size({name: torch.empty_like(value) for name, value in batch.items()})
        return self._sizes[key]
