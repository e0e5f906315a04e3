"""Policies trained on ``arm_push`` with a critic as the only reward, beside the truth, controls and ablations.

Makes the critics that are missing, with several seeds and in several ways, trains every condition with every
seed, judges each final policy on whole episodes by the simulator's own success, and writes one JSON line for each run::

    python experiments/critic_push.py --seeds 1,2,3 --out critic_push.jsonl
    python experiments/critic_push.py --conditions truth,process --seeds 1 --steps 100000

Runs that are in the file already are not made again; a run that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TASK = "arm_push"
CRITICS = {
    "process": (),
    "successes": ("successes_only=true",),
    "timed": ("successes_only=true", "labels=time", "noise=0"),
}
"""Kind of critic → how `robolearn critic train` makes it. ``successes`` learns from experts, whom the simulator labels;
``timed`` from tidy ones that nobody labelled."""
PROCESS = ("reward=process", "reward.critic={process}")
CONDITIONS: dict[str, tuple[str, ...]] = {
    "truth": ("reward=truth",),
    "process": PROCESS,
    "process_direct": ("reward=process_direct", "reward.critic={process}"),
    "sparse": ("reward=sparse",),
    "random": ("task.reward=random",),
    "elapsed_time": ("reward=elapsed_time",),
    "successes_only": ("reward=process", "reward.critic={successes}", "reward.force=true"),
    "successes_timed": ("reward=process", "reward.critic={timed}", "reward.force=true"),
    "potential": (*PROCESS, "reward.stage.shaping=potential"),
    "naive_difference": (*PROCESS, "reward.stage.shaping=difference"),
    "potential_low_bonus": (*PROCESS, "reward.stage.shaping=potential", "reward.stage.bonus=0.2"),
    "naive_low_bonus": (*PROCESS, "reward.stage.shaping=heuristic", "reward.stage.bonus=0.2"),
}
"""Condition → overrides of `robolearn train`; ``{process}`` is the seed's critic of that kind in `CRITICS`. The learner
is the task's own everywhere (robolearn/conf/tuned). ``naive_low_bonus`` is the undiscounted difference, Φ being 0
beyond the end: where success is worth less than Φ, it pays for staying."""
SOLVED = 0.9
WINDOW = 200
"""Episodes over which the success in training is averaged."""


def main() -> None:
    """Train, judge, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conditions", default=",".join(CONDITIONS), help="comma-separated")
    parser.add_argument("--seeds", default="1,2,3", help="comma-separated")
    parser.add_argument("--steps", type=int, default=200_000, help="decisions of each run")
    parser.add_argument("--critics", type=Path, default=Path("critics"), help="folder of the critics")
    parser.add_argument("--critic-seed", type=int, help="one critic for all seeds; default: each has its own")
    parser.add_argument("--runs", type=Path, default=Path("runs/critic_push"), help="folder of the runs")
    parser.add_argument("--out", type=Path, default=Path("critic_push.jsonl"))
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, a thread each")
    args = parser.parse_args()
    done = read_rows(args.out)
    known = {(row["condition"], row["seed"]) for row in done}
    seeds = [int(seed) for seed in args.seeds.split(",")]
    runs = [(condition, seed) for seed in seeds for condition in args.conditions.split(",")]
    runs = [run for run in runs if run not in known]
    for condition, seed in runs:
        make_critics(condition, args.critic_seed or seed, args.critics)

    def run(which: tuple[str, int]) -> dict[str, Any]:
        critics = _critics(args.critics, args.critic_seed or which[1])
        return one(*which, args.steps, critics, args.runs)

    with ThreadPoolExecutor(args.jobs) as pool:
        for row in pool.map(run, runs):
            done.append(row)
            with args.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print_table(done)
    print_table(done)


def make_critics(condition: str, seed: int, critics: Path) -> None:
    """The critics that a condition needs, where they are not there, one after the other with the whole machine."""
    chosen = " ".join(CONDITIONS[condition])
    for kind, how in CRITICS.items():
        if f"{{{kind}}}" in chosen:
            make_critic(_critics(critics, seed)[kind], seed, *how, card="reward.force=true" not in chosen)


def one(condition: str, seed: int, steps: int, critics: dict[str, Path], runs: Path) -> dict[str, Any]:
    """One run, and what came of it."""
    overrides = [part.format(**critics) for part in CONDITIONS[condition]]
    judged = train_and_judge(runs / f"{condition}-s{seed}", seed, steps, overrides)
    return {"condition": condition, "seed": seed, **judged}


def train_and_judge(folder: Path, seed: int, steps: int, overrides: list[str]) -> dict[str, Any]:
    """Train in ``folder``, or go on there; what the policy reached by the simulator's own success, and at what cost."""
    started = time.time()
    if (folder / "metrics.jsonl").is_file() and not (folder / "evaluation.json").is_file():
        _robolearn("train", f"resume={folder}")
    elif not (folder / "evaluation.json").is_file():
        _robolearn(
            "train",
            *(f"task={TASK}", f"seed={seed}", f"run_dir={folder}", f"budget.steps={steps}", "budget.minutes=null"),
            *("threads=1", "world.threads=1", "video=false", "curves=false", *overrides),
        )
    rows = read_rows(folder / "metrics.jsonl")
    policy = json.loads((folder / "evaluation.json").read_text())["rows"]["policy"]
    return {
        "success": policy["success"]["mean"],
        "loitering_s": policy["loitering_s"]["mean"],
        "seconds": policy["seconds"]["mean"],
        "decisions_to_solve": solved_at(rows),
        "done_precision": done_precision(rows),
        "decisions_per_s": rows[-1]["env_steps"] / rows[-1]["elapsed_s"],
        "rehearsal_s": rows[0].get("time/rehearsal", 0.0),
        "decisions": rows[-1]["env_steps"],
        "wall_s": round(time.time() - started, 1),
    }


def solved_at(rows: list[dict[str, Any]]) -> float | None:
    """Decisions after which `WINDOW` episodes in a row had a mean true success of `SOLVED`; None if they never had."""
    episodes: list[tuple[float, float]] = []
    before = 0.0
    for row in rows:
        steps, before = row["env_steps"] - before, row["env_steps"]
        if "episode/success" in row:
            count = round((row["rollout/terminated"] + row["rollout/truncated"]) * steps)
            episodes += [(row["env_steps"], row["episode/success"])] * count
    for i in range(WINDOW, len(episodes)):
        if sum(success for _, success in episodes[i - WINDOW : i]) >= SOLVED * WINDOW:
            return episodes[i][0]
    return None


def done_precision(rows: list[dict[str, Any]]) -> float | None:
    """Share of the episodes that the critic ended which were truly done, over the second half of training."""
    half = [row for row in rows[len(rows) // 2 :] if row.get("episode/critic_done") is not None]
    ended = [row["rollout/terminated"] + row["rollout/truncated"] for row in half]  # in proportion to its episodes
    said = sum(row["episode/critic_done"] * count for row, count in zip(half, ended, strict=True))
    false = sum(row["episode/false_done"] * count for row, count in zip(half, ended, strict=True))
    return None if said == 0 else 1.0 - false / said


def _critics(folder: Path, seed: int) -> dict[str, Path]:
    """Where the critics of a seed are, by kind."""
    return {kind: folder / f"{TASK}-{kind}-s{seed}" for kind in CRITICS}


def make_critic(folder: Path, seed: int, *more: str, card: bool = True) -> None:
    """The critic in ``folder`` and, if wanted, its card, unless they are there."""
    if not (folder / "critic.json").is_file():
        _robolearn("critic", "train", f"task={TASK}", f"seed={seed}", f"out={folder}", "minutes=7", *more)
    if card and not (folder / "card.json").is_file():
        _robolearn("critic", "card", f"critic={folder}", f"task={TASK}", f"seed={seed}", check=False)


def _robolearn(*arguments: str, check: bool = True) -> None:
    print("robolearn", *arguments, file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "robolearn", *arguments], check=check, stdout=sys.stderr)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Lines of JSON; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def print_table(rows: list[dict[str, Any]]) -> None:
    """Medians over the seeds of each condition."""
    columns = ("success", "decisions_to_solve", "done_precision", "loitering_s", "seconds", "decisions_per_s")
    print(f"{'condition':<18} seeds  " + "  ".join(f"{name:>18}" for name in columns))
    for condition in CONDITIONS:
        mine = [row for row in rows if row["condition"] == condition]
        if not mine:
            continue
        cells = []
        for name in columns:
            values = [row[name] for row in mine]
            known = sorted(float("inf") if value is None else value for value in values)
            middle = known[len(known) // 2]
            cells.append(f"{'-' if middle == float('inf') else format(middle, '.3g'):>18}")
        print(f"{condition:<18} {len(mine):>5}  " + "  ".join(cells))


if __name__ == "__main__":
    main()
