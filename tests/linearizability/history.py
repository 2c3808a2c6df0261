"""Records what clients did, one file a process, so that even a killed process leaves what it had begun.

Times are CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path

from tests.linearizability.checker import NEVER, Kind, Operation, Value


class Recorder:
    """Appends to one file. Each line is whole or, after a kill, the last and ignored."""

    def __init__(self, path: Path, client: str) -> None:
        self._file = path.open("a", buffering=1)
        self._client, self._number = client, 0

    def call(self, kind: Kind, key: str, value: Value = None, expected: Value = None) -> int:
        """Note that an operation begins, before anything of it can have an effect."""
        self._number += 1
        self._line("call", self._number, kind, key, value, expected)
        return self._number

    def returned(self, number: int, result: Value = None) -> None:
        """Note that its outcome is known."""
        self._line("return", number, result)

    def _line(self, *fields: object) -> None:
        self._file.write(json.dumps([time.monotonic(), self._client, *fields]) + "\n")


def read_history(paths: Iterable[Path]) -> list[Operation]:
    """Return the operations in all files; those without a return have an unknown outcome."""
    operations: list[Operation] = []
    for path in paths:
        calls: dict[int, Operation] = {}
        for line in path.read_text().splitlines(keepends=True):
            if not line.endswith("\n"):
                continue
            at, client, what, number, *rest = json.loads(line)
            if what == "call":
                kind, key, value, expected = rest
                calls[number] = Operation(client, Kind(kind), key, at, NEVER, value, expected)
            else:
                call = calls[number]
                operations.append(
                    Operation(
                        client,
                        call.kind,
                        call.key,
                        call.called,
                        at,
                        call.value,
                        call.expected,
                        *rest,
                    )
                )
                del calls[number]
        operations += calls.values()
    return operations
