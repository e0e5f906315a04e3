"""Keeping a GPU busy: pieces of a step replayed as CUDA graphs, and engines that step side by side."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

import torch

log = logging.getLogger(__name__)

T = TypeVar("T")
U = TypeVar("U")
_WARM_UP = 3


class Replayed(Generic[T]):
    """A function without arguments that a CUDA graph replays after a few calls; on other devices it is just called.

    What it reads has to stay in the same tensors from call to call, and what it changes it has to change in place. Its
    result is the same object every time, filled anew. Should the capture fail, the function goes on being called.

    Args:
        func: the function.
        device: where its tensors are.
        generators: those it draws from.
    """

    def __init__(self, func: Callable[[], T], device: torch.device, generators: Iterable[torch.Generator] = ()) -> None:
        self._func = func
        self._capturing = device.type == "cuda"
        self._generators = tuple(generators)
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: list[T] = []

    def __call__(self) -> T:
        """Do it once."""
        if self._graph is not None:
            self._graph.replay()
            return self._result[0]
        self._calls += 1
        if self._capturing and self._calls > _WARM_UP:
            return self._capture()
        return self._func()

    def _capture(self) -> T:
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        collecting = gc.isenabled()
        gc.disable()  # freeing device memory would spoil the capture
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                result = self._func()
        except RuntimeError as error:
            log.warning("no CUDA graph of %s, which is slower: %s", self._func.__qualname__, error)
            self._capturing = False
            return self._func()
        finally:
            if collecting:
                gc.enable()
        self._graph, self._result = graph, [result]
        graph.replay()
        return result


class SideBySide(Generic[U]):
    """Does the same for several engines; on a GPU each on a stream of its own, since one alone may not fill it."""

    def __init__(self, engines: Sequence[U], device: torch.device) -> None:
        self._engines = tuple(engines)
        several = device.type == "cuda" and len(self._engines) > 1
        self._streams = [torch.cuda.Stream(device) for _ in self._engines] if several else []

    def __call__(self, work: Callable[[U], None]) -> None:
        """``work(engine)`` for every engine; what follows on the current stream waits for all of them."""
        if not self._streams:
            for engine in self._engines:
                work(engine)
            return
        current = torch.cuda.current_stream()
        for engine, stream in zip(self._engines, self._streams, strict=True):
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                work(engine)
        for stream in self._streams:
            current.wait_stream(stream)
