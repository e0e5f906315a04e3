"""The small critic's network: where is what the sentence names, where is the goal, and how far along is it?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

QUERIES = 2
"""What the sentence asks the pictures for: the named object, and the goal."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a network.

    Attributes:
        views, height, width: of the pictures it judges.
        text: D, length of a sentence's vector.
        channels: of the four convolutions; pictures shrink by 2 in the first two and the last.
        keys: size of the vectors that the sentence is compared with.
        keypoints: places that are looked for in every picture whatever the sentence, such as the gripper.
        hidden: of the layers that judge.
    """

    views: int
    height: int
    width: int
    text: int
    channels: tuple[int, int, int, int] = (16, 32, 48, 64)
    keys: int = 32
    keypoints: int = 12
    hidden: int = 160


@dataclass(frozen=True)
class Seen:
    """What pictures show, whatever the sentence: of E episodes, M moments each; (h, w) is a quarter of their size.

    Attributes:
        keys: (E, M, V, h*w, K).
        near: (E, M, V, h*w, C) features of small surroundings.
        far: (E, M, V, h*w/4, C') of wide ones.
        places: (E, M, V * 2 * keypoints) coordinates in [-1, 1].
    """

    keys: torch.Tensor
    near: torch.Tensor
    far: torch.Tensor
    places: torch.Tensor

    def part(self, first: int, last: int | None) -> Seen:
        """The moments ``first`` to ``last`` (exclusive) of each episode."""
        rows = slice(first, last)
        return Seen(self.keys[:, rows], self.near[:, rows], self.far[:, rows], self.places[:, rows])


@dataclass(frozen=True)
class Found:
    """Where pictures show what S sentences ask for.

    Attributes:
        log_map: (E, M, V, S, Q, h*w + 1) log-probabilities of the places; the last is "nowhere in this picture".
        features: (E, M, S, F) what is there.
    """

    log_map: torch.Tensor
    features: torch.Tensor


@dataclass(frozen=True)
class Anchor:
    """What the first pictures of E episodes show of what S sentences ask for.

    Attributes:
        at: (E, 1, V, S, h*w) where the named object is, probabilities.
        there: (E, 1, V, S, C) what stands there.
        features: (E, 1, S, F) as in `Found`.
    """

    at: torch.Tensor
    there: torch.Tensor
    features: torch.Tensor


@dataclass(frozen=True)
class Judgement:
    """``value`` and ``done`` (E, M, S), logits, and the attention ``log_map`` of `Found`."""

    value: torch.Tensor
    done: torch.Tensor
    log_map: torch.Tensor


class CriticNetwork(nn.Module):
    """Pictures are encoded once; any number of sentences can then be judged against them at little cost.

    The sentence's words are linear in the query that looks for the named object, so that a colour and a shape that
    were never seen together still add up to a query (contrastive matching as in CLIP, arXiv 2103.00020; positions by
    spatial softmax, Levine et al. 2016).
    """

    grid: torch.Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        a, b, c, d = shape.channels
        self.first = nn.Conv2d(3, a, 5, stride=2, padding=2)
        self.second = nn.Conv2d(a, b, 3, stride=2, padding=1)
        self.third = nn.Conv2d(b, c, 3, padding=1)
        self.fourth = nn.Conv2d(c, c, 3, padding=1)
        self.wide = nn.Conv2d(c, d, 3, stride=2, padding=1)
        self.wider = nn.Conv2d(d, d, 3, padding=1)
        self.view = nn.Parameter(torch.zeros(shape.views, b, 1, 1))
        self.where = nn.Conv2d(2, b, 1, bias=False)
        self.key = nn.Linear(c, shape.keys)
        self.mark = nn.Linear(c, shape.keypoints)
        self.query = nn.Linear(shape.text, QUERIES * shape.keys)
        self.nowhere = nn.Parameter(torch.zeros(shape.views, QUERIES))
        self.sharpness = nn.Parameter(torch.zeros(()))
        now, then = self._sizes()
        self.since = nn.Linear(then, 64)
        self.unanchored = nn.Parameter(torch.zeros(64))
        self.judge = nn.Sequential(nn.LayerNorm(now), nn.Linear(now, shape.hidden))
        self.modulate = nn.Sequential(nn.Linear(shape.text, 16), _zero(nn.Linear(16, 2 * (shape.hidden + 64))))
        self.value = _head(shape.hidden + 64, shape.hidden)
        self.done = _head(shape.hidden, shape.hidden)
        self.register_buffer("grid", _grid(self.cells), persistent=False)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of the attention maps."""
        return -(-self.shape.height // 4), -(-self.shape.width // 4)

    def _sizes(self) -> tuple[int, int]:
        shape = self.shape
        _, _, c, d = shape.channels
        found = shape.views * QUERIES * (c + d + shape.keys + 3)
        return found + shape.views * (2 * shape.keypoints + 2), found + shape.views * c

    def see(self, pictures: torch.Tensor) -> Seen:
        """Encode (E, M, V, 3, H, W) pictures, float in about [-1, 1]."""
        lead = pictures.shape[:3]
        x = pictures.flatten(0, 2).contiguous(memory_format=torch.channels_last)
        x = self.second(F.relu(self.first(x), inplace=True))
        placed = self.where(self.grid.T.reshape(1, 2, *self.cells)) + self.view
        x = F.relu(x + placed.repeat(len(x) // lead[2], 1, 1, 1))
        x = F.relu(self.third(x), inplace=True)
        near = F.relu(x + self.fourth(x))
        far = F.relu(self.wide(near), inplace=True)
        far = F.relu(far + self.wider(far))
        near, far = (y.permute(0, 2, 3, 1).flatten(1, 2) for y in (near, far))
        spots = torch.softmax(self.mark(near).float().transpose(1, 2), -1) @ self.grid
        keys, near, far = (y.unflatten(0, lead) for y in (self.key(near), near, far))
        return Seen(keys.float(), near.float(), far.float(), spots.view(*lead[:2], -1))

    def find(self, seen: Seen, text: torch.Tensor) -> Found:
        """Where the pictures show what each episode's sentences (E, S, D) ask for."""
        episodes, moments, views, cells, size = seen.keys.shape
        query = self.query(text).view(episodes, -1, size)
        scale = self.sharpness.exp() * size**-0.5
        score = seen.keys.reshape(episodes, -1, size) @ query.transpose(1, 2) * scale
        score = score.view(episodes, moments, views, cells, -1).transpose(3, 4)
        nowhere = self.nowhere.repeat(1, text.shape[1]).view(1, 1, views, -1, 1).expand(episodes, moments, -1, -1, 1)
        log_map = torch.log_softmax(torch.cat([score, nowhere], -1), -1)
        weight = log_map.exp()
        shown, absent = weight[..., :-1], weight[..., -1:]
        match = shown @ seen.keys * query.view(episodes, 1, 1, -1, size)
        parts = [shown @ seen.near, self._coarse(shown) @ seen.far, match, shown @ self.grid, absent]
        features = torch.cat(parts, -1).unflatten(3, (-1, QUERIES)).transpose(2, 3)
        return Found(log_map.unflatten(3, (-1, QUERIES)), features.flatten(3))

    def anchor(self, start: Seen, text: torch.Tensor) -> Anchor:
        """What the first pictures (one moment of each episode) show of what sentences (E, S, D) ask for."""
        found = self.find(start, text)
        at = found.log_map[..., 0, :-1].exp()
        return Anchor(at, at @ start.near, found.features)

    def forward(self, now: Seen, text: torch.Tensor, anchor: Anchor | None, anchored: torch.Tensor) -> Judgement:
        """Judge M moments of E episodes against each episode's S sentences.

        Args:
            text: (E, S, D).
            anchor: of the same episodes and sentences, if their first pictures are known.
            anchored: (E,) bool, whether to look at it. Success is judged without it.
        """
        found = self.find(now, text)
        places = found.features.unflatten(3, (self.shape.views, QUERIES, -1))[..., -3:-1]
        between = (places[..., 0, :] - places[..., 1, :]).flatten(3)
        common = now.places.unsqueeze(2).expand(-1, -1, text.shape[1], -1)
        here = self.judge(torch.cat([found.features, between, common], -1))
        since = self.unanchored.expand(*here.shape[:3], -1)
        if anchor is not None:
            since = torch.where(anchored.view(-1, 1, 1, 1), self.since(_change(now, anchor)), since)
        scale, shift = self.modulate(text).unsqueeze(1).chunk(2, -1)
        joint = F.silu(torch.cat([here, since], -1) * (1 + scale) + shift)
        done = joint[..., : self.shape.hidden]
        return Judgement(self.value(joint).squeeze(-1), self.done(done).squeeze(-1), found.log_map)

    def _coarse(self, weight: torch.Tensor) -> torch.Tensor:
        """Attention on cells of twice the size."""
        maps = weight.reshape(-1, 1, *self.cells)
        pooled = F.avg_pool2d(maps, 2, ceil_mode=True, divisor_override=1)
        return pooled.view(*weight.shape[:-1], -1)


def _change(now: Seen, anchor: Anchor) -> torch.Tensor:
    """What the start showed, and how the place where the named object stood looks different now; (E, M, S, F')."""
    there = (anchor.at @ now.near - anchor.there).transpose(2, 3).flatten(3)
    return torch.cat([anchor.features.expand(-1, there.shape[1], -1, -1), there], -1)


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _head(inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, 1))


def _grid(cells: tuple[int, int]) -> torch.Tensor:
    """(h*w, 2): x and y of the cells' centres in [-1, 1], row by row."""
    rows, columns = ((torch.arange(n) + 0.5) * 2 / n - 1 for n in cells)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2)


def normalised(rgb: torch.Tensor) -> torch.Tensor:
    """(..., H, W, 3) uint8 → (..., 3, H, W) float32 in [-1, 1], without moving memory."""
    return rgb.movedim(-1, -3).float() / 127.5 - 1.0
