"""Replays a piece of a step as one CUDA graph, so that a GPU does not wait for the host to launch its kernels."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import torch

log = logging.getLogger(__name__)

T = TypeVar("T")
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
            with torch.cuda.graph(graph):
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
