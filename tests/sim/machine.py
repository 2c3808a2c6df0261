"""The state machine of simulated nodes: a list of payloads, and a running hash of them."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from core.errors import FatalError
from tests.sim.checkers import History
from tests.sim.loop import CURRENT


@dataclass(frozen=True)
class SimFrozen:
    """The state as of one moment."""

    applied: int
    content: bytes

    def write(self, path: Path) -> None:
        path.write_bytes(self.content)

    def close(self) -> None:
        pass


async def inline(work):
    """Run blocking work on the loop's thread, a moment later."""
    await asyncio.sleep(0.05)
    return work()


class SimMachine:
    """Keeps every payload in order, and may lose its newest entries in a crash."""

    def __init__(self, history: History, node: str) -> None:
        self._history, self._node = history, node
        self._payloads: list[bytes] | None = None
        self._digests: list[int] = []
        self.entries: list[tuple[int, list[bytes]]] = []

    def applied(self) -> int:
        return self.entries[-1][0] if self.entries else 0

    def apply(self, index: int, payloads: Sequence[bytes]) -> list[bytes]:
        _still_alive()
        assert index > self.applied()
        self._append(index, list(payloads))
        return [b"%d:" % index + payload for payload in payloads]

    def digest(self) -> bytes:
        """A hash of everything applied: two nodes that skip different entries differ."""
        return b"%08x" % (self._digests[-1] if self._digests else 0)

    def freeze(self) -> SimFrozen:
        self._history.report["snapshots written"] += 1
        return SimFrozen(self.applied(), msgspec.msgpack.encode(self.entries))

    def stage(self, dump: Path) -> Callable[[], None]:
        entries = msgspec.msgpack.decode(dump.read_bytes(), type=list[tuple[int, list[bytes]]])

        def swap() -> None:
            _still_alive()
            process = CURRENT.get()
            at = "installed" if process is not None and process.started else "loaded at a start"
            self._history.report[f"snapshots {at}"] += 1
            self.entries, self._digests, self._payloads = [], [], None
            for index, payloads in entries:
                self._append(index, payloads)

        return swap

    def payloads(self) -> list[bytes]:
        if self._payloads is None:
            self._payloads = [payload for _, payloads in self.entries for payload in payloads]
        return self._payloads

    def lose(self, rng: random.Random) -> None:
        """Forget up to a few of the last transactions, as SQLite may after a power loss."""
        for _ in range(rng.choice((0, 0, 1, 3))):
            if self.entries:
                self.entries.pop()
                self._digests.pop()
                self._payloads = None

    def _append(self, index: int, payloads: list[bytes]) -> None:
        digest = self._digests[-1] if self._digests else 0
        digest = zlib.crc32(b"%d" % index, digest)
        for payload in payloads:
            digest = zlib.crc32(payload, digest)
        self.entries.append((index, payloads))
        self._digests.append(digest)
        if self._payloads is not None:
            self._payloads.extend(payloads)
        self._history.applied(self._node, index, payloads, digest)


def _still_alive() -> None:
    process = CURRENT.get()
    if process is not None and process.dead:
        raise FatalError("this process is dead")
