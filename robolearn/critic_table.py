"""A judged recording as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robolearn.critic_summary import Scored, numbers, summarise


def print_table(scored: Scored, file: Any) -> None:
    """A row for all views together, one for each view and each paraphrase; then what else was found."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{scored.critic}: {scored.instruction}", show_edge=False)
    table.add_column(f"progress ({scored.capability})", no_wrap=True)
    for column in ("end", "highest", "rank corr. with time", "judged %", "abstained %", "confidence"):
        table.add_column(column, justify="right", no_wrap=True)
    rows = {"all views": scored.progress, **scored.views} if scored.views else {"recording": scored.progress}
    rows |= {f'"{text}"': curve for text, curve in scored.paraphrases.items()}
    for name, curve in rows.items():
        n = numbers(curve, scored.times)
        shares = (f"{100 * n['judged']:.0f}", f"{100 * n['abstained']:.0f}")
        table.add_row(name, *(_cell(n[key]) for key in ("end", "highest", "voc")), *shares, _cell(n["confidence"]))
    Console(file=file, width=None if file.isatty() else 160).print(table)
    for line in _lines(scored, summarise(scored)):
        print(line, file=file)


def _lines(scored: Scored, found: Mapping[str, Any]) -> list[str]:
    lines = ["rank correlation with time: the time alone has 1.00, on every recording, failures too"]
    if found["done"] is not None:
        first, least = found["done"]["first_at_s"], found["done"]["threshold"]
        when = "never" if first is None else f"first at {first:.1f} s"
        lines.append(f"done: {_cell(found['done']['end'])} at the end; {when} at its threshold of {least:g}")
    if found["keyframes"] is not None:
        agreed = found["keyframes"]
        lines.append(
            f"annotated subtasks: {agreed['judged']} of {len(scored.subtasks)} ends judged, rank correlation with "
            f"their order {_cell(agreed['rank_correlation'])}, rising from one to the next "
            f"{_cell(agreed['rising'], percent=True)}"
        )
    if found["paraphrase_spread"] is not None:
        lines.append(f"paraphrases: progress differs by {_cell(found['paraphrase_spread'])} on average")
    timing = found["latency_ms"]
    lines.append(f"latency: {timing['median']:.3g} ms a moment (median), {timing['p95']:.3g} ms (95th percentile)")
    lines.append(f"{'usable' if scored.usable else 'NOT USABLE'}: {found['verdict']}")
    return lines


def _cell(value: float | None, percent: bool = False) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.0f} %" if percent else f"{value:.2f}"
