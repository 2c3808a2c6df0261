"""libvirt's errors and events in the platform's words; a connection that hangs."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import libvirt
import pytest

from core.errors import ConflictError, NotFoundError, PermanentError, PlatformError, TemporaryError
from nodeagent.compute.hypervisor import DomainEvent, EventKind, MigrationOrder
from nodeagent.compute.libvirt_errors import translated
from nodeagent.compute.libvirt_events import event_of_io_error, event_of_lifecycle
from nodeagent.compute.libvirt_hypervisor import Deadlines, LibvirtHypervisor
from nodeagent.compute.libvirt_link import LANE_WIDTH, Lane, Link
from nodeagent.compute.libvirt_migration import migration_flags, migration_parameters

VM = "6f9d2f5e-1111-4222-8333-444455556666"


class FakeLibvirtError(libvirt.libvirtError):
    def __init__(self, code: int, text: str) -> None:
        Exception.__init__(self, text)
        self.code = code

    def get_error_code(self) -> int:
        return self.code


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (libvirt.VIR_ERR_NO_DOMAIN, NotFoundError),
        (libvirt.VIR_ERR_OPERATION_INVALID, ConflictError),
        (libvirt.VIR_ERR_XML_ERROR, PermanentError),
        (libvirt.VIR_ERR_MIGRATE_UNSAFE, PermanentError),
        (38, TemporaryError),
        (1, TemporaryError),
    ],
)
def test_errors_become_the_platforms(code: int, kind: type[PlatformError]) -> None:
    error = translated("starting", FakeLibvirtError(code, "first\n  second " + "x" * 5000))
    assert type(error) is kind
    assert error.message.startswith("libvirt: starting failed: first second x")
    assert len(error.message) < 600


def test_what_ends_a_vm_can_be_told_apart() -> None:
    ends = {
        libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: EventKind.SHUT_DOWN,
        libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: EventKind.DESTROYED,
        libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: EventKind.CRASHED,
        libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: EventKind.FAILED,
        libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED: EventKind.MIGRATED_OUT,
        99: EventKind.FAILED,
    }
    for detail, kind in ends.items():
        event = event_of_lifecycle(f"kvorum-{VM}", libvirt.VIR_DOMAIN_EVENT_STOPPED, detail)
        assert event is not None and event.kind is kind and event.kind.is_end


def test_domains_of_strangers_have_no_events() -> None:
    assert event_of_lifecycle("test", libvirt.VIR_DOMAIN_EVENT_STARTED, 0) is None
    assert event_of_io_error("test", "virtio-disk0", "enospc") is None


def test_an_io_error_names_the_device() -> None:
    expected = DomainEvent(vm_id=VM, kind=EventKind.IO_ERROR, detail="virtio-disk0 enospc")
    assert event_of_io_error(f"kvorum-{VM}", "virtio-disk0", "enospc") == expected


def test_an_unsafe_migration_is_only_made_when_told_that_the_storage_is_shared() -> None:
    order = MigrationOrder(target_uri="qemu:///a", migrate_uri="unix:/b", timeout_s=1)
    assert not migration_flags(order) & libvirt.VIR_MIGRATE_UNSAFE
    assert not migration_flags(order) & libvirt.VIR_MIGRATE_NON_SHARED_DISK
    told = MigrationOrder(
        target_uri="qemu:///a", migrate_uri="unix:/b", timeout_s=1, shared_is_safe=True
    )
    assert migration_flags(told) == migration_flags(order) | libvirt.VIR_MIGRATE_UNSAFE
    assert migration_parameters(order) == {"migrate_uri": "unix:/b"}


async def test_calls_fail_at_once_while_libvirt_is_away() -> None:
    hypervisor = LibvirtHypervisor("test:///default")
    assert not hypervisor.is_healthy
    with pytest.raises(TemporaryError, match="away"):
        await hypervisor.list_domains()


async def test_a_libvirtd_that_accepts_and_never_answers_does_not_hang_the_agent(
    tmp_path: Path,
) -> None:
    path = tmp_path / "libvirt-sock"
    hung = socket.socket(socket.AF_UNIX)
    hung.bind(str(path))
    hung.listen()
    hypervisor = LibvirtHypervisor(
        f"qemu+unix:///system?socket={path}",
        Deadlines(open_s=0.1, retry_s_min=0.01, retry_s_max=0.01),
    )
    with hung:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            task = group.create_task(hypervisor.run(), name="hypervisor")
            while hypervisor.probes_missed < 3:
                with pytest.raises(TemporaryError):
                    await hypervisor.host_facts()
                await asyncio.sleep(0.02)
            assert not hypervisor.is_healthy
            task.cancel()


@asynccontextmanager
async def open_link(lost: list[str]) -> AsyncIterator[Link]:
    link = Link("test:///default", on_event=lambda event: None, on_lost=lambda: lost.append("lost"))
    try:
        await link.open(timeout_s=5)
        yield link
    finally:
        link.give_up()


async def test_slow_starts_hold_up_neither_reads_nor_changes() -> None:
    lost: list[str] = []
    async with open_link(lost) as link:
        await _start_while_reading(link)
        assert lost == []


async def _start_while_reading(link: Link) -> None:
    gate = threading.Event()
    async with asyncio.TaskGroup() as group:
        starts = [
            group.create_task(
                link.call(Lane.START, "starting", lambda _: gate.wait(10), timeout_s=10),
                name="start",
            )
            for _ in range(2 * LANE_WIDTH)
        ]
        await asyncio.sleep(0)
        for lane in (Lane.READ, Lane.CHANGE):
            version = await link.call(lane, "reading", lambda c: c.getLibVersion(), timeout_s=5)
            assert version > 0
        assert not any(start.done() for start in starts)
        gate.set()
    assert all(start.result() for start in starts)


async def test_the_deadline_of_a_queued_call_begins_when_it_is_its_turn() -> None:
    lost: list[str] = []
    async with open_link(lost) as link:
        async with asyncio.TaskGroup() as group:
            for _ in range(3 * LANE_WIDTH):
                group.create_task(
                    link.call(
                        Lane.START, "starting", lambda _: threading.Event().wait(0.2), timeout_s=0.5
                    ),
                    name="start",
                )
        assert lost == []


async def test_a_missed_deadline_costs_the_link_and_is_told_once() -> None:
    lost: list[str] = []
    async with open_link(lost) as link:
        for _ in range(2):
            with pytest.raises(TemporaryError):
                await link.call(
                    Lane.READ, "reading", lambda _: threading.Event().wait(0.3), timeout_s=0.01
                )
        assert link.lost.is_set()
    assert lost == ["lost"]
