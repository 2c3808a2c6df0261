"""What earlier versions wrote stays readable: bytes as feature level 1 left them, kept in `tests/golden/raftstate`.

When a level comes, its file is added (`pytest --rewrite` writes the newest only); a file goes two releases after the
level it shows was replaced, and so does the code that reads it.
"""

import base64
import json
import zlib
from pathlib import Path

import msgspec

from core.model import Cluster
from raftstate.consensus.engine import NodeId, Peer
from raftstate.consensus.entries import (
    LEVEL,
    MemberChange,
    Proposal,
    check_command,
    decode_change,
    decode_proposals,
    encode_change,
    encode_proposals,
)
from raftstate.consensus.recovery import recover, wal_path
from raftstate.consensus.snapshot_files import SnapshotStore
from raftstate.consensus.snapshot_header import encode_manifest, new_header, parse_manifest
from raftstate.consensus.wal import BootstrapRecord, EntryRecord, GenerationRecord, TermRecord, Wal
from raftstate.consensus.wal_segment import segment_path
from raftstate.state.machine import Machine
from raftstate.txn import Applied, Put, Txn, decode_outcome, encode_txn

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "raftstate"
NOOP = b"\x01"
ME, OTHER = Peer(NodeId("a"), "10.0.0.1:7444"), Peer(NodeId("b"), "10.0.0.2:7444")
CLUSTER = Cluster(id="c1", name="prod", data_center_id="d1", created_ms=5)
CHANGE = MemberChange(True, "b", OTHER.address)


def written(directory: Path) -> dict[str, bytes]:
    """Return one of everything that this version writes."""
    put = Put(
        kind="cluster",
        id=CLUSTER.id,
        name=CLUSTER.name,
        body=msgspec.msgpack.encode(CLUSTER),
        claims=CLUSTER.claims(),
    )
    txn = Txn(request_id="r1", stamp_ms=7, guards={"cluster/c1": 0}, puts=(put,))
    entry = b"\x00" + encode_proposals([Proposal(b"boot", 3, encode_txn(txn))], LEVEL)
    change = b"\x02" + encode_change(CHANGE)
    wal = Wal(wal_path(directory), segment_bytes=4096)
    wal.open()
    for record in (
        BootstrapRecord([(OTHER.id, OTHER.address)]),
        GenerationRecord(2),
        TermRecord(4, "b"),
        EntryRecord(NOOP, 9, 3),
        EntryRecord(NOOP, 10, 3),
        EntryRecord(entry, 11, 4),
        EntryRecord(change, 12, 4),
    ):
        wal.append(record)
    wal.sync()
    wal.close()
    (segment,) = wal_path(directory).glob("*.wal")
    header = new_header(
        (NOOP, 9, 3), (NOOP, 10, 3), (ME,), machine_applied=0, generation=2, level=LEVEL
    )
    return {
        "entry": entry,
        "change": change,
        "segment": zlib.compress(segment.read_bytes()),
        "manifest": encode_manifest(header),
    }


def test_everything_that_was_ever_written_is_read(tmp_path, rewrite):
    newest = GOLDEN / f"level{LEVEL}.json"
    if rewrite:
        (tmp_path / "now").mkdir()
        texts = {k: base64.b64encode(v).decode() for k, v in written(tmp_path / "now").items()}
        newest.write_text(json.dumps(texts, indent=1) + "\n")
    assert newest.exists(), "pytest --rewrite writes it"
    for path in sorted(GOLDEN.glob("level*.json")):
        parts = {k: base64.b64decode(v) for k, v in json.loads(path.read_text()).items()}
        is_readable(tmp_path / path.stem, parts)


def is_readable(directory: Path, parts: dict[str, bytes]) -> None:
    check_command(parts["entry"])
    (proposal,) = decode_proposals(parts["entry"][1:])
    machine = Machine(":memory:")
    (outcome,) = machine.apply(11, [proposal.payload])
    assert decode_outcome(outcome) == Applied(index=11)
    assert machine.get("cluster", "c1") is not None
    assert decode_change(parts["change"][1:]) == CHANGE

    header = parse_manifest(parts["manifest"])
    assert (header.index, header.generation, header.voters) == (10, 2, (ME,))
    wal_path(directory).mkdir(parents=True)
    segment_path(wal_path(directory), 1).write_bytes(zlib.decompress(parts["segment"]))
    store = SnapshotStore(directory)
    frozen = Machine(":memory:").freeze()
    store.write(header, frozen.write)
    wal = Wal(wal_path(directory), segment_bytes=4096)
    start = recover(wal, store, ME, (), Machine(":memory:"))
    assert (start.journal.first(), start.journal.last()) == (9, 12)
    assert start.journal.generation == 2
    assert (start.journal.getCurrentTerm(), start.journal.getVotedForNodeId()) == (4, "b")
    assert start.journal.members.latest() == (ME, OTHER)
    assert start.peers == (OTHER,)
    start.journal.close()
