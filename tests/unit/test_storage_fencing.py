"""Having storages refuse a lost host: what frees its VMs, what doesn't, and how it gets back."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from core.clock import new_id
from core.errors import TemporaryError
from core.model import VM, DataStorage, Disk, Host, HostState, Lease
from nodeagent.services.ha_controller import HaController
from nodeagent.services.storage_fencing import StorageFencing
from storage.fencing import fencing_of
from storage.memory_driver import MemoryDriver
from tests.one_member import OTHER_ID, THIRD_ID, LoopClock, founded, in_virtual_time, running, until
from tests.unit.test_fencing import RUNNING, Site


class StorageSite(Site):
    """No boards; the shared storages named in `drivers` can refuse a host."""

    async def begin(self) -> None:
        self.drivers: dict[str, MemoryDriver] = {}
        self.fenced = await self.member.add_shared_storage("ceph")
        self.drivers[self.fenced.id] = MemoryDriver(self.fenced.id)
        self.vm = await self.member.add_vm(host_id=OTHER_ID, **RUNNING)
        await self.put_disks(self.vm, self.fenced)

    async def put_disks(self, vm: VM, *storages: DataStorage) -> None:
        """Give a VM one disk on each of these storages, and no other."""
        first = next(d for d in self.store.all(Disk) if d.vm_id == vm.id)
        await self.store.apply(puts=(replace(first, data_storage_id=storages[0].id),))
        for number, storage in enumerate(storages[1:], 1):
            more = replace(
                first,
                id=new_id(self.member.rng),
                name=f"{vm.name}.{number}",
                index=number,
                revision=0,
                data_storage_id=storage.id,
            )
            await self.store.apply(puts=(more,))

    def fencing(self, storage: DataStorage):
        driver = self.drivers.get(storage.id)
        return fencing_of(driver) if driver is not None else None

    def running_all(self):
        return running(
            HaController(
                self.member.node, self.judge, self.events, lambda: frozenset(self.drivers)
            ).run,
            StorageFencing(self.member.node, self.fencing, self.events).run,
            self.leases.run,
            self.keep_renewing,
        )

    def may_write(self, boot: str) -> bool:
        return self.drivers[self.fenced.id].may_write(OTHER_ID, boot)

    def owner(self) -> str:
        return self.member.vm(self.vm.id).host_id

    async def lose(self) -> float:
        """The host falls silent; return when."""
        await asyncio.sleep(6)
        self.alive.discard(OTHER_ID)
        return self.member.clock.monotonic_s()


def storage_test(test):
    def wrapper() -> None:
        async def main() -> None:
            site = StorageSite(await founded(clock=LoopClock()))
            await site.member.add_host(OTHER_ID, "h2", "192.0.2.2")
            await site.member.add_host(THIRD_ID, "h3", "192.0.2.3")
            await site.begin()
            async with site.running_all():
                await test(site)

        in_virtual_time(main)

    wrapper.__name__ = test.__name__
    return wrapper


@storage_test
async def test_its_vm_moves_long_before_the_safe_time_and_only_when_it_is_refused(site):
    began_s = await site.lose()
    await until(lambda: site.owner() != OTHER_ID, 60)
    assert 4.5 <= site.member.clock.monotonic_s() - began_s <= 9
    assert not site.may_write("boot")
    host = site.host(OTHER_ID)
    assert host.state is HostState.FENCING
    assert host.fenced_storage_ids == (site.fenced.id,)
    assert host.storage_lease_revision == site.store.need(Lease, OTHER_ID).revision
    told = [c for c in site.codes() if c in ("host-fencing", "host-storage-fenced", "vm-recovered")]
    assert told == ["host-fencing", "host-storage-fenced", "vm-recovered"]


@storage_test
async def test_a_vm_with_a_disk_elsewhere_waits_for_the_safe_time(site):
    other = await site.member.add_shared_storage("nfs")
    lone = await site.member.add_vm("lone", host_id=OTHER_ID, **RUNNING)
    await site.put_disks(lone, site.fenced)
    await site.put_disks(site.vm, site.fenced, other)
    began_s = await site.lose()
    await until(lambda: site.member.vm(lone.id).host_id != OTHER_ID, 60)
    assert site.owner() == OTHER_ID
    await until(lambda: site.owner() != OTHER_ID, 60)
    assert site.member.clock.monotonic_s() - began_s >= 18.5


@storage_test
async def test_a_storage_that_fails_leaves_it_to_time_is_told_once_and_tried_again(site):
    site.drivers[site.fenced.id].mounted = False
    began_s = await site.lose()
    await until(lambda: site.owner() != OTHER_ID, 60)
    assert site.member.clock.monotonic_s() - began_s >= 18.5
    assert site.host(OTHER_ID).fenced_storage_ids == ()
    assert site.codes().count("host-storage-fencing-failed") == 1
    site.drivers[site.fenced.id].mounted = True
    await until(lambda: not site.may_write("boot"), 20)


@storage_test
async def test_a_storage_that_hangs_holds_up_only_what_needs_it(site):
    other = await site.member.add_shared_storage("slow")
    site.drivers[other.id] = slow = MemoryDriver(other.id)

    async def hangs(host_id: str, boot_id: str) -> None:
        await asyncio.Event().wait()

    slow.fence = hangs
    both = await site.member.add_vm("both", host_id=OTHER_ID, **RUNNING)
    await site.put_disks(both, site.fenced, other)
    began_s = await site.lose()
    await until(lambda: site.owner() != OTHER_ID, 60)
    assert site.member.clock.monotonic_s() - began_s <= 9
    assert site.member.vm(both.id).host_id == OTHER_ID


@storage_test
async def test_a_storage_that_refused_and_did_not_say_so_readmits_the_next_boot_all_the_same(site):
    driver = site.drivers[site.fenced.id]
    fence = driver.fence

    async def unsure(host_id: str, boot_id: str) -> None:
        await fence(host_id, boot_id)
        raise TemporaryError("no answer")

    driver.fence = unsure
    await site.lose()
    await until(lambda: not site.may_write("boot"), 60)
    assert site.owner() == OTHER_ID
    site.boots[OTHER_ID] = "boot-2"
    asked = []
    readmit = driver.readmit

    async def noted(host_id: str, boot_id: str) -> None:
        asked.append((host_id, boot_id))
        await readmit(host_id, boot_id)

    driver.readmit = noted
    site.alive.add(OTHER_ID)
    await until(lambda: site.host(OTHER_ID).refusing_storage_ids == (), 30)
    assert set(asked) == {(OTHER_ID, "boot-2")}
    host = site.host(OTHER_ID)
    assert (host.state, host.fenced_boot_id) == (HostState.MEMBER, "")


@storage_test
async def test_a_host_that_is_back_in_the_same_boot_is_not_readmitted(site):
    await site.lose()
    await until(lambda: site.owner() != OTHER_ID, 60)
    site.alive.add(OTHER_ID)
    await asyncio.sleep(5)
    assert site.host(OTHER_ID).state is HostState.FENCING, "it has guests"
    site.guests = 0
    await until(lambda: site.host(OTHER_ID).state is HostState.MEMBER, 20)
    await asyncio.sleep(20)
    host = site.host(OTHER_ID)
    assert host.refusing_storage_ids == (site.fenced.id,)
    assert (host.fenced_storage_ids, host.storage_lease_revision) == ((), 0)
    assert site.codes().count("host-needs-boot") == 1
    site.boots[OTHER_ID] = "boot-2"
    site.alive.discard(OTHER_ID)
    await asyncio.sleep(3.5)
    site.alive.add(OTHER_ID)
    await until(lambda: site.host(OTHER_ID).refusing_storage_ids == (), 30)


@storage_test
async def test_a_storages_word_that_comes_after_the_host_is_back_is_not_recorded(site):
    driver = site.drivers[site.fenced.id]
    fence, go_on, asked = driver.fence, asyncio.Event(), asyncio.Event()

    async def late(host_id: str, boot_id: str) -> None:
        asked.set()
        await go_on.wait()
        await fence(host_id, boot_id)

    driver.fence = late
    await site.lose()
    await asked.wait()
    site.boots[OTHER_ID] = "boot-2"
    site.alive.add(OTHER_ID)
    await until(lambda: site.host(OTHER_ID).state is HostState.MEMBER, 30)
    go_on.set()
    await until(lambda: site.host(OTHER_ID).refusing_storage_ids == (), 30)
    host: Host = site.host(OTHER_ID)
    assert (host.fenced_storage_ids, host.storage_lease_revision) == ((), 0)
    assert site.owner() == OTHER_ID
    assert site.may_write("boot-2")
