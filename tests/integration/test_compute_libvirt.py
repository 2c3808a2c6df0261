"""Real QEMU under real libvirtds: what a hypervisor owes when libvirtd dies or hangs, and live migration.

The guest is a machine without an operating system: it sits in its firmware, which is enough to start, stop and move.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import ConflictError, PermanentError, PlatformError, TemporaryError
from nodeagent.compute.domain_spec import Accelerator, DiskCache, DiskSpec, DomainSpec, NicSpec
from nodeagent.compute.hypervisor import (
    DomainEvent,
    DomainStatus,
    EventKind,
    MigrationOrder,
    MigrationProgress,
)
from nodeagent.compute.libvirt_hypervisor import Deadlines, LibvirtHypervisor
from nodeagent.compute.tunnel import (
    QEMU_GROUP,
    MigrationTunnel,
    TunnelKind,
    prepare_target,
    serve_tunnel,
)
from tests.integration.compute_hosts import ComputeHost

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

VM = "6f9d2f5e-1111-4222-8333-444455556666"
TAP = "tap0123456789a"
DEADLINES = Deadlines(
    read_s=2.0, probe_interval_s=0.5, open_s=0.5, retry_s_min=0.1, retry_s_max=0.5
)


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="kvt-cmp-", dir="/tmp"))
    disk = path / "vda.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "8M"], check=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def started(base: Path, name: str, *, qemu_user: str = "root") -> Iterator[ComputeHost]:
    host = ComputeHost(base, name, qemu_user=qemu_user)
    try:
        yield host
    finally:
        host.stop()


@pytest.fixture(scope="module")
def host_a(base: Path) -> Iterator[ComputeHost]:
    yield from started(base, "a")


@pytest.fixture(scope="module")
def host_b(base: Path) -> Iterator[ComputeHost]:
    yield from started(base, "b")


@pytest.fixture
def spec(base: Path) -> DomainSpec:
    return DomainSpec(
        vm_id=VM,
        name="web1",
        generation=3,
        host_name="host-a",
        cpus=1,
        memory_mib=64,
        disks=(DiskSpec(path=str(base / "vda.qcow2"), target="vda", cache=DiskCache.WRITEBACK),),
        nics=(NicSpec(tap=TAP, mac="52:54:00:00:00:01", bridge="kbr7"),),
        accelerator=Accelerator.TCG,
    )


@asynccontextmanager
async def connected(*hosts: ComputeHost) -> AsyncIterator[list[LibvirtHypervisor]]:
    hypervisors = [LibvirtHypervisor(host.uri, DEADLINES) for host in hosts]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.run(), name="hypervisor") for one in hypervisors]
        try:
            async with asyncio.timeout(15):
                for one in hypervisors:
                    await one.wait_connected()
            yield hypervisors
        finally:
            for one in hypervisors:
                async with asyncio.timeout(15):
                    await until(lambda one=one: destroyed(one), "the guest is gone")
            for task in tasks:
                task.cancel()


async def destroyed(hypervisor: LibvirtHypervisor) -> bool:
    try:
        await hypervisor.destroy(VM)
    except TemporaryError:
        return False
    return True


async def until(
    ready: Callable[[], Awaitable[bool]], what: str, *, deadline_s: float = 15.0
) -> None:
    loop = asyncio.get_running_loop()
    end_s = loop.time() + deadline_s
    while not await ready():
        assert loop.time() < end_s, f"after {deadline_s:g} s still not: {what}"
        await asyncio.sleep(0.05)


async def next_of(events: AsyncIterator[DomainEvent], *kinds: EventKind) -> DomainEvent:
    async with asyncio.timeout(15):
        async for event in events:
            if event.kind in kinds:
                return event
    raise AssertionError("events ended")


async def test_the_guest_has_its_tap_in_the_bridge_while_it_runs(
    host_a: ComputeHost, spec: DomainSpec
) -> None:
    async with connected(host_a) as (hypervisor,):
        await hypervisor.define_and_start(spec, paused=True)
        link = host_a.run("ip", "link", "show", TAP)
        assert "master kbr7" in link and "mtu 1450" in link
        command_line = host_a.run("sh", "-c", "cat /proc/$(pidof qemu-system-x86_64)/cmdline")
        assert "type=3,manufacturer=Kvorum,asset=host-a" in command_line
        await hypervisor.destroy(VM)
        assert TAP not in host_a.run("ip", "link")
        assert host_a.qemu_pids() == ()


async def test_a_qemu_that_is_killed_is_told_as_a_failure(
    host_a: ComputeHost, spec: DomainSpec
) -> None:
    async with connected(host_a) as (hypervisor,), hypervisor.events() as events:
        await hypervisor.define_and_start(spec, paused=False)
        await next_of(events, EventKind.STARTED)
        host_a.run("kill", "-9", *host_a.qemu_pids())
        event = await next_of(events, EventKind.FAILED, EventKind.CRASHED)
        assert event.vm_id == VM
        assert await hypervisor.get(VM) is None


async def test_a_guest_lives_through_the_death_of_libvirtd_and_is_found_again(
    host_a: ComputeHost, spec: DomainSpec
) -> None:
    async with connected(host_a) as (hypervisor,), hypervisor.events() as events:
        await hypervisor.define_and_start(spec, paused=False)
        before = host_a.qemu_pids()
        await next_of(events, EventKind.STARTED)
        host_a.signal_libvirtd(signal.SIGKILL)
        await until(lambda: is_away(hypervisor), "the loss is noticed")
        host_a.start_libvirtd()
        await next_of(events, EventKind.RESYNC)
        (state,) = await hypervisor.list_domains()
        assert (state.vm_id, state.generation, state.status) == (VM, 3, DomainStatus.RUNNING)
        assert host_a.qemu_pids() == before
        # Not destroy: libvirt tells nothing of a VM that ends while it is still finding its QEMUs again.
        await hypervisor.suspend(VM)
        assert (await next_of(events, EventKind.SUSPENDED)).vm_id == VM


async def is_away(hypervisor: LibvirtHypervisor) -> bool:
    return not hypervisor.is_healthy


async def test_a_new_agent_finds_the_guests_of_the_old_one(
    host_a: ComputeHost, spec: DomainSpec
) -> None:
    async with connected(host_a) as (old,):
        await old.define_and_start(spec, paused=False)
        async with asyncio.TaskGroup() as group:
            new = LibvirtHypervisor(host_a.uri, DEADLINES)
            task = group.create_task(new.run(), name="new agent")
            await new.wait_connected()
            state = await new.get(VM)
            assert state is not None and state.generation == 3
            task.cancel()


async def test_a_stopped_libvirtd_costs_deadlines_and_nothing_else(
    host_a: ComputeHost, spec: DomainSpec
) -> None:
    loop = asyncio.get_running_loop()
    async with connected(host_a) as (hypervisor,):
        await hypervisor.define_and_start(spec, paused=False)
        sockets = open_sockets()
        host_a.signal_libvirtd(signal.SIGSTOP)
        try:
            longest_s = 0.0
            for _ in range(5):
                began_s = loop.time()
                with pytest.raises(TemporaryError):
                    await hypervisor.list_domains()
                longest_s = max(longest_s, loop.time() - began_s)
            assert longest_s < DEADLINES.read_s + 1.0
            assert not hypervisor.is_healthy
            assert host_a.qemu_pids()
            await until(lambda: is_degraded(hypervisor), "several connections were tried")
        finally:
            host_a.signal_libvirtd(signal.SIGCONT)
        async with asyncio.timeout(15):
            await hypervisor.wait_connected()
        state = await hypervisor.get(VM)
        assert state is not None and state.status is DomainStatus.RUNNING
        # Connections that were given up before libvirtd answered them are closed when it does.
        await until(lambda: are_closed(sockets), "no connection is left over")


async def is_degraded(hypervisor: LibvirtHypervisor) -> bool:
    return hypervisor.probes_missed >= 2


def open_sockets() -> int:
    links = [os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return sum(link.startswith("socket:") for link in links)


async def are_closed(before: int) -> bool:
    return open_sockets() <= before


@asynccontextmanager
async def tunnel_between(
    source: ComputeHost, target: ComputeHost, *, stalled: bool = False, qemu_group: str = ""
) -> AsyncIterator[MigrationTunnel]:
    """A tunnel from one host to another; TCP on the loopback stands for the mesh.

    `stalled`: the stream between the QEMUs never gets through, so that the migration lasts as long as it may.
    """
    prepare_target(VM, directory=target.migrate_dir, qemu_group=qemu_group)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve_tunnel(
            source.name,
            reader,
            writer,
            allowed=lambda peer_id, vm_id: (peer_id, vm_id) == (source.name, VM),
            directory=target.migrate_dir,
            libvirt_socket=target.socket,
        )

    async with await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20) as mesh:
        port = mesh.sockets[0].getsockname()[1]

        async def open_stream(
            kind: TunnelKind, vm_id: str
        ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            if stalled and kind is TunnelKind.QEMU:
                await asyncio.Event().wait()
            return await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)

        async with MigrationTunnel(
            VM, open_stream, directory=source.migrate_dir, qemu_group=qemu_group
        ) as tunnel:
            yield tunnel


def order_through(tunnel: MigrationTunnel) -> MigrationOrder:
    return MigrationOrder(
        target_uri=tunnel.target_uri,
        migrate_uri=tunnel.migrate_uri,
        timeout_s=30.0,
        shared_is_safe=True,
    )


async def test_a_running_guest_moves_through_the_tunnel(
    host_a: ComputeHost, host_b: ComputeHost, spec: DomainSpec
) -> None:
    async with connected(host_a, host_b) as (source, target):
        await source.define_and_start(spec, paused=False)
        async with source.events() as left, target.events() as came:
            async with tunnel_between(host_a, host_b) as tunnel:
                await source.migrate(VM, replace(order_through(tunnel), generation=4))
            assert tunnel.bytes_carried > 0
            assert await source.get(VM) is None
            state = await target.get(VM)
            assert state is not None
            assert (state.generation, state.status) == (4, DomainStatus.RUNNING)
            assert not state.migrating_in
            assert (await next_of(left, EventKind.MIGRATED_OUT)).vm_id == VM
            assert (await next_of(came, EventKind.RESUMED)).detail == "migrated"
        assert host_a.qemu_pids() == ()
        assert "master kbr7" in host_b.run("ip", "link", "show", TAP)
        assert list(host_a.migrate_dir.iterdir()) == []
        async with tunnel_between(host_b, host_a) as tunnel:
            await target.migrate(VM, replace(order_through(tunnel), stay_paused=True))
        back = await source.get(VM)
        assert back is not None
        assert (back.generation, back.status) == (4, DomainStatus.PAUSED)
        assert not back.migrating_in
        await source.resume(VM)


async def test_a_guest_moves_where_qemu_is_not_root(base: Path, spec: DomainSpec) -> None:
    base.chmod(0o755)
    for host_d in started(base, "d", qemu_user=QEMU_GROUP):
        for host_e in started(base, "e", qemu_user=QEMU_GROUP):
            async with connected(host_d, host_e) as (source, target):
                await source.define_and_start(spec, paused=False)
                async with tunnel_between(host_d, host_e, qemu_group=QEMU_GROUP) as tunnel:
                    await source.migrate(VM, order_through(tunnel))
                state = await target.get(VM)
                assert state is not None and state.status is DomainStatus.RUNNING


async def test_disks_that_are_not_shared_are_never_migrated_by_accident(
    host_a: ComputeHost, host_b: ComputeHost, spec: DomainSpec
) -> None:
    async with connected(host_a, host_b) as (source, target):
        await source.define_and_start(spec, paused=False)
        async with tunnel_between(host_a, host_b) as tunnel:
            with pytest.raises(PermanentError, match=r"[Uu]nsafe"):
                await source.migrate(VM, replace(order_through(tunnel), shared_is_safe=False))
        state = await source.get(VM)
        assert state is not None and state.status is DomainStatus.RUNNING
        assert await target.get(VM) is None


async def test_an_aborted_migration_leaves_the_guest_running_where_it_was(
    host_a: ComputeHost, host_b: ComputeHost, spec: DomainSpec
) -> None:
    seen: list[MigrationProgress] = []
    async with connected(host_a, host_b) as (source, target):
        await source.define_and_start(spec, paused=False)
        async with (
            tunnel_between(host_a, host_b, stalled=True) as tunnel,
            asyncio.TaskGroup() as group,
        ):
            order = order_through(tunnel)
            move = source.migrate(VM, order, on_progress=seen.append)
            moving = group.create_task(outcome(move), name="migration")
            await until(lambda: reported(seen), "progress is reported")
            leaving, coming = await source.get(VM), await target.get(VM)
            assert leaving is not None and leaving.migrating_out
            assert coming is not None and coming.migrating_in
            assert (coming.status, coming.reason) == (DomainStatus.PAUSED, "migration")
            with pytest.raises(ConflictError):
                await source.migrate(VM, order)
            await source.abort_migration(VM)
            assert isinstance(await moving, ConflictError)
        state = await source.get(VM)
        assert state is not None
        assert (state.status, state.migrating_out) == (DomainStatus.RUNNING, False)
        assert await target.get(VM) is None
        assert seen and seen[-1].total_bytes >= spec.memory_mib << 20


async def test_a_migration_that_takes_too_long_is_aborted(
    host_a: ComputeHost, host_b: ComputeHost, spec: DomainSpec
) -> None:
    async with connected(host_a, host_b) as (source, target):
        await source.define_and_start(spec, paused=False)
        async with tunnel_between(host_a, host_b, stalled=True) as tunnel:
            order = replace(order_through(tunnel), timeout_s=1.0)
            assert isinstance(await outcome(source.migrate(VM, order)), TemporaryError)
        state = await source.get(VM)
        assert state is not None and state.status is DomainStatus.RUNNING
        assert await target.get(VM) is None


async def test_a_target_that_dies_in_the_middle_leaves_the_guest_running_at_the_source(
    base: Path, host_a: ComputeHost, spec: DomainSpec
) -> None:
    for host_c in started(base, "c"):
        async with connected(host_a) as (source,):
            await source.define_and_start(spec, paused=False)
            async with (
                tunnel_between(host_a, host_c, stalled=True) as tunnel,
                asyncio.TaskGroup() as group,
            ):
                move = source.migrate(VM, order_through(tunnel))
                moving = group.create_task(outcome(move), name="migration")
                await until(lambda: is_moving(source), "the migration has begun")
                host_c.stop()
                assert isinstance(await moving, TemporaryError)
            state = await source.get(VM)
            assert state is not None and state.status is DomainStatus.RUNNING


async def is_moving(hypervisor: LibvirtHypervisor) -> bool:
    progress = await hypervisor.migration_progress(VM)
    return progress is not None and progress.total_bytes > 0


async def reported(seen: list[MigrationProgress]) -> bool:
    return bool(seen) and seen[-1].total_bytes > 0


async def outcome(work: Awaitable[None]) -> PlatformError | None:
    try:
        await work
    except PlatformError as error:
        return error
    return None
