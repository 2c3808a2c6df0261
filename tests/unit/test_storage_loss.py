"""A data storage that fails under guests: they wait, go on, or start where it can be reached, and none is started on it."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from msgspec.structs import replace

from core.errors import PermanentError, TemporaryError
from core.model import DataStorage, Event, Host, VMPhase
from nodeagent.compute.hypervisor import DomainStatus
from tests.one_member import HOST_ID, OTHER_ID, OneMember, until
from tests.unit.test_vm_power import Bench, bench_test


async def guest_on_shared_storage(bench: Bench, **changes):
    """Return a VM that runs, and the id of its storage."""
    vm = await bench.member.add_vm(**changes)
    await until(bench.phase_is(vm.id, VMPhase.RUNNING))
    (shared,) = [s for s in bench.member.store.all(DataStorage) if s.name == "shared"]
    return vm, shared.id


async def lose(bench: Bench, vm_id: str, storage_id: str) -> None:
    bench.checks.failing.add(storage_id)
    bench.hypervisor.fail_io(vm_id)
    await until(bench.phase_is(vm_id, VMPhase.PAUSED))


def codes(member: OneMember) -> list[str]:
    return [event.code for event in member.store.since(Event, 0)]


@bench_test
async def test_a_guest_goes_on_when_its_storage_is_back(bench):
    async with bench.with_controller():
        vm, storage_id = await guest_on_shared_storage(bench)
        await lose(bench, vm.id, storage_id)
        assert bench.member.vm(vm.id).blocked_reason == "its storage fails"
        await asyncio.sleep(120)  # no other host has it: nothing is done
        assert await bench.status(vm.id) is DomainStatus.PAUSED
        bench.checks.failing.clear()
        await until(bench.phase_is(vm.id, VMPhase.RUNNING))
        assert await bench.status(vm.id) is DomainStatus.RUNNING
    assert (bench.member.vm(vm.id).generation, bench.member.vm(vm.id).blocked_reason) == (1, "")


@bench_test
async def test_a_guest_that_fails_again_and_again_is_let_go_on_with_growing_pauses(bench):
    tries: list[float] = []
    async with bench.with_controller():
        vm, _ = await guest_on_shared_storage(bench)
        bench.hypervisor.fail_io(vm.id)
        resume = bench.hypervisor.resume

        async def resume_and_fail(vm_id: str) -> None:
            tries.append(bench.member.clock.monotonic_s())
            await resume(vm_id)
            bench.hypervisor.fail_io(vm_id)

        bench.hypervisor.resume = resume_and_fail
        await asyncio.sleep(400)
    pauses_s = [b - a for a, b in itertools.pairwise(tries)]
    assert len(tries) < 12
    assert pauses_s[-1] > 60


@bench_test
async def test_a_full_storage_is_waited_for_and_no_reason_to_leave(bench):
    await bench.member.add_host(OTHER_ID, "h2", "192.0.2.2")
    bench.others = [OTHER_ID]
    async with bench.with_controller():
        vm, storage_id = await guest_on_shared_storage(bench)
        bench.checks.full.add(storage_id)
        bench.hypervisor.fail_io(vm.id)
        await asyncio.sleep(120)
        assert await bench.status(vm.id) is DomainStatus.PAUSED
        assert bench.member.vm(vm.id).host_id == HOST_ID
        assert bench.told.count("resume") == 1, "nothing to go on with"


@bench_test
async def test_a_guest_goes_to_a_host_that_has_the_storage_after_25_seconds(bench):
    await bench.member.add_host(OTHER_ID, "h2", "192.0.2.2")
    bench.others = [OTHER_ID]
    async with bench.with_controller():
        vm, storage_id = await guest_on_shared_storage(bench)
        await lose(bench, vm.id, storage_id)
        lost_s = bench.member.clock.monotonic_s()
        bench.told.clear()
        await until(lambda: bench.member.vm(vm.id).host_id == OTHER_ID)
        took_s = bench.member.clock.monotonic_s() - lost_s
    assert 25 <= took_s <= 33
    moved = bench.member.vm(vm.id)
    assert (moved.generation, moved.boot_id, moved.phase) == (2, "", VMPhase.STARTING)
    assert bench.told.index("destroy") < bench.told.index("commit 2"), "first gone, then given"
    assert bench.guard.grants == {}
    told = [event for event in bench.member.store.since(Event, 0) if event.code == "vm-moved-on"]
    assert "since h1 has been without its data storage shared for 25 s" in told[0].message


@bench_test
async def test_that_another_host_has_the_storage_again_a_little_sooner_is_no_reason_to_leave(bench):
    await bench.member.add_host(OTHER_ID, "h2", "192.0.2.2")
    bench.others = [OTHER_ID]
    async with bench.with_controller():
        vm, storage_id = await guest_on_shared_storage(bench)
        store = bench.member.store
        other = store.need(Host, OTHER_ID)
        await store.apply(puts=(replace(other, unreachable_storage_ids=(storage_id,)),))
        await lose(bench, vm.id, storage_id)
        await asyncio.sleep(120)
        other = store.need(Host, OTHER_ID)
        await store.apply(puts=(replace(other, unreachable_storage_ids=()),))
        await asyncio.sleep(15)
        bench.checks.failing.clear()
        await until(bench.phase_is(vm.id, VMPhase.RUNNING))
    assert (bench.member.vm(vm.id).host_id, bench.member.vm(vm.id).generation) == (HOST_ID, 1)


@bench_test
async def test_a_guest_that_cannot_be_taken_down_stays_and_is_told_once(bench):
    await bench.member.add_host(OTHER_ID, "h2", "192.0.2.2")
    bench.others = [OTHER_ID]
    async with bench.with_controller():
        vm, storage_id = await guest_on_shared_storage(bench)
        bench.hypervisor.fail["destroy"] = PermanentError("the process can't be killed")
        await lose(bench, vm.id, storage_id)
        await asyncio.sleep(120)
        after = bench.member.vm(vm.id)
        assert (after.host_id, after.generation) == (HOST_ID, 1)
        assert "it can't go elsewhere: the process can't be killed" in after.blocked_reason
        assert codes(bench.member).count("vm-stuck") == 1
        bench.checks.failing.clear()
        await until(bench.phase_is(vm.id, VMPhase.RUNNING))


@bench_test
async def test_a_guest_without_ha_waits_for_its_storage(bench):
    await bench.member.add_host(OTHER_ID, "h2", "192.0.2.2")
    bench.others = [OTHER_ID]
    async with bench.with_controller():
        vm, storage_id = await guest_on_shared_storage(bench, ha=False)
        await lose(bench, vm.id, storage_id)
        await asyncio.sleep(120)
        assert bench.member.vm(vm.id).host_id == HOST_ID
        assert await bench.status(vm.id) is DomainStatus.PAUSED


@bench_test
async def test_a_guest_that_runs_is_left_alone_whatever_the_check_says(bench):
    await bench.member.add_host(OTHER_ID, "h2", "192.0.2.2")
    bench.others = [OTHER_ID]
    async with bench.with_controller():
        vm, storage_id = await guest_on_shared_storage(bench)
        bench.checks.failing.add(storage_id)
        await asyncio.sleep(120)
        assert await bench.status(vm.id) is DomainStatus.RUNNING
        assert bench.member.vm(vm.id).host_id == HOST_ID


@bench_test
async def test_nothing_is_started_on_a_storage_that_does_not_answer_but_on_a_full_one(bench):
    vm = await bench.member.add_vm()
    (shared,) = [s for s in bench.member.store.all(DataStorage) if s.name == "shared"]
    async with bench.without_controller():
        bench.checks.failing.add(shared.id)
        with pytest.raises(TemporaryError, match="data storage shared can't be used on host h1"):
            await bench.power.start(vm.id)
        assert bench.told == []
        bench.checks.failing.clear()
        bench.checks.full.add(shared.id)
        await bench.power.start(vm.id)
        assert await bench.status(vm.id) is DomainStatus.RUNNING


@bench_test
async def test_the_host_says_which_storages_it_lost_and_has_again(bench):
    await bench.member.add_vm()
    (shared,) = [s for s in bench.member.store.all(DataStorage) if s.name == "shared"]
    store = bench.member.store

    def told() -> tuple[str, ...]:
        return store.need(Host, HOST_ID).unreachable_storage_ids

    bench.checks.failing.add(shared.id)
    await bench.watch.look()
    assert told() == (), "one failure is none"
    bench.checks.failing.clear()
    await bench.watch.look()
    bench.checks.failing.add(shared.id)
    await bench.watch.look()
    assert told() == (), "they were not in a row"
    await bench.watch.look()
    assert told() == (shared.id,)
    bench.checks.failing.clear()
    await bench.watch.look()
    assert told() == ()
