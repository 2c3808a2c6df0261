"""A backup of the whole state while commits go on: held still at one log index, copied, checked, and sent.

Called by `GET /v1/state/backup`. The copy lies in the state directory while it is sent, and is nobody's file: it has no
name any more once it is open. The format is `raftstate.rescue.backup_file`'s.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from msgspec.structs import replace

from core.errors import UnavailableError
from core.identity.certificates import fingerprint
from core.model import Host, Mesh
from nodeagent.joining.founding import MESH_ID
from nodeagent.joining.messages import VERSION
from nodeagent.node import Node
from raftstate.consensus.engine import Point
from raftstate.consensus.snapshot_files import sum_file
from raftstate.rescue.backup_file import BackupHeader, pieces
from raftstate.rescue.room import require_room
from raftstate.state.dump import Frozen, check_dump
from raftstate.state.peek import counts_in
from storage.file_thread import FileThread

BARRIER_TIMEOUT_S = 5.0
COPY_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that lies ready."""

    header: BackupHeader
    chunks: AsyncIterator[bytes]


@asynccontextmanager
async def backup(node: Node, *, of_this_host: bool) -> AsyncIterator[Backup]:
    """Yield a backup of everything committed by now; `of_this_host`: of what this host has, without asking others.

    Raises:
        UnavailableError: no quorum, or this host has no state yet.
        FatalError: the copy is damaged, or there is no room for it.
    """
    if not of_this_host:
        await node.engine.read_barrier(timeout_s=BARRIER_TIMEOUT_S)
    point = node.engine.point()
    if point is None:
        raise UnavailableError("this host has no copy of the state yet: ask another")
    about = _about(node, point)
    frozen = node.store.freeze()  # no await since `point`: they belong together
    thread = FileThread("backup", timeout_s=COPY_TIMEOUT_S)
    copy = node.paths.state / f"backup-{os.getpid()}.tmp"
    try:
        header, dump = await thread.call("copy the state", _copy, about, frozen, copy)
        with dump:
            yield Backup(header, _chunks(thread, header, dump))
    finally:
        await thread.clean_up("let go of the state", frozen.close)
        thread.close()


def _about(node: Node, point: Point) -> BackupHeader:
    mesh = node.store.need(Mesh, MESH_ID)
    names = {host.id: host.name for host in node.store.all(Host)}
    return BackupHeader(
        cluster_name=mesh.name,
        ca_sha256=fingerprint(mesh.ca_pem),
        host_name=node.host_name,
        version=VERSION,
        created_ms=node.clock.wall_ms(),
        generation=point.generation,
        level=point.level,
        index=point.index,
        term=point.term,
        machine_applied=0,
        voters=[(peer.id, names.get(peer.id, ""), peer.address) for peer in point.voters],
        counts={},
        dump_bytes=0,
        dump_crc=0,
    )


def _copy(about: BackupHeader, frozen: Frozen, path: Path) -> tuple[BackupHeader, BinaryIO]:
    """Write the copy and read it through, for it may be restored when there is nothing else. Blocks."""
    try:
        require_room(path.parent, frozen.size_bytes)
        frozen.write(path)
        check_dump(path)
        counts = counts_in(path)
        size_bytes = path.stat().st_size
        dump = path.open("rb")
    finally:
        path.unlink(missing_ok=True)
    header = replace(
        about,
        machine_applied=frozen.applied,
        counts=counts,
        dump_bytes=size_bytes,
        dump_crc=sum_file(dump.fileno(), size_bytes),
    )
    return header, dump


async def _chunks(thread: FileThread, header: BackupHeader, dump: BinaryIO) -> AsyncIterator[bytes]:
    parts = pieces(header, dump)
    while (piece := await thread.call("read the copy", next, parts, b"")) != b"":
        yield piece
