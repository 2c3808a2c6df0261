"""The snapshots of one node: written while commits go on, served to hosts that are behind, fetched and installed.

Part of `raft_node`; `run` is a service of the engine. What blocks runs in a thread, one job at a time; what changes
the node happens on the loop. The log is trimmed only behind a snapshot that is durable, and not under one that
somebody is just fetching.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import (
    ConflictError,
    FatalError,
    InvalidError,
    PlatformError,
    TemporaryError,
)
from raftstate.consensus.engine import NodeId
from raftstate.consensus.entries import TooNewError
from raftstate.consensus.messages import Chunk, ChunkRequest, Offer
from raftstate.consensus.snapshot_fetch import Request, SnapshotFetch
from raftstate.consensus.snapshot_files import SnapshotStore
from raftstate.consensus.snapshot_header import SnapshotHeader, SnapshotInfo, new_header
from raftstate.consensus.snapshot_source import SnapshotSource

if TYPE_CHECKING:
    from raftstate.consensus.raft_node import Blocking, RaftNode

log = logging.getLogger(__name__)

RETRY_S = 5.0


class Snapshots:
    """Made by a node for itself."""

    def __init__(
        self, node: RaftNode, store: SnapshotStore, *, blocking: Blocking, pause_s: float
    ) -> None:
        self._node, self._store, self._blocking, self._pause_s = node, store, blocking, pause_s
        self._source = SnapshotSource(store, node.now)
        self._fetch = SnapshotFetch(store)
        self._wake = asyncio.Event()
        self._offer: tuple[SnapshotHeader, SnapshotInfo] | None = None
        self._next_s = node.now() + pause_s
        self._install_s = 0.0  # not before
        self._verified: tuple[SnapshotInfo, SnapshotHeader, Path] | None = None
        self._busy = False
        self._too_new = self._trouble = ""

    # -- towards other hosts

    def info(self) -> SnapshotInfo | None:
        """Return what can be offered."""
        header = self._store.latest()
        if header is None:
            return None
        if self._offer is None or self._offer[0] is not header:
            self._offer = (header, header.info())
        return self._offer[1]

    def offer(self, peer: NodeId) -> None:
        """Tell a host that follows this one's feed that only a snapshot helps it."""
        if (info := self.info()) is not None:
            self._node.send(
                peer, Offer(0, 0, info.index, info.term, info.size_bytes, info.crc, feed=True)
            )

    def asked(self, peer: NodeId, question: ChunkRequest) -> None:
        """Send a piece of a snapshot."""
        data = self._source.read(question.index, question.crc, question.offset)
        self._node.send(peer, Chunk(question.index, question.crc, question.offset, data))

    # -- fetching

    @property
    def fault(self) -> str:
        """Return why this node can't be brought up to date; empty if nothing is wrong."""
        return self._too_new or self._trouble or self._fetch.blocked

    @property
    def fetching(self) -> bool:
        """Tell whether a snapshot is on its way here, or lies ready to be installed."""
        return self._fetch.running is not None

    def offered(self, peer: NodeId, info: SnapshotInfo) -> None:
        """A host has what this one needs. Raises InvalidError if it can't be."""
        if self._busy or self._too_new or self._node.now() < self._install_s:
            return
        self._ask(self._fetch.offered(peer, info, self._node.now()))
        self._look()

    def arrived(self, peer: NodeId, chunk: Chunk) -> None:
        """A piece arrived. Raises InvalidError if it makes no sense."""
        if self._busy:
            return
        index, crc, now_s = chunk.index, chunk.crc, self._node.now()
        if chunk.data is None:
            self._ask(self._fetch.gone(peer, index, crc, now_s))
        else:
            self._ask(self._fetch.arrived(peer, index, crc, chunk.offset, chunk.data, now_s))
        self._look()

    def unlinked(self, peer: NodeId) -> None:
        """A link is down."""
        if not self._busy:
            self._fetch.link_lost(peer)

    def tick(self) -> None:
        """Ask again for what was lost; begin a snapshot when the log has grown."""
        if not self._busy:
            self._ask(self._fetch.tick(self._node.now()))
        self._source.close_idle()
        self._look()

    def close(self) -> None:
        """Close all files; `run` has ended."""
        self._fetch.close()
        self._source.close()

    def _look(self) -> None:
        """Wake the service if there is something to do."""
        grown = self._node.journal.wants_snapshot() and self._node.now() >= self._next_s
        complete = self._fetch.complete and self._node.now() >= self._install_s
        if (grown or complete) and not self._busy:
            self._wake.set()

    def _ask(self, requests: list[Request]) -> None:
        for request in requests:
            self._node.send(
                request.peer,
                ChunkRequest(request.index, request.crc, request.offset),
            )

    # -- the service

    async def run(self) -> None:
        """Write and install snapshots until cancelled; a failure is tried again later."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                if self._fetch.complete and self._node.now() >= self._install_s:
                    await self._install()
                elif self._node.journal.wants_snapshot() and self._node.now() >= self._next_s:
                    await self._write()
            except TooNewError as error:
                self._too_new = (
                    f"the cluster's state needs feature level {error.level}: upgrade this host"
                )
                log.error("snapshot of a newer version", extra={"level": error.level})
                self._drop()
            except FatalError as error:
                self._node.stop(error)
                self._node.woken()
            except (PlatformError, OSError) as error:
                log.error("snapshot failed", extra={"error": str(error)})
                self._next_s = self._install_s = self._node.now() + RETRY_S
            finally:
                self._busy = False

    async def _write(self) -> None:
        """Freeze the state on the loop, copy it in the thread, then trim the log behind it."""
        node = self._node
        position, latest = node.position(), self._store.latest()
        self._next_s = node.now() + self._pause_s
        if position is None or (latest is not None and latest.index >= position[1][1]):
            return
        previous, last, voters = position
        frozen = node.machine.freeze()
        try:
            header = new_header(
                previous,
                last,
                voters,
                machine_applied=frozen.applied,
                generation=node.journal.generation,
                level=node.level,
            )
            await self._blocking(lambda: self._store.write(header, frozen.write))
        finally:
            frozen.close()
        self._next_s = node.now() + self._pause_s
        log.info("snapshot written", extra={"index": header.index})
        self._trim(header.index)

    def _trim(self, index: int) -> None:
        node = self._node
        node.journal.snapshot_taken(index)
        fetched = self._source.in_use()
        node.journal.trim(index if fetched is None else min(index, fetched))

    def _drop(self) -> None:
        """Give up what has arrived, and what was wrong with it."""
        self._fetch.abandon()
        self._trouble = ""

    async def _install(self) -> None:
        """Check and adopt a snapshot that has arrived, then let the node jump to it."""
        node, running = self._node, self._fetch.running
        assert running is not None
        if not node.may_install(running.index):
            self._drop()
            return
        self._busy = True

        def prepare() -> tuple[SnapshotHeader, Callable[[], None]]:
            if self._verified is None or self._verified[0] is not running:  # another transfer
                self._verified = (running, *self._fetch.verify_and_open())
            _, header, dump = self._verified
            try:
                swap = node.machine.stage(dump)
            except FatalError as error:  # a full disk, most likely; nothing has changed
                self._trouble = error.message
                raise TemporaryError(error.message) from error
            self._fetch.adopt(header)
            self._verified = None
            return header, swap

        try:
            header, swap = await self._blocking(prepare)
        except InvalidError as error:
            log.error("a snapshot arrived damaged", extra={"error": error.message})
            self._trouble = ""  # the next one may fit
            self._install_s = node.now() + RETRY_S  # whoever sent it will offer it again at once
            return
        except ConflictError:
            self._drop()  # this node has written a newer one meanwhile
            return
        self._trouble = ""
        if not node.may_install(header.index):
            return
        log.info("installing a snapshot", extra={"index": header.index})
        node.install(header, swap)
        node.journal.snapshot_taken(header.index)
        node.woken()
