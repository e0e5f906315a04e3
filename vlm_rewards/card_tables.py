"""A critic card as tables of text, for a terminal and for ``card.md``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlm_rewards.card_record import Card
from vlm_rewards.gates import FAILED, PASSED

_SUMMARY = {
    "voc": "VOC",
    "end_gap": "end gap",
    "worst_false_done": "worst false done",
    "worst_mode": "worst mode",
    "step_precision": "step precision",
    "success_recall": "successes found",
    "ece": "ECE",
    "confidence": "confidence",
    "invalid_share": "invalid",
    "episodes": "episodes",
}


@dataclass(frozen=True)
class Table:
    """Title, head and rows, all of them texts."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(card: Card) -> list[Table]:
    """All tables of a card, gates first."""
    lines = card.lines
    return [
        _gates(card),
        _order(lines["order"]),
        _modes(lines),
        _done(lines["done"], lines["calibration"]),
        _facts(lines),
        _distances(lines["distance"]),
        _summaries("Baselines", lines["baselines"]),
        _summaries("Shifts", lines["shifts"]),
        _apart({"same colour": lines["same_colour"], "held-out objects": lines["heldout"]}),
        _speed(lines),
    ]


def markdown(card: Card, plots: Sequence[str]) -> str:
    """The card as Markdown, with its plots by name."""
    verdict = "passed: it may drive RL" if card.passed else "failed: it may not drive RL"
    text = [f"# Critic card: {card.critic}", "", f"Revision `{card.revision}`. **{verdict}.**", ""]
    for table in tables(card):
        text += [f"## {table.title}", "", _row(table.head), _row(["---"] * len(table.head))]
        text += [_row(row) for row in table.rows]
        text.append("")
    text += [f"![{name}]({name})" for name in plots]
    return "\n".join(text) + "\n"


def number(value: Any) -> str:
    """Three digits; texts as they are; a dash for what is not known."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, str)):
        return str(value)
    return "-" if value is None or value != value else f"{value:.3f}"


def rate(found: Mapping[str, Any], name: str = "rate") -> str:
    """A rate with its interval."""
    return f"{number(found[name])} [{number(found['low'])}, {number(found['high'])}]"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _gates(card: Card) -> Table:
    sign = {PASSED: "passed", FAILED: "FAILED"}
    rows = [
        [
            j.gate,
            number(j.value),
            f"{'at most' if j.at_most else 'at least'} {j.limit:g}",
            sign.get(j.status, j.status),
            j.note,
        ]
        for j in card.judgements
    ]
    return Table("Gates", ("gate", "measured", "wanted", "", ""), rows)


def _order(line: Any) -> Table:
    names = ("voc", "vroc", "voc_f1", "negative_rate", "true_voc", "episodes")
    head = ("", "VOC", "VROC", "VOC-F1", "NR", "VOC of the truth", "episodes")
    if isinstance(line, str):
        return Table("Order in time", head, [[line] + ["-"] * len(names)])
    rows = [[which, *(number(line[which][name]) for name in names)] for which in ("successes", "failures")]
    return Table(f"Order in time, from {line['from']}", head, rows)


def _modes(lines: Mapping[str, Any]) -> Table:
    """End value and false done of each mode."""
    done = lines["done"] if isinstance(lines["done"], Mapping) else {}
    ends = lines["end"].get("modes", {}) if isinstance(lines["end"], Mapping) else {}
    found = {**done.get("apart", {}), **done.get("modes", {})}
    rows = []
    for mode in dict.fromkeys([*found, *ends]):
        end, false = ends.get(mode, {}), found.get(mode)
        rows.append(
            [
                mode,
                number(end.get("mean")),
                number(end.get("truth")),
                rate(false, "false_done") if false else "-",
                number(false["step_false_positive_rate"]) if false else "-",
                number(false["episodes"]) if false else "-",
            ]
        )
    head = ("mode", "end value", "its truth", "episodes with a false done", "steps with one", "episodes")
    return Table("Modes", head, rows)


def _done(done: Any, calibration: Any) -> Table:
    if isinstance(done, str):
        return Table("Done", ("", ""), [["", done]])
    point = done["operating_point"]
    rows = [
        [name, *(number(done[key][metric]) for metric in ("precision", "recall", "f1", "balanced_accuracy"))]
        for name, key in (
            (f"p >= {point['threshold']:g} for {point['debounce']} frames (chosen {point['chosen']})", "steps"),
            ("p >= 0.5", "steps_at_half"),
        )
    ]
    rows.append(["successes found", rate(done["success_recall"]), f"of {done['success_recall']['n']}", "", ""])
    rows += [
        [text, number(calibration[key]), "", "", ""]
        for text, key in (("ECE", "ece"), ("ECE, adaptive bins", "ece_adaptive"), ("Brier score", "brier"))
    ]
    return Table("Done", ("", "precision", "recall", "F1", "balanced accuracy"), rows)


def _facts(lines: Mapping[str, Any]) -> Table:
    """Single numbers."""
    rows = []
    for name, line in (("end-value gap", lines["end"]), ("gap of the truth", lines["end"])):
        key = "gap" if name.startswith("end") else "true_gap"
        rows.append([name, number(line[key]) if isinstance(line, Mapping) else line])
    preference = lines["preference"]
    if isinstance(preference, Mapping):
        text = f"{rate(preference)} of {preference['n']} pairs, from {preference['from']}; abstained "
        rows.append(["preference accuracy", text + number(preference["abstained"])])
    else:
        rows.append(["preference accuracy", preference])
    swap = lines["prompt_swap"]
    told = swap if isinstance(swap, str) else f"{rate(swap['told_apart'])} of {swap['told_apart']['n']}"
    rows.append(["swapped instruction ends lower", told])
    exploit = lines["exploit"]
    rows.append(["exploit test", exploit if isinstance(exploit, str) else exploit["reason"]])
    return Table("Other lines", ("", ""), rows)


def _distances(line: Any) -> Table:
    head = ("to the truth of", "distance", "critic", "floor: itself", "random", "time only")
    if isinstance(line, str):
        return Table("Distance to the true reward", head, [[line, "", "", "", "", ""]])
    rows = []
    for name, found in line.items():
        for kind, values in found.items():
            if isinstance(values, str):
                rows.append([name, kind.upper(), values, "", "", ""])
            else:
                cells = (number(values[key]) for key in ("critic", "self", "random", "time_only"))
                rows.append([name, kind.upper(), *cells])
    return Table("Distance to the true reward", head, rows)


def _summaries(title: str, named: Mapping[str, Any]) -> Table:
    rows = []
    for name, found in named.items():
        given = isinstance(found, Mapping)
        rows.append([name, *(number(found[key]) if given else "" for key in _SUMMARY)])
        if not given:
            rows[-1][1] = str(found)
    return Table(title, ("", *_SUMMARY.values()), rows)


def _apart(sets: Mapping[str, Any]) -> Table:
    """False done of each mode of each set, and what its successes say."""
    rows = []
    for name, found in sets.items():
        modes = found if isinstance(found, str) else found["modes"]
        if isinstance(modes, str):
            rows.append([name, modes, "", "", "", ""])
            continue
        for mode, false in modes.items():
            own = mode == "expert"
            rows.append(
                [
                    name,
                    mode,
                    rate(false, "false_done"),
                    number(found["success_recall"]) if own else "",
                    number(found["voc"]) if own else "",
                    number(false["episodes"]),
                ]
            )
    return Table(
        "Sets apart", ("set", "mode", "episodes with a false done", "successes found", "VOC", "episodes"), rows
    )


def _speed(lines: Mapping[str, Any]) -> Table:
    speed, answers = lines["speed"], lines["answers"]
    rows = [
        [f"ms per frame, batch {n}", f"{speed[f'batch_{n}']['p50_ms']:.3g}", f"{speed[f'batch_{n}']['p95_ms']:.3g}"]
        for n in (1, 64)
    ]
    cache = speed["cache"]
    hits = cache if isinstance(cache, str) else f"{cache['hits']} of {cache['hits'] + cache['misses']}"
    rows.append(["cache hits", hits, ""])
    for name in ("invalid_share", "abstained_share", "stale_share", "confidence"):
        rows.append([f"answers: {name.replace('_', ' ')}", number(answers[name]), ""])
    rows += [[f"answers: {reason}", str(count), ""] for reason, count in answers["reasons"].items()]
    return Table("Speed and answers", ("", "p50", "p95"), rows)
