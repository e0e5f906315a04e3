"""What `robolearn critic score` is given: instructions, views and where they are."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robolearn.errors import RobolearnError

if TYPE_CHECKING:
    from vlm_rewards.critic import Critic

_TEXTS = ("critic", "instruction", "keyframes", "reference", "out")


class ScoreError(RobolearnError):
    """A recording and a critic that do not go together, or an instruction that says nothing."""


def quoted(given: str) -> str:
    """A setting in Hydra's grammar: texts may hold commas and apostrophes, and ``video`` is a list with commas."""
    name, equals, value = given.partition("=")
    if not equals or value[:1] in ("[", '"', "'") or value == "null":
        return given
    if name == "video":
        return f"video=[{','.join(_in_quotes(item) for item in value.split(',') if item)}]"
    return f"{name}={_in_quotes(value)}" if name in _TEXTS else given


def _in_quotes(text: str) -> str:
    # Backslashes count as such unless a quote follows.
    text = re.sub(r'(\\*)"', r'\1\1\\"', text)
    return '"' + re.sub(r"(\\+)$", r"\1\1", text) + '"'


def read_instructions(given: str) -> tuple[str, ...]:
    """The instruction, then its paraphrases: a text, or a JSON file with a list of texts.

    Raises:
        ScoreError: an empty text or list, or a file that holds something else.
    """
    texts: Any = [given]
    if given.endswith(".json"):
        try:
            texts = json.loads(Path(given).read_text())
        except (OSError, ValueError) as error:
            raise ScoreError(f"instruction {given} cannot be read: {error}") from error
        texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ScoreError(
            f"instruction {given!r} is empty or no list of texts; say what the robot was asked to do, "
            "such as instruction='clean the table'"
        )
    return tuple(dict.fromkeys(text.strip() for text in texts))


def named_views(given: Sequence[str]) -> dict[str, Path]:
    """View → path, from paths and ``name=path``.

    Raises:
        ScoreError: none, or two views of one name.
    """
    views: dict[str, Path] = {}
    for item in given:
        name, equals, path = item.partition("=")
        plain = not equals or "/" in name or Path(item).exists()
        view, file = (Path(item).stem, Path(item)) if plain else (name, Path(path))
        if view in views:
            raise ScoreError(f"two views are named {view!r}: {views[view]} and {file}; name them: name=path")
        views[view] = file
    if not views:
        raise ScoreError("video names no file; write video=a.mp4, or video=a.mp4,b.mp4 for two views")
    return views


def assigned(critic: Critic, views: Mapping[str, Path], given: Mapping[str, str]) -> dict[str, str]:
    """The critic's cameras → which view each is; all views by their own names where the critic takes any.

    Args:
        critic: its ``cameras``.
        views: of the recording.
        given: the user's assignment.

    Raises:
        ScoreError: a view or a camera that is not there, or a camera without a view.
    """
    for camera, view in given.items():
        if view not in views:
            raise ScoreError(f"views.{camera}={view}: the recording has views {', '.join(views)}")
        if critic.cameras and camera not in critic.cameras:
            raise ScoreError(f"views.{camera}: critic {critic.name!r} was made for {', '.join(critic.cameras)}")
    if not critic.cameras:
        return dict(given) or {view: view for view in views}
    made = {camera: given.get(camera, camera) for camera in critic.cameras}
    missing = [camera for camera, view in made.items() if view not in views]
    if missing:
        spare = [view for view in views if view not in made.values()]
        example = ",".join(f"{camera}:{view}" for camera, view in zip(missing, spare, strict=False))
        raise ScoreError(
            f"critic {critic.name!r} was made for cameras {', '.join(critic.cameras)}, the recording has views "
            f"{', '.join(views)}; say which is which, such as 'views={{{example or f'{missing[0]}:...'}}}'"
        )
    return made


def reference_views(reference: Path, views: Mapping[str, Path]) -> dict[str, Path]:
    """View → path of the reference recording: files of the same names in a folder, or a video of the one view.

    Raises:
        ScoreError: a view that the reference lacks.
    """
    from vlm_rewards.streams import PICTURE_SUFFIXES

    pictures = reference.is_dir() and any(file.suffix.lower() in PICTURE_SUFFIXES for file in reference.iterdir())
    if len(views) == 1 and (reference.is_file() or pictures):
        return {next(iter(views)): reference}
    if not reference.is_dir():
        raise ScoreError(f"reference {reference} is no folder with a video for each of the views {', '.join(views)}")
    found = {}
    for view, path in views.items():
        same = [reference / path.name, *sorted(reference.glob(f"{view}.*")), reference / view]
        there = [file for file in same if file.exists()]
        if not there:
            holds = ", ".join(sorted(file.name for file in reference.iterdir())) or "nothing"
            raise ScoreError(f"reference {reference} has no {path.name} for view {view}; it holds {holds}")
        found[view] = there[0]
    return found


def run_name(views: Mapping[str, Path]) -> str:
    """The recording's folder, or the video where it is alone, and the time."""
    first = next(iter(views.values())).resolve()
    name = first.stem if len(views) == 1 else first.parent.name
    return f"{name}-{datetime.datetime.now():%Y-%m-%dT%H-%M-%S}"
