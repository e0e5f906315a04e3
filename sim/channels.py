"""Channels at run time: named physical quantities of N worlds, and quantities derived from them on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from robolearn.errors import RobolearnError, unknown

Derived = Callable[["Channels"], torch.Tensor]


class ChannelError(RobolearnError):
    """A channel that neither the world nor the task provides."""


class Channels(dict[str, torch.Tensor]):
    """A dictionary name → (N, ...) float32 tensor that computes derived channels once, on first use.

    Observation, reward and termination terms are pure functions of this object, so the same term runs in training,
    in an exported graph and on recorded data.

    Args:
        raw: measured channels, as the world or a robot driver delivers them.
        derived: name → function of the channels; evaluated lazily and kept until `update_raw`.
    """

    def __init__(self, raw: Mapping[str, torch.Tensor], derived: Mapping[str, Derived] | None = None) -> None:
        super().__init__(raw)
        self.derived = dict(derived or {})
        self.accessed: set[str] = set()
        self._once: dict[int, torch.Tensor] = {}

    def __getitem__(self, name: str) -> torch.Tensor:
        self.accessed.add(name)
        return super().__getitem__(name)

    def __missing__(self, name: str) -> torch.Tensor:
        function = self.derived.get(name)
        if function is None:
            raise ChannelError(unknown("channel", name, {**self, **self.derived}))
        value = self[name] = function(self)
        return value

    def update_raw(self, raw: Mapping[str, torch.Tensor]) -> None:
        """Replace measured channels and forget everything derived from the old ones."""
        for name in self.derived:
            self.pop(name, None)
        self._once.clear()
        self.update(raw)

    def once(self, key: object, func: Callable[..., torch.Tensor], params: Mapping[str, Any]) -> torch.Tensor:
        """``func(self, **params)``, kept for ``key`` until `update_raw`."""
        value = self._once.get(id(key))
        if value is None:
            value = self._once[id(key)] = func(self, **params)
        return value

    def rows(self, ids: torch.Tensor, raw: tuple[str, ...]) -> Channels:
        """The channels ``raw`` of the worlds ``ids`` (K,), with nothing derived yet."""
        return Channels({name: self[name][ids] for name in raw}, self.derived)
