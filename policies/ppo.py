"""Proximal policy optimisation (Schulman et al. 2017) with an asymmetric critic."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch

from policies.checks import check_reward, check_rollout
from policies.distributed import copy_from_first_rank_, rank
from policies.errors import PolicyStateError, check_finite
from policies.estimate import estimate
from policies.loss import STATISTICS, Minibatch, standardize_
from policies.moved import Moved
from policies.networks import ActorCritic, Player, PolicyModule
from policies.optim import FlatAdam
from policies.passes import Passes
from policies.ppo_config import PPOConfig
from policies.rollout import GROUPS, EnvLike, Rollout, StepLike
from policies.tally import Tally
from policies.update import Update
from robolearn.threads import one_thread

__all__ = ["PPO", "Minibatch", "PPOConfig"]


class PPO:
    """The learner: `iterate` collects one rollout from an environment and learns from it.

    * A time-out is no failure: for worlds truncated but not terminated, r += γ V(final critic observation).
    * Observation statistics move once per rollout, after its update, so that a rollout and its update see one
      and the same normalisation. The first rollout is seen unscaled.
    * The adaptive schedule divides the learning rate by 1.5 when KL(old ‖ new) of a minibatch exceeds twice
      `desired_kl`, and multiplies by 1.5 when it is below half of it. The first minibatch of an update says
      nothing (nothing has changed yet) and is skipped.
    * Under ``torchrun`` every rank steps its own worlds; gradients, KL, observation and advantage statistics
      are averaged over ranks, so parameters stay identical. Join the group first
      (`policies.distributed.init_from_env`).
    * All random numbers come from `generator`.
    * On a GPU the host only hands out work: it waits for the device three times an iteration (for what the
      rollout was like, for its metrics, for those of the update), and for the environment's own check.

    Args:
        observation_dims: ``{"policy": d, "critic": d}``.
        num_actions: action size A.
        num_envs: worlds N, of this rank.
        config: settings.
        seed: seed of the initial weights (the same on all ranks) and, with the rank, of `generator`.
        device: where to learn.

    Attributes:
        reward_stage: turns a step into its reward (N,); default: ``step.reward``.
        imitation: turns a `Minibatch` into a scalar loss, weighted by `imitation_coef`; default: none.
        iteration, env_steps: how many iterations, and steps of single worlds on this rank, are done.

    Raises:
        PolicyConfigError: settings that cannot work with these sizes.
        NonFiniteError: NaN or infinity in observations, rewards, losses or gradients (from `iterate`);
            parameters are then those of before the faulty minibatch.
    """

    def __init__(
        self,
        observation_dims: Mapping[str, int],
        num_actions: int,
        num_envs: int,
        config: PPOConfig | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        c = self.config = config if config is not None else PPOConfig()
        self.dims = {g: int(observation_dims[g]) for g in GROUPS}
        self.num_actions, self.num_envs = num_actions, num_envs
        self.device = torch.empty(0, device=device).device  # with its number
        units = num_envs if c.network == "gru" else num_envs * c.num_steps
        c._require("minibatches", c.minibatches <= units, f"at most {units} with {num_envs} worlds")
        self.network = ActorCritic(
            self.dims,
            num_actions,
            kind=c.network,
            hidden=c.hidden,
            gru_hidden=c.gru_hidden,
            activation=c.activation,
            init_std=c.init_std,
            policy_gain=c.policy_gain,
            obs_clip=c.obs_clip,
            generator=torch.Generator().manual_seed(seed),
        ).to(self.device)
        parameters = (self.network.actor_parameters(), self.network.critic_parameters())
        self.optimizer = FlatAdam(parameters, c.lr, c.max_grad_norm, extra=len(STATISTICS))
        copy_from_first_rank_(self.optimizer.flat.data)
        self.generator = torch.Generator(self.device).manual_seed(seed * 1_000_003 + rank() + 1)
        self.rollout = Rollout(c.num_steps, num_envs, self.dims, num_actions, self.device)
        rows = max(num_envs, -(-units // c.minibatches) * (num_envs * c.num_steps // units))
        self.passes = Passes(self.network, c, rows, self.device)
        self._update = Update(c, self.network, self.passes, self.optimizer)
        self.reward_stage: Callable[[StepLike], torch.Tensor] | None = None
        self.imitation: Callable[[Minibatch], torch.Tensor] | None = None
        self.imitation_coef = c.imitation_coef
        self.obs: dict[str, torch.Tensor] | None = None
        self.hidden = self.network.initial_hidden(num_envs)
        self.tally = Tally(num_envs, self.device)
        self._watch = self.device.type == "cpu"
        """Whether the host may look at every step, which on a GPU would make it wait for each."""
        self.iteration = 0
        self.env_steps = 0
        self._player: Player | None = None

    def iterate(self, env: EnvLike) -> dict[str, float]:
        """Collect ``num_steps`` steps of every world, learn from them, and return the metrics.

        The first call resets ``env``; later calls go on where the last one stopped.
        """
        if torch.device(env.device) != self.device:
            env = Moved(env, self.device)
        if self.obs is None:
            self._check_env(env)
            self.obs = dict(env.reset())
        start = time.perf_counter()
        with one_thread():
            metrics = self._collect(env)
        collected = time.perf_counter()
        estimate(self.config, self.network, self.passes, self.rollout, self.hidden, self._watch)
        metrics.update(self._learn())
        if self.config.normalize_obs:
            for group in GROUPS:
                self.network.norm[group].update(self.rollout.raw[group])
        self.iteration += 1
        self.env_steps += self.num_envs * self.config.num_steps
        metrics["time/collect"] = collected - start
        metrics["time/learn"] = time.perf_counter() - collected
        return metrics

    def player(self, num_envs: int) -> Player:
        """The deterministic policy for ``num_envs`` worlds, following this learner's parameters."""
        return Player(self.policy_module(), num_envs)

    def act(self, obs_policy: torch.Tensor, ended: torch.Tensor | None = None) -> torch.Tensor:
        """Mean actions (N, A) for raw ``policy`` observations (N, d); statistics do not move.

        A recurrent policy remembers between calls, and forgets in the worlds ``ended`` (N,) bool. Memory
        starts empty whenever N changes; for separate evaluations use a `player` each.
        """
        if self._player is None or self._player.num_envs != obs_policy.shape[0]:
            self._player = self.player(obs_policy.shape[0])
        if ended is not None:
            self._player.reset(ended)
        return self._player.act(obs_policy)

    def policy_module(self) -> PolicyModule:
        """The deterministic policy as a module, normaliser inside; it shares this learner's parameters."""
        return self.network.policy_module()

    @torch.no_grad()
    def _collect(self, env: EnvLike) -> dict[str, float]:
        """Fill the rollout; return the means of rewards, their terms, endings and the environment's log."""
        r, c, net = self.rollout, self.config, self.network
        std = net.log_std.exp()
        r.noise.normal_(generator=self.generator)
        r.start_hidden = dict(self.hidden)
        self.tally.begin()
        for t in range(c.num_steps):
            self._observe(t)
            z = r.obs["policy"][t]
            if net.recurrent:
                z = self.hidden["policy"] = self.passes.remember("policy", z, self.hidden["policy"])
            r.mean[t] = self.passes.head("policy", z)
            torch.addcmul(r.mean[t], r.noise[t], std, out=r.action[t])
            step = env.step(r.action[t].clone())
            self.obs = dict(step.obs)
            reward = step.reward if self.reward_stage is None else self.reward_stage(step)
            r.store(t, step, reward)
            self.tally.add(step, reward)
            if self._watch:
                check_reward(r.reward[t], step.rewards, f" (rollout step {t})")
            if net.recurrent:
                self.hidden["policy"] = self.hidden["policy"] * (1.0 - r.done[t]).unsqueeze(-1)
        self._observe(c.num_steps)
        env.check()
        if not self._watch:
            r.clear_final()
            check_rollout(r, step.obs, self.tally.terms())
        # The constant of the Gaussian is dropped here and in the loss.
        torch.sum(r.noise.square(), -1, out=r.log_prob).mul_(-0.5).sub_(net.log_std.sum())
        return self.tally.metrics()

    def _observe(self, t: int) -> None:
        """Write the normalised current observations into row ``t`` of the rollout."""
        assert self.obs is not None
        for group in GROUPS:
            if self._watch:
                check_finite(f"observation {group!r}", self.obs[group], f" (rollout step {t})")
            self.network.norm[group].into(self.obs[group], self.rollout.obs[group][t])
            if t < self.config.num_steps:
                self.rollout.raw[group][t] = self.obs[group]

    def _learn(self) -> dict[str, float]:
        """Run the epochs; return mean losses and policy figures."""
        c = self.config
        batches = self.rollout.shuffle(c.minibatches, self.network.recurrent, self.generator)
        if c.normalize_advantage == "minibatch":
            for batch in batches:
                standardize_(batch["advantage"])
        imitates = self.imitation is not None and self.imitation_coef > 0
        extra = self._imitate if imitates else None
        return self._update.run(batches * c.epochs, extra, self._watch, f"iteration {self.iteration}")

    def _imitate(self, batch: Mapping[str, torch.Tensor], mean: torch.Tensor) -> torch.Tensor:
        """The weighted imitation loss of a minibatch, given the policy's mean actions now (B, A)."""
        assert self.imitation is not None
        raw = {g: self.rollout.flat(self.rollout.raw[g])[batch["index"]] for g in GROUPS}
        std = self.network.log_std.exp()
        sample = Minibatch(batch["index"], raw, batch["action"], mean, std, batch["advantage"])
        return self.imitation_coef * self.imitation(sample)

    def _check_env(self, env: EnvLike) -> None:
        """Raise `PolicyStateError` when ``env`` has other sizes than this learner."""
        mine = {"num_envs": self.num_envs, "num_actions": self.num_actions, "observation_dims": self.dims}
        for name, value in mine.items():
            theirs = dict(env.observation_dims) if name == "observation_dims" else getattr(env, name)
            if theirs != value:
                raise PolicyStateError(f"the environment's {name} is {theirs}, this learner was made for {value}")

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on bit for bit (with the environment's own state): tensors, plain values.

        Under ``torchrun`` each rank has its own (observations, memories, generator).
        """
        clone = {k: v.clone() for k, v in self.network.state_dict().items()}
        return {
            "spec": self._spec(),
            "network": clone,
            "optimizer": self.optimizer.state_dict(),
            "device": self.device.type,
            "generator": self.generator.get_state(),
            "obs": None if self.obs is None else {g: self.obs[g].clone() for g in GROUPS},
            "hidden": {g: h.clone() for g, h in self.hidden.items()},
            "episode_return": self.tally.episode_return.clone(),
            "episode_length": self.tally.episode_length.clone(),
            "imitation_coef": self.imitation_coef,
            "iteration": self.iteration,
            "env_steps": self.env_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, wherever its tensors are.

        On another kind of device than the state's (CPU, GPU) the random numbers are others: generators differ.

        Raises:
            PolicyStateError: the state belongs to other sizes or another network; nothing is changed then.
        """
        for name, mine in self._spec().items():
            theirs = state["spec"].get(name)
            if theirs != mine:
                raise PolicyStateError(f"saved learner has {name} {theirs!r}, this one {mine!r}")
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._update.forget_recordings()
        if state.get("device", "cpu") == self.device.type:
            self.generator.set_state(state["generator"].cpu())
        else:
            self.generator.manual_seed(self.generator.initial_seed() + 7919 * state["iteration"])
        obs = state["obs"]
        self.obs = None if obs is None else {g: obs[g].to(self.device).clone() for g in GROUPS}
        self.hidden = {g: h.to(self.device).clone() for g, h in state["hidden"].items()}
        self.tally.episode_return.copy_(state["episode_return"])
        self.tally.episode_length.copy_(state["episode_length"])
        self.imitation_coef = state["imitation_coef"]
        self.iteration, self.env_steps = state["iteration"], state["env_steps"]

    def _spec(self) -> dict[str, Any]:
        """What a saved state must share with this learner."""
        c = asdict(self.config)
        names = ("network", "activation", "gru_hidden", "normalize_obs", "normalize_value", "obs_clip")
        spec = {name: c[name] for name in names}
        sizes = {"observation_dims": self.dims, "num_actions": self.num_actions, "num_envs": self.num_envs}
        return {**spec, "hidden": list(c["hidden"]), **sizes}
