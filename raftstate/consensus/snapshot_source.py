"""Serves pieces of the latest snapshot to hosts that ask, and finishes what it began when a newer one comes.

The engine calls it for each request. An open file outlives its name, so the store may remove a dump that is still
being read here; `in_use` tells the engine how much of the log the receivers will need afterwards.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from core.errors import FatalError
from raftstate.consensus.snapshot_files import SnapshotStore
from raftstate.consensus.snapshot_header import CHUNK_BYTES, SnapshotHeader, stream_end

log = logging.getLogger(__name__)

OPEN_S = 60.0
ACTIVE_S = 10.0
MAX_OPEN = 2


class _Stream:
    """One snapshot, open for reading."""

    def __init__(self, store: SnapshotStore, header: SnapshotHeader, now_s: float) -> None:
        """Open the dump. Raises OSError."""
        self.index = header.index
        self.crc = header.info().crc
        self._dump_bytes = header.dump_bytes
        self._end = stream_end(header)
        self._file = os.open(store.dump_path(header), os.O_RDONLY)
        self.asked_s = now_s
        self.served = False  # somebody has had the last byte, and is installing it now

    def read(self, offset: int, limit: int) -> bytes:
        """Return what is at `offset`, nothing behind the end. Raises OSError."""
        piece = b""
        if offset < self._dump_bytes:
            wanted = min(limit, self._dump_bytes - offset)
            piece = os.pread(self._file, wanted, offset)
            if len(piece) < wanted:
                raise OSError(0, "the dump is shorter than it was")
        start = max(0, offset - self._dump_bytes)
        piece += self._end[start : start + limit - len(piece)]
        self.served = self.served or offset + len(piece) >= self._dump_bytes + len(self._end)
        return piece

    def active(self, now_s: float) -> bool:
        """Tell whether a receiver may be at work; checking and installing a whole snapshot takes longer."""
        return now_s - self.asked_s <= (OPEN_S if self.served else ACTIVE_S)

    def close(self) -> None:
        """Let the file go."""
        os.close(self._file)


class SnapshotSource:
    """The sending end. `now` counts seconds, such as the loop's clock."""

    def __init__(self, store: SnapshotStore, now: Callable[[], float]) -> None:
        self._store, self._now = store, now
        self._streams: list[_Stream] = []

    def read(self, index: int, crc: int, offset: int, limit: int = CHUNK_BYTES) -> bytes | None:
        """Return at most `limit` bytes of a stream from `offset`; None if that snapshot is gone. Blocks for one read."""
        self.close_idle()
        try:
            stream = self._find(index, crc)
            if stream is None:
                return None
            stream.asked_s = self._now()
            return stream.read(offset, min(limit, CHUNK_BYTES))
        except OSError as error:
            log.error("can't read the snapshot for another host", extra={"error": error.strerror})
        except FatalError as error:
            log.error("can't read the snapshot for another host", extra={"error": error.message})
        return None

    def in_use(self) -> int | None:
        """Return the lowest index of the snapshots being fetched: the log behind it will be asked for."""
        now_s = self._now()
        return min((s.index for s in self._streams if s.active(now_s)), default=None)

    def close_idle(self) -> None:
        """Close what nobody has asked for lately, so that the disk gets its space back. Call it now and then."""
        now_s = self._now()
        for stream in [s for s in self._streams if now_s - s.asked_s > OPEN_S]:
            self._drop(stream)

    def close(self) -> None:
        """Close everything."""
        for stream in list(self._streams):
            self._drop(stream)

    def _find(self, index: int, crc: int) -> _Stream | None:
        for stream in self._streams:
            if (stream.index, stream.crc) == (index, crc):
                return stream
        header = self._store.latest()
        if header is None or header.index != index or header.info().crc != crc:
            return None
        if len(self._streams) >= MAX_OPEN:
            self._drop(min(self._streams, key=lambda stream: stream.asked_s))
        stream = _Stream(self._store, header, self._now())
        self._streams.append(stream)
        return stream

    def _drop(self, stream: _Stream) -> None:
        self._streams.remove(stream)
        stream.close()
