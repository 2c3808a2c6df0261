"""Beginning anew on a stopped host: force-quorum, restore and rejoin keep what they promise, and refuse the rest."""

import json
import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from core.errors import ConflictError, FatalError, InvalidError, PlatformError
from core.identity.certificates import make_authority
from core.member_file import MemberAddress, MemberRecord, read_member_file
from core.mesh.tls import TlsFiles
from core.model import Host
from core.paths import Paths
from raftstate.consensus.generation import count_of, following, shown
from raftstate.rescue.anew import INDEX_LEAP
from raftstate.rescue.facts import best_of, facts_of, read_facts
from raftstate.rescue.force_quorum import force_quorum
from raftstate.rescue.lock import only_process
from raftstate.rescue.rejoin import (
    MayRejoin,
    begin_to_follow,
    check_answer,
    follow_anew,
    standing,
)
from raftstate.rescue.restore import FreshHost, Order, Restored, restore
from raftstate.rescue.swap import finish
from tests.one_member import HOST_ID, ManualClock
from tests.stopped_hosts import IDS, Cluster, peer, start

WHEN = "20261125T173544Z"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    made = Cluster(tmp_path / "cluster")
    await made.found()
    yield made
    made.close()


def force(paths: Paths):
    return force_quorum(paths, when=WHEN, rng=random.Random(1))


def record_of(paths: Paths) -> MemberRecord:
    record = read_member_file(paths.member_file)
    assert record is not None
    return record


async def bring_back(
    paths: Paths, file: Path, fresh: FreshHost | None = None, key: bytes = b""
) -> Restored:
    paths.state.mkdir(parents=True, exist_ok=True)
    order = Order(file, fresh or FreshHost(), lambda _: key, WHEN)
    return await restore(
        paths, order, on_bytes=lambda *_: None, clock=ManualClock(), rng=random.Random(2)
    )


def everything_in(directory: Path) -> dict[str, bytes]:
    """Return the content of all files, but the lock's and those that looking makes."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.endswith(("-shm", "-wal", ".lock"))
    }


# -- generations


def test_two_new_beginnings_never_look_alike_and_both_are_newer():
    one, two = (following(1, random.Random(seed)) for seed in (1, 2))
    assert one != two
    assert count_of(one) == count_of(two) == 2
    assert min(one, two) > 1
    assert following(max(one, two), random.Random(3)) > max(one, two)
    assert (shown(1), shown(2 << 32 | 0xAB)) == ("1", "2-000000ab")


# -- force-quorum


async def test_the_survivor_keeps_all_of_its_log_and_votes_alone(cluster):
    paths = cluster.host("h2", tail=(1, 2, 3), applied=1)
    before = facts_of(paths)
    assert (before.index, before.votes, before.generation) == (before.snapshot + 3, True, 1)
    done = force(paths)
    assert done.applied_now == 2
    started = await start(paths, record_of(paths))
    assert started.things == {"n1", "n2", "n3", "n9999"}
    assert started.voters == [IDS["h2"]]
    assert count_of(started.generation) == 2
    assert started.index > before.index + INDEX_LEAP
    assert set(started.hosts) == {"h1", "h2", "h3"}
    assert {path.name for path in done.kept.iterdir()} >= {"README", "raft", "state.db"}


async def test_a_survivor_whose_database_is_lost_or_behind_is_made_from_its_snapshot(cluster):
    paths = cluster.host("h2", tail=(1, 2))
    for path in paths.state.glob("state.db*"):
        path.unlink()
    force(paths)
    assert (await start(paths, record_of(paths))).things == {"n1", "n2", "n9999"}


async def test_the_replica_that_is_all_that_is_left_can_go_on(cluster):
    paths = cluster.host("h3", tail=(1,), voters="h1 h2")
    assert not facts_of(paths).votes
    force(paths)
    assert (await start(paths, record_of(paths))).voters == [IDS["h3"]]


async def test_a_host_that_lost_part_of_its_log_must_not_be_the_one_to_go_on(cluster):
    paths, longer = cluster.host("h2", tail=(1,)), cluster.host("h3", tail=(1, 2), applied=2)
    for file in paths.state.glob("state.db*"):
        file.unlink()
    for file in longer.state.glob("state.db*"):
        shutil.copy(file, paths.state / file.name)
    before = everything_in(paths.raft)
    with pytest.raises(FatalError, match="the log has lost entries"):
        force(paths)
    assert everything_in(paths.raft) == before


async def test_damaged_files_are_refused_and_left_as_they_are(cluster):
    paths = cluster.host("h2", tail=(1,))
    (dump,) = paths.raft.glob("snapshot-*.db")
    content = bytearray(dump.read_bytes())
    content[len(content) // 2] ^= 1
    dump.write_bytes(content)
    before = everything_in(paths.state)
    with pytest.raises(FatalError, match="kvorum recover rejoin"):
        force(paths)
    assert everything_in(paths.state) == before


async def test_a_host_without_state_or_membership_is_refused(cluster, tmp_path):
    paths = cluster.host("h2")
    shutil.rmtree(paths.raft)
    with pytest.raises(ConflictError, match="holds no state"):
        force(paths)
    paths.member_file.unlink()
    with pytest.raises(ConflictError, match="no member of a cluster"):
        force(paths)


async def test_survivors_are_compared_as_raft_would(cluster, tmp_path):
    longer = facts_of(cluster.host("h1", tail=(1, 2, 3), tail_term=3))
    newer = facts_of(cluster.host("h2", tail=(1, 2), tail_term=4))
    later = msgspec.structs.replace(longer, generation=following(1, random.Random(1)), index=1)
    assert best_of([longer, newer]) is newer
    assert best_of([longer, newer, later]) is later
    file = tmp_path / "h2.json"
    file.write_bytes(msgspec.json.encode(newer))
    assert read_facts([file]) == [newer]
    with pytest.raises(InvalidError, match="different clusters"):
        best_of([longer, msgspec.structs.replace(newer, cluster_name="other")])
    file.write_text(json.dumps({"a": 1}))
    with pytest.raises(InvalidError, match="no output of"):
        read_facts([file])


# -- restore


async def test_a_member_is_restored_to_exactly_the_state_of_the_backup(cluster, tmp_path):
    file = tmp_path / "b.kvb"
    cluster.backup(file)
    digest = cluster.machine.digest()
    paths = cluster.host("h1", tail=(1, 2, 3), applied=3, generation=following(1, random.Random(9)))
    known = facts_of(paths)
    done = await bring_back(paths, file)
    assert done.generation > known.generation
    assert done.index > known.index
    from raftstate.state.machine import Machine

    assert done.index >= known.index + INDEX_LEAP
    started = await start(paths, record_of(paths))
    assert started.things == {"n9999"}  # the writes after the backup are gone
    assert started.voters == [HOST_ID]
    assert set(started.hosts) == {"h1", "h2", "h3"}
    restored = Machine(tmp_path / "again.db")
    (dump,) = paths.raft.glob("snapshot-*.db")
    restored.stage(dump)()
    assert restored.digest() == digest
    restored.close()


async def test_a_fresh_host_gets_an_identity_of_the_clusters_authority(cluster, tmp_path):
    file = tmp_path / "b.kvb"
    cluster.backup(file)
    root = tmp_path / "fresh"
    paths = Paths(etc=root / "etc", state=root / "state", run=root / "run")
    fresh = FreshHost("h9", "192.0.2.9")
    done = await bring_back(paths, file, fresh, cluster.member.secrets_key)
    record = record_of(paths)
    assert done.kept is None  # there was nothing
    assert (record.host_name, record.cluster_name, done.host_name) == ("h9", "test", "h9")
    assert paths.secrets_key.read_bytes() == cluster.member.secrets_key
    assert paths.host_key.stat().st_mode & 0o777 == 0o600
    TlsFiles.in_directory(paths.identity)
    started = await start(paths, record)
    assert set(started.hosts) == {"h1", "h2", "h3", "h9"}
    assert started.voters == [record.host_id] == [started.hosts["h9"].id]


async def test_a_fresh_host_can_take_the_place_of_a_lost_one(cluster, tmp_path):
    file = tmp_path / "b.kvb"
    cluster.backup(file)
    paths = Paths(etc=tmp_path / "e", state=tmp_path / "s", run=tmp_path / "r")
    await bring_back(paths, file, FreshHost(instead_of="h2"), cluster.member.secrets_key)
    record = record_of(paths)
    assert (record.host_id, record.address) == (IDS["h2"], "127.0.0.92")
    assert set((await start(paths, record)).hosts) == {"h1", "h2", "h3"}


async def test_a_member_that_joined_after_the_backup_is_recorded_again(cluster, tmp_path):
    file = tmp_path / "b.kvb"
    await cluster.member.store.apply(deletes=(cluster.member.store.find(Host, "h3"),))
    cluster.backup(file)
    paths = cluster.host("h3")
    await bring_back(paths, file)
    started = await start(paths, record_of(paths))
    assert started.hosts["h3"].address == "127.0.0.93"


async def refused(paths: Paths, file: Path, error: type[PlatformError], match: str, **options):
    paths.state.mkdir(parents=True, exist_ok=True)
    before = everything_in(paths.state)
    with pytest.raises(error, match=match):
        await bring_back(paths, file, **options)
    finish(paths.state)
    assert everything_in(paths.state) == before


async def test_what_a_restore_refuses_changes_nothing(cluster, tmp_path):
    file, bad = tmp_path / "b.kvb", tmp_path / "bad.kvb"
    cluster.backup(file)
    member = cluster.host("h1", tail=(1,))
    fresh = Paths(etc=tmp_path / "e", state=tmp_path / "s", run=tmp_path / "r")
    key, new = cluster.member.secrets_key, FreshHost("h9", "192.0.2.9")

    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    bad.write_bytes(content)
    await refused(member, bad, InvalidError, "checksum is wrong")
    bad.write_bytes(file.read_bytes()[:-10])
    await refused(member, bad, InvalidError, "cut off")
    cluster.backup(bad, level=9)
    await refused(member, bad, ConflictError, "feature level 9")
    await refused(member, tmp_path / "none", InvalidError, "can't read")

    await refused(fresh, file, InvalidError, "say who it shall be", key=key)
    await refused(fresh, file, FatalError, "can't be opened", fresh=new, key=bytes(32))
    await refused(fresh, file, InvalidError, "32 bytes", fresh=new, key=b"short")
    taken = FreshHost("h2", "192.0.2.9")
    await refused(fresh, file, ConflictError, "another host with the name", fresh=taken, key=key)
    strange = FreshHost("h9", "h9.example")
    await refused(fresh, file, InvalidError, "no IPv4 address", fresh=strange, key=key)
    unknown = FreshHost(instead_of="h77")
    await refused(fresh, file, PlatformError, "does not exist", fresh=unknown, key=key)

    member.secrets_key.write_bytes(bytes(32))
    await refused(member, file, FatalError, "can't be opened")
    member.ca_pem.write_text(make_authority("other", now_ms=0).certificate_pem)
    await refused(member, file, ConflictError, "member of another one")
    member.ca_pem.unlink()
    await refused(member, file, FatalError, "identity of this host")


# -- rejoin


OTHERS = (MemberAddress(id=IDS["h1"], name="h1", address="192.0.2.1", mesh_port=7444),)


async def test_a_host_that_rejoins_keeps_its_name_and_forgets_its_state(cluster):
    paths = cluster.host("h1", tail=(1,))
    others = (*OTHERS, MemberAddress(id=IDS["h2"], name="h2", address="192.0.2.2", mesh_port=7444))
    kept = begin_to_follow(paths, others, when=WHEN)
    record = record_of(paths)
    assert (record.host_id, record.founder) == (HOST_ID, False)
    assert [member.name for member in record.members] == ["h2"]  # it doesn't follow itself
    assert not paths.raft.exists()
    assert not paths.database.exists()
    assert paths.host_key.exists()
    assert (kept / "raft" / "snapshot").exists()
    assert (kept / "state.db").exists()
    assert "kvorum recover rejoin" in (kept / "README").read_text()


async def test_it_knows_whom_to_ask_from_whatever_is_still_readable(cluster):
    paths = cluster.host("h2", generation=7)
    names = {member.name for member in standing(paths).members}
    assert names == {"h1", "h3"}
    for file in paths.state.glob("state.db*"):
        file.write_bytes(b"rubbish")
    stands = standing(paths)
    assert {(m.id, m.address) for m in stands.members} == {
        (peer(name).id, peer(name).address.partition(":")[0]) for name in ("h1", "h3")
    }
    assert (stands.generation, stands.damage) == (7, "")
    shutil.rmtree(paths.raft / "wal")
    assert {member.name for member in standing(paths).members} == names  # the snapshot's
    assert "kvorum recover rejoin" in standing(paths).damage
    assert standing(paths).generation == 0
    (paths.raft / "snapshot").unlink()
    assert standing(paths).members == ()


async def test_a_host_does_not_follow_an_older_generation(cluster):
    stands = standing(cluster.host("h2", generation=7))
    answer = MayRejoin(generation=6, had_vote=False, members=())
    with pytest.raises(ConflictError, match="it is that member which has to rejoin"):
        check_answer(stands, answer)


async def test_a_superseded_replica_leaves_nothing_behind(cluster):
    paths = cluster.host("h3", tail=(1,), voters="h1 h2")
    follow_anew(paths, when=WHEN)
    assert {path.name for path in paths.state.iterdir()} == {"identity", "member.json"}
    assert {member.name for member in record_of(paths).members} == {"h1", "h2"}


# -- the lock


def test_only_one_process_works_on_a_state_directory(tmp_path):
    with only_process(tmp_path / "agent.lock", "the agent runs"):
        with pytest.raises(ConflictError, match="the agent runs"):
            with only_process(tmp_path / "agent.lock", "the agent runs"):
                pass
    with only_process(tmp_path / "agent.lock", "the agent runs"):
        pass
    with pytest.raises(InvalidError, match="can't open"):
        with only_process(tmp_path / "none" / "agent.lock", ""):
            pass
