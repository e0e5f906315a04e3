"""Samples that Cyclone DDS itself throws away because their bytes do not fit their type.

Cyclone tells of them in its log only, so its trace of warnings is sent through a pipe and read here.
"""

from __future__ import annotations

import os
import re
import threading

_DROPPED = re.compile(r"deserialization (\S+)/\S+ failed")


class Drops:
    """Counts of one domain.

    Attributes:
        counts: DDS topic → samples thrown away since the domain was opened.
        total: their sum.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.total = 0
        self._read, self._write = os.pipe()

    def configuration(self) -> str:
        """The part of Cyclone's configuration that names the pipe."""
        return (
            '<CycloneDDS><Domain Id="any"><Tracing><Verbosity>warning</Verbosity>'
            f"<OutputFile>/dev/fd/{self._write}</OutputFile></Tracing></Domain></CycloneDDS>"
        )

    def start(self) -> None:
        """Begin to read, after Cyclone has opened its end; reading ends when Cyclone closes it."""
        os.close(self._write)
        threading.Thread(target=self._follow, name="dds-drops", daemon=True).start()

    def _follow(self) -> None:
        with open(self._read, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if found := _DROPPED.search(line):
                    topic = found.group(1)
                    self.counts[topic] = self.counts.get(topic, 0) + 1
                    self.total += 1
