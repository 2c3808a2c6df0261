"""The observer of the example: keeps the last warnings and alarms in a file."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

from core.model import Event, Severity

KEPT = 100
FILE = "KVORUM_EXAMPLE_WARNINGS"


class Warnings:
    """Writes a line for each of the last 100 warnings and alarms."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=KEPT)
        self._file = Path(os.environ.get(FILE, "/run/kvorum-example-warnings"))

    def observe(self, event: Event) -> None:
        """Take an event in; on a thread of its own, so writing a file is fine."""
        if event.severity is Severity.NOTICE:
            return
        self._lines.append(f"{event.revision} {event.code} {event.subject_name}: {event.message}\n")
        self._file.write_text("".join(self._lines))
