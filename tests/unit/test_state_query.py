"""Select and count: what conditions mean, what is refused, and that the loop doesn't wait for a query."""

import asyncio
import random

import msgspec
import pytest

from core.errors import InvalidError, UnavailableError
from core.model import VM, Host, PowerState, Resource, Task, TaskState
from raftstate.consensus.single import SingleNodeEngine
from raftstate.searching import Found, count_matches, search
from raftstate.state.machine import Machine
from raftstate.state.query import Condition, Op, Position, position_of, select_sql
from raftstate.state.query_paths import resolve
from raftstate.state.query_sql import Order, Search
from raftstate.state.query_text import Where, parse_where
from raftstate.store import Store
from raftstate.txn import Put, Txn, encode_txn
from tests.loose_store import LooseStore


class Ticking:
    """A clock that a test moves by looking at it."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.now_s, self.step_s = 0.0, step_s

    def monotonic_s(self) -> float:
        self.now_s += self.step_s
        return self.now_s

    def boottime_s(self) -> float:
        return self.monotonic_s()

    def wall_ms(self) -> int:
        return 1_700_000_000_000


class Thing(Resource, tag="thing.v1", frozen=True, kw_only=True):
    """Has an attribute that may be nothing, which no kind of the product has."""

    owner: str | None = None


def vm(number: int, **fields) -> VM:
    whole = {"cluster_id": "c", "host_id": f"h{number % 3}", "cpus": number % 4, "memory_mib": 64}
    return VM(id=f"id{number:03}", name=f"vm{number:03}", **whole | fields)


@pytest.fixture(params=["memory", "file"])
def store(request, tmp_path):
    machine = Machine(":memory:" if request.param == "memory" else tmp_path / "state.db")
    yield LooseStore(machine, SingleNodeEngine(machine), clock=Ticking(), rng=random.Random(1))
    machine.close()


@pytest.fixture
async def filled(store) -> Store:
    await store.apply(puts=[vm(number) for number in range(24)])
    return store


async def ids(store: Store, *where: Condition, **options) -> list[int]:
    found = await store.select(VM, where=where, **options)
    assert await store.count(VM, where=where) >= len(found)
    return [int(one.id[2:]) for one in found]


async def test_what_is_selected_is_whole_and_has_its_revision(filled):
    (found,) = await filled.select(VM, where=[Condition("name", Op.EQ, "vm007")])
    assert found == filled.need(VM, "id007")
    assert found.revision == 1


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (Condition("cpus", Op.EQ, 2), lambda n: n % 4 == 2),
        (Condition("cpus", Op.NE, 2), lambda n: n % 4 != 2),
        (Condition("cpus", Op.GT, 2), lambda n: n % 4 > 2),
        (Condition("cpus", Op.GE, 2), lambda n: n % 4 >= 2),
        (Condition("cpus", Op.LT, 2), lambda n: n % 4 < 2),
        (Condition("cpus", Op.LE, 2), lambda n: n % 4 <= 2),
        (Condition("host_id", Op.IN, ("h0", "h2", "none")), lambda n: n % 3 != 1),
        (Condition("cpus", Op.IN, ()), lambda n: False),
        (Condition("name", Op.LIKE, "VM01%"), lambda n: 10 <= n < 20),
        (Condition("name", Op.LIKE, "vm_0_"), lambda n: n < 10),
        (Condition("name", Op.LIKE, "vm\\_01"), lambda n: False),
        (Condition("id", Op.GE, "id020"), lambda n: n >= 20),
        (Condition("ha", Op.EQ, True), lambda n: True),
        (Condition("power", Op.EQ, PowerState.RUNNING), lambda n: True),
        (Condition("revision", Op.EQ, 2), lambda n: False),
        (Condition("boot_id", Op.IS_NULL), lambda n: False),
        (Condition("boot_id", Op.NOT_NULL), lambda n: True),
    ],
)
async def test_a_condition_means_what_it_says(filled, condition, holds):
    assert await ids(filled, condition) == [n for n in range(24) if holds(n)]


async def test_all_conditions_must_hold(filled):
    both = (Condition("cpus", Op.EQ, 1), Condition("host_id", Op.EQ, "h2"))
    assert await ids(filled, *both) == [n for n in range(24) if n % 4 == 1 and n % 3 == 2]
    assert await filled.count(VM, where=both) == 2
    assert await filled.count(VM) == 24


@pytest.mark.parametrize("order_by", ["name", "id", "cpus", "host_id", "revision", "ha"])
@pytest.mark.parametrize("descending", [False, True])
async def test_going_on_after_the_last_one_leaves_nothing_out(filled, order_by, descending):
    whole = await ids(filled, order_by=order_by, descending=descending, limit=1000)
    everything = filled.all(VM)
    expected = sorted(
        everything, key=lambda one: (getattr(one, order_by), one.id), reverse=descending
    )
    assert whole == [int(one.id[2:]) for one in expected]
    got, after = [], None
    options = {"order_by": order_by, "descending": descending, "limit": 5}
    while page := await filled.select(VM, after=after, **options):
        got += [int(one.id[2:]) for one in page]
        after = position_of(page[-1], order_by)
    assert got == whole


async def test_going_on_through_attributes_that_may_be_nothing():
    machine = Machine(":memory:", types=(Thing,))
    for number in range(12):
        owner = None if number % 3 else f"o{number % 2}"
        thing = Thing(id=f"{number:02}", name=f"n{number}", owner=owner)
        put = Put(kind="thing", id=thing.id, name=thing.name, body=msgspec.msgpack.encode(thing))
        machine.apply(number + 1, [encode_txn(Txn(request_id=thing.id, stamp_ms=1, puts=(put,)))])
    for descending in (False, True):
        whole, got, after = [], [], None
        for limit, target in ((100, whole), (2, got)):
            after = None
            while True:
                sql = select_sql(
                    machine.table("thing"),
                    (),
                    order_by="owner",
                    descending=descending,
                    limit=limit,
                    after=after,
                )
                text = sql.text.replace("body, revision", "owner, id", 1)
                page = machine._db.execute(text, sql.parameters).fetchall()
                if not page:
                    break
                target += page
                after = Position(*page[-1])
        assert got == whole
        assert len(got) == 12


@pytest.mark.parametrize(
    "condition",
    [
        Condition("nothing", Op.EQ, 1),
        Condition('name" OR 1=1 --', Op.EQ, "x"),
        Condition("cloud_init", Op.EQ, "x"),
        Condition("body", Op.EQ, "x"),
        Condition("cpus", Op.EQ, "2"),
        Condition("cpus", Op.EQ, True),
        Condition("cpus", Op.EQ, 1 << 63),
        Condition("cpus", Op.EQ, (1,)),
        Condition("cpus", Op.EQ, None),
        Condition("cpus", Op.IN, 1),
        Condition("cpus", Op.IN, tuple(range(1001))),
        Condition("cpus", Op.LIKE, "1%"),
        Condition("name", Op.LIKE, "%" * 201),
        Condition("name", Op.LIKE, 1),
        Condition("name", Op.EQ, "\ud800"),
        Condition("ha", Op.EQ, 1),
    ],
)
async def test_what_cannot_be_asked_is_refused(filled, condition):
    with pytest.raises(InvalidError):
        await filled.select(VM, where=[condition])
    with pytest.raises(InvalidError):
        await filled.count(VM, where=[condition])


async def test_limits_and_orders_out_of_bounds_are_refused(filled):
    for options in ({"limit": 0}, {"limit": 10_001}, {"order_by": "nothing"}, {"order_by": "body"}):
        with pytest.raises(InvalidError):
            await filled.select(VM, **options)
    assert len(await filled.select(VM, limit=3)) == 3


async def test_values_are_never_sql(filled):
    for text in ("' OR '1'='1", '"; DROP TABLE claim; --', "vm\x00", "ü"):
        assert await ids(filled, Condition("name", Op.EQ, text)) == []
    assert await filled.count(VM) == 24


async def test_a_query_sees_what_was_written_before_it(store):
    for number in range(30):
        await store.apply(puts=[vm(number)])
        assert await store.count(VM) == number + 1


async def test_kinds_do_not_mix(filled):
    await filled.apply(puts=[Task(id="t", name="t", workflow="w", subject="vm/1")])
    open_ones = [Condition("state", Op.EQ, TaskState.PENDING)]
    assert [task.id for task in await filled.select(Task, where=open_ones)] == ["t"]
    assert await filled.select(Host) == []


async def many(tmp_path, clock: Ticking) -> tuple[Machine, Store]:
    machine = Machine(tmp_path / "state.db")
    store = LooseStore(machine, SingleNodeEngine(machine), clock=clock, rng=random.Random(1))
    await store.apply(puts=[vm(number) for number in range(1000)])
    return machine, store


async def slow(store: Store) -> int:
    """Ask something that takes SQLite minutes."""
    table = store._machine.table("vm").name
    text = (
        f"SELECT count(*) FROM {table} a, {table} b, {table} c WHERE a.cpus + b.cpus + c.cpus = -1"  # noqa: S608 - the schema's
    )
    return await store._machine.query(
        lambda db: db.execute(text).fetchone()[0], store._time_over(5.0)
    )


async def test_a_query_is_broken_off_when_its_time_is_over(tmp_path):
    machine, store = await many(tmp_path, Ticking(step_s=1.0))
    with pytest.raises(InvalidError, match="too long"):
        await slow(store)
    assert await store.count(VM) == 1000, "the reader goes on"
    machine.close()


async def test_a_cancelled_query_ends_and_the_loop_goes_on_meanwhile(tmp_path):
    machine, store = await many(tmp_path, Ticking())
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(slow(store), name=f"slow-{n}") for n in range(2)]
        await asyncio.sleep(0.05)
        await store.apply(puts=[vm(1000)])
        assert store.need(VM, "id1000").revision == 2
        for task in waiting:
            task.cancel()
    assert await store.count(VM) == 1001, "both threads are free again"
    machine.close()


async def test_closing_breaks_queries_off(tmp_path):
    machine, store = await many(tmp_path, Ticking())

    async def close() -> None:
        await asyncio.sleep(0.05)
        machine.close()

    broken_off, _ = await asyncio.gather(slow(store), close(), return_exceptions=True)
    assert isinstance(broken_off, UnavailableError)
    with pytest.raises(UnavailableError):
        await store.count(VM)


async def test_queries_read_the_new_state_after_a_swap(tmp_path):
    machine, store = await many(tmp_path, Ticking())
    empty = Machine(":memory:").freeze()
    empty.write(tmp_path / "dump")
    assert await store.count(VM) == 1000
    machine.stage(tmp_path / "dump")()
    assert await store.count(VM) == 0
    machine.close()


def wheres(store: Store, *texts: str) -> tuple[Where, ...]:
    return tuple(parse_where(store.machine.table, "vm", text) for text in texts)


async def found(store: Store, *texts: str, **options) -> Found[int]:
    order = Order(resolve(store.machine.table, "vm", "name"))
    asked = Search(kind="vm", where=wheres(store, *texts), order=order, **options)
    return await search(store, asked, lambda matches, _: [match.revision for match in matches])


async def test_a_search_sees_what_was_written_before_it_and_says_as_of_which_index(store):
    await store.apply(puts=[Host(id="h0", name="one", cluster_id="c", address="a")])
    for number in range(10):
        await store.apply(puts=[vm(3 * number)])
        page = await found(store, "host.name=one", limit=20)
        assert (len(page.items), page.index, page.next) == (number + 1, number + 2, None)
        assert page.items[-1] == page.index
    assert await count_matches(store, "vm", wheres(store, "host=one")) == (10, 11)


async def test_a_search_is_broken_off_when_its_time_is_over_and_the_next_one_is_answered(tmp_path):
    clock = Ticking(step_s=0.0)
    machine, store = await many(tmp_path, clock)
    for first in range(1000, 5000, 1000):
        await store.apply(puts=[vm(number) for number in range(first, first + 1000)])
    heavy = [f"name!=x{number}" for number in range(20)]
    clock.step_s = 100.0
    with pytest.raises(InvalidError, match="took too long"):
        await count_matches(store, "vm", wheres(store, *heavy))
    clock.step_s = 0.0
    assert (await count_matches(store, "vm", wheres(store, *heavy)))[0] == 5000
    await store.apply(puts=[vm(5000)])
    assert (await count_matches(store, "vm", ())) == (5001, 6), "the reader sees what is new"
    machine.close()
