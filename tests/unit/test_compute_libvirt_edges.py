"""libvirt's errors and events in the platform's words; a connection that hangs."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import libvirt
import pytest

from core.errors import ConflictError, NotFoundError, PermanentError, PlatformError, TemporaryError
from nodeagent.compute.hypervisor import DomainEvent, EventKind, MigrationOrder
from nodeagent.compute.libvirt_errors import translated
from nodeagent.compute.libvirt_events import event_of_io_error, event_of_lifecycle
from nodeagent.compute.libvirt_hypervisor import Deadlines, LibvirtHypervisor
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
