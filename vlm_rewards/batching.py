"""Questions of many clients to one critic, put together into batches by one thread that asks it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch

from vlm_rewards.answer import Answer
from vlm_rewards.critic import Critic
from vlm_rewards.frames import Frames
from vlm_rewards.wire import VALUE_AND_DONE


class Closed(Exception):
    """The batcher was closed before it came to a question."""


@dataclass
class _Question:
    """What one client asked, and where its answers go."""

    what: str
    seen: tuple[Frames, ...]
    instructions: list[str]
    answers: Future[list[Answer]] = field(default_factory=Future)
    asked_at: float = field(default_factory=time.monotonic)

    @property
    def kind(self) -> Any:
        """Questions of one kind can be put together: same capability, pictures and cameras."""
        return (self.what, *((tuple(f.rgb.shape[1:]), f.cameras) for f in self.seen))


class Batcher:
    """Asks a critic from one thread, which is its own; `ask` may be called from any number of others.

    The oldest question goes first, with those of its kind that came meanwhile. It waits for company for ``max_wait_s``
    at most, and no longer once there are ``max_batch`` moments.

    Attributes:
        batches: how often the critic was asked.
        moments: how many moments it judged.

    Args:
        critic: the critic.
        max_batch: moments in one batch.
        max_wait_s: seconds.
    """

    def __init__(self, critic: Critic, max_batch: int, max_wait_s: float) -> None:
        self._critic = critic
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._waiting: deque[_Question] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.batches = 0
        self.moments = 0
        self._thread = threading.Thread(target=self._run, name="critic", daemon=True)
        self._thread.start()

    def ask(self, what: str, seen: tuple[Frames, ...], instructions: Sequence[str]) -> list[Answer]:
        """The critic's answers: one, or two where value and done are asked for together.

        Raises:
            Closed: the batcher has been closed.
            Exception: whatever the critic raises about this question.
        """
        question = _Question(what, seen, list(instructions))
        with self._changed:
            if self._closed:
                raise Closed("the server is stopping")
            self._waiting.append(question)
            self._changed.notify()
        return question.answers.result()

    def close(self) -> None:
        """Finish the batch under way; questions that still wait raise `Closed`."""
        with self._changed:
            self._closed = True
            left = list(self._waiting)
            self._waiting.clear()
            self._changed.notify()
        for question in left:
            question.answers.set_exception(Closed("the server is stopping"))
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            self._answer(batch)

    def _next(self) -> list[_Question]:
        """The next questions to put together; empty once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return []
            first = self._waiting[0]
            patience = first.asked_at + self._max_wait_s - time.monotonic()
            self._changed.wait_for(lambda: self._closed or self._full(first), timeout=max(0.0, patience))
            batch: list[_Question] = []
            rows = 0
            for question in [q for q in self._waiting if q.kind == first.kind]:
                if batch and rows + len(question.instructions) > self._max_batch:
                    break
                self._waiting.remove(question)
                batch.append(question)
                rows += len(question.instructions)
            return batch

    def _full(self, first: _Question) -> bool:
        return sum(len(q.instructions) for q in self._waiting if q.kind == first.kind) >= self._max_batch

    def _answer(self, batch: list[_Question]) -> None:
        """Ask about a batch; where that raises, about each question alone, so that one cannot spoil the others'."""
        try:
            told = self._told(batch)
        except Exception as error:  # it belongs to whoever asked
            if len(batch) > 1:
                for question in batch:
                    self._answer([question])
            else:
                batch[0].answers.set_exception(error)
            return
        start = 0
        for question in batch:
            rows = torch.arange(start, start + len(question.instructions))
            start += len(rows)
            question.answers.set_result([answer.rows(rows) for answer in told])

    def _told(self, batch: list[_Question]) -> list[Answer]:
        what, instructions = batch[0].what, [text for question in batch for text in question.instructions]
        seen = [_together([q.seen[i] for q in batch]) for i in range(len(batch[0].seen))]
        self.batches += 1
        self.moments += len(instructions)
        if what == VALUE_AND_DONE:
            return list(self._critic.value_and_done(seen[0], seen[1], instructions))
        return [getattr(self._critic, what)(*seen, instructions)]


def _together(frames: Sequence[Frames]) -> Frames:
    if len(frames) == 1:
        return frames[0]
    return Frames(torch.cat([f.rgb for f in frames]), frames[0].cameras, torch.cat([f.stamps for f in frames]))
