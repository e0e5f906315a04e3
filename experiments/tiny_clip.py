"""Does a zero-shot text score work? With a tiny CLIP, trained on rendered frames and captions from the state.

    python experiments/tiny_clip.py --data data/tiny_clip       # arm_pick_place, three seeds

Episodes of one seed are for training, of another for the test; each seed below is one of the training. Beside every
trained model stands the same model untrained, and the clock: what the time since an episode's start would give.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from robolearn.critic_data import Recipe, collect
from robolearn.critic_train import shares
from robolearn.files import json_line, write_atomic
from vlm_rewards.captions import SCENE, Captions, Relations, captions_for
from vlm_rewards.clips import ClipSet
from vlm_rewards.contrastive import retrieval
from vlm_rewards.dual_encoder import DualEncoder
from vlm_rewards.metrics import mean_over_episodes, voc
from vlm_rewards.registry import load_critic
from vlm_rewards.tiny_clip import train_tiny_clip

AT_PAD, HELD, ABOVE, LIFTED = 0.035, 0.05, 0.04, 0.02
"""m: of an object's centre from the pad's; of the tool from what it holds, and from what it is above (horizontally); of
an object above where it lay at first."""
SETS: dict[str, dict[str, Any]] = {
    "test": {},
    "held-out pairs": {"pairs": "heldout"},
    "paraphrases": {"paraphrase": True},
}
"""Test set → settings of the task."""
KINDS = ("untrained", "trained", "true-only")
"""``true-only``: trained without the captions that are false of a frame."""


def main() -> None:
    """Make or read the episodes, train and judge, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="arm_pick_place", help="an arm task [arm_pick_place]")
    parser.add_argument("--data", type=Path, help="folder to keep the episodes in, or to read them from")
    parser.add_argument("--train", type=int, default=640, help="episodes to train on [640]")
    parser.add_argument("--test", type=int, default=240, help="episodes of each test set [240]")
    parser.add_argument("--size", type=int, default=64, help="height and width of pictures, pixels [64]")
    parser.add_argument("--camera", choices=("front", "wrist", "both"), default="both", help="[both]")
    parser.add_argument("--steps", type=int, default=900, help="of training, each seed; 0: by the clock [900]")
    parser.add_argument("--minutes", type=float, default=3.0, help="of training, each seed, with --steps 0 [3]")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of training [0 1 2]")
    parser.add_argument("--alpha", type=float, default=0.5, help="strength of the goal-baseline projection [0.5]")
    parser.add_argument("--threads", type=int, default=1, help="of simulation and training [1]")
    parser.add_argument("--out", type=Path, default=Path("runs/tiny_clip"), help="folder for models and results.json")
    parser.add_argument("--ablation", action="store_true", help="train without false captions, too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    training = episodes(args, "train", args.train, 1, {})
    tests = {name: episodes(args, name, args.test, 2, extra) for name, extra in SETS.items()}
    rows: dict[str, dict[str, Any]] = {"clock": {name: judged(clock(clips), clips) for name, clips in tests.items()}}
    captions = captions_for(training, arm_relations(training))
    for seed in args.seeds:
        for kind in KINDS[: 3 if args.ablation else 2]:
            folder = args.out / f"{kind}-{seed}"
            figures = train(args, training, captions, folder, seed, kind)
            rows[f"{kind} {seed}"] = {name: scored(folder, args, clips) for name, clips in tests.items()} | figures
            say(f"{kind} {seed}: {json_line(rows[f'{kind} {seed}']['test'])}")
    result = {"settings": {k: str(v) for k, v in vars(args).items()}, "frames": training.num_frames, "rows": rows}
    write_atomic(args.out / "results.json", json_line(result).encode())
    show(rows, tests)
    print(json_line(summary(rows)))


def episodes(args: argparse.Namespace, name: str, count: int, seed: int, settings: Mapping[str, Any]) -> ClipSet:
    """Simulated, or read where they have been kept."""
    folder = args.data / name.replace(" ", "_") if args.data else None
    if folder is not None and (folder / "clips.json").is_file():
        return ClipSet.load(folder)
    recipe = Recipe(args.task, shares(args.task, count), seed, args.size, settings=settings)
    clips = collect(recipe, args.threads, lambda text: say(f"{name}: {text}"))
    if folder is not None:
        clips.save(folder)
    return clips


def arm_relations(clips: ClipSet) -> Relations:
    """From the fact ``state`` of the arm tasks.

    Its first 11 numbers, in units of 10 cm, are the tool's place (x, y, z), the named and the other object seen from
    it, and the goal seen from the named object (x, y).
    """
    state = clips.facts["state"] / 10.0
    objects = state[:, 3:9].unflatten(1, (2, 3))
    goal = state[:, 9:11] + objects[:, 0, :2]
    height = state[:, None, 2] + objects[:, :, 2]
    lifted = height > height[clips.starts[:-1]][clips.episode()] + LIFTED
    return Relations(
        held=lifted & (objects.norm(dim=-1) < HELD),
        reached=objects[:, :, :2].norm(dim=-1) < ABOVE,
        at_pad=(objects[:, :, :2] - goal[:, None]).norm(dim=-1) < AT_PAD,
        done=torch.stack([clips.done, clips.facts["done_other"][:, 0] > 0.5], dim=1),
    )


def train(
    args: argparse.Namespace, clips: ClipSet, captions: Captions, folder: Path, seed: int, kind: str
) -> dict[str, float]:
    """A model in ``folder``; what the training says of itself."""
    last = [time.monotonic()]

    def progress(share: float, measured: Mapping[str, float]) -> None:
        if time.monotonic() - last[0] > 20.0:
            last[0] = time.monotonic()
            say(f"seed {seed}: {100 * share:.0f}%  loss {measured['loss']:.2f}")

    views = viewed(args.camera, clips)
    true, false = ([row for row in rows for _ in views] for rows in (captions.true, captions.false))
    return train_tiny_clip(
        clips.rgb[:, views].flatten(0, 1),
        true,
        folder,
        false_captions=None if kind == "true-only" else false,
        minutes=args.minutes,
        steps=0 if kind == "untrained" else args.steps or None,
        seed=seed,
        progress=progress,
        settings={"camera": None if args.camera == "both" else args.camera, "alpha": args.alpha},
    )


def scored(folder: Path, args: argparse.Namespace, clips: ClipSet) -> dict[str, float]:
    """What the zero-shot score of a model is worth, and how well it finds captions."""
    critic = load_critic(folder)

    def score(asked: list[str]) -> np.ndarray:
        parts = [critic.score(clips[e].frames(), [asked[e]] * len(clips[e])).values for e in range(len(clips))]
        return torch.cat(parts).numpy()

    own, other = score(clips.instructions), score([others[0] for others in clips.others])
    swapped = float((own > other)[clips.done.numpy()].mean())
    return judged(own, clips) | {"own_above_swapped": swapped} | found(folder, args.camera, clips)


def found(folder: Path, camera: str, clips: ClipSet) -> dict[str, float]:
    """Retrieval of captions by single pictures of every fourth frame: neighbours look alike."""
    rows = list(range(0, clips.num_frames, 4))
    true = captions_for(clips, arm_relations(clips)).true
    texts = sorted({text for row in rows for text in true[row]} - {SCENE})
    truth = torch.tensor([[text in said for text in texts] for said in (set(true[row]) for row in rows)])
    encoder = DualEncoder.load(folder)
    views = viewed(camera, clips)
    pictures = encoder.images(clips.rgb[rows][:, views].flatten(0, 1))
    share, chance = retrieval(pictures, encoder.texts(texts), truth.repeat_interleave(len(views), dim=0))
    return {"retrieval": share, "retrieval_chance": chance}


def viewed(camera: str, clips: ClipSet) -> list[int]:
    """Which of the clips' cameras are used."""
    return [i for i, name in enumerate(clips.cameras) if camera in ("both", name)]


def clock(clips: ClipSet) -> np.ndarray:
    """(F,) seconds since each episode's start."""
    start = clips.times[clips.starts[:-1]]
    values: np.ndarray = (clips.times - start[clips.episode()]).numpy()
    return values


def judged(values: np.ndarray, clips: ClipSet) -> dict[str, float]:
    """VOC on expert episodes; AUC of frames that are done against those that are not, against first frames, against
    frames in which the other object is where the named one should be, and against all frames of each failure."""
    done, episode = clips.done.numpy(), clips.episode().numpy()
    experts = clips.of_mode("expert")
    out = {
        "voc": mean_over_episodes(voc, episode, values, clips.times, only=experts),
        "auc_done": auc(values[done], values[~done]),
        "auc_start": auc(values[done], values[clips.starts[:-1].numpy()]),
    }
    success, other = values[done & np.isin(episode, experts)], clips.facts["done_other"][:, 0].numpy() > 0.5
    out["auc_other_done"] = auc(success, values[other & ~done])
    for mode in sorted(set(clips.modes) - {"expert"}):
        rows = np.isin(episode, clips.of_mode(mode)) & ~done
        out[f"auc_{mode}"] = auc(success, values[rows])
    return out


def auc(above: np.ndarray, below: np.ndarray) -> float:
    """Probability that one of ``above`` is larger than one of ``below``, ties counted half (Mann and Whitney, 1947)."""
    ranks = rankdata(np.concatenate([above, below]))
    return float((ranks[: len(above)].sum() - len(above) * (len(above) + 1) / 2) / (len(above) * len(below)))


def summary(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Median over seeds of every figure, by kind and test set."""
    out: dict[str, Any] = {}
    for kind in dict.fromkeys(name.split()[0] for name in rows):
        runs = [row for name, row in rows.items() if name.split()[0] == kind]
        out[kind] = {
            name: {figure: round(float(np.median([run[name][figure] for run in runs])), 3) for figure in runs[0][name]}
            for name in SETS
        }
    return out


def show(rows: Mapping[str, Mapping[str, Any]], tests: Mapping[str, ClipSet]) -> None:
    """A table for each test set: one column for each row of results."""
    for name in tests:
        figures = list(dict.fromkeys(figure for row in rows.values() for figure in row[name]))
        print(f"\n{name:<28}" + "".join(f"{column:>14}" for column in rows))
        for figure in figures:
            cells = [f"{row[name][figure]:.3f}" if figure in row[name] else "" for row in rows.values()]
            print(f"{figure:<28}" + "".join(f"{cell:>14}" for cell in cells))


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
