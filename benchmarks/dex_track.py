"""Learning figures of dexterous tracking: several seeds, every baseline, and the control that must fail.

    python benchmarks/dex_track.py                                  # what `make demo` trains, 3 seeds
    python benchmarks/dex_track.py --experiment dex_rotate          # in-hand rotation
    python benchmarks/dex_track.py --control                        # the same under a random reward
    python benchmarks/dex_track.py --set task.reward=dextrack       # any other setting

Each seed is one run of `robolearn demo`; nothing else should load the machine, since training is bounded by time. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from robolearn.demo import Options, demo
from robolearn.files import json_line
from robolearn.versions import versions


def main() -> None:
    """Run the seeds one after the other and print what they come to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--minutes", type=float, default=None, help="minutes of training; default: the preset's own")
    parser.add_argument("--experiment", default="", help="a preset: see `robolearn list experiments`")
    parser.add_argument("--control", action="store_true", help="train under a random reward")
    parser.add_argument("--set", nargs="*", default=[], metavar="key=value", help="more settings")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"), help="folder of the runs")
    args = parser.parse_args()
    more = [*args.set, *(["task.reward=random"] if args.control else [])]
    name = args.experiment or "dex_track"
    results = []
    for seed in args.seeds:
        folder = args.out / f"{name}{'-control' if args.control else ''}-s{seed}"
        options = Options(minutes=args.minutes, seed=seed, experiment=args.experiment, out=str(folder), settings=more)
        results.append(demo(options))
        print(f"seed {seed}: {_line(results[-1])}", flush=True)
    summary = _summary(results)
    print(f"mean success {100 * summary['mean']:.1f}%, least {100 * summary['least']:.1f}%, ", end="")
    print(f"least margin over the best baseline {summary['least_margin']:.1f} points")
    print(json_line({"benchmark": name, "control": args.control, **summary, "seeds": results, "versions": versions()}))


def _line(result: dict[str, Any]) -> str:
    rows = ", ".join(f"{row} {100 * r[result['success']]['mean']:.0f}%" for row, r in result["rows"].items())
    return f"{rows}; {result['env_steps']:,} env-steps, {result['peak_memory_gb']} GB"


def _summary(results: list[dict[str, Any]]) -> dict[str, float]:
    headlines = [result["headline"] for result in results]
    return {
        "mean": statistics.mean(headlines),
        "least": min(headlines),
        "least_margin": min(result["margin"] for result in results),
        "peak_memory_gb": max(result["peak_memory_gb"] for result in results),
    }


if __name__ == "__main__":
    main()
