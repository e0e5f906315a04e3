"""What a critic costs in training on ``arm_push``, and what it costs to look less often.

Pictures are the dear part. Each setting films a share of the worlds at an interval, at one resolution, and either holds
the last answer elsewhere or lets a network distilled online speak. Every run is as long as the others, and throughput
is a share of that of the run without a critic::

    python experiments/critic_cost.py --critics critics --out critic_cost.jsonl --plot critic_cost.png

The critics come from `critic_push.py` (64 pixels); those of other resolutions are made where they are missing. Runs
that are in the file already are not made again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from critic_push import make_critic, read_rows, train_and_judge

FREE = "critic-free"


@dataclass(frozen=True)
class Setting:
    """Who looks at what: share of the worlds, control steps between pictures, pixels, and who answers elsewhere."""

    share: float = 1.0
    every: int = 1
    size: int = 64
    distill: bool = False

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.share:g} of worlds, every {self.every}, {self.size} px{', distilled' if self.distill else ''}"

    def overrides(self, critic: Path) -> list[str]:
        """Of `robolearn train`."""
        preset = "process" if self.distill else "process_direct"
        return [
            *(f"reward={preset}", f"reward.critic={critic}"),
            *(f"reward.share={self.share}", f"reward.every={self.every}"),
        ]


SETTINGS = (
    Setting(),
    Setting(every=2),
    Setting(every=4),
    Setting(share=0.5),
    Setting(distill=True),
    Setting(share=0.5, every=2, distill=True),
    Setting(share=0.25, every=4, distill=True),
    Setting(share=0.125, every=4, distill=True),
    Setting(share=0.125, every=8, distill=True),
    Setting(share=0.25, every=4, size=48, distill=True),
)


def main() -> None:
    """Train, judge, print a table, and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1", help="comma-separated")
    parser.add_argument("--steps", type=int, default=200_000, help="decisions of each run")
    parser.add_argument("--critics", type=Path, default=Path("critics"), help="folder of the critics")
    parser.add_argument("--runs", type=Path, default=Path("runs/critic_cost"), help="folder of the runs")
    parser.add_argument("--out", type=Path, default=Path("critic_cost.jsonl"))
    parser.add_argument("--plot", type=Path, default=Path("critic_cost.png"))
    parser.add_argument("--sizes", default="64,48", help="pixels, comma-separated; each needs a critic of its own")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, a thread each")
    args = parser.parse_args()
    rows = read_rows(args.out)
    known = {(row["label"], row["seed"]) for row in rows}
    sizes = {int(size) for size in args.sizes.split(",")}
    settings = [None, *(setting for setting in SETTINGS if setting.size in sizes)]
    wanted = [(setting, int(seed)) for seed in args.seeds.split(",") for setting in settings]
    wanted = [(setting, seed) for setting, seed in wanted if (_label(setting), seed) not in known]
    for setting, seed in wanted:
        if setting is not None:
            make_critic(_critic(args.critics, setting, seed), seed, f"size={setting.size}")

    def run(which: tuple[Setting | None, int]) -> dict[str, Any]:
        setting, seed = which
        critic = _critic(args.critics, setting, seed) if setting else None
        overrides = setting.overrides(critic) if setting and critic else ["reward=truth"]
        folder = args.runs / f"{_slug(setting)}-s{seed}"
        judged = train_and_judge(folder, seed, args.steps, overrides)
        return {"label": _label(setting), "seed": seed, **(asdict(setting) if setting else {}), **judged}

    with ThreadPoolExecutor(args.jobs) as pool:
        for row in pool.map(run, wanted):
            rows.append(row)
            with args.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
    points = summary(rows)
    print_points(points)
    plot(points, args.plot)


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over the seeds of each setting, with throughput as a share of the critic-free."""
    points = []
    for label in dict.fromkeys(row["label"] for row in rows):
        mine = [row for row in rows if row["label"] == label]
        free = {row["seed"]: row["decisions_per_s"] for row in rows if row["label"] == FREE}
        shares = [row["decisions_per_s"] / free[row["seed"]] for row in mine if row["seed"] in free]
        whole = [_with_rehearsal(row) / free[row["seed"]] for row in mine if row["seed"] in free]
        precision = [row["done_precision"] for row in mine if row["done_precision"] is not None]
        points.append(
            {
                "label": label,
                "seeds": len(mine),
                "throughput": statistics.median(shares) if shares else float("nan"),
                "with_rehearsal": statistics.median(whole) if whole else float("nan"),
                "success": statistics.median(row["success"] for row in mine),
                "done_precision": statistics.median(precision) if precision else float("nan"),
                "distill": mine[0].get("distill"),
            }
        )
    return points


def _with_rehearsal(row: dict[str, Any]) -> float:
    """Decisions/s where the time of the rehearsal counts too."""
    return float(row["decisions"] / (row["decisions"] / row["decisions_per_s"] + row["rehearsal_s"]))


def print_points(points: list[dict[str, Any]]) -> None:
    """A line for each setting."""
    print(f"{'setting':<46} seeds  throughput  with rehearsal  success  done precision")
    for point in points:
        numbers = f"{point['throughput']:>10.2f}  {point['with_rehearsal']:>14.2f}  {point['success']:>7.2f}"
        numbers += f"  {point['done_precision']:>14.2f}"
        print(f"{point['label']:<46} {point['seeds']:>5}  {numbers}")


def plot(points: list[dict[str, Any]], path: Path) -> None:
    """True success over throughput; distilled settings apart from those that hold the last answer."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    kinds = {None: ("critic-free", "k*"), False: ("last answer held", "C0o"), True: ("distilled online", "C1s")}
    for kind, (name, mark) in kinds.items():
        mine = [point for point in points if point["distill"] is kind]
        axes.plot([point["throughput"] for point in mine], [point["success"] for point in mine], mark, label=name)
        for point in mine:
            place = (point["throughput"], point["success"])
            axes.annotate(point["label"], place, (4, 4), textcoords="offset points", fontsize=6)
    axes.axvline(0.6, color="0.7", linestyle=":")
    axes.set(xlabel="throughput, share of the critic-free run's", ylabel="true success of the policy", ylim=(0, 1.05))
    axes.set_xlim(0.0, 1.25)
    axes.legend(loc="lower left")
    figure.savefig(path, dpi=150)


def _label(setting: Setting | None) -> str:
    return FREE if setting is None else setting.label


def _slug(setting: Setting | None) -> str:
    if setting is None:
        return FREE
    return f"{setting.share:g}-{setting.every}-{setting.size}px{'-distilled' if setting.distill else ''}"


def _critic(folder: Path, setting: Setting, seed: int) -> Path:
    size = "" if setting.size == 64 else f"-{setting.size}px"
    return folder / f"arm_push-process{size}-s{seed}"


if __name__ == "__main__":
    main()
