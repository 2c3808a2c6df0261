"""Typed reads, guarded writes and watches, on an engine that commits at once."""

import asyncio
import random

import pytest
from msgspec.structs import replace

from core.errors import ConflictError, NotFoundError, UnavailableError
from core.model import KINDS, DataCenter, DataStorage, DataStorageKind, Disk, Event, Task, TaskState
from raftstate.consensus.single import SingleNodeEngine
from raftstate.state.machine import Machine
from raftstate.store import describe_rejection
from raftstate.txn import Applied, Rejected
from raftstate.watch import EVERYTHING
from tests.loose_store import LooseStore
from tests.whole_states import dump_of, load


class FixedClock:
    def monotonic_s(self) -> float:
        return 1.0

    def boottime_s(self) -> float:
        return 1.0

    def wall_ms(self) -> int:
        return 1_700_000_000_000


class Cluster:
    """Machine, engine and store; tests use what they need."""

    def __init__(self) -> None:
        self.machine = Machine(":memory:")
        self.engine = SingleNodeEngine(self.machine)
        self.store = LooseStore(self.machine, self.engine, clock=FixedClock(), rng=random.Random(7))


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def store(cluster) -> LooseStore:
    return cluster.store


def center(name: str, id_: str = "") -> DataCenter:
    return DataCenter(id=id_ or f"id-{name}", name=name)


def disk(name: str, id_: str) -> Disk:
    return Disk(id=id_, name=name, vm_id="v", data_storage_id="s", size_bytes=512)


async def test_what_is_written_is_read_back_with_its_revision(store):
    index = await store.apply(puts=(center("one"),))
    read = store.need(DataCenter, "id-one")
    assert (read.name, read.revision, store.index) == ("one", index, index)
    assert store.get(DataStorage, "id-one") is None, "another kind"


async def test_the_index_only_grows(store):
    seen = [store.index]
    for number in range(5):
        await store.apply(puts=(center(f"c{number}"),))
        seen.append(store.index)
    assert seen == sorted(set(seen))


async def test_a_change_of_something_read_before_another_change_is_refused(store):
    await store.apply(puts=(center("one"),))
    stale = store.need(DataCenter, "id-one")
    await store.apply(puts=(stale,))
    with pytest.raises(ConflictError, match="look again") as caught:
        await store.apply(puts=(stale,))
    assert caught.value.code == "conflict-guard"
    with pytest.raises(ConflictError):
        await store.apply(deletes=(stale,))
    with pytest.raises(ConflictError):
        await store.apply(puts=(center("two"),), guards=(stale,))
    assert store.get(DataCenter, "id-two") is None


async def test_a_new_resource_does_not_replace_one_of_the_same_id(store):
    await store.apply(puts=(center("one"),))
    with pytest.raises(ConflictError):
        await store.apply(puts=(center("two", "id-one"),))
    assert store.need(DataCenter, "id-one").name == "one"


async def test_a_taken_name_is_refused_in_words(store):
    await store.apply(puts=(center("one"),))
    with pytest.raises(ConflictError, match="data-center name 'one' is already taken") as caught:
        await store.apply(puts=(center("one", "other"),))
    assert caught.value.code == "conflict-claim"


def test_every_refusal_is_one_line_for_people():
    lines = [
        describe_rejection(Rejected(subject="task.subject/vm/7", reason="claim")),
        describe_rejection(Rejected(subject="nic.ip/g/10.0.0.5", reason="claim")),
        describe_rejection(Rejected(subject="vm/7", reason="guard")),
        describe_rejection(Rejected(subject="", reason="unreadable")),
    ]
    assert lines[0].startswith("vm/7 is busy with another task")
    assert "10.0.0.5" in lines[1]
    assert lines[2].startswith("vm/7 was changed by someone else")
    assert all(line and "\n" not in line for line in lines)


async def test_a_resource_has_one_open_task_at_a_time(store):
    def task(id_: str, **fields) -> Task:
        return Task(id=id_, name=id_, workflow="w", subject="vm/1", **fields)

    await store.apply(puts=(task("t1"),))
    with pytest.raises(ConflictError, match="busy"):
        await store.apply(puts=(task("t2"),))
    open_one = store.need(Task, "t1")
    await store.apply(puts=(replace(open_one, state=TaskState.SUCCEEDED),))
    await store.apply(puts=(task("t2"),))
    assert store.claim_holder("task.subject/vm/1") == "task/t2"


async def test_a_repeated_request_gives_the_first_index(store):
    first = await store.apply(puts=(center("one"),), request_id="r")
    assert await store.apply(puts=(center("one"),), request_id="r") == first
    with pytest.raises(ConflictError):
        await store.apply(puts=(center("one"),), request_id="another")


async def test_find_goes_by_id_first_then_by_name(store):
    await store.apply(puts=(center("one"), center("id-one", "two")))
    assert store.find(DataCenter, "id-one").name == "one"
    assert store.find(DataCenter, "one").id == "id-one"
    with pytest.raises(NotFoundError, match="data center 'none' does not exist"):
        store.find(DataCenter, "none")
    with pytest.raises(NotFoundError):
        store.need(DataCenter, "one")


async def test_a_name_that_several_have_must_be_given_as_an_id(store):
    def event(id_: str) -> Event:
        return Event(id=id_, name="same", code="c", subject="s/1", subject_name="s", message="m")

    await store.apply(puts=(event("1"), event("2")))
    with pytest.raises(ConflictError, match="use the id"):
        store.find(Event, "same")
    assert store.find(Event, "2").id == "2"


async def test_all_is_ordered_by_name_and_since_by_age(store):
    for name in ("b", "c", "a"):
        await store.apply(puts=(center(name),))
    assert [c.name for c in store.all(DataCenter)] == ["a", "b", "c"]
    assert [c.name for c in store.since(DataCenter, 0)] == ["b", "c", "a"]
    assert [c.name for c in store.since(DataCenter, 1, limit=1)] == ["c"]


async def test_without_quorum_nothing_is_written_and_reads_go_on(cluster):
    await cluster.store.apply(puts=(center("one"),))
    cluster.engine.available = False
    with pytest.raises(UnavailableError):
        await cluster.store.apply(puts=(center("two"),))
    with pytest.raises(UnavailableError):
        await cluster.store.barrier()
    assert [c.name for c in cluster.store.all(DataCenter)] == ["one"]


async def test_the_revision_is_not_part_of_what_is_stored(cluster):
    await cluster.store.apply(puts=(center("one"),))
    body, _ = cluster.machine.get("data-center", "id-one")
    await cluster.store.apply(puts=(cluster.store.need(DataCenter, "id-one"),))
    assert cluster.machine.get("data-center", "id-one")[0] == body


def test_every_resource_type_has_a_kind_of_its_own():
    assert all(kind == kind.lower() and "/" not in kind for kind in KINDS)
    assert len(KINDS) == len(set(KINDS.values()))


async def taken(watch) -> frozenset[str]:
    async with asyncio.timeout(1):
        return await watch.next()


async def is_quiet(watch) -> bool:
    try:
        async with asyncio.timeout(0.02):
            await watch.next()
    except TimeoutError:
        return True
    return False


async def test_a_watch_begins_with_everything_then_tells_what_changed(store):
    watch = store.watch(DataCenter)
    assert await taken(watch) == {EVERYTHING}
    assert await is_quiet(watch)
    await store.apply(puts=(center("one"),))
    assert await taken(watch) == {"data-center/id-one"}
    await store.apply(deletes=(store.need(DataCenter, "id-one"),))
    assert await taken(watch) == {"data-center/id-one"}


async def test_changes_gather_while_the_consumer_is_busy_and_none_is_lost(store):
    watch = store.watch(DataCenter, Disk)
    await taken(watch)
    for number in range(50):
        await store.apply(puts=(center(f"c{number}"), disk(f"d{number}", f"d{number}")))
    keys = await taken(watch)
    assert len(keys) == 100
    assert await is_quiet(watch)


async def test_a_watch_hears_only_of_its_types_and_not_of_refusals(store):
    watch = store.watch(Disk)
    await taken(watch)
    await store.apply(puts=(center("one"),))
    with pytest.raises(ConflictError):
        await store.apply(puts=(disk("d", "d"), center("one", "two")))
    assert await is_quiet(watch)


async def test_a_wait_that_is_broken_off_loses_nothing(store):
    watch = store.watch(DataCenter)
    await taken(watch)
    for number in range(20):
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(watch.next(), name="watch")
            await asyncio.sleep(0)
            await store.apply(puts=(center(f"c{number}"),))
            waiting.cancel()
        if waiting.cancelled():
            assert await taken(watch) == {f"data-center/id-c{number}"}
        else:
            assert waiting.result() == {f"data-center/id-c{number}"}


async def test_after_a_snapshot_a_watch_says_everything(cluster):
    watch = cluster.store.watch(Disk)
    await taken(watch)
    other = Cluster()
    await other.store.apply(puts=(center("one"),))
    load(cluster.machine, dump_of(other.machine))
    assert await taken(watch) == {EVERYTHING}
    assert cluster.store.index == 1
    assert cluster.store.need(DataCenter, "id-one")


async def test_a_watch_given_back_hears_no_more(store):
    watch = store.watch(DataCenter)
    await taken(watch)
    store.unwatch(watch)
    await store.apply(puts=(center("one"),))
    assert await is_quiet(watch)


async def test_iterating_over_a_watch_yields_the_same_as_asking_it(store):
    watch = store.watch(DataCenter)
    seen = []
    async for keys in watch:
        seen.append(keys)
        if len(seen) == 2:
            break
        await store.apply(puts=(center("one"),))
    assert seen == [{EVERYTHING}, {"data-center/id-one"}]


async def test_a_store_opened_on_an_old_database_knows_its_index(tmp_path):
    machine = Machine(tmp_path / "db")
    engine = SingleNodeEngine(machine)
    store = LooseStore(machine, engine, clock=FixedClock(), rng=random.Random(1))
    storage = DataStorage(
        id="s", name="s", data_center_id="", kind=DataStorageKind.LOCAL, path="/srv"
    )
    await store.apply(puts=(storage,))
    machine.close()
    again = Machine(tmp_path / "db")
    reopened = LooseStore(again, SingleNodeEngine(again), clock=FixedClock(), rng=random.Random(1))
    assert reopened.index == 1
    assert reopened.need(DataStorage, "s").kind is DataStorageKind.LOCAL


async def test_commit_tells_a_refusal_as_a_value(store):
    await store.apply(puts=(center("one"),))
    outcome = await store.commit(store.change(puts=(center("one", "two"),)))
    assert outcome == Rejected(
        subject="data-center.name/one", reason="claim", holder="data-center/id-one"
    )
    assert isinstance(await store.commit(store.change(puts=(center("three"),))), Applied)
