"""Settings of PPO and their validation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from policies.errors import PolicyConfigError
from policies.networks import ACTIVATIONS
from robolearn.errors import unknown

CHOICES = {
    "network": ("mlp", "gru"),
    "activation": ACTIVATIONS,
    "schedule": ("adaptive", "fixed"),
    "normalize_advantage": ("batch", "minibatch", "none"),
    "compile": ("none", "default", "max"),
    "precision": ("fp32", "bf16"),
}
POSITIVE: tuple[str, ...] = ("num_steps", "epochs", "minibatches", "clip", "lr", "lr_min", "lr_max")
POSITIVE += ("desired_kl", "max_grad_norm", "gru_hidden", "init_std", "min_std", "obs_clip")
NOT_NEGATIVE = ("value_coef", "entropy_coef", "imitation_coef", "policy_gain")


@dataclass
class PPOConfig:
    """Settings of `policies.ppo.PPO`.

    Raises:
        PolicyConfigError: a value outside its range, naming the setting, the value and what is allowed.
    """

    num_steps: int = 16
    """Steps T of each world in a rollout."""
    epochs: int = 4
    """Passes over a rollout in one update."""
    minibatches: int = 4
    """Minibatches of one pass; a GRU splits by worlds, so that each world's rollout stays whole."""
    gamma: float = 0.97
    """Discount γ."""
    lam: float = 0.95
    """Trace decay λ of the advantage estimate."""
    clip: float = 0.2
    """Clip range ε of the probability ratio."""
    value_coef: float = 1.0
    """Weight of the value loss."""
    value_clip: float | None = None
    """Clip range of the change of a value in one update; ``None`` does not clip."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    imitation_coef: float = 0.0
    """Weight of the imitation loss; needs an imitation hook."""
    schedule: str = "adaptive"
    """``adaptive`` holds the policy's change near `desired_kl`; ``fixed`` keeps `lr`."""
    lr: float = 5e-4
    """Learning rate; with the adaptive schedule, the first one."""
    lr_min: float = 1e-5
    """Lower bound of the adaptive learning rate."""
    lr_max: float = 1e-2
    """Upper bound of the adaptive learning rate."""
    desired_kl: float = 0.03
    """KL(old ‖ new) that the adaptive schedule aims at."""
    max_grad_norm: float = 1.0
    """Bound of the gradient norm, of the policy and of the value function each."""
    normalize_advantage: str = "batch"
    """Standardise advantages over the whole ``batch``, each ``minibatch`` (both: all ranks), or ``none``."""
    normalize_value: bool = True
    """Learn the value in units of the running mean and deviation of returns."""
    normalize_obs: bool = True
    """Normalise observations by running statistics."""
    obs_clip: float = 10.0
    """Bound of normalised observations."""
    network: str = "mlp"
    """``mlp`` or ``gru``."""
    hidden: tuple[int, ...] = (256, 128)
    """Hidden sizes of the policy's and the value function's MLP."""
    gru_hidden: int = 128
    """Hidden state size of each GRU."""
    activation: str = "elu"
    """Activation between layers: elu, relu or tanh."""
    init_std: float = 0.5
    """Initial standard deviation of the actions."""
    min_std: float = 0.01
    """Lower bound of the standard deviation."""
    policy_gain: float = 0.01
    """Scale of the policy's last layer at the start; small values start it near zero."""
    compile: str = "none"
    """Compile networks and loss by ``torch.compile``: ``none``, ``default``, or ``max``, which tries several kernels.
    Compiling takes up to a minute at the start, and results differ in the last digits."""
    cuda_graph: bool | None = None
    """Replay the whole update of a minibatch as one CUDA graph; ``None`` does so on a GPU, if one process learns."""
    precision: str = "fp32"
    """``bf16``: matrix products of the hidden layers in bfloat16; parameters, outputs and losses stay ``fp32``."""

    def __post_init__(self) -> None:
        self.hidden = tuple(self.hidden)
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise PolicyConfigError(unknown(f"ppo {name}", getattr(self, name), choices))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if "int" in str(field.type) and field.name != "hidden":
                self._require(field.name, isinstance(value, int) and not isinstance(value, bool), "an integer")
            elif "float" in str(field.type) and value is not None:
                number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
                self._require(field.name, number, "a finite number")
            elif field.type == "bool":
                self._require(field.name, isinstance(value, bool), "true or false")
        self._require("cuda_graph", self.cuda_graph is None or isinstance(self.cuda_graph, bool), "true, false or none")
        for name in POSITIVE:
            self._require(name, getattr(self, name) > 0, "greater than 0")
        for name in NOT_NEGATIVE:
            self._require(name, getattr(self, name) >= 0, "0 or more")
        for name in ("gamma", "lam"):
            self._require(name, 0.0 <= getattr(self, name) <= 1.0, "between 0 and 1")
        self._require("value_clip", self.value_clip is None or self.value_clip > 0, "greater than 0, or none")
        sizes = all(isinstance(h, int) and not isinstance(h, bool) and h > 0 for h in self.hidden)
        self._require("hidden", len(self.hidden) > 0 and sizes, "a list of positive sizes, one or more")
        self._require("lr_min", self.lr_min <= self.lr_max, f"at most lr_max ({self.lr_max})")
        self._require("min_std", self.min_std <= self.init_std, f"at most init_std ({self.init_std})")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PPOConfig:
        """Build from a mapping; an unknown name raises `PolicyConfigError` with the closest valid one."""
        names = [f.name for f in dataclasses.fields(cls)]
        for name in values:
            if name not in names:
                raise PolicyConfigError(unknown("ppo setting", str(name), names))
        return cls(**values)

    def _require(self, name: str, condition: bool, rule: str) -> None:
        if not condition:
            raise PolicyConfigError(f"ppo {name} must be {rule}; got {getattr(self, name)!r}")
