"""The hypervisor of simulations: migration between two of them, and what tests may do to one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from core.errors import ConflictError, PermanentError, PlatformError, TemporaryError
from nodeagent.compute.domain_spec import Accelerator, DiskSpec, DomainSpec
from nodeagent.compute.hypervisor import DomainStatus, EventKind, MigrationOrder
from nodeagent.compute.memory_hypervisor import InMemoryHypervisor

VM = "6f9d2f5e-1111-4222-8333-444455556666"
SPEC = DomainSpec(
    vm_id=VM,
    name="web1",
    generation=3,
    host_name="host-a",
    cpus=1,
    memory_mib=64,
    disks=(DiskSpec(path="/vda.qcow2", target="vda"),),
    accelerator=Accelerator.TCG,
)
ORDER = MigrationOrder(target_uri="to-b", migrate_uri="", timeout_s=60.0)


@asynccontextmanager
async def two_hosts(
    migration_s: float = 0.0,
) -> AsyncIterator[tuple[InMemoryHypervisor, InMemoryHypervisor]]:
    target = InMemoryHypervisor(host_name="b")
    source = InMemoryHypervisor(host_name="a", targets={"to-b": target}, migration_s=migration_s)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.run(), name="hypervisor") for one in (source, target)]
        await source.wait_connected()
        await target.wait_connected()
        await source.define_and_start(SPEC, paused=False)
        yield source, target
        for task in tasks:
            task.cancel()


async def outcome(source: InMemoryHypervisor, order: MigrationOrder) -> PlatformError | None:
    try:
        await source.migrate(VM, order)
    except PlatformError as error:
        return error
    return None


async def test_a_guest_is_on_one_host_after_it_moved() -> None:
    async with two_hosts() as (source, target):
        await source.migrate(VM, ORDER)
        assert await source.get(VM) is None
        state = await target.get(VM)
        assert state is not None and state.status is DomainStatus.RUNNING
        assert not state.migrating_in


async def test_an_aborted_move_leaves_the_guest_at_the_source_only() -> None:
    async with two_hosts(migration_s=60.0) as (source, target), asyncio.TaskGroup() as group:
        moving = group.create_task(outcome(source, ORDER), name="migration")
        while await source.migration_progress(VM) is None:
            await asyncio.sleep(0)
        coming, leaving = await target.get(VM), await source.get(VM)
        assert coming is not None and coming.migrating_in
        assert leaving is not None and leaving.migrating_out
        await source.abort_migration(VM)
        assert isinstance(await moving, ConflictError)
        assert await target.get(VM) is None
        state = await source.get(VM)
        assert state is not None and state.status is DomainStatus.RUNNING


async def test_a_move_that_takes_too_long_is_given_up() -> None:
    order = MigrationOrder(target_uri="to-b", migrate_uri="", timeout_s=0.01)
    async with two_hosts(migration_s=60.0) as (source, target):
        assert isinstance(await outcome(source, order), TemporaryError)
        assert await target.get(VM) is None


async def test_a_target_that_is_away_or_unknown_takes_nothing() -> None:
    unknown = MigrationOrder(target_uri="to-c", migrate_uri="", timeout_s=1.0)
    async with two_hosts() as (source, target):
        target.set_away(True)
        assert isinstance(await outcome(source, ORDER), TemporaryError)
        assert isinstance(await outcome(source, unknown), PermanentError)
        assert await source.get(VM) is not None


async def test_a_guest_that_ends_by_itself_is_told() -> None:
    async with two_hosts() as (source, _), source.events() as events:
        assert (await anext(events)).kind is EventKind.RESYNC
        source.lose_guest(VM, EventKind.FAILED)
        assert (await anext(events)).kind is EventKind.FAILED
        assert await source.list_domains() == ()


async def test_calls_fail_while_it_is_away_and_guests_go_on() -> None:
    async with two_hosts() as (source, _):
        source.set_away(True)
        assert not source.is_healthy
        with pytest.raises(TemporaryError):
            await source.list_domains()
        source.set_away(False)
        assert len(await source.list_domains()) == 1
