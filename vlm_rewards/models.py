"""Transformers models on this machine: a folder, or an id in the Hugging Face cache. Nothing is fetched unasked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from robolearn.errors import did_you_mean
from vlm_rewards.errors import CriticError
from vlm_rewards.registry import BASELINES

INSTALL = "pip install 'robolearn[vlm]'"
_PLAIN = ("*.json", "*.txt", "*.model", "*.jinja")
_DECISIVE = (
    "config.json", "*processor_config.json", "*token*", "vocab*", "merges*", "*.model", "chat_template*",
    "generation_config.json", "*.safetensors", "*.bin",
)  # fmt: skip
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BLOCK = 1 << 20


class ModelError(CriticError):
    """A transformers model that is not there, not whole, or not readable."""


def require(name: str = "transformers") -> ModuleType:
    """Import one of the packages of the ``vlm`` extra.

    Raises:
        ModelError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ModelError(f"judging with a transformers model needs {name} ({error}): {INSTALL}") from error


def model_type(what: str | Path, download: bool = False) -> str:
    """``model_type`` in the configuration of the model that `local_model` finds, such as ``clip``.

    Raises:
        ModelError: as `local_model`, or the configuration is damaged or does not say.
    """
    folder = local_model(what, download)
    named = _config(folder).get("model_type")
    if not isinstance(named, str):
        raise ModelError(f"{folder / 'config.json'} names no model_type, so nobody knows which classes it needs")
    return named


def local_model(what: str | Path, download: bool = False) -> Path:
    """The folder on this machine that holds a model's configuration and weights.

    Args:
        what: a folder, or the id of a model on the Hugging Face hub, of a certain revision if written ``id@revision``.
        download: fetch the model where the cache lacks it. Otherwise the network is not touched.

    Raises:
        ModelError: it is not there (what was searched, the nearest name, how to fetch it), or is not whole.
    """
    text = str(what)
    folder = Path(text).expanduser()
    if isinstance(what, Path) or folder.exists() or text.startswith((".", "/", "~")) or text.count("/") > 1:
        return _whole(_existing(folder))
    return _cached(text, download)


def revision_of(folder: Path) -> str:
    """The commit of a snapshot in the Hugging Face cache, else a hash of all files that decide what a model answers.

    Weights are read whole: two models trained from one configuration have files of equal size and header.
    """
    if folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name):
        return folder.name
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _DECISIVE for path in folder.glob(pattern) if path.is_file()}):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()[:40]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and notices of transformers, which would end up in a command's output."""
    logging = require("transformers.utils.logging")
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """The first line that an exception says, or its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _existing(folder: Path) -> Path:
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelError(f"{folder} is a file; a model is a folder with config.json and weights")
    beside = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
    hint = did_you_mean(folder.name, beside)
    raise ModelError(f"there is no folder {folder}{'; ' + hint.strip() if hint else ''}")


def _whole(folder: Path) -> Path:
    """``folder``, if it holds a configuration and all weights that its index names.

    Raises:
        ModelError: naming what is missing.
    """
    _config(folder)
    for index in folder.glob("*.index.json"):
        shards = set(_json(index).get("weight_map", {}).values())
        missing = sorted(name for name in shards if not (folder / name).is_file())
        if missing:
            raise ModelError(f"model {folder} is not whole: {len(missing)} weight files missing, such as {missing[0]}")
    if not any(True for suffix in ("*.safetensors", "*.bin") for _ in folder.glob(suffix)):
        raise ModelError(f"{folder} holds a configuration without weights (model.safetensors)")
    return folder


def _config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        held = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
        raise ModelError(f"{folder} is no critic and no model: it lacks critic.json and config.json, it holds {held}")
    return _json(folder / "config.json")


def _json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {first_line(error)}") from error
    if not isinstance(read, dict):
        raise ModelError(f"{path} holds a {type(read).__name__}, not an object")
    return read


def _cached(text: str, download: bool) -> Path:
    """The snapshot of the model id ``text`` in the cache, fetched if that is asked for."""
    name, _, revision = text.partition("@")
    try:
        hub, constants = import_module("huggingface_hub"), import_module("huggingface_hub.constants")
    except ImportError as error:
        hint = did_you_mean(text, BASELINES)
        raise ModelError(
            f"{text!r} is no folder here and no baseline ({', '.join(BASELINES)}); {hint}"
            f"to look for a model of that id: {INSTALL}"
        ) from error
    cache = Path(constants.HF_HUB_CACHE)
    try:
        found = hub.try_to_load_from_cache(name, "config.json", cache_dir=cache, revision=revision or None)
    except ValueError as error:  # of which the hub's own complaints about ids are a kind
        raise ModelError(f"{text!r} is neither a folder nor a possible model id: {first_line(error)}") from error
    if isinstance(found, str):
        folder = Path(found).parent
        with contextlib.suppress(*((ModelError,) if download else ())):
            return _whole(folder)
    if download:
        return _whole(_fetched(hub, name, revision))
    raise ModelError(_absent(text, name, revision, cache))


def _absent(text: str, name: str, revision: str, cache: Path) -> str:
    there = [path.name.removeprefix("models--").replace("--", "/") for path in cache.glob("models--*")]
    fetch = f"hf download {name}" + (f" --revision {revision}" if revision else "")
    return (
        f"{text!r} is no folder here, no baseline ({', '.join(BASELINES)}) and no model in the cache {cache}; "
        f"{did_you_mean(name, [*there, *BASELINES])}a model is fetched with: {fetch} (or download=true)"
    )


def _fetched(hub: ModuleType, name: str, revision: str) -> Path:
    """Download what is needed of a model: its plain files, and its weights in one format.

    Raises:
        ModelError: the hub cannot be reached, or does not give the model.
    """
    try:
        files = hub.HfApi().list_repo_files(name, revision=revision or None)
        weights = "*.safetensors" if any(file.endswith(".safetensors") for file in files) else "*.bin"
        return Path(hub.snapshot_download(name, revision=revision or None, allow_patterns=[*_PLAIN, weights]))
    except Exception as error:  # the hub's errors have no common base
        raise ModelError(f"cannot fetch model {name!r} from the Hugging Face hub: {first_line(error)}") from error
