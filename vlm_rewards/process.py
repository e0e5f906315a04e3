"""The in-house process critic: a small network that judges progress and success from a few cameras."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from robolearn import checkpoints
from robolearn.errors import unknown
from vlm_rewards.answer import Answer
from vlm_rewards.calibration import Platt
from vlm_rewards.critic import Capability, Critic, Judged, Window
from vlm_rewards.domain import Domain, traits
from vlm_rewards.errors import CriticError
from vlm_rewards.frames import Frames
from vlm_rewards.losses import hop
from vlm_rewards.network import Anchor, CriticNetwork, Seen, Shape, normalised
from vlm_rewards.operating_point import OperatingPoint
from vlm_rewards.registry import read_description, write_description
from vlm_rewards.text import SentenceEncoder, Vocabulary, sentence_encoder

KIND = "process"
WEIGHTS = "weights.pt"
SETTINGS = ("batch",)
"""Of `load`."""
_MEMORY = 4096


@dataclass(frozen=True)
class Knowledge:
    """What a critic knows beside its network's weights.

    Attributes:
        cameras: its views, in order.
        text: name of the sentence encoder.
        vocabulary: of training's sentences.
        done: from logits to probabilities.
        prefer: the same for the difference of two moments' value logits; it has no shift.
        domain: the pictures that it was trained on.
        point: when "done" counts, chosen on validation.
    """

    cameras: tuple[str, ...]
    text: str
    vocabulary: Vocabulary
    done: Platt
    prefer: Platt
    domain: Domain
    point: OperatingPoint


class ProcessCritic(Critic):
    """Progress since the start of an episode, success, hops and preferences, of any number of instructions.

    VALUE looks at the episode's first pictures as well. DELTA is the hop between two values without them, PREFER a
    calibrated function of their difference. The confidence says how much the pictures are like those of training, and
    how familiar the words are.

    Args:
        network: trained.
        knowledge: what was learned beside it.
        batch: moments that are judged at once.

    Attributes:
        operating_point: threshold and debounce of "done", chosen on validation.
    """

    name = KIND
    capabilities = frozenset({Capability.VALUE, Capability.DONE, Capability.DELTA, Capability.PREFER})
    window = Window(1, 0.0, causal=True)

    def __init__(self, network: CriticNetwork, knowledge: Knowledge, batch: int = 64) -> None:
        if batch < 1:
            raise CriticError(f"batch must be at least 1 moment, got {batch}")
        self.network, self.knowledge, self.batch = network.eval().requires_grad_(False), knowledge, batch
        self.cameras, self.picture = knowledge.cameras, (network.shape.height, network.shape.width)
        self.operating_point = knowledge.point
        self.revision = _revision(network, knowledge)
        self._encoder: SentenceEncoder = sentence_encoder(knowledge.text)
        self._sentences: OrderedDict[str, tuple[torch.Tensor, float]] = OrderedDict()
        self._anchors: OrderedDict[tuple[bytes, str], Anchor] = OrderedDict()

    def logits(
        self, now: Frames, start: Frames | None, instructions: list[str]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Value and done, before calibration, and confidence; (B,) each."""
        parts = [
            self._part(now.newest[rows], None if start is None else start.newest[rows], instructions[rows])
            for rows in (slice(first, first + self.batch) for first in range(0, len(instructions), self.batch))
        ]
        value, done, confidence = (torch.cat(column) for column in zip(*parts, strict=True))
        return value, done, confidence

    def value_and_done(self, now: Frames, start: Frames, instructions: list[str]) -> tuple[Answer, Answer]:  # type: ignore[override]
        """Both judgements in one pass."""
        now, start = self._checked(Capability.VALUE, instructions, now, start)
        began = time.perf_counter()
        value, done, confidence = self.logits(now, start, list(instructions))
        stamps = torch.maximum(now.stamps, start.stamps)
        took = time.perf_counter() - began
        said = (torch.sigmoid(value), self.knowledge.done(done))
        first, second = (Answer.of(x, stamps, self.revision, took, confidence) for x in said)
        return first, second

    def _value(self, now: Frames, start: Frames, instructions: list[str]) -> Judged:
        value, _, confidence = self.logits(now, start, instructions)
        return Judged(torch.sigmoid(value), confidence)

    def _done(self, now: Frames, instructions: list[str]) -> Judged:
        _, done, confidence = self.logits(now, None, instructions)
        return Judged(self.knowledge.done(done), confidence)

    def _delta(self, before: Frames, after: Frames, instructions: list[str]) -> Judged:
        first, second, confidence = self._two(before, after, instructions)
        return Judged(hop(torch.sigmoid(first), torch.sigmoid(second)), confidence)

    def _prefer(self, first: Frames, second: Frames, instructions: list[str]) -> Judged:
        one, two, confidence = self._two(first, second, instructions)
        return Judged(self.knowledge.prefer(two - one), confidence)

    def _two(
        self, first: Frames, second: Frames, instructions: list[str]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        (one, _, sure), (two, _, surer) = (self.logits(frames, None, instructions) for frames in (first, second))
        return one, two, torch.minimum(sure, surer)

    @torch.inference_mode()
    def _part(
        self, now: torch.Tensor, start: torch.Tensor | None, instructions: list[str]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        told = [self._sentence(text) for text in instructions]
        text = torch.stack([vector for vector, _ in told]).unsqueeze(1)
        pictures = normalised(now).unsqueeze(1)
        seen = self.network.see(pictures)
        anchor = None if start is None else self._anchored(start, instructions, text)
        said = self.network(seen, text, anchor, torch.ones(len(text), dtype=torch.bool))
        known = torch.tensor([familiar for _, familiar in told])
        familiar = self.knowledge.domain.confidence(traits(pictures.squeeze(1), seen.near.squeeze(1)))
        return said.value.flatten(), said.done.flatten(), known * familiar

    def _sentence(self, text: str) -> tuple[torch.Tensor, float]:
        if text not in self._sentences:
            self._sentences[text] = (self._encoder.embed([text])[0], self.knowledge.vocabulary.familiarity(text))
            _forget(self._sentences)
        return self._sentences[text]

    def _anchored(self, start: torch.Tensor, instructions: list[str], text: torch.Tensor) -> Anchor:
        """What the first pictures show; they are the same through an episode, so that they are looked at once."""
        keys = [
            (hashlib.blake2b(picture.tobytes(), digest_size=16).digest(), words)
            for picture, words in zip(start.numpy(), instructions, strict=True)
        ]
        new = {key: row for row, key in enumerate(keys) if key not in self._anchors}
        kept = {key: self._anchors[key] for key in keys if key in self._anchors}
        for key, row in new.items():  # one by one: the last digits depend on how many are looked at together
            seen: Seen = self.network.see(normalised(start[row : row + 1]).unsqueeze(1))
            made = self.network.anchor(seen, text[row : row + 1])
            kept[key] = Anchor(made.at[0], made.there[0], made.features[0])
        self._anchors.update(kept)
        _forget(self._anchors)
        found = [kept[key] for key in keys]
        return Anchor(*(torch.stack([getattr(a, name) for a in found]) for name in ("at", "there", "features")))

    def save(self, folder: Path, **more: Any) -> None:
        """Write weights and description; ``more`` is added to the description, and must be plain JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        checkpoints.write(folder / WEIGHTS, 0, _state(self.network, self.knowledge))
        write_description(folder, self.name, cameras=self.cameras, picture=self.picture, revision=self.revision, **more)


def load(folder: str | Path, **settings: Any) -> ProcessCritic:
    """A critic that `ProcessCritic.save` wrote.

    Args:
        settings: ``batch``, as of `ProcessCritic`.

    Raises:
        CriticError: unknown settings, or a folder that holds no such critic.
    """
    return ProcessCritic(*restored(folder, settings), **settings)


def restored(folder: str | Path, settings: Mapping[str, Any]) -> tuple[CriticNetwork, Knowledge]:
    """The network and the knowledge in a folder; ``settings`` must be among `SETTINGS`.

    Raises:
        CriticError: they are not, or the folder holds no such critic.
    """
    for name in settings:
        if name not in SETTINGS:
            raise CriticError(unknown("setting of a process critic", name, SETTINGS))
    read_description(Path(folder))
    state = checkpoints.read(Path(folder) / WEIGHTS).state
    try:
        shape = Shape(**{**state["shape"], "channels": tuple(state["shape"]["channels"])})
        network = CriticNetwork(shape)
        network.load_state_dict(state["network"])
        knowledge = _knowledge(state["knowledge"])
    except (KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CriticError(f"{folder} holds no process critic that this version can read: {reason}") from error
    return network, knowledge


def _state(network: CriticNetwork, knowledge: Knowledge) -> dict[str, Any]:
    """Tensors, numbers and text alone."""
    vocabulary = knowledge.vocabulary
    plain = asdict(knowledge) | {
        "cameras": list(knowledge.cameras),
        "vocabulary": [sorted(vocabulary.words), sorted(vocabulary.telling), vocabulary.least],
        "point": {**asdict(knowledge.point), "false_done": dict(knowledge.point.false_done)},
    }
    shape = {**asdict(network.shape), "channels": list(network.shape.channels)}
    return {"network": dict(network.state_dict()), "shape": shape, "knowledge": plain}


def _knowledge(plain: Mapping[str, Any]) -> Knowledge:
    words, telling, least = plain["vocabulary"]
    return Knowledge(
        cameras=tuple(plain["cameras"]),
        text=plain["text"],
        vocabulary=Vocabulary(frozenset(words), frozenset(telling), int(least)),
        done=Platt(**plain["done"]),
        prefer=Platt(**plain["prefer"]),
        domain=Domain(**plain["domain"]),
        point=OperatingPoint(**plain["point"]),
    )


def _revision(network: CriticNetwork, knowledge: Knowledge) -> str:
    """Of weights and knowledge: equal only if all of them are."""
    digest = hashlib.sha256()
    for part in _leaves(_state(network, knowledge)):
        digest.update(part.contiguous().numpy().tobytes() if isinstance(part, torch.Tensor) else repr(part).encode())
    return digest.hexdigest()[:16]


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [leaf for key in sorted(value) for leaf in (key, *_leaves(value[key]))]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]


def _forget(memory: OrderedDict[Any, Any]) -> None:
    """Keep what was learned last."""
    while len(memory) > _MEMORY:
        memory.popitem(last=False)
