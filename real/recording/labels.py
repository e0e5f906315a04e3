"""Outcomes that a person changed after an episode had ended: one line of JSON each, in ``labels.jsonl``."""

from __future__ import annotations

import json
import os
from pathlib import Path

FILE = "labels.jsonl"


class Labels:
    """The labels of a folder of episodes; the last one of an episode counts."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def add(self, name: str, outcome: str, reason: str) -> None:
        """Say what became of the episode in the file ``name``. Raises OSError where the disk does not take it."""
        line = json.dumps({"file": name, "outcome": outcome, "reason": reason})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> dict[str, dict[str, str]]:
        """File name → outcome and reason. Lines cut off by a crash are passed over."""
        found: dict[str, dict[str, str]] = {}
        if not self._path.is_file():
            return found
        for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                label = json.loads(line)
                found[str(label["file"])] = {"outcome": str(label["outcome"]), "reason": str(label["reason"])}
            except (ValueError, KeyError, TypeError):
                continue
        return found
