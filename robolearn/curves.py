"""Learning curves of a run as one PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_NOT_DRAWN = frozenset({"iteration", "nonfinite", "elapsed_s", "env_steps"})
_TOGETHER = frozenset({"reward", "termination"})
"""Groups whose metrics share a unit, and so a panel."""
_FIRST = ("episode", "reward", "termination")
_COLUMNS = 5


def plot_curves(rows: Sequence[Mapping[str, Any]], path: str | Path, *, title: str = "") -> Path:
    """Draw every recorded metric over environment steps: faint as recorded, strong as a moving average.

    Args:
        rows: recorded iterations (`Run.metrics`); iterations without a value are bridged.
        path: PNG to write.
        title: above all panels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = _panels(rows)
    lines = max(1, math.ceil(len(panels) / _COLUMNS))
    figure = Figure(figsize=(3.4 * _COLUMNS, 2.3 * lines + 0.4))
    FigureCanvasAgg(figure)
    for index, (name, members) in enumerate(panels.items()):
        axes = figure.add_subplot(lines, _COLUMNS, index + 1)
        for member in members:
            steps, values = _series(rows, member)
            (faint,) = axes.plot(steps, values, linewidth=0.6, alpha=0.35)
            label = member.partition("/")[2] if len(members) > 1 else None
            axes.plot(steps, _smooth(values), linewidth=1.4, color=faint.get_color(), label=label)
        axes.set_title(name, fontsize=8, pad=3)
        axes.tick_params(labelsize=6)
        axes.xaxis.get_offset_text().set_fontsize(6)
        axes.grid(alpha=0.3)
        if len(members) > 1:
            axes.legend(fontsize=5, loc="best")
    # A computed layout would draw everything twice.
    height = 2.3 * lines + 0.4
    figure.subplots_adjust(0.03, 0.35 / height, 0.99, 1 - 0.6 / height, wspace=0.22, hspace=0.35)
    figure.suptitle(f"{title}   (over environment steps)".strip(), fontsize=10)
    path = Path(path)
    figure.savefig(path, dpi=100)
    return path


def _panels(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Panel title → metrics in it; what a person asks first comes first."""
    panels: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for row in rows for name in row if name not in _NOT_DRAWN):
        group = name.partition("/")[0]
        panels.setdefault(group if group in _TOGETHER else name, []).append(name)

    def place(title: str) -> int:
        group = title.partition("/")[0]
        return _FIRST.index(group) if group in _FIRST else len(_FIRST)

    return dict(sorted(panels.items(), key=lambda item: place(item[0])))


def _series(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    kept = [row for row in rows if row.get(name) is not None]
    steps = np.array([row.get("env_steps", row["iteration"]) for row in kept], dtype=float)
    return steps, np.array([row[name] for row in kept], dtype=float)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Mean over a centred window of 1/25 of the curve, shorter at its ends."""
    half = len(values) // 50
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)
