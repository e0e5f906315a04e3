"""`robolearn critic card`: what a critic can be trusted with, and whether it may drive RL."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robolearn import settings
from robolearn.critic_exploit import curves
from robolearn.errors import RobolearnError
from robolearn.files import json_line
from robolearn.settings import MISSING

if TYPE_CHECKING:
    from vlm_rewards.card import Card, CardData
    from vlm_rewards.critic import Critic

SUMMARY = "judge a critic before it may drive training: tables, plots, and pass or fail"
FAILED = 1
"""Exit code where a gate fails."""


class CardVerbError(RobolearnError):
    """A card that cannot be made as asked."""


@dataclass
class Options:
    """Settings of `robolearn critic card`."""

    critic: str = MISSING
    """A critic's folder, a model's folder or id, an endpoint's address, or a baseline."""
    task: str = "arm_pick_place"
    """The task whose episodes are simulated."""
    episodes: int = 120
    """Test episodes of each mode; of fewer than 30 nothing is judged."""
    validation: int = 40
    """Validation episodes of each mode: they choose the operating point."""
    shift_episodes: int = 30
    """Episodes of each mode under each shift, backwards, and for the baselines."""
    seed: int = 1000
    """Of the simulated episodes; training must not have had it, nor the ten that follow."""
    every: int = 2
    """Control steps between frames."""
    data: str | None = None
    """Folder of recorded sets instead: test, validation, and heldout, same_colour, shift_<name>."""
    keep: str | None = None
    """Folder to keep the simulated sets in, for data=."""
    exploit: str | None = None
    """Folder of a training run that this critic alone rewarded; or a JSON file, {"proxy": [critic's returns],
    "true": [true returns]}."""
    gamma: float = 0.95
    """Discount factor of the distances between rewards."""
    batch: int = 64
    """Moments judged at once."""
    threads: int = 0
    """Of the simulation; 0: all."""
    out: str | None = None
    """Where to write the card; null: beside the critic, where training looks for it."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the critic, such as settings.download=true."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``key=value`` settings and ``--json``."""
    settings.add_arguments(parser, Options)


def main(args: argparse.Namespace) -> int:
    """The verb: tables on standard output, or JSON; exit code 1 where a gate fails."""
    options = settings.parse(Options, args.settings)
    made, folder = card(options, _say)
    if args.json:
        print(json_line({**made.to_dict(), "failures": made.failures(), "folder": str(folder)}))
    else:
        print_card(made, folder, sys.stdout)
    return 0 if made.passed else FAILED


def card(options: Options, say: Callable[[str], None] = lambda text: None) -> tuple[Card, Path]:
    """Get the episodes, judge, and write the card.

    Returns:
        The card, and its folder.

    Raises:
        RobolearnError: the critic, the task or the episodes cannot be used.
    """
    from vlm_rewards.card import Measuring, card_folder, make_card
    from vlm_rewards.registry import load_critic

    for name in ("episodes", "validation", "shift_episodes", "every", "batch"):
        if getattr(options, name) < 1:
            raise CardVerbError(f"{name} is at least 1, got {getattr(options, name)}")
    if not 0.0 <= options.gamma < 1.0:
        raise CardVerbError(f"gamma is at least 0 and below 1, got {options.gamma:g}")
    critic = load_critic(options.critic, **options.settings)
    exploit = None if options.exploit is None else curves(Path(options.exploit), critic.revision)
    data = _data(options, critic, say)
    how = Measuring(batch=options.batch, shift_episodes=options.shift_episodes, gamma=options.gamma, seed=options.seed)
    made = make_card(critic, data, how, exploit, say)
    folder = Path(options.out) if options.out else card_folder(options.critic)
    made.save(folder)
    return made, folder


def print_card(made: Card, folder: Path, file: Any) -> None:
    """All tables, as wide as the terminal, and the verdict."""
    from rich.console import Console
    from rich.table import Table

    from vlm_rewards.card_tables import tables

    console = Console(file=file, width=None if file.isatty() else 200, markup=False, highlight=False)
    for shown in tables(made):
        table = Table(title=shown.title, title_justify="left", show_edge=False)
        for index, head in enumerate(shown.head):
            table.add_column(head, no_wrap=index == 0)
        for row in shown.rows:
            table.add_row(*row)
        console.print(table)
        console.print()
    for failure in made.failures():
        print(f"not passed: {failure}", file=file)
    verdict = "passed: it may drive RL" if made.passed else "failed: it may not drive RL"
    print(f"critic {made.critic} {verdict}; wrote {folder}", file=file)


def _data(options: Options, critic: Critic, say: Callable[[str], None]) -> CardData:
    from robolearn.critic_card_data import Wanted, load, save, simulate

    if options.data is not None:
        return load(Path(options.data))
    wanted = Wanted(
        options.task, options.episodes, options.validation, options.shift_episodes, options.seed, options.every
    )
    data = simulate(critic, wanted, options.threads, say)
    if options.keep is not None:
        save(data, Path(options.keep))
    return data


def _say(text: str) -> None:
    print(text, file=sys.stderr)
