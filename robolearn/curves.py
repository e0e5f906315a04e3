"""Learning curves of a run as one PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_BOOKKEEPING = frozenset({"iteration", "nonfinite", "elapsed_s", "env_steps"})


def plot_curves(rows: Sequence[Mapping[str, Any]], path: str | Path, *, title: str = "") -> Path:
    """Draw every recorded metric over environment steps, one panel per group (the part before ``/``).

    Args:
        rows: recorded iterations (`Run.metrics`); null values leave gaps.
        path: PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for row in rows for name in row if name not in _BOOKKEEPING):
        group = name.partition("/")[0] if "/" in name else "run"
        groups.setdefault(group, []).append(name)
    columns = min(3, max(1, len(groups)))
    lines = math.ceil(max(1, len(groups)) / columns)
    figure = Figure(figsize=(5.2 * columns, 3.4 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    steps = [float(row.get("env_steps", row["iteration"])) for row in rows]
    for index, (group, names) in enumerate(groups.items()):
        axes = figure.add_subplot(lines, columns, index + 1)
        for name in names:
            values = [math.nan if row.get(name) is None else float(row[name]) for row in rows]
            axes.plot(steps, values, linewidth=1.2, label=name.partition("/")[2] or name)
        axes.set_title(group, fontsize=10)
        axes.set_xlabel("environment steps", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        if len(names) <= 12:
            axes.legend(fontsize=6, loc="best")
    if title:
        figure.suptitle(title, fontsize=11)
    path = Path(path)
    figure.savefig(path, dpi=110)
    return path
