"""Critics by what a user calls them: a folder, a model id, an address, or the name of a baseline."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from robolearn.errors import unknown
from robolearn.files import json_line, write_atomic
from vlm_rewards.critic import Critic
from vlm_rewards.errors import CriticError

DESCRIPTION = "critic.json"
"""What marks a critic's folder: its format and kind, and what its loader wants to know."""
FORMAT = 1

KINDS = {
    "process": "vlm_rewards.process",
    "success": "vlm_rewards.success",
    "tiny_clip": "vlm_rewards.tiny_clip",
}
"""Kind of a critic's folder → module with ``load(folder, **settings) -> Critic``."""

MODEL_TYPES = {
    "clip": "vlm_rewards.zero_shot",
    "siglip": "vlm_rewards.zero_shot",
    "siglip2": "vlm_rewards.zero_shot",
    "qwen2_vl": "vlm_rewards.vlm",
    "qwen2_5_vl": "vlm_rewards.vlm",
    "qwen3_vl": "vlm_rewards.vlm",
    "qwen3_vl_moe": "vlm_rewards.vlm",
    "internvl": "vlm_rewards.vlm",
}
"""``model_type`` of a transformers model → module with ``load(model, **settings) -> Critic``."""

BASELINES = ("elapsed_time", "random_init")
"""Critics without training that every other has to beat; `vlm_rewards.baselines.load(name, **settings)`."""


def load_critic(what: str | Path, **settings: Any) -> Critic:
    """The critic that ``what`` names.

    Args:
        what: a folder written by `robolearn critic train`, a folder or id of a transformers model, the address of an
            endpoint (``http://host:port/v1``), or one of `BASELINES`.
        settings: of that kind of critic.

    Raises:
        CriticError: nothing of that name; what was looked for, and how to get it, is said.
    """
    text = str(what)
    if text.startswith(("http://", "https://")):
        return _loaded("vlm_rewards.endpoint", text, settings)
    if text in BASELINES:
        return _loaded("vlm_rewards.baselines", text, settings)
    folder = Path(text)
    if (folder / DESCRIPTION).is_file():
        kind = str(read_description(folder).get("kind"))
        if kind not in KINDS:
            raise CriticError(f"{folder / DESCRIPTION}: {unknown('kind of critic', kind, KINDS)}")
        return _loaded(KINDS[kind], folder, settings)
    from vlm_rewards.models import model_type

    found = model_type(text, bool(settings.get("download", False)))
    if found not in MODEL_TYPES:
        raise CriticError(f"model {text!r}: {unknown('model type', found, MODEL_TYPES)}")
    return _loaded(MODEL_TYPES[found], text, settings)


def read_description(folder: Path) -> dict[str, Any]:
    """What a critic's folder says of itself.

    Raises:
        CriticError: it is no critic's folder, damaged, or of another format.
    """
    try:
        described = json.loads((folder / DESCRIPTION).read_text())
    except (OSError, ValueError) as error:
        raise CriticError(f"{folder} holds no critic that can be read: {error}") from error
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise CriticError(f"{folder / DESCRIPTION} is not of format {FORMAT}, which this version of robolearn reads")
    return described


def write_description(folder: Path, kind: str, **more: Any) -> None:
    """Mark ``folder`` as a critic's; written last, so that what has it is whole."""
    write_atomic(folder / DESCRIPTION, (json_line({"format": FORMAT, "kind": kind, **more}) + "\n").encode())


def _loaded(module: str, what: str | Path, settings: dict[str, Any]) -> Critic:
    made: Critic = import_module(module).load(what, **settings)
    return made
