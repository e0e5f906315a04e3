"""A picture of an episode: joints as proposed, sent and measured, modes behind them, the critic below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from real.msgs import store
from real.recording.inspection import timeline
from real.recording.mcap_writer import RecordingError
from real.recording.steps import Steps, read_steps

_COLOURS = {"POLICY": "#dbe9f6", "HUMAN": "#fde3c8", "RESET": "#e6e6e6", "FAULT": "#f6c9c9", "ESTOP": "#f6c9c9"}
_COLUMNS = 2


def plot(path: Path, target: Path) -> Path:
    """Draw an episode to a PNG.

    Raises:
        RecordingError: the episode has no steps, or the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = read_steps(path, store())
    modes = timeline(path, store())
    rows = -(-len(steps.joints) // _COLUMNS) + 1
    figure = Figure(figsize=(12, 2 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, _COLUMNS)
    for i, name in enumerate(steps.joints):
        axes = figure.add_subplot(grid[i // _COLUMNS, i % _COLUMNS])
        _joint(axes, steps, i, name)
        _modes(axes, modes)
    axes.legend(fontsize=7, ncols=4)
    _critic(figure.add_subplot(grid[rows - 1, :]), steps, modes)
    figure.suptitle(f"{path.name}: " + ", ".join(dict.fromkeys(span["mode"] for span in modes)), fontsize=10)
    try:
        FigureCanvasAgg(figure).print_png(str(target))
    except OSError as error:
        raise RecordingError(f"cannot write {target}: {error.strerror}") from error
    return target


def _joint(axes: Any, steps: Steps, i: int, name: str) -> None:
    lines = (("proposed", ":"), ("human", "--"), ("limited", "-"), ("measured", "-"))
    for field, style in lines:
        axes.plot(steps.time, getattr(steps, field)[:, i], style, linewidth=1, label=field)
    axes.set_ylabel(f"{name} [rad or m]", fontsize=7)
    axes.tick_params(labelsize=7)


def _modes(axes: Any, modes: list[dict[str, Any]]) -> None:
    for span in modes:
        axes.axvspan(span["from_s"], span["to_s"], color=_COLOURS.get(span["mode"], "white"), zorder=0)


def _critic(axes: Any, steps: Steps, modes: list[dict[str, Any]]) -> None:
    _modes(axes, modes)
    for name in ("progress", "p_done"):
        axes.plot(steps.time, steps.critic[name], drawstyle="steps-post", label=f"critic: {name}")
    axes.plot(steps.time, np.where(steps.valid, np.nan, 0.0), "k.", markersize=3, label="not valid")
    axes.set_ylim(-0.05, 1.05)
    axes.set_xlabel("time [s]", fontsize=7)
    axes.legend(fontsize=7, ncols=3)
