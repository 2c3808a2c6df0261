"""A log on its own whose unsynced tail is torn by a crash, for tests that have no simulated disk of `power` around it."""

from __future__ import annotations

import random
from pathlib import Path

from raftstate.consensus.wal import Wal
from raftstate.consensus.wal_segment import frame, mark, salt
from tests.sim.power import SECTOR_BYTES


def tear(path: Path, start: int, end: int, rng: random.Random) -> None:
    """Damage what was written but not synced: sectors are lost, and a byte may be wrong. What is behind stays."""
    with path.open("r+b") as file:
        file.seek(start)
        content = bytearray(file.read(end - start))
        written = rng.randint(0, len(content))
        content[written:] = bytes(len(content) - written)
        if rng.random() < 0.3:  # the disk may have written sectors in any order
            first = start - start % SECTOR_BYTES
            for sector in range(first, end, SECTOR_BYTES):
                if rng.random() < 0.5:
                    a, b = max(0, sector - start), min(len(content), sector + SECTOR_BYTES - start)
                    content[a:b] = bytes(b - a)
        if written and rng.random() < 0.5:
            content[rng.randrange(written)] ^= 0xFF
        file.seek(start)
        file.write(content)


class LossyWal(Wal):
    """A log that can crash."""

    dead = False

    def sync(self) -> None:
        if not self.dead:
            super().sync()

    def crash(self, rng: random.Random) -> None:
        """Leave a torn part of what was not synced behind what was; allocated zeros follow."""
        self.dead = True
        if not self._segments:
            return
        last = self._segments[-1]
        salted = salt(last.sequence)
        batch = b"".join(frame(salted, body) for _, body in self._pending)
        batch = (mark(salted, last.used) + batch)[: last.size - last.used]
        with last.path.open("r+b") as file:
            file.seek(last.used)
            file.write(batch)
        tear(last.path, last.used, last.used + len(batch), rng)
