"""A finished critic card: what is on it, its files, and the permission to train that it gives."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from robolearn.files import to_json, write_atomic
from vlm_rewards.critic import Critic
from vlm_rewards.errors import CriticError
from vlm_rewards.gates import PASSED, Judgement
from vlm_rewards.registry import DESCRIPTION, load_critic

CARD = "card.json"
CARDS = Path("runs") / "critic_cards"
"""Where cards lie of critics without a folder of their own, such as models by id and endpoints."""
_FORMAT = 1


@dataclass(frozen=True)
class Card:
    """What was measured of one revision of a critic.

    Attributes:
        critic: its name.
        revision: of the critic; its answers may be others in another one, and the card says nothing about those.
        lines: line → plain numbers, lists and texts; None where a number is not known. See docs/critic_card.md.
        judgements: what became of each gate.
        made: episodes of each set by mode, settings, and versions of the software.
    """

    critic: str
    revision: str
    lines: dict[str, Any]
    judgements: tuple[Judgement, ...]
    made: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Every gate was judged and passed."""
        return not self.failures()

    def failures(self) -> list[str]:
        """One line for each gate that failed, or could not be judged."""
        return [str(judgement) for judgement in self.judgements if judgement.status != PASSED]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in ``card.json``."""
        made: dict[str, Any] = to_json({"format": _FORMAT, "passed": self.passed, **asdict(self)})
        return made

    def save(self, folder: Path) -> None:
        """Write ``card.json``, ``card.md`` and the plots; the first comes last, so that what has it is whole."""
        from vlm_rewards.card_plots import plot_card
        from vlm_rewards.card_tables import markdown

        folder.mkdir(parents=True, exist_ok=True)
        (folder / CARD).unlink(missing_ok=True)
        plots = plot_card(self, folder)
        write_atomic(folder / "card.md", markdown(self, [path.name for path in plots]).encode())
        write_atomic(folder / CARD, json.dumps(self.to_dict(), indent=1, allow_nan=False).encode())

    @classmethod
    def load(cls, folder: Path) -> Card:
        """Read what `save` wrote.

        Raises:
            CriticError: there is no card, or it is damaged.
        """
        try:
            found = json.loads((folder / CARD).read_text())
            if found["format"] != _FORMAT:
                raise CriticError(f"{folder / CARD} is of format {found['format']}, this version reads {_FORMAT}")
            judgements = tuple(
                Judgement(**{**j, "value": float("nan") if j["value"] is None else j["value"]})
                for j in found["judgements"]
            )
            return cls(found["critic"], found["revision"], found["lines"], judgements, found["made"])
        except FileNotFoundError as error:
            raise CriticError(f"{folder} holds no critic card") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CriticError(f"{folder / CARD} cannot be read: {error}") from error


@dataclass(frozen=True)
class CardMark:
    """What a run keeps about the card of the critic that it trained with.

    Attributes:
        critic, revision: of the critic.
        forced: it trained although gates failed.
        failures: those gates.
        threshold, debounce: the operating point of done that the card judged; None without a card.
    """

    critic: str
    revision: str
    forced: bool
    failures: tuple[str, ...]
    threshold: float | None = None
    debounce: int | None = None


def card_folder(what: str | Path) -> Path:
    """Where the card of the critic lies that ``what`` names: in its own folder, or under `CARDS`."""
    folder = Path(what)
    if (folder / DESCRIPTION).is_file() or (folder / "config.json").is_file():
        return folder
    return CARDS / re.sub(r"[^A-Za-z0-9.]+", "-", str(what)).strip("-")


def require_card(what: str | Path | Critic, force: bool = False, critic: Critic | None = None) -> CardMark:
    """Permission to train with a critic: its card, if that is of its revision and passed every gate.

    Args:
        what: what names the critic, as for `vlm_rewards.registry.load_critic`; or a critic that knows its ``folder``.
        force: permit it anyway; the mark then says what failed.
        critic: the critic that ``what`` names, where it is at hand; loaded otherwise.

    Raises:
        CriticError: no card, one of another revision, or failed gates, each named; unless forced.
    """
    if isinstance(what, Critic):
        critic = what
    judged = critic if critic is not None else load_critic(str(what))
    place = getattr(judged, "folder", None) if isinstance(what, Critic) else card_folder(what)
    named = judged.name if place is None else str(what if not isinstance(what, Critic) else place)
    point: dict[str, Any] = {}
    try:
        if place is None:
            raise CriticError(f"critic {judged.name!r} has no folder in which a critic card could lie")
        card = Card.load(Path(place))
    except CriticError as error:
        failures = [f"{error}; robolearn critic card critic={named} task=... makes it"]
    else:
        failures = card.failures()
        if card.revision != judged.revision:
            failures = [f"its critic card is of revision {card.revision!r}, the critic is {judged.revision!r}"]
        elif isinstance(card.lines["done"], dict):
            point = card.lines["done"]["operating_point"]
    if failures and not force:
        raise CriticError(
            f"critic {named} may not drive training: {'; '.join(failures)}. "
            "To train with it anyway, set force=true; the run will be marked"
        )
    return CardMark(
        judged.name, judged.revision, bool(failures), tuple(failures), point.get("threshold"), point.get("debounce")
    )
