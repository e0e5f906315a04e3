"""What a person sees while training."""

from __future__ import annotations

import io
import math

import pytest

from robolearn import progress
from robolearn.progress import Lines, Live, Silent, Status, clock, make_display, progress_bar


def status(iteration: int = 3, fraction: float = 0.25, **metrics: float) -> Status:
    return Status(
        iteration, 3 * 8192, 9876.0, 30.0, fraction, {name.replace("__", "/"): v for name, v in metrics.items()}
    )


def test_eta_follows_the_budget():
    assert status().eta_s == pytest.approx(90.0)
    assert math.isnan(status(fraction=0.0).eta_s)
    assert [clock(s) for s in (0.4, 61, 3661, math.nan)] == ["0:00:00", "0:01:01", "1:01:01", "-"]


def test_the_live_display_shows_progress_success_errors_and_reward_terms():
    from rich.console import Console

    live = Live("dex_track")
    metrics = {"loss__value": 2.5, "reward__fingers": 0.25, "episode__tight": 0.5, "episode__T_err_cm": math.nan}
    console = Console(file=io.StringIO(), width=150)
    console.print(live._draw(status(**metrics)))
    shown = console.file.getvalue()
    for text in (
        "dex_track",
        "iteration 3",
        "24,576 steps",
        "9,876 env-steps/s",
        "eta 0:01:30",
        "tight",
        "0.25",
        "nan",
    ):
        assert text in shown
    assert shown.index("episode") < shown.index("reward") < shown.index("loss")


def test_logs_get_a_line_now_and_then_on_stderr(capsys, monkeypatch):
    lines = Lines(every_s=3600.0)
    for iteration in (1, 2, 3):
        lines.update(status(iteration, fraction=iteration / 3, episode__tight=0.5))
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split("  ")[0] for line in err.splitlines()] == ["iteration 1", "iteration 3"]
    assert "tight=0.5" in err


def test_only_the_first_process_speaks(capsys):
    assert type(make_display("x", silent=True)) is Silent
    with make_display("x", silent=True) as display:
        display.update(status())
        display.note("hello")
    assert capsys.readouterr() == ("", "")
    assert isinstance(make_display("x"), progress.Lines)  # stderr is no terminal here


def test_a_task_of_known_length_tells_logs_when_it_is_done(capsys):
    with progress_bar("reading", 4) as tick:
        tick(1)
        tick(3)
    assert capsys.readouterr() == ("", "reading: 4 of 4\n")
