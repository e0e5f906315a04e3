"""Answers that need not be asked for twice."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vlm_rewards.answer import Answer
from vlm_rewards.answer_store import AnswerStore
from vlm_rewards.critic import Capability, Critic, Plan, Window
from vlm_rewards.errors import CriticError
from vlm_rewards.frames import Frames

_KEY_BYTES = 20


class Cached(Critic):
    """A critic that remembers its valid answers.

    What an answer is about is told by content: the pictures, their cameras, the instruction, the capability, and the
    critic's name and revision. Stamps are no part of it (unless the critic is ``timed``); those of an answer are of the
    question, so that a remembered answer about new pictures is not stale. A batch sends on what is not known, and of
    equal questions the first. Plans are passed through.

    Args:
        critic: asked.
        size: answers kept in memory, the most recently used ones; about 200 bytes each.
        folder: where to keep all of them, for later runs and other processes; None: in memory alone.

    Attributes:
        hits, misses: moments answered from memory or disk, and sent on; of equal ones in a batch only the first is a
            miss.

    Raises:
        CriticError: a critic without a revision, whose answers could not be told from those of another; a size below 1;
            a folder that cannot be used.
    """

    def __init__(self, critic: Critic, size: int = 100_000, folder: Path | None = None) -> None:
        if size < 1:
            raise CriticError(f"a cache keeps at least one answer, got size {size}")
        self.critic = critic
        self.size = size
        self.hits = 0
        self.misses = 0
        self._memory: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        self._require_revision()
        self._store = None if folder is None else AnswerStore(folder)

    @property
    def name(self) -> str:  # type: ignore[override]
        """Of the critic that is asked, as are all of these."""
        return self.critic.name

    @property
    def revision(self) -> str:  # type: ignore[override]
        """Read anew for each question: a critic that goes on learning changes it."""
        return self.critic.revision

    @property
    def capabilities(self) -> frozenset[Capability]:  # type: ignore[override]
        """What can be asked."""
        return self.critic.capabilities

    @property
    def cameras(self) -> tuple[str, ...]:  # type: ignore[override]
        """Views needed."""
        return self.critic.cameras

    @property
    def picture(self) -> tuple[int, int] | None:  # type: ignore[override]
        """Size of the pictures."""
        return self.critic.picture

    @property
    def window(self) -> Window:  # type: ignore[override]
        """What a judgement depends on."""
        return self.critic.window

    @property
    def timed(self) -> bool:  # type: ignore[override]
        """Whether stamps are part of a question."""
        return self.critic.timed

    def counts(self) -> dict[str, int]:
        """Hits and misses, answers in memory, and damaged or refused entries on disk."""
        damaged, refused = (self._store.damaged, self._store.refused) if self._store else (0, 0)
        return {
            "hits": self.hits,
            "misses": self.misses,
            "kept": len(self._memory),
            "damaged": damaged,
            "refused": refused,
        }

    def close(self) -> None:
        """Let go of the folder, and go on in memory; what was answered is on disk already."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def plan(self, now: Frames, instructions: Sequence[str]) -> Plan:
        """Asked every time."""
        return self.critic.plan(now, instructions)

    def value_and_done(self, now: Frames, start: Frames, instructions: Sequence[str]) -> tuple[Answer, Answer]:
        """Both judgements; a moment that lacks either is sent on for both, so that the critic can share the work.

        Whether it is done is remembered apart from what `done` says, which knows no start.
        """
        self.require(Capability.DONE)
        seen = now, start = self._checked(Capability.VALUE, instructions, now, start)
        questions = (_Question(Capability.VALUE, seen), _Question(Capability.DONE, seen))
        value, done = self._answers(
            questions, instructions, lambda i, texts: self.critic.value_and_done(now.rows(i), start.rows(i), texts)
        )
        return value, done

    def _ask(self, capability: Capability, instructions: Sequence[str], *seen: Frames) -> Answer:
        seen = self._checked(capability, instructions, *seen)
        ask = getattr(self.critic, capability.value)
        question = _Question(capability, seen)
        return self._answers(
            [question], instructions, lambda i, texts: [ask(*(frames.rows(i) for frames in seen), texts)]
        )[0]

    def _answers(
        self,
        questions: Sequence[_Question],
        instructions: Sequence[str],
        ask: Callable[[torch.Tensor, list[str]], Sequence[Answer]],
    ) -> list[Answer]:
        """Answers to questions about the same B moments; ``ask`` puts all of them about some of the moments."""
        started = time.perf_counter()
        revision = self._require_revision()
        shown = {id(frames): frames for question in questions for frames in question.seen}
        digests = {which: _digests(frames, self.timed) for which, frames in shown.items()}
        keys = [self._keys(question, revision, instructions, digests) for question in questions]
        known = [self._recall(some) for some in keys]
        first: dict[tuple[bytes, ...], int] = {}
        for i, together in enumerate(zip(*keys, strict=True)):
            if any(key not in found for key, found in zip(together, known, strict=True)):
                first.setdefault(together, i)
        sent = list(first.values())
        reasons: dict[bytes, str] = {}
        if sent:
            where = torch.tensor(sent, device=questions[0].seen[0].rgb.device)
            for some, found, answer in zip(keys, known, ask(where, [instructions[i] for i in sent]), strict=True):
                reasons |= self._take_in([some[i] for i in sent], answer, found, answer.revision == revision)
        self.misses += len(sent)
        self.hits += len(instructions) - len(sent)
        took = time.perf_counter() - started
        return [
            _put_together(some, found, reasons, question.stamps, revision, took)
            for question, some, found in zip(questions, keys, known, strict=True)
        ]

    def _keys(
        self, question: _Question, revision: str, instructions: Sequence[str], digests: dict[int, list[bytes]]
    ) -> list[bytes]:
        """What tells each of B questions from every other."""
        asked = json.dumps([self.name, revision, question.capability.value]).encode()
        rows = zip(instructions, *(digests[id(frames)] for frames in question.seen), strict=True)
        return [_digest(asked, instruction.encode(), *pictures) for instruction, *pictures in rows]

    def _recall(self, keys: Sequence[bytes]) -> dict[bytes, tuple[float, float]]:
        """Value and confidence of those that are known."""
        found = {}
        for key in keys:
            if key in self._memory:
                self._memory.move_to_end(key)
                found[key] = self._memory[key]
        if self._store is not None:
            stored = self._store.get([key for key in dict.fromkeys(keys) if key not in found])
            self._keep(stored)
            found |= stored
        return found

    def _take_in(
        self, keys: Sequence[bytes], answer: Answer, found: dict[bytes, tuple[float, float]], remember: bool
    ) -> dict[bytes, str]:
        """Add an answer's valid rows to ``found``, and remember them; reasons of the others."""
        rows = zip(keys, answer.values.tolist(), answer.confidence.tolist(), answer.reasons, strict=True)
        asked = [(key, value, trust, reason) for key, value, trust, reason in rows]
        fresh = {key: (value, trust) for key, value, trust, reason in asked if not reason}
        found |= fresh
        if remember:
            self._keep(fresh)
            if self._store is not None:
                self._store.put(fresh)
        return {key: reason for key, _, _, reason in asked if reason}

    def _keep(self, answers: Mapping[bytes, tuple[float, float]]) -> None:
        """Keep in memory what was used last."""
        self._memory.update(answers)
        while len(self._memory) > self.size:
            self._memory.popitem(last=False)

    def _require_revision(self) -> str:
        """The critic's revision now."""
        if not self.critic.revision:
            raise CriticError(f"critic {self.name!r} has no revision: its answers cannot be remembered")
        return self.critic.revision


@dataclass(frozen=True)
class _Question:
    """One kind of judgement about B moments."""

    capability: Capability
    seen: tuple[Frames, ...]

    @property
    def stamps(self) -> torch.Tensor:
        """(B,) when the newest picture that it shows was taken."""
        return torch.stack([frames.stamps for frames in self.seen]).amax(0)


def _digest(*parts: bytes) -> bytes:
    """Of parts in order, each told from the next."""
    made = hashlib.sha256()
    for part in parts:
        made.update(len(part).to_bytes(8, "little"))
        made.update(part)
    return made.digest()[:_KEY_BYTES]


def _digests(frames: Frames, timed: bool) -> list[bytes]:
    """What each moment shows."""
    rgb = frames.rgb.contiguous().cpu().numpy()
    seen = json.dumps([frames.cameras, rgb.shape[1:]]).encode()
    stamps = frames.stamps.cpu().numpy()
    return [_digest(seen, stamps[i].tobytes() if timed else b"", rgb[i].tobytes()) for i in range(len(frames))]


def _put_together(
    keys: Sequence[bytes],
    known: Mapping[bytes, tuple[float, float]],
    reasons: Mapping[bytes, str],
    stamps: torch.Tensor,
    revision: str,
    latency_s: float,
) -> Answer:
    """One answer to all questions of a batch."""
    pairs = [known.get(key, (math.nan, 0.0)) for key in keys]
    numbers = torch.tensor(pairs, dtype=torch.float32, device=stamps.device).view(-1, 2)
    why = ["" if key in known else reasons[key] for key in keys]
    return Answer.of(numbers[:, 0], stamps, revision, latency_s, numbers[:, 1], why)
