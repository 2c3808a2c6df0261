"""One contract for every hypervisor: in memory, that of a plug-in, libvirt's test driver as far as it goes, and real QEMU."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from core.errors import ConflictError, InvalidError, NotFoundError
from nodeagent.compute.domain_spec import Accelerator, DiskCache, DiskSpec, DomainSpec
from nodeagent.compute.hypervisor import DomainEvent, DomainStatus, EventKind, Hypervisor
from nodeagent.compute.libvirt_hypervisor import LibvirtHypervisor
from nodeagent.compute.memory_hypervisor import InMemoryHypervisor
from nodeagent.plugins.drivers import Choice
from nodeagent.plugins.plugins import Plugins
from tests.integration.compute_hosts import ComputeHost

EXAMPLE = Path(__file__).parents[1] / "example_plugin"
VM = "6f9d2f5e-1111-4222-8333-444455556666"
OTHER_VM = "0b2e8c1a-1111-4222-8333-444455556666"


@dataclass(frozen=True, slots=True)
class Subject:
    """A hypervisor and what its kind can do."""

    hypervisor: Hypervisor
    spec: DomainSpec
    can_start_paused: bool = True


@asynccontextmanager
async def running(hypervisor: Hypervisor) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(hypervisor.run(), name="hypervisor")
        async with asyncio.timeout(10):
            await hypervisor.wait_connected()
        yield
        task.cancel()


@pytest.fixture(scope="module")
def real_host() -> Iterator[tuple[ComputeHost, Path]]:
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    base = Path(tempfile.mkdtemp(prefix="kvt-cmp-", dir="/tmp"))
    host = None
    try:
        disk = base / "vda.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "8M"], check=True)
        host = ComputeHost(base, "contract")
        yield host, disk
    finally:
        if host is not None:
            host.stop()
        shutil.rmtree(base, ignore_errors=True)


def make_spec(disk: str = "/vda.qcow2") -> DomainSpec:
    return DomainSpec(
        vm_id=VM,
        name="web1",
        generation=3,
        host_name="host-a",
        cpus=1,
        memory_mib=32,
        disks=(DiskSpec(path=disk, target="vda", cache=DiskCache.WRITEBACK),),
        accelerator=Accelerator.TCG,
    )


@pytest.fixture(
    params=[
        "memory",
        "plug-in",
        "libvirt-test",
        pytest.param("qemu", marks=pytest.mark.integration),
    ]
)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    match request.param:
        case "memory":
            made = Subject(InMemoryHypervisor(), make_spec())
        case "plug-in":
            request.getfixturevalue("monkeypatch").syspath_prepend(str(EXAMPLE))
            choice = Choice(hypervisor="pretended")
            drivers = Plugins().drivers.choose(choice, host_id="host-a", run_dir=Path("/nowhere"))
            assert not drivers.fault
            made = Subject(drivers.hypervisor, make_spec())
        case "libvirt-test":
            # Its default configuration has one domain, named "test", which is nobody of ours.
            made = Subject(
                LibvirtHypervisor("test:///default"),
                replace(make_spec(), disks=()),
                can_start_paused=False,
            )
        case _:
            host, disk = request.getfixturevalue("real_host")
            made = Subject(LibvirtHypervisor(host.uri), make_spec(str(disk)))
    async with running(made.hypervisor):
        yield made
        await made.hypervisor.destroy(VM)


async def test_a_domain_that_starts_paused_runs_only_after_resume(subject: Subject) -> None:
    if not subject.can_start_paused:
        pytest.skip("libvirt's test driver cannot start paused")
    hypervisor = subject.hypervisor
    started = await hypervisor.define_and_start(subject.spec, paused=True)
    assert started.status is DomainStatus.PAUSED
    assert await hypervisor.get(VM) == started
    await hypervisor.resume(VM)
    await hypervisor.resume(VM)
    now = await hypervisor.get(VM)
    assert now is not None and now.status is DomainStatus.RUNNING


async def test_a_running_domain_carries_its_generation(subject: Subject) -> None:
    await subject.hypervisor.define_and_start(subject.spec, paused=False)
    (state,) = await subject.hypervisor.list_domains()
    assert (state.vm_id, state.generation, state.status) == (VM, 3, DomainStatus.RUNNING)
    assert not state.migrating_in and not state.migrating_out


async def test_the_generation_of_a_running_domain_can_be_changed(subject: Subject) -> None:
    await subject.hypervisor.define_and_start(subject.spec, paused=False)
    await subject.hypervisor.set_generation(VM, 9)
    state = await subject.hypervisor.get(VM)
    assert state is not None and state.generation == 9


async def test_starting_again_with_the_same_generation_changes_nothing(subject: Subject) -> None:
    first = await subject.hypervisor.define_and_start(subject.spec, paused=False)
    assert await subject.hypervisor.define_and_start(subject.spec, paused=False) == first


async def test_starting_another_generation_of_a_running_vm_is_refused(subject: Subject) -> None:
    await subject.hypervisor.define_and_start(subject.spec, paused=False)
    with pytest.raises(ConflictError, match="generation 3"):
        await subject.hypervisor.define_and_start(replace(subject.spec, generation=4), paused=False)


async def test_destroy_leaves_nothing_and_may_be_repeated(subject: Subject) -> None:
    await subject.hypervisor.define_and_start(subject.spec, paused=False)
    await subject.hypervisor.destroy(VM)
    assert await subject.hypervisor.get(VM) is None
    assert await subject.hypervisor.list_domains() == ()
    await subject.hypervisor.destroy(VM)
    await subject.hypervisor.undefine(VM)


async def test_a_destroyed_vm_can_start_again_with_the_next_generation(subject: Subject) -> None:
    await subject.hypervisor.define_and_start(subject.spec, paused=False)
    await subject.hypervisor.destroy(VM)
    again = await subject.hypervisor.define_and_start(
        replace(subject.spec, generation=4), paused=False
    )
    assert again.generation == 4


async def test_suspend_pauses_and_says_why(subject: Subject) -> None:
    await subject.hypervisor.define_and_start(subject.spec, paused=False)
    await subject.hypervisor.suspend(VM)
    await subject.hypervisor.suspend(VM)
    state = await subject.hypervisor.get(VM)
    assert state is not None and (state.status, state.reason) == (DomainStatus.PAUSED, "user")


async def test_unknown_vms_are_not_found(subject: Subject) -> None:
    assert await subject.hypervisor.get(OTHER_VM) is None
    for change in ("resume", "suspend", "shutdown", "reboot", "reset"):
        with pytest.raises(NotFoundError):
            await getattr(subject.hypervisor, change)(OTHER_VM)
    with pytest.raises(NotFoundError):
        await subject.hypervisor.set_generation(OTHER_VM, 1)
    assert await subject.hypervisor.migration_progress(OTHER_VM) is None
    assert not await subject.hypervisor.abort_migration(OTHER_VM)


async def test_an_id_that_is_no_uuid_never_reaches_libvirt(subject: Subject) -> None:
    for bad in ("", "../x", VM.upper(), VM.replace("-", ""), "{" + VM + "}"):
        with pytest.raises(InvalidError):
            await subject.hypervisor.get(bad)
        with pytest.raises(InvalidError):
            await subject.hypervisor.destroy(bad)


async def test_readers_are_told_what_happens(subject: Subject) -> None:
    async with subject.hypervisor.events() as events, asyncio.timeout(10):
        assert (await anext(events)).kind is EventKind.RESYNC
        await subject.hypervisor.define_and_start(subject.spec, paused=False)
        await subject.hypervisor.suspend(VM)
        await subject.hypervisor.resume(VM)
        await subject.hypervisor.destroy(VM)
        seen = [event async for event in until_end(events)]
    kinds = [event.kind for event in seen]
    # libvirt tells of QEMU's first resume too, and before it tells of the start.
    assert kinds[kinds.index(EventKind.STARTED) :] == [
        EventKind.STARTED,
        EventKind.SUSPENDED,
        EventKind.RESUMED,
        EventKind.DESTROYED,
    ]
    assert {event.vm_id for event in seen} == {VM}


async def until_end(events: AsyncIterator[DomainEvent]) -> AsyncIterator[DomainEvent]:
    async for event in events:
        yield event
        if event.kind.is_end:
            return


async def test_the_host_is_described(subject: Subject) -> None:
    facts = await subject.hypervisor.host_facts()
    assert facts.cpus >= 1
    assert facts.memory_mib > 100
    assert facts.qemu_version.count(".") == 2
    assert subject.hypervisor.is_healthy
