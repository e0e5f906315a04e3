"""How many threads torch uses where it shares the processor with a physics engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread while worlds are stepped, and restore its number of threads afterwards.

    The tensors of a step are small, and between two of them idle workers would spin on the engine's cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
