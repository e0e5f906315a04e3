"""What was randomised, as one PNG: a histogram for each randomiser, beside the distribution that it states."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sim.task import Randomizer

_COLUMNS = 4
_FEW = 30
"""With fewer draws than this, each is shown as a line of its own."""
_LABELS = {"xyz": ("x", "y", "z"), "color": ("red", "green", "blue")}
_COLORS = ("tab:red", "tab:green", "tab:blue")


def plot_draws(randomizers: Iterable[Randomizer], path: str | Path, *, title: str = "") -> Path | None:
    """Draw what each world drew last.

    Args:
        randomizers: of an environment, `sim.task.Task.randomizers`.
        path: PNG to write.
        title: above all panels.

    Returns:
        The PNG, or None where nothing is randomised.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = list(randomizers)
    if not shown:
        return None
    columns = min(_COLUMNS, len(shown))
    lines = math.ceil(len(shown) / columns)
    height = 2.5 * lines + 0.5
    figure = Figure(figsize=(3.8 * max(columns, 2), height))
    FigureCanvasAgg(figure)
    for index, randomizer in enumerate(shown):
        _panel(figure.add_subplot(lines, columns, index + 1), randomizer)
    figure.subplots_adjust(0.04, 0.55 / height, 0.99, 1 - 0.8 / height, wspace=0.18, hspace=0.62)
    figure.suptitle(title, fontsize=10)
    path = Path(path)
    figure.savefig(path, dpi=100)
    return path


def _panel(axes: Any, randomizer: Randomizer) -> None:
    draw = randomizer.draw
    sizes = draw.sizes(randomizer.drawn).cpu().numpy()  # (N, items, 1 or 3)
    names = _LABELS["color" if randomizer.name.endswith("_color") else "xyz"] if sizes.shape[-1] == 3 else ("",)
    series = [(name, _finite(sizes[..., k])) for k, name in enumerate(names)]
    count = max(len(values) for _, values in series)
    if count:
        _bars(axes, randomizer, series)
    else:
        axes.text(0.5, 0.5, "nothing drawn yet", transform=axes.transAxes, ha="center", fontsize=8, color="gray")
    for bound in (draw.low, draw.high):
        axes.axvline(bound, color="black", linewidth=0.8, linestyle=":")
    when = {"start": "once", "reset": "at resets", "interval": "at intervals"}[randomizer.at]
    kind = "" if draw.distribution == "uniform" else f", {draw.distribution.replace('_', '-')}"
    length = "length, " if draw.form in ("sphere", "horizontal") else ""
    axes.set_title(f"{randomizer.name}   ({when}{kind})", fontsize=8, pad=3)
    axes.set_xlabel(f"{length}{randomizer.unit}   (last {count} draws)", fontsize=7, labelpad=1)
    axes.tick_params(labelsize=6)
    axes.set_yticks([])
    if not randomizer.discrete:
        axes.locator_params(axis="x", nbins=6)


def _bars(axes: Any, randomizer: Randomizer, series: list[tuple[str, np.ndarray]]) -> None:
    draw = randomizer.draw
    low, high = draw.low, draw.high
    if randomizer.discrete:
        axes.hist(series[0][1], bins=np.arange(low - 0.5, high + 1.0), density=True, rwidth=0.8, color="tab:gray")
        axes.set_xticks(np.arange(low, high + 1))
        return
    x = np.linspace(low, high, 200)
    if low < high:
        axes.plot(x, draw.density(x), color="black", linewidth=1.0)
    count = len(series[0][1])
    colors = _COLORS if len(series) > 1 else ("tab:gray",)
    bins = np.linspace(low, high, int(np.clip(math.sqrt(count), 5, 40)) + 1)
    for k, ((name, values), color) in enumerate(zip(series, colors, strict=True)):
        label = {"label": name} if name else {}
        if count < _FEW or low == high:
            band = (k / len(series), (k + 1) / len(series))  # one above the other
            bands = [np.full(len(values), edge) for edge in band]
            axes.vlines(values, *bands, colors=color, linewidth=2.0, transform=axes.get_xaxis_transform(), **label)
        else:
            style = {"histtype": "step", "linewidth": 1.2} if name else {}
            axes.hist(values, bins=bins, density=True, color=color, **style, **label)
    if len(series) > 1:
        axes.legend(fontsize=6, loc="lower center", ncols=3, frameon=False)
    axes.set_ylim(bottom=0.0)


def _finite(values: np.ndarray) -> np.ndarray:
    """What was drawn: worlds that have drawn nothing have no number."""
    return values[np.isfinite(values)]
