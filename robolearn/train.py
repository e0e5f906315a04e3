"""`robolearn train`: joins a task, a learner and a run folder; evaluation and rendering follow."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robolearn import settings
from robolearn.config import (
    ConfigError,
    TrainConfig,
    algorithm,
    compose,
    resumed,
    sweep,
    to_plain,
    to_train_config,
)
from robolearn.critic_opening import open_reward, rewarding
from robolearn.devices import learner_device
from robolearn.errors import did_you_mean
from robolearn.files import json_line, write_atomic
from robolearn.progress import clock, make_display
from robolearn.runs import Run, RunError, default_name

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from robolearn.critic_reward import CriticReward
    from robolearn.training import Environment, Learner, Outcome, Training

SUMMARY = "train a policy; resume=<run> continues a run, -m sweeps over comma lists"

_PROGRAM_START = [time.monotonic()]
"""Taken by the first run of the process."""

MakeEnv = Callable[[TrainConfig, int], Any]
"""``make_env(config, seed)`` → an environment with `TrainConfig.num_envs` worlds."""


@dataclass(frozen=True)
class Result:
    """What a training run came to.

    Attributes:
        run: its folder.
        outcome: totals, last metrics, and what interrupted it if anything did.
        startup_s: seconds from the start of the program to the first step of training; None without one.
        evaluation: what `robolearn.evaluate` found; empty if it was not asked.
    """

    run: Path
    outcome: Outcome
    startup_s: float | None
    evaluation: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "run": str(self.run),
            **asdict(self.outcome),
            "startup_s": self.startup_s,
            "evaluation": self.evaluation,
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``key=value`` settings of `TrainConfig`, and the flags."""
    settings.add_arguments(parser, TrainConfig)
    parser.add_argument("-m", "--multirun", action="store_true", help="one run for each combination of comma lists")
    parser.add_argument("--cfg", action="store_true", help="print the configuration and stop")
    parser.epilog = (
        "resume=<run> continues a run; budget.*, checkpoint.*, curves, evaluate and video may change.\n"
        f"task=, algo=, reward=, world= and experiment= choose by name (robolearn list).\n\n{parser.epilog}\n\n"
        "robolearn train --cfg prints the settings of the task and of the learner too."
    )


def main(args: argparse.Namespace) -> int:
    """The verb; 130 or 143 when a signal interrupted the training."""
    overrides: list[str] = [item for item in args.settings if not item.startswith("resume=")]
    runs = [item.removeprefix("resume=") for item in args.settings if item.startswith("resume=")]
    if len(runs) > 1:
        raise RunError(f"resume= names one run, not {len(runs)}")
    if args.cfg:
        print(_yaml(resumed(Run.open(runs[0]).config, overrides) if runs else compose(overrides)), end="")
        return 0
    if args.multirun and runs:
        raise RunError("a sweep starts new runs: resume= and -m do not go together")
    with processes():
        if args.multirun:
            return _sweep(overrides, args.json)
        result = resume(runs[0], overrides) if runs else train(to_train_config(compose(overrides)))
    if result is None:  # another process of the same torchrun writes and reports
        return 0
    if args.json:
        print(json_line(result.to_dict()))
    return 0 if result.outcome.signal is None else 128 + result.outcome.signal


def train(config: TrainConfig, make_env: MakeEnv | None = None) -> Result | None:
    """Train from scratch in a new run folder.

    Under ``torchrun`` every process calls this; all but the first return None.

    Raises:
        RobolearnError: a setting that cannot work, an unwritable folder, a number that is not finite.
    """
    started = _started()
    with processes() as rank, enough_memory(config):
        critic = open_reward(config, _say if rank == 0 else _silent)
        env, learner = make_environment_and_learner(config, make_env)
        with (
            rewarding(config, env, learner, critic) as reward,
            _new_run(config) if rank == 0 else nullcontext() as run,
        ):
            _rehearse(reward, rank)
            return _carry_out(_training(config, env, learner, reward, run), started)


def _started() -> float:
    """When this run started: with the program, or now if the program has had a run before."""
    return _PROGRAM_START.pop() if _PROGRAM_START else time.monotonic()


def resume(path: str | Path, overrides: Sequence[str] = (), make_env: MakeEnv | None = None) -> Result | None:
    """Continue a run from its last whole checkpoint, or from the beginning if it has none yet.

    Args:
        path: the run's folder.
        overrides: ``key=value`` for the budget and what else does not touch the training.

    Raises:
        RobolearnError: not a run, in use, damaged, or an override that would change the training.
    """
    started = _started()
    stored = Run.open(path)
    config = to_train_config(resumed(stored.config, overrides))
    checkpoint = stored.load() if stored.checkpoint_paths() else None
    with (
        enough_memory(config),
        processes() as rank,
        Run.open(path, write=True) if rank == 0 else nullcontext() as run,
    ):
        critic = open_reward(config, _say if rank == 0 else _silent)
        env, learner = make_environment_and_learner(config, make_env)
        with rewarding(config, env, learner, critic) as reward:
            training = _training(config, env, learner, reward, run)
            if checkpoint is not None:
                training.restore(checkpoint.state)
            else:
                _rehearse(reward, rank)
            if run is not None:
                skipped = checkpoint.skipped if checkpoint else ()
                for line in (*(f"passed over: {line}" for line in skipped), *run.drift()):
                    _say(line)
                write_atomic(run.path / "config.yaml", _yaml(to_plain(config)).encode())
                run.rewind(checkpoint.iteration if checkpoint else 0)
            return _carry_out(training, started)


def _rehearse(reward: CriticReward | None, rank: int) -> None:
    """Let a distilled critic prepare itself, and say what came of it."""
    if reward is None or not reward.settings.rehearsal:
        return
    say = _say if rank == 0 else _silent
    say(f"the critic judges the task's scripts, {reward.settings.rehearsal} answers, for its distilled network")
    found = reward.rehearse(say)
    say("distilled: " + (", ".join(f"{name} {value:.2f}" for name, value in found.items()) or "not enough known"))


@contextmanager
def processes() -> Iterator[int]:
    """Join the other processes of a ``torchrun``, if there are any, for the length of a ``with``; gives the rank.

    The group has to be taken down: a process that ends with one open may abort on its way out.
    """
    import torch.distributed as dist

    from policies.distributed import init_from_env

    joined_before = dist.is_available() and dist.is_initialized()
    rank, _ = init_from_env()
    try:
        yield rank
    finally:
        if dist.is_initialized() and not joined_before:
            dist.destroy_process_group()


@contextmanager
def enough_memory(config: TrainConfig) -> Iterator[None]:
    """Say in one line that a GPU's memory does not do for ``config``."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).partition(". ")[0]
        raise ConfigError(f"num_envs={config.num_envs} is too much for the GPU: {reason}; lower num_envs") from error


def make_environment(config: TrainConfig, seed: int) -> Environment:
    """The worlds that ``config`` asks for."""
    from sim.tasks import make_env

    task = {key: value for key, value in config.task.items() if key != "name"}
    if config.reward.judges and config.reward.stage.success == "critic":
        task["ends"] = "never"  # the critic says when it is done
    return make_env(config.task["name"], config.num_envs, seed=seed, engine=config.world.engine(), **task)


def make_learner(config: TrainConfig, env: Any) -> Learner:
    """The learner that ``config`` asks for, with the sizes of ``env``."""
    learner, config_class = algorithm(str(config.algo.get("name")))
    chosen = config_class(**{key: value for key, value in config.algo.items() if key != "name"})
    device = learner_device(config.device, env.device)
    made: Learner = learner(env.observation_dims, env.num_actions, env.num_envs, chosen, config.seed, device)
    return made


def finish(run: Run, config: TrainConfig, env: Any) -> dict[str, Any]:
    """What follows a training that was not interrupted: curves, evaluation, video; returns the evaluation."""
    from robolearn.curves import plot_curves
    from robolearn.draws import plot_draws

    rows = run.metrics()
    if rows and config.curves:
        plot_curves(rows, run.path / "curves.png", title=run.path.name)
        title = f"{run.path.name}: what {env.num_envs} worlds drew"
        plot_draws(env.task.randomizers.values(), run.path / "randomization.png", title=title)
    evaluation: dict[str, Any] = {}
    if config.evaluate:
        from robolearn.evaluate import evaluate_run

        evaluation = evaluate_run(run)
    if config.video:
        from robolearn.play import render_run

        render_run(run, run.path / "policy.mp4")
    return evaluation


def make_environment_and_learner(config: TrainConfig, make_env: MakeEnv | None = None) -> tuple[Any, Learner]:
    """Environment and learner of this process, and a torch that computes the same every time."""
    import torch

    learner_device(config.device, "cpu")  # what cannot be had is said before worlds are made
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without which products on a GPU are not
    # Filling fresh memory would find reads of uninitialised values, at a cost in every allocation.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    env = (make_env or make_environment)(config, config.seed + 1_000_003 * rank)
    return env, make_learner(config, env)


def _training(
    config: TrainConfig, env: Any, learner: Learner, reward: CriticReward | None, run: Run | None
) -> Training:
    from robolearn.training import Training

    display = make_display(f"{config.task.get('name', '')} {run.path if run else ''}", silent=run is None)
    config.checkpoint.best = config.checkpoint.best or f"episode/{env.task.success}"
    return Training(config, env, learner, run, display, reward)


def _carry_out(training: Training, started: float) -> Result | None:
    """Train until the budget is spent or a signal comes, and see the run through to its end."""
    run = training.run
    try:
        outcome = training.run_until_spent()
        if run is None:
            return None
        _say_how_it_ended(training, run, outcome)
        evaluation = finish(run, training.config, training.env) if outcome.signal is None else {}
    except KeyboardInterrupt:
        if run is not None:
            print(f"interrupted; continue with: robolearn train resume={run.path}", file=sys.stderr)
        raise
    startup = None if training.first_step_at is None else training.first_step_at - started
    return Result(run.path, outcome, startup, evaluation)


def _say_how_it_ended(training: Training, run: Run, outcome: Outcome) -> None:
    say = training.display.note
    took = clock(outcome.elapsed_s)
    say(f"{outcome.iteration} iterations, {outcome.env_steps:,} env-steps, {took} of training; run folder: {run.path}")
    recorded = {name for row in run.metrics() for name in row}
    best = str(training.config.checkpoint.best)
    if outcome.iteration and best not in recorded:
        say(f"no metric {best!r} was recorded, so no checkpoint is best. {did_you_mean(best, recorded)}".rstrip())
    if outcome.signal is not None:
        name = signal.Signals(outcome.signal).name
        say(f"stopped by {name}; continue with: robolearn train resume={run.path}")


def _sweep(overrides: Sequence[str], as_json: bool) -> int:
    def job(config: DictConfig, folder: str) -> Result | None:
        made = to_train_config(config)
        made.run_dir = made.run_dir or folder
        result = train(made)
        if result is not None and result.outcome.signal is not None:
            raise KeyboardInterrupt
        return result

    done = [(chosen, result) for chosen, result in sweep(overrides, job) if result is not None]
    for chosen, result in done:
        print(f"{result.run}  {' '.join(chosen)}", file=sys.stderr)
    if as_json:
        print(json_line({"jobs": [{"overrides": chosen, **result.to_dict()} for chosen, result in done]}))
    return 0


def _new_run(config: TrainConfig) -> Run:
    default = Path("runs") / str(config.task.get("name", "task")) / default_name(config.seed)
    folder = Path(config.run_dir) if config.run_dir else _free(default)
    return Run.create(folder.parent, folder.name, to_plain(config), config.seed)


def _free(path: Path) -> Path:
    """``path``, or the first of ``path-2``, ``path-3``, ... that does not exist."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _silent(text: str) -> None:
    pass


def _yaml(config: Any) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(config)
