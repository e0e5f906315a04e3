"""The critic card: everything that must be known of a critic before it may drive RL, measured in one go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from robolearn.files import to_json
from robolearn.versions import versions
from vlm_rewards import card_lines as lines
from vlm_rewards.cache import Cached
from vlm_rewards.card_baselines import ELAPSED_TIME, Reader, baseline_readers, reader
from vlm_rewards.card_record import Card, CardMark, card_folder, require_card
from vlm_rewards.card_truth import distance_line, preference_line
from vlm_rewards.cases import Cases
from vlm_rewards.clips import ClipSet
from vlm_rewards.critic import Critic
from vlm_rewards.errors import CriticError
from vlm_rewards.exploit import exploit_verdict
from vlm_rewards.gates import GATES, Gate, judge_gates
from vlm_rewards.operating_point import SAME_COLOUR, OperatingPoint, choose_operating_point
from vlm_rewards.readings import Readings, latency_ms, read
from vlm_rewards.shifts import SWAPPED, Shift, first_of_each_mode, made_shifts, reversed_clips, swapped

__all__ = [
    "GATES",
    "Card",
    "CardData",
    "CardMark",
    "Gate",
    "card_folder",
    "exploit_verdict",
    "make_card",
    "require_card",
]

_TIMED = (1, 64)


@dataclass(frozen=True)
class CardData:
    """Episodes to judge a critic on; none of them may have been seen in its training.

    Attributes:
        test: successes and every failure mode.
        validation: other episodes of the same kinds, to choose an operating point and to fit the baselines.
        shifts: name → the test episodes, or others like them, with another camera, another light, and so on.
        heldout: episodes with objects that no training had.
        same_colour: failures with the wrong object of the right colour; those in ``test`` are taken from there.
        wordings: instruction → other wordings; simple exchanges of words where there are none.
        modes: failure modes that have to be judged, whether ``test`` has them or not.
    """

    test: ClipSet
    validation: ClipSet
    shifts: Mapping[str, ClipSet] = field(default_factory=dict)
    heldout: ClipSet | None = None
    same_colour: ClipSet | None = None
    wordings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    modes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measuring:
    """How a card is made.

    Attributes:
        batch: moments in one question.
        shift_episodes: episodes of each mode that are judged under shifts, backwards and by the baselines, at most.
        gamma: discount factor of the distances between rewards.
        seed: of samples and of the random network.
        seconds: no new call of a timing begins after them.
    """

    batch: int = 64
    shift_episodes: int = 40
    gamma: float = 0.95
    seed: int = 0
    seconds: float = 5.0


def make_card(
    critic: Critic,
    data: CardData,
    how: Measuring | None = None,
    exploit: tuple[Sequence[float], Sequence[float]] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Card:
    """Measure every line of the card and judge the gates.

    Args:
        critic: with at least one of VALUE, DELTA, SCORE and DONE; lines that need more say that it is not offered. Its
            ``operating_point`` is used if it has one, else one is chosen on the validation set.
        data: episodes.
        how: settings.
        exploit: the critic's and the true return over a short training run (`exploit_verdict`); without it that line
            says that it was not given.
        say: told what is being done.

    Raises:
        CriticError: a critic without a revision or that needs the future, or a test set without successes.
    """
    if not critic.revision:
        raise CriticError(f"critic {critic.name!r} has no revision: a card could not say what it judged")
    if not any(data.test[e].success for e in range(len(data.test))):
        raise CriticError("the test set of a critic card has no successes")
    data = _set_apart(data)
    bench = _Bench(critic, data, how or Measuring(), say)
    found = bench.lines()
    found["exploit"] = lines.NOT_GIVEN if exploit is None else asdict(exploit_verdict(*exploit))
    judgements = judge_gates(found)
    sets = {
        **{"test": data.test, "validation": data.validation, **data.shifts},
        **{"heldout": data.heldout, "same_colour": data.same_colour},
    }
    made = {
        "episodes": {name: _counts(clips) for name, clips in sets.items() if clips is not None},
        "settings": asdict(bench.how),
        "versions": versions(),
    }
    return Card(critic.name, critic.revision, to_json(found), judgements, to_json(made))


class _Bench:
    """One critic, its readings of the test set, and its operating point."""

    def __init__(self, critic: Critic, data: CardData, how: Measuring, say: Callable[[str], None]) -> None:
        self.critic = critic
        self.bare = critic.critic if isinstance(critic, Cached) else critic
        self.data = data
        self.how = how
        self.say = say
        self.point, self.chosen = self._operating_point()
        say(f"judging {len(data.test)} test episodes")
        self.test = self._read(data.test)
        other = swapped(data.test)
        self.swapped = None if other is None else self._read(other)

    def lines(self) -> dict[str, Any]:
        """All lines but the exploit test."""
        test, how = self.test, self.how
        every = [test] if self.swapped is None else [test, self.swapped]
        few = first_of_each_mode(self.data.test, how.shift_episodes)
        self.say("judging clips played backwards")
        played = reversed_clips(few)
        backward = read(self.critic, played, how.batch, starts=played.starts[1:] - 1)
        shifts = self._shifts(few)
        baselines = {"critic": shifts["none"], **self._baselines(few)}
        end = lines.end_line(test)
        if isinstance(end, dict):
            end["beyond_elapsed_time"] = shifts["none"]["end_gap"] - max(0.0, baselines[ELAPSED_TIME]["end_gap"])
        expected = [*self.data.modes, *([SWAPPED] if self.swapped else [])]
        return {
            "order": lines.order_line(test, backward, few),
            "end": end,
            "done": lines.done_line(Cases.of(*every), self.point, self.chosen, expected),
            "calibration": lines.calibration_line(Cases.of(*every)),
            "prompt_swap": lines.prompt_swap_line(test, self.swapped),
            "same_colour": self._apart(self.data.same_colour),
            "heldout": self._apart(self.data.heldout),
            "preference": preference_line(self.critic, test, how.batch, how.seed),
            "distance": distance_line(test, how.gamma, how.seed),
            "shifts": shifts,
            "answers": lines.answers_line(every),
            "speed": self._speed(),
            "baselines": baselines,
            "curves": lines.curves(test),
        }

    def _read(self, clips: ClipSet) -> Readings:
        return read(self.critic, clips, self.how.batch)

    def _operating_point(self) -> tuple[OperatingPoint, str]:
        given = getattr(self.bare, "operating_point", None)
        if given is not None:
            return OperatingPoint(float(given.threshold), int(given.debounce)), "by the critic"
        self.say(f"judging {len(self.data.validation)} validation episodes")
        return _chosen(reader(self.critic, self.how.batch), self.data.validation)

    def _baselines(self, few: ClipSet) -> dict[str, dict[str, Any]]:
        """Each at an operating point of its own."""
        validation = first_of_each_mode(self.data.validation, self.how.shift_episodes)
        rows = {}
        for name, judge in baseline_readers(self.data.validation, self.how.batch, self.how.seed).items():
            self.say(f"baseline: {name}")
            rows[name] = lines.summary(judge(few), _chosen(judge, validation)[0])
        return rows

    def _shifts(self, few: ClipSet) -> dict[str, dict[str, Any]]:
        given = [
            Shift(name, first_of_each_mode(clips, self.how.shift_episodes)) for name, clips in self.data.shifts.items()
        ]
        rows = {}
        for shift in [Shift("none", few), *given, *made_shifts(self.bare, few, self.data.wordings)]:
            self.say(f"shift: {shift.name}")
            readings = read(self.critic, shift.clips, self.how.batch, shift.window, shift.alter)
            rows[shift.name] = lines.summary(readings, self.point)
        return rows

    def _apart(self, clips: ClipSet | None) -> Any:
        """A set that is reported on its own."""
        if clips is None:
            return lines.NOT_GIVEN
        self.say(f"judging {len(clips)} episodes of a set apart")
        readings = self._read(clips)
        cases = Cases.of(readings)
        return {
            **lines.summary(readings, self.point),
            "modes": cases.by_mode(self.point) if cases else lines.NOT_OFFERED,
        }

    def _speed(self) -> dict[str, Any]:
        self.say("timing")
        timed = {f"batch_{n}": latency_ms(self.bare, self.data.test, n, seconds=self.how.seconds) for n in _TIMED}
        return {**timed, "cache": self.critic.counts() if isinstance(self.critic, Cached) else "not cached"}


def _chosen(judge: Reader, validation: ClipSet) -> tuple[OperatingPoint, str]:
    """The operating point that a judge should have, by its readings of the validation set."""
    other = swapped(validation)
    cases = Cases.of(*(judge(clips) for clips in (validation, other) if clips is not None))
    if cases is None:
        return OperatingPoint(), lines.NOT_OFFERED
    point = choose_operating_point(cases.probabilities, cases.truths, cases.episodes, cases.modes)
    return point, "on validation"


def _set_apart(data: CardData) -> CardData:
    """The data with its wrong objects of the right colour in a set of their own: they count in no other line."""
    alike = set(data.test.of_mode(SAME_COLOUR))
    if not alike:
        return data
    others = [e for e in range(len(data.test)) if e not in alike]
    more = [data.same_colour[e] for e in range(len(data.same_colour))] if data.same_colour else []
    same = ClipSet([*more, *(data.test[e] for e in sorted(alike))])
    return replace(data, test=data.test.subset(others), same_colour=same)


def _counts(clips: ClipSet) -> dict[str, int]:
    return {mode: clips.modes.count(mode) for mode in dict.fromkeys(clips.modes)}
