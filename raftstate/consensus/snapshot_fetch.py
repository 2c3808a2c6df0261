"""Fetches a snapshot from peers that offer one: which piece to ask of whom, and when to give up on one for another.

The engine tells it of offers, pieces and lost links, and sends the requests it returns. One snapshot is fetched at a
time, a few pieces in flight, each written as it comes, in order; when it is complete, the engine verifies it (in a
thread), has the machine stage its dump, and adopts it. Nothing counts before that.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from core.errors import InvalidError, TemporaryError
from raftstate.consensus.engine import NodeId
from raftstate.consensus.snapshot_files import SnapshotStore
from raftstate.consensus.snapshot_header import CHUNK_BYTES, SnapshotHeader, SnapshotInfo
from raftstate.consensus.snapshot_part import PartFile

log = logging.getLogger(__name__)

WINDOW = 4  # pieces in flight
SILENCE_S = 2.0  # then ask again, of the next peer
IDLE_S = 10.0  # then another snapshot may take the place of this one


@dataclass(frozen=True, slots=True)
class Request:
    """Ask `peer` for the piece of snapshot (`index`, `crc`) that begins at `offset`."""

    peer: NodeId
    index: int
    crc: int
    offset: int


class _Window:
    """The offsets to ask for. Pieces count in order only; after a gap everything behind it is asked again.

    After a loss it begins anew with one piece, so that a link slower than our patience isn't filled with repetitions.
    """

    def __init__(self, size_bytes: int, have: int) -> None:
        self._size_bytes = size_bytes
        self._asked = self.have = have
        self._pieces = WINDOW
        self._went_back_at = -1

    def ask(self) -> Iterable[int]:
        """Return the offsets that are not in flight yet."""
        end = min(self._size_bytes, self.have + self._pieces * CHUNK_BYTES)
        offsets = range(self._asked, end, CHUNK_BYTES)
        if offsets:
            self._asked = offsets[-1] + CHUNK_BYTES
        return offsets

    def take(self, have: int) -> None:
        """A piece has come: everything before `have` is there."""
        self.have = have
        self._pieces = min(WINDOW, self._pieces + 1)

    def go_back(self) -> None:
        """Take what is in flight for lost."""
        self._asked, self._pieces = self.have, 1

    def gap(self) -> bool:
        """Go back, but once at each place: what else is in flight behind the gap will come in vain."""
        if self._went_back_at == self.have:
            return False
        self._went_back_at = self.have
        self.go_back()
        return True


class _Transfer:
    """One snapshot being fetched, and the peers that have it; the first is asked, the others stand by."""

    def __init__(self, part: PartFile, info: SnapshotInfo, now_s: float) -> None:
        self.part, self.info = part, info
        self.window = _Window(info.size_bytes, part.size_bytes)
        self.sources: list[NodeId] = []
        self.gone = False  # no peer has it any more
        self.progress_s = self.asked_s = now_s

    @property
    def complete(self) -> bool:
        return self.part.size_bytes >= self.info.size_bytes

    def is_of(self, index: int, crc: int) -> bool:
        return (self.info.index, self.info.crc) == (index, crc)

    def hopeless(self, now_s: float) -> bool:
        return not self.complete and (self.gone or now_s - self.progress_s >= IDLE_S)

    def ask(self) -> list[Request]:
        if not self.sources:
            return []
        peer, index, crc = self.sources[0], self.info.index, self.info.crc
        return [Request(peer, index, crc, offset) for offset in self.window.ask()]

    def ask_again(self, now_s: float) -> list[Request]:
        self.asked_s = now_s
        self.window.go_back()
        return self.ask()


class SnapshotFetch:
    """The receiving end. `now_s` counts seconds and never jumps.

    `blocked` says why nothing can be received (a full disk), empty if nothing is wrong: it is tried again at each
    tick after a pause, and what has come is kept.
    """

    def __init__(self, store: SnapshotStore) -> None:
        self._store = store
        self._transfer: _Transfer | None = None
        self._offers: dict[
            NodeId, SnapshotInfo
        ] = {}  # the last of each peer, while another is being fetched
        self._begun_s = float("-inf")
        self.blocked = ""

    @property
    def running(self) -> SnapshotInfo | None:
        """What is being fetched, or is complete and not adopted yet."""
        return self._transfer.info if self._transfer is not None else None

    @property
    def received_bytes(self) -> int:
        """How much of it has come."""
        return self._transfer.part.size_bytes if self._transfer is not None else 0

    @property
    def complete(self) -> Path | None:
        """The file that holds the whole stream, once it does: now verify it."""
        transfer = self._transfer
        return transfer.part.path if transfer is not None and transfer.complete else None

    def offered(self, peer: NodeId, info: SnapshotInfo, now_s: float) -> list[Request]:
        """Take note of an offer. It replaces another that is being fetched only if that one has come to a halt.

        Afterwards it may be `complete` at once: all of it lay here from before a restart.

        Raises:
            InvalidError: no snapshot can look like this.
        """
        info.check()
        transfer = self._transfer
        if transfer is None:
            return self._begin(peer, info, now_s)
        if transfer.complete:
            return []
        if transfer.info != info:
            self._offers[peer] = info
            return self._replace(now_s) if transfer.hopeless(now_s) else []
        transfer.gone = False
        self._offers.pop(peer, None)
        if peer not in transfer.sources:
            transfer.sources.append(peer)
        return transfer.ask_again(now_s) if len(transfer.sources) == 1 else []

    def arrived(
        self, peer: NodeId, index: int, crc: int, offset: int, data: bytes, now_s: float
    ) -> list[Request]:
        """Write a piece if it is the next one, and ask for more.

        Raises:
            InvalidError: nobody asked for such a piece.
        """
        transfer = self._transfer
        if (
            transfer is None
            or transfer.complete
            or not transfer.is_of(index, crc)
            or peer not in transfer.sources
        ):
            return []
        if not 0 < len(data) <= min(CHUNK_BYTES, transfer.info.size_bytes - offset):
            raise InvalidError(f"a piece of {len(data)} bytes at {offset} of a snapshot can't be")
        if offset != transfer.window.have:
            behind_gap = offset > transfer.window.have and transfer.window.gap()
            return transfer.ask() if behind_gap else []
        try:
            transfer.part.append(data)
            self.blocked = ""
        except OSError as error:
            self._block(error)
        transfer.window.take(transfer.part.size_bytes)
        transfer.progress_s = transfer.asked_s = now_s  # a full disk isn't the peers' fault
        return [] if self.blocked else transfer.ask()

    def gone(self, peer: NodeId, index: int, crc: int, now_s: float) -> list[Request]:
        """The peer hasn't got that snapshot any more."""
        transfer = self._transfer
        if transfer is None or not transfer.is_of(index, crc) or peer not in transfer.sources:
            return []
        was_asked = transfer.sources[0] == peer
        transfer.sources.remove(peer)
        transfer.gone = not transfer.sources
        if transfer.hopeless(now_s) and self._offers:
            return self._replace(now_s)
        return transfer.ask_again(now_s) if was_asked else []

    def link_lost(self, peer: NodeId) -> None:
        """What `peer` was asked for won't come; the next tick asks another."""
        self._offers.pop(peer, None)
        transfer = self._transfer
        if transfer is not None and peer in transfer.sources:
            if transfer.sources[0] == peer:
                transfer.asked_s = float("-inf")
            transfer.sources.remove(peer)

    def tick(self, now_s: float) -> list[Request]:
        """Ask again after a silence, go over to another snapshot when this one has come to a halt."""
        transfer = self._transfer
        if transfer is None:
            return self._replace(now_s) if now_s - self._begun_s >= SILENCE_S else []
        if transfer.hopeless(now_s) and self._offers:
            return self._replace(now_s)
        if transfer.complete or now_s - transfer.asked_s < SILENCE_S:
            return []
        if transfer.sources:
            transfer.sources.append(transfer.sources.pop(0))
        return transfer.ask_again(now_s)

    def verify_and_open(self) -> tuple[SnapshotHeader, Path]:
        """Check the complete snapshot; return its header and a file that is now just the dump. Blocks: use a thread.

        After an error the part is gone, and the next offer begins anew.

        Raises:
            InvalidError: it isn't what was offered.
            TemporaryError: the disk failed.
        """
        transfer = self._transfer
        assert transfer is not None and transfer.complete
        try:
            header = transfer.part.verify()
        except OSError as error:
            self.abandon()
            raise TemporaryError(f"can't check the snapshot that came: {error.strerror}") from error
        except InvalidError:
            self.abandon()
            raise
        return header, transfer.part.path

    def adopt(self, header: SnapshotHeader) -> None:
        """Make the verified snapshot this node's latest. Blocks; raises as `SnapshotStore.adopt`.

        After a ConflictError it is of no use any more: `abandon` it.
        """
        transfer = self._transfer
        assert transfer is not None and transfer.complete
        self._store.adopt(header, transfer.part.path)
        transfer.part.close()
        self._transfer = None
        self._offers.clear()

    def abandon(self) -> None:
        """Drop what has come, for it is of no use: damaged, or the log has overtaken it."""
        transfer, self.blocked = self._transfer, ""
        self._offers.clear()
        if transfer is not None:
            transfer.part.remove()
            self._transfer = None

    def close(self) -> None:
        """Close the file; a later start goes on with it."""
        if self._transfer is not None:
            self._transfer.part.close()
            self._transfer = None

    def _begin(self, peer: NodeId, info: SnapshotInfo, now_s: float) -> list[Request]:
        self._begun_s = now_s
        try:
            part = PartFile(self._store.directory, info)
        except OSError as error:
            self._offers[peer] = info
            self._block(error)
            return []
        self.blocked = ""
        self._transfer = transfer = _Transfer(part, info, now_s)
        same = [other for other, its in self._offers.items() if its == info and other != peer]
        transfer.sources = [peer, *same]
        for other in transfer.sources:
            self._offers.pop(other, None)
        log.info(
            "fetching a snapshot",
            extra={"index": info.index, "bytes": info.size_bytes, "here": part.size_bytes},
        )
        return transfer.ask()

    def _replace(self, now_s: float) -> list[Request]:
        """Begin the best of the other offers, if there is one."""
        if not self._offers:
            return []
        if self._transfer is not None:
            log.info("gave up a snapshot for another", extra={"index": self._transfer.info.index})
            self._transfer.part.close()  # the next one's part takes its place on the disk
            self._transfer = None
        peer = max(self._offers, key=lambda peer: self._offers[peer].index)
        return self._begin(peer, self._offers[peer], now_s)

    def _block(self, error: OSError) -> None:
        if not self.blocked:
            log.warning("can't store the snapshot", extra={"error": error.strerror})
        self.blocked = f"can't store the snapshot: {error.strerror}"
