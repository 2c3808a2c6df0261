"""A new beginning that breaks off: whatever step was the last, the agent's next start finds the old state or the new, whole."""

import os
import random
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import core.paths
from core.errors import FatalError
from core.member_file import read_member_file
from core.paths import Paths
from raftstate.consensus.generation import count_of
from raftstate.rescue import anew, rejoin, restore, swap
from raftstate.rescue.facts import facts_of
from raftstate.rescue.force_quorum import force_quorum
from raftstate.state.peek import applied_in
from tests.one_member import ManualClock
from tests.sim.power import MODULES
from tests.stopped_hosts import IDS, Cluster

WHEN = "20261125T173544Z"
COUNTED = {
    *("replace", "rename", "unlink", "fsync", "fdatasync", "makedirs", "posix_fallocate"),
    *("write", "pwrite"),
}


class Dead(BaseException):
    """The process is no more."""


class DyingOs:
    """The real `os` for some steps; the last of them is not carried out, or a write only half, and none after it."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        if name not in COUNTED:
            return found

        def counted(*args: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left > 0:
                return found(*args, **options)
            if self.left == 0 and name in ("write", "pwrite"):
                found(args[0], bytes(args[1])[: len(args[1]) // 2], *args[2:])
            raise Dead

        return counted


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    made = Cluster(tmp_path / "cluster")
    await made.found()
    yield made
    made.close()


def die_after(steps: int, monkeypatch: pytest.MonkeyPatch, work: Callable[[], Any]) -> bool:
    """Do the work with so many steps; tell whether it came to its end."""
    with monkeypatch.context() as patch:
        dying = DyingOs(steps)
        for module in (*MODULES, swap, anew, restore, core.paths):
            patch.setattr(module, "os", dying)
        try:
            work()
        except Dead:
            return False
    return True


def to_its_end(work: Any) -> None:
    """Run a coroutine that waits for nothing; here, so that no event loop swallows the death."""
    try:
        while True:
            work.send(None)
    except StopIteration:
        return


def tree(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }


async def die_at_every_step(
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    work: Callable[[Paths], Any],
    is_new: Callable[[Paths], bool],
    stride: int = 1,
) -> None:
    """Let `work` die at each of its steps on a copy of one host; what the next start finds must be old or new."""
    source = cluster.host("h2", tail=(1, 2, 3), applied=1)
    before = facts_of(source)
    old, seen, steps = tree(source.state), [], 0
    done = False
    while not done:
        steps += stride
        copy = cluster.root / f"at-{steps}"
        shutil.copytree(source.state, copy)
        paths = Paths(etc=source.etc, state=copy, run=source.run)
        done = die_after(steps, monkeypatch, lambda paths=paths: work(paths))
        swap.finish(copy)
        swap.finish(copy)  # and again: nothing is left to do
        new = is_new(paths)
        seen.append(new)
        assert not (copy / swap.PLAN).exists()
        assert not (copy / swap.WORK).exists()
        if new:
            (kept,) = copy.glob(f"before-*-{WHEN}")
            moved = {name: content for name, content in tree(kept).items() if name != "README"}
            assert moved.items() <= old.items()
            assert {name for name in old if name.startswith(("raft/", "state.db"))} <= set(moved)
        else:
            assert tree(copy) == old
            assert facts_of(paths).index == before.index
            assert applied_in(paths.database) == before.applied
        shutil.rmtree(copy)
    assert seen == sorted(seen), "once it counts, it counts"
    assert seen[0] is False
    assert seen[-1] is True
    assert steps > 20


async def test_force_quorum_is_all_or_nothing_at_every_step(cluster, monkeypatch):
    def is_new(paths: Paths) -> bool:
        facts = facts_of(paths)
        new = count_of(facts.generation) == 2
        assert [voter.id for voter in facts.voters] == [IDS["h2"]] or not new
        return new

    await die_at_every_step(
        cluster,
        monkeypatch,
        lambda paths: force_quorum(paths, when=WHEN, rng=random.Random(1)),
        is_new,
        stride=2,
    )


async def test_rejoin_is_all_or_nothing_at_every_step(cluster, monkeypatch):
    def is_new(paths: Paths) -> bool:
        record = read_member_file(paths.member_file)
        assert record is not None
        assert paths.raft.exists() == paths.database.exists() == (record.members == ())
        return record.members != ()

    others = rejoin.standing(cluster.host("h3")).members
    await die_at_every_step(
        cluster,
        monkeypatch,
        lambda paths: rejoin.begin_to_follow(paths, others, when=WHEN),
        is_new,
    )


async def test_a_restore_as_a_fresh_host_is_all_or_nothing_at_every_step(
    cluster, tmp_path, monkeypatch
):
    file, steps, seen, done = tmp_path / "b.kvb", 0, [], False
    cluster.backup(file)
    key = cluster.member.secrets_key
    order = restore.Order(file, restore.FreshHost("h9", "192.0.2.9"), lambda _: key, WHEN)
    while not done:
        steps += 5
        paths = Paths(etc=tmp_path, state=tmp_path / f"s{steps}", run=tmp_path)
        paths.state.mkdir()
        work = restore.restore(
            paths, order, on_bytes=lambda *_: None, clock=ManualClock(), rng=random.Random(steps)
        )

        done = die_after(steps, monkeypatch, lambda work=work: to_its_end(work))
        swap.finish(paths.state)
        names = {path.name for path in paths.state.iterdir()}
        new = "member.json" in names
        assert names - {"state.db"} == ({"raft", "identity", "member.json"} if new else set()) | {
            name for name in names if name.startswith("before-")
        }
        seen.append(new)
        if new:
            facts = facts_of(paths)
            assert [voter.id for voter in facts.voters] == [facts.host_id]
        shutil.rmtree(paths.state)
    assert seen == sorted(seen)
    assert seen[0] is False
    assert seen[-1] is True


async def test_a_disk_that_fills_up_leaves_the_old_state(cluster, monkeypatch):
    paths = cluster.host("h2", tail=(1,))
    before = tree(paths.state)

    class Full:
        def statvfs(self, path: Path) -> Any:
            class Disk:
                f_bavail, f_frsize = 10, 4096

            return Disk

    from raftstate.rescue import room

    monkeypatch.setattr(room, "os", Full())
    with pytest.raises(FatalError, match=r"0 MiB free, \d+ MiB are needed; nothing was changed"):
        force_quorum(paths, when=WHEN, rng=random.Random(1))
    assert tree(paths.state) == before


async def test_two_new_beginnings_in_one_second_keep_both_old_states(cluster):
    paths = cluster.host("h2", tail=(1,))
    first = force_quorum(paths, when=WHEN, rng=random.Random(1))
    second = force_quorum(paths, when=WHEN, rng=random.Random(2))
    assert first.kept != second.kept
    assert second.generation > first.generation
    assert (first.kept / "raft" / "snapshot").exists()
    assert (second.kept / "raft" / "snapshot").exists()
