"""The film of a judged recording: its views side by side over what the critic said of each moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.critic_summary import Scored, verdict
from robolearn.critic_views import CONFIDENCE, DONE, FUSED, VIEWS, draw_progress, shade_abstentions
from vlm_rewards.fitting import fitted
from vlm_rewards.streams import Picture
from vlm_rewards.videos import ViewReader

_WIDTH = (720, 1280)
_HEAD, _PANEL, _LEFT = 52, 172, 250
_TALLEST = 400
_PAPER, _INK, _GREY, _RED = "#fbfbfb", "#222222", "#8a8a8a", "#a02020"


def film_scores(
    scored: Scored,
    views: Mapping[str, ViewReader],
    path: Path,
    fps: float,
    tick: Callable[[int], None] = lambda frames: None,
) -> Path:
    """Write an mp4 in true time.

    Args:
        scored: the recording.
        views: title → camera to show, from the first judged moment on, each at ``fps`` pictures per second.
        path: mp4 to write, complete or not at all.
        fps: of the film.
        tick: told how many more frames are written.

    Raises:
        RobolearnError: a view cannot be read again, or the film cannot be written.
    """
    from sim.video import write_video

    return write_video(path, _frames(scored, views, fps, tick), fps)


def _frames(
    scored: Scored, views: Mapping[str, ViewReader], fps: float, tick: Callable[[int], None]
) -> Iterator[np.ndarray]:
    drawing = None
    length = float(scored.times[-1] - scored.times[0]) + scored.step_s
    moments = zip(*(reader.moments(trim=True) for reader in views.values()), strict=False)
    for k, pictures in enumerate(moments):
        if k / fps >= length - 1e-6:
            return
        drawing = drawing or _Drawing(scored, views, [picture.rgb.shape for picture in pictures])
        yield drawing.frame(float(scored.times[0]) + k / fps, pictures)
        tick(1)


class _Drawing:
    """What stays the same from frame to frame, drawn once."""

    def __init__(self, scored: Scored, views: Mapping[str, ViewReader], shapes: Sequence[tuple[int, ...]]) -> None:
        from PIL import ImageFont

        self._scored, self._titles = scored, list(views)
        aspects = [shape[1] / shape[0] for shape in shapes]
        height = min(_TALLEST, max(shape[0] for shape in shapes), int(_WIDTH[1] / sum(aspects))) // 8 * 8
        self._sizes = [(height, round(height * aspect) // 8 * 8) for aspect in aspects]
        self._width = max(_WIDTH[0], sum(size[1] for size in self._sizes))
        folder = _font_folder()
        self._fonts = {
            name: ImageFont.truetype(str(folder / file), size)
            for name, file, size in (
                ("title", "DejaVuSans-Bold.ttf", 17),
                ("big", "DejaVuSans-Bold.ttf", 30),
                ("text", "DejaVuSans.ttf", 13),
                ("small", "DejaVuSans.ttf", 11),
            )
        }
        self._bright, self._x, self._span = _curve(scored, self._width - _LEFT)
        self._faint = (0.3 * self._bright + 0.7 * 250.0).astype(np.uint8)
        colours = dict(zip(scored.views, VIEWS * len(scored.views), strict=False))
        self._dots = [colours.get(reader.camera) for reader in views.values()]

    def frame(self, time_s: float, pictures: Sequence[Picture]) -> np.ndarray:
        """(H, W, 3) uint8."""
        from PIL import Image, ImageDraw

        height = self._sizes[0][0]
        canvas = Image.new("RGB", (self._width, _HEAD + height + _PANEL), _PAPER)
        draw = ImageDraw.Draw(canvas)
        self._header(draw, time_s)
        left = (self._width - sum(size[1] for size in self._sizes)) // 2
        for picture, size, title, dot in zip(pictures, self._sizes, self._titles, self._dots, strict=True):
            canvas.paste(Image.fromarray(fitted(picture.rgb, size, "stretch")), (left, _HEAD))
            self._caption(draw, left, title, dot)
            left += size[1]
        row = min(int(np.searchsorted(self._scored.times, time_s + 1e-6)) - 1, len(self._scored.times) - 1)
        self._numbers(draw, max(row, 0), _HEAD + height)
        self._plot(canvas, time_s, _HEAD + height)
        return np.asarray(canvas)

    def _header(self, draw: Any, time_s: float) -> None:
        clock = f"{time_s:.1f} s"
        title, text = self._fonts["title"], self._fonts["text"]
        room = self._width - 32 - title.getlength(clock) - 20
        draw.text((16, 6), _shortened(f"“{self._scored.instruction}”", title, room), _INK, title)
        draw.text((self._width - 16, 6), clock, _INK, title, anchor="ra")
        now = [s for s in self._scored.subtasks if s.start_s <= time_s < s.end_s]
        names = ", ".join(s.name for s in now)
        if now:
            names += f"  ({self._scored.subtasks.index(now[0]) + 1} of {len(self._scored.subtasks)})"
        draw.text((16, 30), _shortened(names, text, self._width - 300), _INK, text)
        draw.text((self._width - 16, 30), _shortened(self._scored.critic, text, 260), _GREY, text, anchor="ra")

    def _caption(self, draw: Any, left: int, title: str, dot: str | None) -> None:
        font = self._fonts["small"]
        wide = font.getlength(title) + (26 if dot else 14)
        draw.rectangle((left, _HEAD, left + wide, _HEAD + 19), "#202020")
        if dot:
            draw.ellipse((left + 6, _HEAD + 6, left + 14, _HEAD + 14), dot)
        draw.text((left + (19 if dot else 7), _HEAD + 3), title, "white", font)

    def _numbers(self, draw: Any, row: int, top: int) -> None:
        scored = self._scored
        value, shown = float(scored.progress.values[row]), float(scored.progress.shown[row])
        text, colour = _told(value, shown, scored.scaled), FUSED
        if not np.isfinite(value):
            text = "abstains" if scored.progress.abstained[row] else "no answer"
            text, colour = (f"held: {_told(shown, shown, scored.scaled)}" if np.isfinite(shown) else text), _RED
        draw.text((16, top + 8), "progress", _GREY, self._fonts["small"])
        big = self._fonts["big"] if len(text) < 9 else self._fonts["title"]
        draw.text((16, top + 24), text, colour, big)
        known = scored.scaled and np.isfinite(shown)
        self._bar(draw, top + 66, shown if known else None, FUSED if np.isfinite(value) else _GREY, 12)
        rows = [("confidence", scored.progress.confidence, CONFIDENCE)]
        rows += [("done", scored.done.values, DONE)] if scored.done is not None else []
        for k, (name, values, paint) in enumerate(rows):
            now = float(values[row])
            told = f"{name} {now:.2f}" if np.isfinite(now) else f"{name} -"
            draw.text((16, top + 88 + 34 * k), told, _INK, self._fonts["small"])
            self._bar(draw, top + 105 + 34 * k, now if np.isfinite(now) else None, paint, 6)

    def _bar(self, draw: Any, top: int, share: float | None, colour: str, thick: int) -> None:
        right = _LEFT - 24
        draw.rectangle((16, top, right, top + thick), "#e4e4e4")
        if share is not None and share > 0.0:
            draw.rectangle((16, top, 16 + share * (right - 16), top + thick), colour)

    def _plot(self, canvas: Any, time_s: float, top: int) -> None:
        """The curve so far, what comes in faint, and a line between."""
        from PIL import Image

        first, last = self._span
        share = (time_s - first) / max(last - first, 1e-9)
        x = int(round(self._x[0] + share * (self._x[1] - self._x[0])))
        panel = self._faint.copy()
        panel[:, :x] = self._bright[:, :x]
        panel[6:-22, max(x - 1, 0) : x + 1] = (60, 60, 60)
        canvas.paste(Image.fromarray(panel), (_LEFT, top))


def _told(value: float, shown: float, scaled: bool) -> str:
    chosen = value if np.isfinite(value) else shown
    return f"{100 * chosen:.0f} %" if scaled else f"{chosen:+.3f}"


def _shortened(text: str, font: Any, room: float) -> str:
    """``text`` with its end cut off where it would not fit."""
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text}…"


def _font_folder() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def _curve(scored: Scored, width: int) -> tuple[np.ndarray, tuple[float, float], tuple[float, float]]:
    """The plot under the film: a picture (_PANEL, width, 3), the columns of its axes' ends, and their times, s."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 100.0, _PANEL / 100.0), dpi=100, facecolor=_PAPER)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((50 / width, 24 / _PANEL, 1.0 - 66 / width, 1.0 - 34 / _PANEL), facecolor="white")
    draw_progress(axes, scored)
    shade_abstentions(axes, scored, scored.progress)
    if not scored.usable:
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8}
        axes.text(0.5, 0.5, verdict(scored), transform=axes.transAxes, ha="center", va="center", color=_RED, bbox=box)
    for subtask in scored.subtasks:
        axes.axvline(subtask.end_s, color="0.8", linewidth=0.7, zorder=0)
    span = (float(scored.times[0]), float(scored.times[-1]) + scored.step_s)
    axes.set_xlim(*span)
    axes.set_ylabel("")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    canvas.draw()
    ends = axes.transData.transform([(moment, 0.0) for moment in span])[:, 0]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy(), (float(ends[0]), float(ends[1])), span
