"""The configuration of a training run: its dataclasses, and how Hydra composes it from ``key=value``."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module, resources
from typing import TYPE_CHECKING, Any

from robolearn.critic_settings import RewardSettings
from robolearn.devices import check_name
from robolearn.errors import RobolearnError, unknown
from robolearn.settings import SettingError, apply, explain, flatten, open_names, refuse_unknown

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from sim.engines import Engine

GROUPS = ("task", "algo", "reward", "world", "experiment")
"""Groups of named choices; each name is a file in ``robolearn/conf/<group>/``."""

RESUMABLE = ("budget.", "checkpoint.", "curves", "evaluate", "video")
"""What may change when a run is continued: nothing that the training itself depends on."""

_ALGORITHMS = {"ppo": ("policies.ppo", "PPO", "PPOConfig")}


class ConfigError(RobolearnError):
    """A training configuration that cannot work."""


@dataclass
class BudgetConfig:
    """Training ends with whichever comes first; ``null`` sets no bound."""

    minutes: float | None = 6.0
    """Minutes of training, counted over all continuations; evaluation and rendering come on top."""
    iterations: int | None = None
    """Iterations of the learner."""
    steps: int | None = None
    """Environment steps, summed over worlds."""


@dataclass
class CheckpointConfig:
    """When checkpoints are written; they never influence the training."""

    every_s: float | None = 30.0
    """Seconds of training between two checkpoints."""
    every_iterations: int | None = None
    """Iterations between two checkpoints."""
    keep: int = 2
    """How many of the newest stay."""
    best: str | None = None
    """The metric whose mean since the previous checkpoint decides which is best; null: the task's success."""


@dataclass
class WorldConfig:
    """Where the physics runs."""

    name: str = "auto"
    """The engine: cpu, gpu, or auto, which takes the GPU where there is one."""
    threads: int = 0
    """Threads of the CPU engine; 0 uses every core."""
    device: str = "cuda"
    """Device of the GPU engine: cuda or cuda:<number>; cpu is Warp's slow but equal CPU device."""
    nconmax: int | None = None
    """Contacts for which the GPU engine has room, in each world on average; null: found by a probe."""
    njmax: int | None = None
    """Constraint rows for which the GPU engine has room in each world; null: found by a probe."""

    def engine(self) -> Engine:
        """The engine that these settings ask for."""
        from sim.engines import Engine

        return Engine(self.name, self.threads, self.device, self.nconmax, self.njmax)


@dataclass
class TrainConfig:
    """What `robolearn train` runs."""

    task: Any = field(default_factory=dict)
    """The task and its settings."""
    algo: Any = field(default_factory=dict)
    """The learner and its settings."""
    reward: RewardSettings = field(default_factory=RewardSettings)
    """Where the reward comes from."""
    world: WorldConfig = field(default_factory=WorldConfig)
    """Where the physics runs."""
    seed: int = 0
    """Of every random draw: one seed gives one run."""
    num_envs: int = 512
    """Worlds stepped together, of each process."""
    device: str = "auto"
    """Where the learner computes: auto (where the worlds are), cpu, cuda or cuda:<number>; under torchrun, cuda gives
    each process its own GPU."""
    threads: int = 0
    """Threads of the learner; 0 uses every core."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    """When training ends."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """When checkpoints are written."""
    run_dir: str | None = None
    """The run's folder; default: runs/<task>/<date and time>-s<seed>."""
    curves: bool = True
    """Draw the learning curves, and what was randomised, when training ends."""
    evaluate: bool = True
    """Evaluate when training ends."""
    video: bool = True
    """Render a video when training ends."""


def choices(group: str) -> list[str]:
    """Names in one of `GROUPS`."""
    folder = resources.files("robolearn.conf").joinpath(group)
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def algorithm(name: str) -> tuple[type, type]:
    """The learner's class and the dataclass of its settings.

    Raises:
        ConfigError: no algorithm of that name.
    """
    if name not in _ALGORITHMS:
        raise ConfigError(unknown("algo", name, _ALGORITHMS))
    module, learner, settings = _ALGORITHMS[name]
    loaded = import_module(module)
    return getattr(loaded, learner), getattr(loaded, settings)


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """The configuration that ``overrides`` (Hydra's grammar) make of the defaults.

    Raises:
        SettingError: an unknown name or setting, or a value of the wrong type; valid ones are named.
    """
    with _hydra() as hydra:
        return _compose(hydra, overrides)


def sweep(overrides: Sequence[str], job: Callable[[DictConfig, str], Any]) -> list[tuple[list[str], Any]]:
    """Run ``job(config, folder)`` for every combination in ``overrides``, by Hydra's sweeper and launcher.

    Returns:
        The overrides of each job and what it returned.

    Raises:
        SettingError: as in `compose`.
    """
    from hydra.core.hydra_config import HydraConfig

    def task(config: DictConfig) -> Any:
        with open_dict(config):
            config.pop("experiment", None)
        return job(config, HydraConfig.get().runtime.output_dir)

    from omegaconf import open_dict

    with _hydra() as hydra:
        overrides = _checked_combinations(hydra, overrides)
        with explain(lambda: flatten(_compose(hydra, [])), _groups()):
            returned = hydra.multirun("config", task, overrides, with_log_configuration=False)
    results = [result for batch in returned for result in batch]
    return [(list(result.overrides), result.return_value) for result in results]


def resumed(stored: Mapping[str, Any], overrides: Sequence[str]) -> DictConfig:
    """The configuration of a stored run, with a new budget and the like.

    Raises:
        ConfigError: the stored configuration does not fit this version, or an override would change what is
            learned.
        SettingError: an unknown setting or a value of the wrong type.
    """
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    named = {group: (stored.get(group) or {}).get("name") for group in ("task", "algo", "reward")}
    if named["reward"] not in choices("reward"):  # of a former version: all that it says is stored
        del named["reward"]
    base = compose([f"{group}={name}" for group, name in named.items()])
    _empty_dictionaries(base, stored)
    try:
        config = OmegaConf.merge(base, stored)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"the run's config.yaml does not fit this version of robolearn: {reason}") from error
    assert isinstance(config, DictConfig)
    known = flatten(config)
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        refuse_unknown(key, known)
        if not key.startswith(RESUMABLE):
            may = [name for name in known if name.startswith(RESUMABLE)]
            raise ConfigError(f"a continued run cannot change {key!r}; it may change: {', '.join(may)}")
    return apply(config, overrides)


def _empty_dictionaries(base: DictConfig, stored: Mapping[str, Any]) -> None:
    """Empty the open dictionaries that are stored: they stand as they are, with nothing of the defaults mixed in."""
    from omegaconf import OmegaConf

    for name in open_names(base):
        if OmegaConf.select(OmegaConf.create(dict(stored)), name) is not None:
            OmegaConf.update(base, name, {}, merge=False)
            OmegaConf.set_struct(OmegaConf.select(base, name), False)


def to_train_config(config: DictConfig) -> TrainConfig:
    """Checked dataclass of a composed configuration; ``task`` and ``algo`` become plain dicts.

    Raises:
        ConfigError: a value outside its range.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from error
    nested = {"reward": RewardSettings, "world": WorldConfig, "budget": BudgetConfig, "checkpoint": CheckpointConfig}
    made = TrainConfig(**{key: nested[key](**value) if key in nested else value for key, value in plain.items()})
    _check(made)
    return made


def to_plain(config: TrainConfig) -> dict[str, Any]:
    """The configuration as dicts, lists and numbers, as it is stored with a run."""
    return dataclasses.asdict(config)


def _check(config: TrainConfig) -> None:
    budget, checkpoint = config.budget, config.checkpoint
    bounds = {f"budget.{name}": getattr(budget, name) for name in ("minutes", "iterations", "steps")}
    if all(bound is None for bound in bounds.values()):
        raise ConfigError(f"training would never end: set one of {', '.join(bounds)}")
    positive = {"num_envs": config.num_envs, "checkpoint.keep": checkpoint.keep, **bounds}
    positive |= {f"checkpoint.{name}": getattr(checkpoint, name) for name in ("every_s", "every_iterations")}
    for name, value in positive.items():
        if value is not None and not value > 0:
            raise ConfigError(f"{name} must be greater than 0, got {value}")
    for name, value in {
        "threads": config.threads,
        "seed": config.seed,
    }.items():
        if value < 0:
            raise ConfigError(f"{name} must be 0 or more, got {value}")
    check_name(config.device)
    config.world.engine()
    algorithm(str(config.algo.get("name")))[1](**{k: v for k, v in config.algo.items() if k != "name"})


def _groups() -> dict[str, list[str]]:
    return {group: choices(group) for group in GROUPS}


def _compose(hydra: Any, overrides: Sequence[str]) -> DictConfig:
    from hydra.types import RunMode
    from omegaconf import open_dict

    chosen = [o for o in overrides if _key(o) in GROUPS]
    if len(chosen) == len(overrides):
        chosen = []

    def known() -> Iterable[str]:
        return flatten(_compose(hydra, chosen))

    overrides = _open_dictionaries(overrides, lambda: _compose(hydra, chosen))
    with explain(known, _groups()):
        config: DictConfig = hydra.compose_config(
            config_name="config",
            overrides=list(overrides),
            run_mode=RunMode.RUN,
            from_shell=False,
            with_log_configuration=False,
        )
    with open_dict(config):
        del config["hydra"]
        config.pop("experiment", None)
    return config


def _checked_combinations(hydra: Any, overrides: Sequence[str]) -> list[str]:
    """Compose every job of a sweep before the first one starts: a typing error costs no training.

    Only Hydra's own sweeper is understood; another one (``hydra/sweeper=...``) checks jobs as it makes them.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if any(_key(override).startswith("hydra/sweeper") for override in overrides):
        return list(overrides)
    with explain(lambda: flatten(_compose(hydra, [])), _groups()):
        batches = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(list(overrides)), None)
    configs = [_compose(hydra, list(combination)) for batch in batches for combination in batch]
    for config in configs:
        to_train_config(config)
    return _open_dictionaries(overrides, lambda: configs[0])


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def _open_dictionaries(overrides: Sequence[str], base: Callable[[], DictConfig]) -> list[str]:
    """Let new entries of open dictionaries (``task.randomize.object_size=...``) do without Hydra's plus sign.

    A plus sign anywhere else would put a name into the configuration that nothing reads: it is refused.
    """
    done = []
    known: list[str] = []
    below: list[str] = []
    for override in overrides:
        key = _key(override)
        if "." not in key and not override.startswith("+") or key.startswith("hydra.") or key in GROUPS:
            done.append(override)
            continue
        if not known:
            config = base()
            known, below = flatten(config), open_names(config)
        refuse_unknown(key, known, below)
        new = key not in known and not override.startswith(("+", "~"))
        if not new and key.rpartition(".")[0] in below and override.startswith(f"{key}={{"):
            done += [f"~{key}", f"+{override}"]  # a mapping takes the place of what was there, such as a list
        else:
            done.append(f"+{override}" if new else override)
    return done


class _hydra:
    """Hydra on ``robolearn/conf`` for the length of a ``with``; puts an outer one back afterwards."""

    def __enter__(self) -> Any:
        from hydra import initialize_config_module
        from hydra.core.global_hydra import GlobalHydra

        logging.getLogger("hydra").setLevel(logging.WARNING)
        _register_schemas()
        self._initialized = initialize_config_module("robolearn.conf", job_name="train", version_base="1.3")
        self._initialized.__enter__()
        return GlobalHydra.instance().hydra

    def __exit__(self, *error: Any) -> None:
        self._initialized.__exit__(*error)


def _register_schemas() -> None:
    """Give Hydra the types of all settings; tasks and learners bring their own dataclasses."""
    from hydra.core.config_store import ConfigStore

    from sim.tasks import config_class, list_tasks

    store = ConfigStore.instance()
    store.store(group="schema", name="train", node=TrainConfig, package="_global_")
    store.store(group="schema/reward", name="reward", node=RewardSettings)
    for name in list_tasks():
        store.store(group="schema/task", name=name, node=_named(config_class(name), name))
    for name in _ALGORITHMS:
        store.store(group="schema/algo", name=name, node=_named(algorithm(name)[1], name))


def _named(cls: type, name: str) -> type:
    """``cls`` with a field ``name``, by which a stored configuration says what it configures."""
    if any(item.name == "name" for item in dataclasses.fields(cls)):
        return cls
    return dataclasses.make_dataclass(f"{cls.__name__}Schema", [("name", str, name)], bases=(cls,))


__all__ = [
    "GROUPS",
    "BudgetConfig",
    "CheckpointConfig",
    "ConfigError",
    "SettingError",
    "TrainConfig",
    "WorldConfig",
    "algorithm",
    "choices",
    "compose",
    "resumed",
    "sweep",
    "to_plain",
    "to_train_config",
]
