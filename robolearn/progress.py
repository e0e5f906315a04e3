"""What a person sees while training, on stderr: live on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

_SHOWN_FIRST = ("episode/", "reward/", "termination/", "loss/", "policy/", "rollout/")


@dataclass(frozen=True)
class Status:
    """One iteration as the display shows it.

    Attributes:
        iteration, env_steps: done so far.
        rate: environment steps per second of the last iteration.
        elapsed_s: training time so far.
        fraction: of the budget, in [0, 1].
        metrics: name → value.
    """

    iteration: int
    env_steps: int
    rate: float
    elapsed_s: float
    fraction: float
    metrics: Mapping[str, float]

    @property
    def eta_s(self) -> float:
        """Seconds of training left if it goes on as it did."""
        return self.elapsed_s * (1.0 - self.fraction) / self.fraction if self.fraction > 0 else math.nan


class Silent:
    """Shows nothing: what every process but the first uses."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def update(self, status: Status) -> None:
        """Show the state after an iteration."""

    def note(self, text: str) -> None:
        """Say something once."""


class Lines(Silent):
    """One line every few seconds, for logs."""

    def __init__(self, every_s: float = 5.0) -> None:
        self._every_s, self._last = every_s, -math.inf

    def update(self, status: Status) -> None:
        if time.monotonic() - self._last < self._every_s and status.fraction < 1.0:
            return
        self._last = time.monotonic()
        shown = [f"{name}={value:.3g}" for name, value in _sorted(status.metrics) if name.startswith("episode/")]
        head = f"iteration {status.iteration}  {status.rate:,.0f} env-steps/s  eta {clock(status.eta_s)}"
        print(f"{head}  {'  '.join(shown)}".rstrip(), file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class Live(Silent):
    """A table that stays in place, redrawn a few times a second."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._title = title
        self._console = Console(stderr=True)
        self._live = RichLive(console=self._console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Live:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def update(self, status: Status) -> None:
        self._live.update(self._draw(status))

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def _draw(self, status: Status) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        head = Text.assemble(
            (self._title, "bold"),
            f"   iteration {status.iteration:,}   {status.env_steps:,} steps",
            f"   {status.rate:,.0f} env-steps/s",
            f"   {clock(status.elapsed_s)} elapsed   eta {clock(status.eta_s)}",
        )
        table = Table.grid(padding=(0, 3))
        groups: dict[str, list[tuple[str, float]]] = {}
        for name, value in _sorted(status.metrics):
            group, _, rest = name.rpartition("/")
            groups.setdefault(group, []).append((rest, value))
        columns = [group for group in groups if group]
        # Short lists share a column, so that the display fits on a small terminal.
        height = max([10, *(len(groups[group]) + 1 for group in columns)])
        cells: list[Text] = []
        column, used = Text(), 0
        for group in columns:
            needed = len(groups[group]) + 2
            if used and used + needed > height + 2:
                cells.append(column)
                column, used = Text(), 0
            column.append(f"{group}\n", "bold cyan")
            for name, value in groups[group]:
                column.append(f"{name:<22.22} {value:>9.4g}\n", "red" if not math.isfinite(value) else "")
            column.append("\n")
            used += needed
        cells.append(column)
        table.add_row(*cells)
        display = Table.grid()
        for row in (head, ProgressBar(total=1.0, completed=min(1.0, status.fraction), width=100), "", table):
            display.add_row(row)
        return display


def make_display(title: str, silent: bool = False) -> Silent:
    """The display that fits this process: silent, live on a terminal, or lines."""
    if silent:
        return Silent()
    return Live(title) if sys.stderr.isatty() else Lines()


@contextlib.contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows how far a task of ``total`` steps is: a bar on a terminal, else a line now and then.

    Yields:
        A function to tell how many more steps are done.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=total)
            yield lambda steps: bar.advance(task, steps)
        return
    done, last = 0, time.monotonic()

    def tick(steps: int) -> None:
        nonlocal done, last
        done += steps
        if time.monotonic() - last >= 5.0 or done >= total:
            last = time.monotonic()
            print(f"{title}: {done} of {total}", file=sys.stderr, flush=True)

    yield tick


def clock(seconds: float) -> str:
    """``h:mm:ss``, or ``-`` when unknown."""
    if not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def _sorted(metrics: Mapping[str, float]) -> list[tuple[str, float]]:
    def place(name: str) -> int:
        return next((i for i, start in enumerate(_SHOWN_FIRST) if name.startswith(start)), len(_SHOWN_FIRST))

    return sorted(metrics.items(), key=lambda item: place(item[0]))
