"""The plot of a judged recording."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill, shorten
from typing import Any

import numpy as np

from robolearn.critic_keyframes import Subtask, done_share
from robolearn.critic_summary import Curve, Scored, verdict

FUSED = "#12355b"
DONE = "#2a9d5c"
CONFIDENCE = "#e08e1b"
VIEWS = ("#4c9be8", "#d1605e", "#8a6bbf", "#59a89c", "#b8893d", "#7f7f7f")
_ABSTAINED = "#c9c9c9"


def plot_scores(scored: Scored, path: Path) -> Path:
    """Write a PNG: progress of all views and of each, confidence, what is done; grey where the critic abstained.

    Args:
        scored: the recording.
        path: PNG to write, complete or not at all.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [4.0, 1.0] + ([1.0] if scored.done is not None else [])
    figure = Figure(figsize=(12.0, 1.6 + 1.1 * sum(panels)))
    FigureCanvasAgg(figure)
    axes = list(np.atleast_1d(figure.subplots(len(panels), 1, sharex=True, height_ratios=panels)))
    draw_progress(axes[0], scored)
    if scored.subtasks and scored.scaled:
        share = done_share(scored.subtasks, scored.times)
        label = "share of annotated\nsubtasks"
        axes[0].plot(scored.times, share, color="0.45", linewidth=1.0, linestyle=":", label=label, zorder=1)
    _label_subtasks(axes[0], scored.subtasks)
    _draw_confidence(axes[1], scored)
    if scored.done is not None:
        axes[2].plot(scored.times, scored.done.values, color=DONE, linewidth=1.6)
        axes[2].axhline(scored.point.threshold, color="0.6", linewidth=0.8, linestyle=":")
        axes[2].set(ylim=(-0.03, 1.03), ylabel="done")
    for k, panel in enumerate(axes):
        shade_abstentions(panel, scored, scored.done if k == 2 and scored.done is not None else scored.progress)
        for subtask in scored.subtasks:
            panel.axvline(subtask.end_s, color="0.75", linewidth=0.7, zorder=0)
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].legend(loc="upper left", bbox_to_anchor=(1.005, 1.0), fontsize=8, frameon=False)
    axes[-1].set(xlabel="time, s", xlim=(scored.times[0], scored.times[-1] + scored.step_s))
    figure.suptitle(
        f"“{shorten(scored.instruction, 80, placeholder=' …')}”", x=0.06, ha="left", fontsize=13, weight="bold"
    )
    figure.text(0.99, 0.95, shorten(scored.critic, 40, placeholder=" …"), ha="right", fontsize=10, color="0.35")
    figure.text(0.06, 0.925, fill(verdict(scored), 150), fontsize=9, color="#a02020" if not scored.usable else "0.35")
    figure.subplots_adjust(0.06, 0.09, 0.87, 0.84 if scored.subtasks else 0.89, hspace=0.12)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, dpi=110, format="png")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def draw_progress(axes: Any, scored: Scored) -> None:
    """Curves of progress; where there is no value there is no line, but with a fallback a dashed one."""
    for (camera, curve), colour in zip(scored.views.items(), VIEWS * len(scored.views), strict=False):
        axes.plot(scored.times, curve.values, color=colour, linewidth=1.0, alpha=0.8, label=camera)
    curve = scored.progress
    if not np.array_equal(curve.shown, curve.values, equal_nan=True):
        axes.plot(scored.times, curve.shown, color=FUSED, linewidth=1.0, linestyle="--", label="held")
    axes.plot(scored.times, curve.values, color=FUSED, linewidth=2.4, label="all views" if scored.views else "progress")
    lonely = curve.valid & ~np.roll(curve.valid, 1) & ~np.roll(curve.valid, -1)
    axes.plot(scored.times[lonely], curve.values[lonely], ".", color=FUSED, markersize=4)
    if scored.scaled:
        axes.set(ylim=(-0.03, 1.03), ylabel="probability of done" if scored.capability == "done" else "progress")
    else:
        axes.axhline(0.0, color="0.7", linewidth=0.8)
        axes.set_ylabel("score above the start's (no scale)")


def shade_abstentions(axes: Any, scored: Scored, curve: Curve) -> None:
    """Grey where ``curve``, one of the recording's, has no value."""
    times, rows = scored.times, np.flatnonzero(~curve.valid)
    if not len(rows):
        return
    half = 0.5 * scored.step_s
    for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
        label = "no judgement" if run[0] == rows[0] else None
        axes.axvspan(
            times[run[0]] - half, times[run[-1]] + half, color=_ABSTAINED, alpha=0.55, zorder=-1, lw=0, label=label
        )


def _draw_confidence(axes: Any, scored: Scored) -> None:
    curve = scored.progress
    axes.fill_between(scored.times, curve.confidence, color=CONFIDENCE, alpha=0.35, linewidth=0)
    axes.plot(scored.times, curve.confidence, color=CONFIDENCE, linewidth=1.2)
    if scored.least > 0.0:
        axes.axhline(scored.least, color="0.4", linewidth=0.8, linestyle="--")
        axes.text(scored.times[-1], scored.least, f" abstains below {scored.least:g}", fontsize=8, va="center")
    axes.set(ylim=(-0.03, 1.03), ylabel="confidence")


def _label_subtasks(axes: Any, subtasks: Sequence[Subtask]) -> None:
    """Names above the plot, in the middle of each."""
    for subtask in subtasks:
        middle = 0.5 * (subtask.start_s + subtask.end_s)
        axes.annotate(
            subtask.name,
            (middle, 1.0),
            (0, 3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            rotation=40 if len(subtasks) > 6 else 0,
            ha="left" if len(subtasks) > 6 else "center",
            fontsize=7,
            color="0.3",
        )
