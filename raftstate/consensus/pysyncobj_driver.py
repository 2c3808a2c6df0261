"""PySyncObj, tamed: the only module that imports it, pinned to one version by the hash of its source.

Replaces its pickle functions by ours for the whole process, keeps it off threads, pipes and clocks of its own, and
gives `pysyncobj_engine` a `Raft` object that is ticked by hand. Stock PySyncObj executes whatever is sent to its port,
never syncs its journal and loses acknowledged entries; it must not be used without `shell`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pysyncobj
import pysyncobj.journal as vendor_journal
import pysyncobj.pickle as vendor_pickle
import pysyncobj.syncobj as vendor
from pysyncobj import SyncObj, SyncObjConf, replicated
from pysyncobj.config import SERIALIZER_STATE
from pysyncobj.node import Node
from pysyncobj.version import VERSION

from core.errors import FatalError
from raftstate.consensus.elections import Timing
from raftstate.consensus.engine import NodeId, Peer
from raftstate.consensus.entries import (
    MEMBERSHIP,
    REGULAR,
    MemberChange,
    decode_change,
    encode_change,
    is_change,
)
from raftstate.consensus.journal import Journal
from raftstate.consensus.messages import MAX_APPEND_BYTES, Entry
from raftstate.consensus.shell import Shell

PINNED_VERSION = "0.3.17"
PINNED_SHA256 = "e6ec162b9b6f23db3f18f5469ee706f7fd1e0ce490a3183f17d15296f4d5edd4"
NEVER_S = 10.0**9
NEVER_ENTRIES = 10**9

ReadSnapshot = Callable[[], tuple[Entry, Entry, tuple[Peer, ...]]]


def source_sha256(directory: Path) -> str:
    """Return one hash over the Python files of a package directory."""
    digest = hashlib.sha256()
    for path in sorted(directory.glob("*.py")):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def check_source(directory: Path | None = None, version: str = VERSION) -> None:
    """Raise FatalError unless PySyncObj is, byte for byte, the version the shell was written for."""
    found = source_sha256(directory or Path(pysyncobj.__file__).parent)
    if version != PINNED_VERSION or found != PINNED_SHA256:
        raise FatalError(
            f"PySyncObj {PINNED_VERSION} (source {PINNED_SHA256[:12]}) is required, found {version} ({found[:12]}); "
            "reinstall the product's virtual environment, and never use the distribution's python3-pysyncobj"
        )


def make_node(host_id: str, address: str = "") -> Node:
    """Return PySyncObj's name of a host."""
    return Node(host_id, address=address)


class _Codec:
    """Stands in for PySyncObj's pickle module. Only three shapes exist: see `dumps` and `loads`."""

    def __init__(self) -> None:
        self.applying = False

    def dumps(self, value: Any, protocol: object = None) -> bytes:
        """Encode the one thing PySyncObj writes into the log by itself: a membership change."""
        match value:
            case ["add" | "rem" as kind, str(host_id), Node() as node]:
                return encode_change(MemberChange(kind == "add", host_id, node.address))
        raise FatalError(f"PySyncObj wants to write a {type(value).__name__}; the shell forbids it")

    def loads(self, content: bytes) -> Any:
        """Return a call of `apply_proposals`, or a membership change.

        Changes are hidden while entries are applied: they count from the moment they are appended, and `recovery`
        restores them at a start, so that applying them again could only bring back an older configuration.
        """
        if not is_change(content):
            return (0, (content,))
        if self.applying:
            return None
        change = decode_change(content)
        kind = "add" if change.add else "rem"
        return [kind, change.host_id, make_node(change.host_id, change.address)]

    def forbidden(self, *args: object) -> Any:
        """Stand in for what the shell never lets PySyncObj do."""
        raise FatalError("PySyncObj wants to read or write a pickle; the shell forbids it")

    def to_bytes(self, data: bytes) -> bytes:
        """Accept bytes only."""
        return data


class _Serializer:
    """Stands in for PySyncObj's snapshots: it is told when one lies ready, and only ever says that one is needed."""

    def __init__(self, *arguments: Any) -> None:
        self._read = arguments[4]

    def checkSerializing(self) -> tuple[int, None]:
        return SERIALIZER_STATE.NOT_SERIALIZING, None

    def serialize(self, *arguments: object) -> None:
        raise FatalError("PySyncObj wants to write a snapshot; the shell forbids it")

    def deserialize(self) -> tuple[None, Entry, Entry, set[Node]]:
        previous, last, members = self._read()
        return None, last, previous, {make_node(peer.id, peer.address) for peer in members}

    def getTransmissionData(self, node: object) -> tuple[bytes, bool, bool]:
        return (
            b"",
            True,
            True,
        )  # the shell makes an offer of it; PySyncObj goes on behind the snapshot

    def setTransmissionData(self, data: object) -> bool:
        return True

    def cancelTransmisstion(self, node: object) -> None:
        """Nothing is ever under way."""


_codec = _Codec()
vendor_pickle.dumps = _codec.dumps
vendor_pickle.loads = vendor_journal.loads = _codec.loads
vendor_pickle.dump = vendor_pickle.load = vendor_journal.dumps = _codec.forbidden
vendor_pickle.to_bytes = vendor_journal.to_bytes = _codec.to_bytes
vendor.Serializer = _Serializer
vendor.createJournal = lambda journal: journal
vendor.monotonicTime = lambda: asyncio.get_running_loop().time()
vendor.PIPE_NOTIFIER_ENABLED = False


class Raft(SyncObj):
    """One Raft node. Nothing happens in it but in `tick` and in what the shell delivers."""

    def __init__(
        self,
        me: Peer,
        voters: tuple[Peer, ...],
        *,
        journal: Journal,
        shell: Shell,
        has_snapshot: bool,
        timing: Timing,
        apply: Callable[[int, bytes], None],
        before_append: Callable[[], None],
        read_snapshot: ReadSnapshot,
    ) -> None:
        self._apply, self._before_append = apply, before_append
        conf = SyncObjConf(
            autoTick=False,
            appendEntriesUseBatch=False,
            appendEntriesPeriod=timing.heartbeat_s,
            appendEntriesBatchSizeBytes=MAX_APPEND_BYTES,
            raftMinTimeout=3.1 * timing.heartbeat_s,
            raftMaxTimeout=3.3 * timing.heartbeat_s,
            leaderFallbackTimeout=timing.quorum_s,
            connectionTimeout=3600.0,
            dynamicMembershipChange=True,
            journalFile=journal,
            fullDumpFile=__file__
            if has_snapshot
            else os.devnull,  # only asked whether it is a file
            useFork=False,
            serializer=_codec.forbidden,
            deserializer=read_snapshot,
            logCompactionMinEntries=NEVER_ENTRIES,
            logCompactionMinTime=NEVER_S,
            commandsQueueSize=16,
            commandsWaitLeader=True,
            onStateChanged=shell.state_changed,
        )
        others = [make_node(peer.id, peer.address) for peer in voters if peer.id != me.id]
        super().__init__(
            make_node(me.id, me.address), others, conf, nodeClass=Node, transport=shell
        )
        shell.attach(self)

    def tick(self) -> None:
        """Let PySyncObj act on the time: elections, commits, applying, heartbeats, compaction."""
        _codec.applying = True
        try:
            self.doTick(0.0)
        finally:
            _codec.applying = False

    def append(self, content: bytes) -> None:
        """Append proposals. Only from `before_append`, and only while leading."""
        self._applyCommand(content, None, REGULAR)

    def append_change(self, change: MemberChange) -> None:
        """Append a membership change. Only from `before_append`, and only while leading."""
        self._applyCommand(encode_change(change), None, MEMBERSHIP)

    def leader_id(self) -> NodeId | None:
        """Return the leader known to PySyncObj."""
        leader = self._getLeader()
        return None if leader is None else NodeId(leader.id) or None

    @replicated
    def apply_proposals(self, content: bytes) -> None:
        """Called by PySyncObj for each committed regular entry, in order."""
        self._apply(self.raftLastApplied + 1, content)

    def _checkCommandsToApply(self) -> None:
        """PySyncObj appends here, if it leads: the one moment when leadership and append can't disagree."""
        if not self._isLeader():
            return
        _codec.applying = False
        try:
            self._before_append()
            super()._checkCommandsToApply()
        finally:
            _codec.applying = True
