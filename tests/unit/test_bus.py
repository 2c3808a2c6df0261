"""The bus: work reaches the owner of a resource, survives the owner's death once, and fails alone."""

import asyncio

import msgspec
import pytest

from core.bus import Bus, BusCall, Contract
from core.errors import ConflictError, NotFoundError, PlatformError, UnavailableError
from core.ring import Ring
from core.service_faults import ServiceFaults
from core.work_queue import Limit, QueueFullError, WorkQueues
from tests.one_member import LoopClock, in_virtual_time, until


class Paint(msgspec.Struct, frozen=True):
    colour: str


class Painted(msgspec.Struct, frozen=True):
    by: str


PAINT = Contract("paint", Paint, Painted, idempotent=True, attempt_s=5.0)
ONCE = Contract("paint-once", Paint, Painted, idempotent=False, attempt_s=5.0)
BREAK = Contract("break", Paint, Painted, idempotent=True, attempt_s=5.0)


class Town:
    """Agents a, b and c on one wire. `live` is who the directory believes in, `cut` who doesn't answer."""

    def __init__(self, *, limit: Limit | None = None) -> None:
        limit = limit or Limit(4)
        self.live = ["a", "b", "c"]
        self.homes: dict[str, str] = {}
        self.cut: set[str] = set()
        self.old: set[str] = set()
        self.done: list[tuple[str, str, str]] = []
        self.trouble: list[object] = []
        self.gate: asyncio.Event | None = None
        self.faults = {name: ServiceFaults() for name in "abc"}
        self.buses = {name: self._bus(name, limit) for name in "abc"}

    def _bus(self, name: str, limit: Limit) -> Bus:
        clock = LoopClock()
        queues = WorkQueues({"calls": limit, "odd": limit}, clock)
        bus = Bus(name, self, self, queues, self.faults[name], clock)

        async def paint(key: str, message: Paint) -> Painted:
            self.done.append((name, key, message.colour))
            if self.gate is not None:
                await self.gate.wait()
            return Painted(by=name)

        async def fails(key: str, message: Paint) -> Painted:
            del key, message
            raise self.trouble[0]

        bus.offer(PAINT, paint, kind="calls")
        bus.offer(ONCE, paint, kind="calls")
        bus.offer(BREAK, fails, kind="odd")
        return bus

    def owners(self, key: str, *, records_only: bool) -> list[str]:
        del records_only
        return [self.homes[key]] if key in self.homes else Ring(self.live).in_order(key)

    async def deliver(self, host_id: str, call: BusCall, *, timeout_s: float):
        if host_id in self.old:
            raise NotFoundError("an older version")
        if host_id in self.cut:
            await asyncio.sleep(timeout_s)
            raise UnavailableError(f"host {host_id} does not answer: no answer in time")
        return await self.buses[host_id].answer(call)

    def key_of(self, owner: str) -> str:
        """Return a key that the ring of all three gives to an agent."""
        return next(k for i in range(99) if Ring("abc").owner(k := f"image/{i}") == owner)


def town_test(test):
    def wrapper() -> None:
        in_virtual_time(lambda: test(Town()))

    wrapper.__name__ = test.__name__
    return wrapper


@town_test
async def test_every_agent_reaches_the_same_owner_without_naming_it(town):
    for owner in "abc":
        key = town.key_of(owner)
        for caller in town.buses.values():
            assert (await caller.call(PAINT, key, Paint("red"))).by == owner
    assert len(town.done) == 9


@town_test
async def test_what_lives_on_a_host_is_done_there(town):
    town.homes["vm/1"] = "c"
    assert (await town.buses["a"].call(PAINT, "vm/1", Paint("red"))).by == "c"


@town_test
async def test_when_the_owner_died_the_next_one_does_it(town):
    key = town.key_of("b")
    town.cut.add("b")
    expected = Ring("abc").in_order(key)[1]
    assert (await town.buses["a"].call(PAINT, key, Paint("red"), timeout_s=20)).by == expected


@town_test
async def test_what_must_not_be_done_twice_is_not_tried_elsewhere(town):
    town.cut.add("b")
    with pytest.raises(UnavailableError, match="host b does not answer"):
        await town.buses["a"].call(ONCE, town.key_of("b"), Paint("red"), timeout_s=60)
    assert town.done == []


@town_test
async def test_an_agent_that_knows_no_bus_is_passed_even_by_what_must_be_done_once(town):
    key = town.key_of("b")
    town.old.add("b")
    answer = await town.buses["a"].call(ONCE, key, Paint("red"))
    assert answer.by == Ring("abc").in_order(key)[1]
    assert len(town.done) == 1


@town_test
async def test_a_call_gives_up_in_time_and_says_why(town):
    town.homes["vm/1"] = "b"
    town.cut.add("b")
    began_s = asyncio.get_running_loop().time()
    with pytest.raises(UnavailableError, match=r"no host within 12 s: host b does not answer"):
        await town.buses["a"].call(PAINT, "vm/1", Paint("red"), timeout_s=12)
    assert asyncio.get_running_loop().time() - began_s < 12.1


@town_test
async def test_an_owner_that_is_back_in_time_does_it_after_all(town):
    town.homes["vm/1"] = "b"
    town.cut.add("b")
    async with asyncio.TaskGroup() as group:
        bus = town.buses["a"]
        call = group.create_task(bus.call(PAINT, "vm/1", Paint("red"), timeout_s=60), name="call")
        await asyncio.sleep(20)
        town.cut.clear()
    assert call.result().by == "b"


@town_test
async def test_nobody_alive_is_an_answer_too(town):
    town.live = []
    with pytest.raises(UnavailableError, match="no host can take it"):
        await town.buses["a"].call(PAINT, "image/1", Paint("red"), timeout_s=3)


@town_test
async def test_a_resource_that_moved_meanwhile_is_worked_on_at_its_new_home(town):
    town.homes["vm/1"] = "b"
    town.cut.add("b")
    async with asyncio.TaskGroup() as group:
        bus = town.buses["a"]
        call = group.create_task(bus.call(PAINT, "vm/1", Paint("red"), timeout_s=60), name="call")
        await asyncio.sleep(1)
        town.homes["vm/1"] = "c"
    assert call.result().by == "c"


@town_test
async def test_a_refusal_reaches_the_caller_with_its_code_and_is_no_fault(town):
    town.trouble = [ConflictError("it is red already", code="is-red")]
    for caller in town.buses.values():
        with pytest.raises(ConflictError, match="red already") as refused:
            await caller.call(BREAK, town.key_of("b"), Paint("red"))
        assert (refused.value.code, refused.value.http_status) == ("is-red", 409)
    assert town.faults["b"].all() == ()


@town_test
async def test_a_failing_service_is_seen_and_others_go_on(town):
    town.trouble = [ValueError("password is hunter2")]
    key = town.key_of("b")
    for _ in range(2):
        with pytest.raises(PlatformError, match="see its agent's log") as failed:
            await town.buses["a"].call(BREAK, key, Paint("red"))
        assert failed.value.code == "service-failed"
    (fault,) = town.faults["b"].all()
    assert (fault.service, fault.count) == ("break", 2)
    assert "ValueError" in fault.why and "hunter2" not in fault.why
    assert (await town.buses["a"].call(PAINT, key, Paint("red"))).by == "b"
    assert town.faults["a"].all() == ()


@town_test
async def test_a_service_that_hangs_is_given_up_and_holds_up_nobody(town):
    town.gate = asyncio.Event()
    key = town.key_of("a")
    with pytest.raises(UnavailableError, match="took too long") as failed:
        await town.buses["a"].call(PAINT, key, Paint("red"))
    assert failed.value.code == "too-slow"
    town.gate = None
    assert (await town.buses["a"].call(PAINT, key, Paint("red"))).by == "a"
    assert [fault.service for fault in town.faults["a"].all()] == ["paint"]


def test_a_full_queue_refuses_its_callers_only():
    async def main() -> None:
        town = Town(limit=Limit(1, waiting_max=1))
        town.gate = asyncio.Event()
        keys = [k for i in range(99) if Ring("abc").owner(k := f"image/{i}") == "b"][:3]
        async with asyncio.TaskGroup() as group:
            for key in keys[:2]:
                group.create_task(town.buses["a"].call(PAINT, key, Paint("red")), name=key)
            await until(lambda: town.done)
            with pytest.raises(UnavailableError, match="wait on this host already") as full:
                await town.buses["c"].call(PAINT, keys[2], Paint("red"))
            assert full.value.code == QueueFullError.code
            town.trouble = [ConflictError("reached")]
            with pytest.raises(ConflictError, match="reached"):
                await town.buses["c"].call(BREAK, keys[2], Paint("red"))
            town.gate.set()
        (fault,) = town.faults["b"].all()
        assert (fault.service, fault.count) == ("paint", 1)

    in_virtual_time(main)


@town_test
async def test_calls_on_one_resource_are_done_one_after_another(town):
    town.gate = asyncio.Event()
    key = town.key_of("b")
    async with asyncio.TaskGroup() as group:
        for name, bus in town.buses.items():
            group.create_task(bus.call(PAINT, key, Paint(name)), name=name)
        await asyncio.sleep(1)
        assert len(town.done) == 1
        town.gate.set()
    assert len(town.done) == 3


@town_test
async def test_a_call_that_is_no_such_message_is_refused(town):
    call = BusCall(service="paint", key="image/1", timeout_s=5, body=msgspec.Raw(b'{"colour":7}'))
    answer = await town.buses["a"].answer(call)
    assert (answer.code, answer.status) == ("invalid", 400)
    assert town.done == []
