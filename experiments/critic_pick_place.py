"""The in-house critic on ``arm_pick_place``: made and judged with several seeds, on the same unseen test episodes.

Each critic is made by `robolearn critic train` (its time is counted, episodes included) and judged by `robolearn critic
card` on 120 episodes of every mode, held-out pairs of colour and shape, and wrong objects of the same colour::

    python experiments/critic_pick_place.py --seeds 1,2,3 --out critic_pick_place.jsonl

Critics and seeds that are in the file already are not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

PRINTED = (
    *("made_in_s", "order.successes.voc", "end.gap", "calibration.ece", "speed.batch_64.p*"),
    *("done.steps.precision", "done.success_recall.rate", "done.modes.*.false_done"),
    *("same_colour.modes.*.false_done", "heldout.modes.*.false_done"),
    *("heldout.voc", "heldout.end_gap", "heldout.step_precision", "heldout.success_recall"),
    *("preference.rate", "prompt_swap.told_apart.rate"),
)
"""Of a card's numbers; all of them are in the file."""


def main() -> None:
    """Make, judge, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="arm_pick_place")
    parser.add_argument("--seeds", default="1,2,3", help="comma-separated")
    parser.add_argument("--critics", type=Path, default=Path("critics"), help="folder of the critics")
    parser.add_argument("--data", type=Path, default=Path("critics/test-sets"), help="folder of the test episodes")
    parser.add_argument("--out", type=Path, default=Path("critic_pick_place.jsonl"))
    parser.add_argument("settings", nargs="*", help="of robolearn critic train, such as minutes=4")
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.is_file() else []
    for seed in (int(seed) for seed in args.seeds.split(",")):
        if any(row["seed"] == seed for row in rows):
            continue
        folder = args.critics / f"{args.task}-process-s{seed}"
        made = _robolearn("train", f"task={args.task}", f"seed={seed}", f"out={folder}", *args.settings)
        sets = args.data / args.task
        source = f"data={sets}" if sets.is_dir() else f"keep={sets}"
        card = _robolearn("card", f"critic={folder}", f"task={args.task}", source, codes=(0, 1))
        rows.append({"seed": seed, "made_in_s": made["total_s"], "failures": card["failures"], "lines": card["lines"]})
        with args.out.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    print_table(rows)


def print_table(rows: list[dict[str, Any]]) -> None:
    """`PRINTED` of every seed, a line each."""
    flat = [dict(_flat({"made_in_s": row["made_in_s"], **row["lines"]})) for row in rows]
    for name in flat[0] if flat else ():
        values = [numbers.get(name) for numbers in flat]
        if any(fnmatch(name, pattern) for pattern in PRINTED) and all(
            isinstance(value, (int, float)) for value in values
        ):
            print(f"{name:<60} " + " ".join(f"{value:>9.3f}" for value in values))
    for row in rows:
        print(f"seed {row['seed']}: {'passed' if not row['failures'] else '; '.join(row['failures'])}")


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for name, part in value.items() for pair in _flat(part, f"{prefix}{name}.")]
    return [(prefix.rstrip("."), value)]


def _robolearn(action: str, *settings: str, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """The JSON that a sub-verb of `robolearn critic` prints."""
    command = [sys.executable, "-m", "robolearn", "critic", action, *settings, "--json"]
    print(*command[2:], file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode not in codes:
        raise SystemExit(f"robolearn critic {action} ended with exit code {done.returncode}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
