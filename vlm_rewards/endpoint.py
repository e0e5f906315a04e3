"""Critics behind an address: a served critic (`robolearn critic serve`), or a chat model (OpenAI-compatible)."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import torch

from robolearn.errors import unknown
from vlm_rewards.answer import Answer
from vlm_rewards.client import Client
from vlm_rewards.critic import Capability, Critic, Judged, Window
from vlm_rewards.errors import CriticError
from vlm_rewards.frames import Frames
from vlm_rewards.limits import Limits, RequestFailed
from vlm_rewards.operating_point import OperatingPoint
from vlm_rewards.settings import settings_of
from vlm_rewards.wire import ENCODINGS, PROTOCOL, ROLES, UNFIT, VALUE_AND_DONE, frames_to_json, judged_from_json

PROTOCOLS = ("auto", "robolearn", "openai")


@dataclass
class Options(Limits):
    """Settings of a served critic."""

    encoding: str = "raw"
    """Of pictures on their way: raw and png are exact; png and jpeg are smaller."""
    rows: int = 64
    """Moments in one request, at most; the server may take fewer."""


class EndpointCritic(Critic):
    """A critic that `vlm_rewards.server` serves: it has the served one's name, capabilities, cameras and answers.

    Where the served one knows when its "done" counts, so does this one (``operating_point``).

    A request that fails makes the rows in it invalid, with the reason. So does an answer of another revision than the
    one that was there at the start: a critic must not change under a training.

    Args:
        client: of the server's address, without ``/v1``.
        about: what its ``/health`` tells.
        options: settings.

    Raises:
        CriticError: a setting that cannot be, or a description that cannot be read.
    """

    def __init__(self, client: Client, about: dict[str, Any], options: Options) -> None:
        if options.encoding not in ENCODINGS:
            raise CriticError(unknown("encoding", options.encoding, ENCODINGS))
        if options.rows < 1:
            raise CriticError(f"rows is at least 1, got {options.rows}")
        try:
            self.name = str(about["name"])
            self.revision = str(about["revision"])
            self.capabilities = frozenset(Capability(name) for name in about["capabilities"])
            self.cameras = tuple(str(name) for name in about["cameras"])
            size = about["picture"]
            self.picture = None if size is None else (int(size[0]), int(size[1]))
            self.window = Window(**about["window"])
            self.timed = bool(about["timed"])
            self.operating_point = _point(about["operating_point"])
            self._rows = min(options.rows, int(about["max_batch"]))
            self._most_bytes = int(about["max_body_bytes"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CriticError(f"{client.url} describes no critic that this version can ask: {error!r}") from error
        self._client = client
        self._encoding = options.encoding

    def _score(self, now: Frames, instructions: list[str]) -> Judged:
        return self._remote(Capability.SCORE.value, (now,), instructions)[0]

    def _delta(self, before: Frames, after: Frames, instructions: list[str]) -> Judged:
        return self._remote(Capability.DELTA.value, (before, after), instructions)[0]

    def _prefer(self, first: Frames, second: Frames, instructions: list[str]) -> Judged:
        return self._remote(Capability.PREFER.value, (first, second), instructions)[0]

    def _done(self, now: Frames, instructions: list[str]) -> Judged:
        return self._remote(Capability.DONE.value, (now,), instructions)[0]

    def _value(self, now: Frames, start: Frames, instructions: list[str]) -> Judged:
        return self._remote(Capability.VALUE.value, (now, start), instructions)[0]

    def value_and_done(self, now: Frames, start: Frames, instructions: Sequence[str]) -> tuple[Answer, Answer]:
        """Both in one request."""
        self.require(Capability.DONE)
        seen = self._checked(Capability.VALUE, instructions, now, start)
        started = time.perf_counter()
        value, done = self._remote(VALUE_AND_DONE, seen, list(instructions))
        took = time.perf_counter() - started
        newest = torch.maximum(seen[0].stamps, seen[1].stamps)
        answers = (
            Answer.of(value.values.to(newest.device), newest, self.revision, took, value.confidence, value.reasons),
            Answer.of(
                done.values.to(newest.device), seen[0].stamps, self.revision, took, done.confidence, done.reasons
            ),
        )
        first, second = (
            a.invalid((a.values < 0) | (a.values > 1), "the critic's answer is outside 0 to 1") for a in answers
        )
        return first, second

    def _remote(self, what: str, seen: tuple[Frames, ...], instructions: list[str]) -> list[Judged]:
        """Ask in requests of a size that the server takes, several at once; one `Judged` for each answer asked for."""
        names = [Capability.VALUE.value, Capability.DONE.value] if what == VALUE_AND_DONE else [what]
        rows = self._rows_at_once(seen)
        chunks = [slice(i, i + rows) for i in range(0, len(instructions), rows)]

        def one(chunk: slice) -> list[Judged]:
            index = torch.arange(len(instructions))[chunk]
            return self._one(what, names, [frames.rows(index) for frames in seen], instructions[chunk])

        with ThreadPoolExecutor(self._client.limits.concurrency) as pool:
            told = list(pool.map(one, chunks))
        return [_joined([answers[i] for answers in told]) for i in range(len(names))]

    def _rows_at_once(self, seen: tuple[Frames, ...]) -> int:
        one = sum(frames.rgb[:1].numel() for frames in seen) * 4 // 3 + 4096  # base64, and the names around it
        return max(1, min(self._rows, self._most_bytes // one))

    def _one(self, what: str, names: list[str], seen: list[Frames], instructions: list[str]) -> list[Judged]:
        moments = {role: frames_to_json(frames, self._encoding) for role, frames in zip(ROLES[what], seen, strict=True)}
        try:
            reply = self._client.post(
                "/v1/judge", {"capability": what, "instructions": instructions, "moments": moments}
            )
            answers = reply.get("answers")
            answers = answers if isinstance(answers, dict) else {}
            for name in names:
                self._refuse_other_revision(answers.get(name))
            return [judged_from_json(answers.get(name), len(instructions)) for name in names]
        except RequestFailed as error:
            if error.status == UNFIT:  # the question cannot be asked: a local critic would have raised
                raise CriticError(error.said) from error
            lost = torch.full((len(instructions),), torch.nan)
            return [Judged(lost, None, [str(error)] * len(instructions)) for _ in names]

    def _refuse_other_revision(self, answer: Any) -> None:
        found = answer.get("revision") if isinstance(answer, dict) else None
        if found is not None and found != self.revision:
            raise RequestFailed(f"the server answers with revision {found} now, not {self.revision}: load it again")


def load(url: str, **settings: Any) -> Critic:
    """The critic at an address.

    Args:
        url: ``http://host:port`` of a served critic, or the base address of an OpenAI-compatible server, which usually
            ends in ``/v1``.
        settings: ``protocol`` (one of `PROTOCOLS`; auto looks for a served critic first), and those of `Options`, or of
            `vlm_rewards.openai_chat.Options`.

    Raises:
        CriticError: nobody answers there, the key or the model's name is wrong, or a setting cannot be.
    """
    from vlm_rewards import openai_chat

    protocol = settings.pop("protocol", "auto")
    if protocol not in PROTOCOLS:
        raise CriticError(unknown("protocol", str(protocol), PROTOCOLS))
    shared = {field.name for field in fields(Limits)}
    limits = settings_of(Limits, {name: value for name, value in settings.items() if name in shared}, url)
    client = Client(url, limits)
    root = client.at(client.url.removesuffix("/v1"))
    if protocol != "openai":
        about = root.probe("/health")
        if about is not None and about.get("protocol") == PROTOCOL:
            return EndpointCritic(root, about, settings_of(Options, settings, "a served critic"))
        if protocol == "robolearn":
            raise CriticError(f"what answers at {root.url} is no critic of protocol {PROTOCOL}")
    return openai_chat.connect(client, settings_of(openai_chat.Options, settings, "a chat endpoint"))


def _point(told: Any) -> OperatingPoint | None:
    """When "done" counts, as `vlm_rewards.process` chose it; numbers that nobody knows travel as null."""
    if told is None:
        return None
    point: dict[str, Any] = {name: math.nan if value is None else value for name, value in told.items()}
    return OperatingPoint(**point)


def _joined(parts: Sequence[Judged]) -> Judged:
    if not parts:
        return Judged(torch.zeros(0))
    trust = [torch.ones_like(part.values) if part.confidence is None else part.confidence for part in parts]
    reasons = [reason for part in parts for reason in part.reasons or [""] * len(part.values)]
    return Judged(torch.cat([part.values for part in parts]), torch.cat(trust), reasons)
