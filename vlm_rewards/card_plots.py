"""Plots of a critic card, drawn from what the card holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlm_rewards.card_record import Card

_GOOD, _BAD, _PLAIN, _PALE = "#2a7f62", "#c0392b", "#34568b", "#b8c4d6"


def plot_card(card: Card, folder: Path) -> list[Path]:
    """Draw the plots for which the card has numbers: curves, false done, reliability, shifts, baselines.

    Returns:
        The PNG files, in ``folder``.
    """
    lines = card.lines
    wanted: dict[str, tuple[Any, Callable[[Any, Any], None]]] = {
        "value": (lines["curves"], _value),
        "false_done": (lines["done"], _false_done),
        "reliability": (lines["calibration"], _reliability),
        "shifts": (lines["shifts"], _compared),
        "baselines": (lines["baselines"], _compared),
        "exploit": (lines["exploit"], _exploit),
    }
    paths = []
    for name, (line, draw) in wanted.items():
        if isinstance(line, Mapping) and line:
            paths.append(_drawn(draw, line, folder / f"card_{name}.png", f"{card.critic}: {name.replace('_', ' ')}"))
    return paths


def _drawn(draw: Callable[[Any, Any], None], line: Any, path: Path, title: str) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure, line)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=100)
    return path


def _value(figure: Any, curves: Mapping[str, Any]) -> None:
    """Progress over the share of the episode, one panel a mode: mean, 10th to 90th percentile, truth."""
    columns = min(4, len(curves))
    axes = figure.subplots(math.ceil(len(curves) / columns), columns, sharex=True, sharey=True, squeeze=False).ravel()
    for ax in axes[len(curves) :]:
        ax.set_visible(False)
    for ax, (mode, curve) in zip(axes, curves.items(), strict=False):
        ax.fill_between(curve["share"], curve["low"], curve["high"], color=_PALE, label="10-90%")
        ax.plot(curve["share"], curve["value"], color=_PLAIN, label="critic")
        ax.plot(curve["share"], _floats(curve["truth"]), color="black", linestyle="--", linewidth=1, label="truth")
        ax.set_title(mode, fontsize=8)
        ax.tick_params(labelsize=7)
        ax.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    figure.supxlabel("share of the episode", fontsize=9)


def _false_done(figure: Any, done: Mapping[str, Any]) -> None:
    """Share of episodes with a false "done", each mode with its interval, and the limit."""
    modes = {**done["modes"], **{f"{mode} (apart)": found for mode, found in done["apart"].items()}}
    ax = figure.subplots()
    for place, (mode, found) in enumerate(modes.items()):
        rate = found["false_done"]
        ax.plot([found["low"], found["high"]], [place, place], color="black", linewidth=1)
        if rate is not None:
            colour = _PLAIN if mode.endswith("(apart)") else _GOOD if rate <= 0.05 else _BAD
            ax.barh(place, rate, color=colour, height=0.6)
    ax.axvline(0.05, color="black", linestyle=":", linewidth=1)
    ax.set_yticks(range(len(modes)), [f"{mode}, {found['episodes']}" for mode, found in modes.items()], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlim(0.0, 1.0)
    ax.set_xlabel("share of episodes with a false done (95% interval); mode, episodes")
    ax.grid(alpha=0.3, axis="x")


def _reliability(figure: Any, line: Mapping[str, Any]) -> None:
    """Share that is true over probability; the size of a dot goes with the logarithm of its answers."""
    curve, ax = line["reliability"], figure.subplots()
    ax.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=1)
    ax.plot(curve["probability"], curve["share"], color=_PLAIN)
    ax.scatter(curve["probability"], curve["share"], s=12 * np.log1p(curve["count"]), color=_PLAIN)
    ax.set_xlabel("probability of done")
    ax.set_ylabel("share truly done")
    ece = "-" if line["ece"] is None else f"{line['ece']:.3f}"
    ax.set_title(f"ECE {ece}, {line['frames']} frames", fontsize=9)
    ax.set_aspect("equal")
    ax.grid(alpha=0.3)


def _compared(figure: Any, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """The numbers of summaries side by side; a missing bar is a number that is not known."""
    shown = {"voc": "VOC", "end_gap": "end gap", "worst_false_done": "worst false done", "success_recall": "found"}
    place, width = np.arange(len(rows)), 0.8 / len(shown)
    ax = figure.subplots()
    for i, (key, text) in enumerate(shown.items()):
        values = _floats([row[key] for row in rows.values()])
        ax.bar(place + (i - 1.5) * width, values, width, label=text, color=(_PLAIN, _GOOD, _BAD, _PALE)[i])
    ax.set_xticks(place, list(rows), fontsize=8, rotation=25, ha="right")
    ax.axhline(0.0, color="black", linewidth=0.8)
    ax.legend(fontsize=8, ncols=len(shown))
    ax.grid(alpha=0.3, axis="y")


def _exploit(figure: Any, line: Mapping[str, Any]) -> None:
    """Both returns over the evaluations, each on its own scale."""
    left = figure.subplots()
    left.plot(line["proxy"], color=_PLAIN, marker="o", markersize=3)
    left.set_ylabel("return by the critic", color=_PLAIN)
    left.set_xlabel("evaluation")
    left.set_title(line["reason"], fontsize=9)
    right = left.twinx()
    right.plot(line["true"], color=_BAD, marker="o", markersize=3)
    right.set_ylabel("true return", color=_BAD)
    left.grid(alpha=0.3)


def _floats(values: Any) -> np.ndarray:
    """None, as JSON has it, is NaN."""
    return np.array([math.nan if value is None else value for value in values], dtype=float)
