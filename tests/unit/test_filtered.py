"""A host's part of the state: what belongs to it, and that following it gives the same as reading it anew."""

import asyncio
import random
from collections.abc import Iterable

import pytest
from msgspec.structs import replace

from core.clock import SystemClock
from core.model import (
    VM,
    DataCenter,
    Disk,
    Event,
    Host,
    Lease,
    Nic,
    PortGroup,
    Resource,
    Task,
    key_of,
)
from raftstate.consensus.single import SingleNodeEngine
from raftstate.filtered import Concerns, Delta, HostFeed
from raftstate.state.machine import Machine
from tests.loose_store import LooseStore

HOSTS = ("h1", "h2", "h3")


def vm(name: str, host_id: str, **fields) -> VM:
    return VM(id=name, name=name, cluster_id="c", host_id=host_id, cpus=1, memory_mib=64, **fields)


def nic(name: str, vm_id: str) -> Nic:
    return Nic(id=name, name=name, vm_id=vm_id, port_group_id="p", mac=name, ip=name)


def disk(name: str, vm_id: str, host_id: str = "") -> Disk:
    return Disk(id=name, name=name, vm_id=vm_id, data_storage_id="s", size_bytes=1, host_id=host_id)


class Bench:
    """A store, and thin members that follow their part of it."""

    def __init__(self) -> None:
        self.machine = Machine(":memory:")
        engine = SingleNodeEngine(self.machine)
        self.store = LooseStore(self.machine, engine, clock=SystemClock(), rng=random.Random(1))
        self.concerns = Concerns(self.machine)

    async def put(self, *resources: Resource) -> None:
        await self.store.apply(puts=[self.latest(resource) for resource in resources])

    async def delete(self, *resources: Resource) -> None:
        await self.store.apply(deletes=[self.latest(resource) for resource in resources])

    def latest(self, resource: Resource) -> Resource:
        stored = self.store.get(type(resource), resource.id)
        return replace(resource, revision=stored.revision if stored else 0)

    def feed(self, host_id: str) -> HostFeed:
        return HostFeed(self.machine, self.store.hub, self.concerns, host_id)


class Member:
    """What a thin member holds: it does as the deltas say, nothing else."""

    def __init__(self, bench: Bench, host_id: str) -> None:
        self.bench, self.host_id = bench, host_id
        self.held: dict[str, tuple[bytes, int]] = {}
        self.index = -1
        self.feed = bench.feed(host_id)

    def reconnect(self) -> None:
        """Go on at another parent, which knows nothing of what this member holds."""
        self.feed.close()
        self.feed = self.bench.feed(self.host_id)

    def follow(self) -> Delta:
        delta = self.feed.since(self.index)
        puts = {f"{item.kind}/{item.id}": (item.body, item.revision) for item in delta.puts}
        if delta.whole:
            self.held = puts
        else:
            assert not puts.keys() & delta.gone
            self.held = {k: v for k, v in self.held.items() if k not in delta.gone} | puts
        self.index = delta.index
        return delta


@pytest.fixture
def bench() -> Bench:
    return Bench()


def keys(resources: Iterable[Resource]) -> set[str]:
    return {key_of(resource) for resource in resources}


def put_keys(delta: Delta) -> set[str]:
    return {f"{item.kind}/{item.id}" for item in delta.puts}


async def test_at_first_a_host_gets_all_that_concerns_it_and_nothing_else(bench):
    mine = (
        Host(id="h1", name="h1", cluster_id="c", address="1"),
        Lease(id="h1", name="h1", boot_id="b", seq=1),
        vm("v1", "h1"),
        nic("n1", "v1"),
        disk("d1", "v1"),
        vm("coming", "h2", migrating_to_host_id="h1"),
        nic("n2", "coming"),
        Task(id="t1", name="t1", workflow="w", subject="x", runner_host_id="h1"),
        Event(
            id="e1", name="e1", code="c", subject="s", subject_name="s", message="m", host_id="h1"
        ),
    )
    everyone = (
        DataCenter(id="dc", name="dc"),
        PortGroup(
            id="p",
            name="p",
            switch_id="s",
            vni=1,
            cidr="",
            service_ip="",
            pool_first="",
            pool_last="",
        ),
    )
    others = (
        Host(id="h2", name="h2", cluster_id="c", address="2"),
        vm("v2", "h2"),
        nic("n3", "v2"),
        nic("n4", "no such vm"),
        Task(id="h1", name="h1", workflow="w", subject="y"),
    )
    await bench.put(*mine, *everyone, *others)
    delta = bench.feed("h1").since(-1)
    assert (delta.whole, delta.index, delta.gone) == (True, 1, frozenset())
    assert put_keys(delta) == keys((*mine, *everyone))
    assert {item.revision for item in delta.puts} == {1}


async def test_a_vm_that_moves_is_gone_for_one_host_and_new_for_the_other_with_all_it_has(bench):
    await bench.put(vm("v", "h1"), nic("n", "v"), disk("d", "v"), vm("other", "h1"))
    members = [Member(bench, host_id) for host_id in HOSTS]
    for member in members:
        member.follow()
    await bench.put(vm("v", "h2"))
    first, second, third = (member.follow() for member in members)
    assert (put_keys(first), first.gone) == (set(), {"vm/v", "nic/n", "disk/d"})
    assert (put_keys(second), second.gone) == ({"vm/v", "nic/n", "disk/d"}, set())
    assert (third.puts, third.gone) == ((), set())
    assert members[0].held.keys() == {"vm/other"}


async def test_after_a_resume_elsewhere_the_move_is_told_too(bench):
    await bench.put(vm("v", "h1"), nic("n", "v"), disk("d", "v"))
    members = [Member(bench, host_id) for host_id in HOSTS[:2]]
    for member in members:
        member.follow()
        member.reconnect()
    await bench.put(vm("v", "h2"))
    first, second = (member.follow() for member in members)
    assert not first.whole
    assert first.gone >= {"vm/v", "nic/n", "disk/d"}
    assert put_keys(second) == {"vm/v", "nic/n", "disk/d"}


async def test_a_local_disk_stays_with_its_host_when_its_vm_moves(bench):
    await bench.put(vm("v", "h1"), disk("d", "v", host_id="h1"))
    member = Member(bench, "h1")
    member.follow()
    await bench.put(vm("v", "h2"))
    member.follow()
    assert member.held.keys() == {"disk/d"}


async def test_what_is_deleted_is_gone_and_what_does_not_concern_the_host_is_not_told(bench):
    await bench.put(vm("v", "h1"), nic("n", "v"), vm("w", "h2"))
    member = Member(bench, "h1")
    member.follow()
    await bench.delete(vm("v", "h1"), nic("n", "v"), vm("w", "h2"))
    delta = member.follow()
    assert (delta.puts, delta.gone) == ((), {"vm/v", "nic/n"})


async def test_a_change_of_the_vm_alone_tells_the_vm_alone(bench):
    await bench.put(vm("v", "h1"), nic("n", "v"))
    member = Member(bench, "h1")
    member.follow()
    await bench.put(vm("v", "h1", description="x"))
    assert put_keys(member.follow()) == {"vm/v"}


async def test_a_new_state_is_told_whole(bench, tmp_path):
    other = Bench()
    await other.put(vm("w", "h1"))
    frozen = other.machine.freeze()
    frozen.write(tmp_path / "dump")
    await bench.put(vm("v", "h1"))
    member = Member(bench, "h1")
    member.follow()
    bench.machine.stage(tmp_path / "dump")()
    member.index = 0
    assert member.follow().whole
    assert member.held.keys() == {"vm/w"}


async def test_waiting_ends_with_a_change_that_concerns_the_host_and_not_with_another(bench):
    feed = bench.feed("h1")
    first = await feed.next(-1)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(feed.next(first.index), name="next")
        await bench.put(vm("v", "h2"))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        await bench.put(vm("w", "h1"))
        delta = await waiting
    assert put_keys(delta) == {"vm/w"}
    assert delta.index == bench.store.index


@pytest.mark.parametrize("seed", range(6))
async def test_following_gives_the_same_as_reading_anew(seed):
    rng, bench = random.Random(seed), Bench()
    members = [Member(bench, host_id) for host_id in HOSTS]
    for _ in range(120):
        host, owner = rng.choice(HOSTS), f"v{rng.randrange(3)}"
        moving = rng.choice(["", *HOSTS])
        choice = rng.choice(
            [
                vm(owner, host, migrating_to_host_id=moving),
                nic(f"n{rng.randrange(4)}", owner),
                disk(f"d{rng.randrange(4)}", owner, rng.choice(["", *HOSTS])),
                DataCenter(id="dc", name="dc"),
                Host(id=host, name=host, cluster_id="c", address=host),
            ]
        )
        stored = bench.store.get(type(choice), choice.id)
        if stored is not None and rng.random() < 0.3:
            await bench.delete(stored)
        else:
            await bench.put(choice)
        for member in members:
            if rng.random() < 0.4:
                member.follow()
            if rng.random() < 0.1:
                member.reconnect()
    for member in members:
        member.follow()
        fresh = Member(bench, member.host_id)
        assert fresh.follow().whole
        assert member.held == fresh.held
