"""Sums over a rollout, for the metrics."""

from __future__ import annotations

import torch

from policies.fetch import fetch
from policies.rollout import StepLike


class Tally:
    """Sums over one rollout for the metrics, and the running return and length of every episode.

    Everything stays on the device until `metrics` fetches it, once.
    """

    def __init__(self, num_envs: int, device: torch.device | str) -> None:
        self.episode_return = torch.zeros(num_envs, device=device)
        self.episode_length = torch.zeros(num_envs, device=device)
        self.begin()

    def begin(self) -> None:
        """Start a rollout; episodes go on."""
        self.steps = 0
        self.sums: dict[str, torch.Tensor] = {}
        self.logs: dict[str, tuple[float | torch.Tensor, int]] = {}
        self.results: dict[tuple[str, ...], torch.Tensor] = {}

    def add(self, step: StepLike, reward: torch.Tensor) -> None:
        """Count one step and the ``reward`` (N,) learned from."""
        self.steps += 1
        values = {f"reward/{name}": term for name, term in step.rewards.items()}
        values |= {"rollout/reward": reward, "rollout/terminated": step.terminated.float()}
        values["rollout/truncated"] = (step.truncated & ~step.terminated).float()
        for name, value in values.items():
            if name in self.sums:
                self.sums[name] += value
            else:
                self.sums[name] = value.clone()
        for name, number in step.log.items():
            total, count = self.logs.get(name, (0.0, 0))
            self.logs[name] = total + number, count + 1
        self.episode_return += reward
        self.episode_length += 1
        if len(step.final_ids):
            self._finish(step)

    def _finish(self, step: StepLike) -> None:
        """Add up the results of the episodes that ended: sums and counts of what is a number, (2, metrics)."""
        ids = step.final_ids
        ended = step.terminated | step.truncated
        rows = {"return": self.episode_return[ids], "length": self.episode_length[ids]}
        rows |= {name: values for name, values in step.episodes.items() if name not in rows}
        table = torch.stack(tuple(rows.values()))
        known = ended[ids] & ~table.isnan()
        sums = torch.stack((table.masked_fill(~known, 0.0).sum(1), known.sum(1)))
        names = tuple(rows)
        self.results[names] = self.results[names] + sums if names in self.results else sums
        self.episode_return.masked_fill_(ended, 0.0)
        self.episode_length.masked_fill_(ended, 0.0)

    def terms(self) -> dict[str, torch.Tensor]:
        """Sums of the reward's terms over the rollout, name → (N,)."""
        return {n.removeprefix("reward/"): total for n, total in self.sums.items() if n.startswith("reward/")}

    def metrics(self) -> dict[str, float]:
        """Means per world and step of rewards and endings, the log's means over steps that had the key.

        ``episode/<metric>`` are means over the episodes that ended and say something about it, if any did; names with a
        ``/`` stay as they are.
        """
        means = torch.stack([value.mean() for value in self.sums.values()])
        logs = {f"log/{name}": total for name, (total, _) in self.logs.items() if isinstance(total, torch.Tensor)}
        tables = {f"results/{i}": table for i, table in enumerate(self.results.values())}
        found = fetch({**{name: total.to(means.device) for name, total in logs.items()}, **tables, "means": means})
        metrics = {}
        for name, (total, times) in self.logs.items():
            metrics[name] = (found[f"log/{name}"][0] if f"log/{name}" in logs else float(total)) / times
        metrics |= {name: mean / self.steps for name, mean in zip(self.sums, found["means"], strict=True)}
        for i, names in enumerate(self.results):
            sums, counts = found[f"results/{i}"][: len(names)], found[f"results/{i}"][len(names) :]
            for name, value, count in zip(names, sums, counts, strict=True):
                if count:
                    metrics[name if "/" in name else f"episode/{name}"] = value / count
        return metrics
