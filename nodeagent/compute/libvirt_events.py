"""Turn libvirt's event numbers into events of ours.

Called in libvirt's event thread by the connection. Kept apart so that the whole mapping is one table.
"""

from __future__ import annotations

import libvirt

from nodeagent.compute.domain_spec import DOMAIN_PREFIX
from nodeagent.compute.hypervisor import DomainEvent, EventKind

# event -> detail -> (what it is, why). Defining, undefining and the announcement of a shutdown are left out: the
# first two don't concern a running VM, and the end of the domain follows the last.
LIFECYCLE: dict[int, dict[int, tuple[EventKind, str]]] = {
    libvirt.VIR_DOMAIN_EVENT_STARTED: {
        libvirt.VIR_DOMAIN_EVENT_STARTED_BOOTED: (EventKind.STARTED, "booted"),
        libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED: (EventKind.STARTED, "migrated"),
    },
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: {
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED: (EventKind.SUSPENDED, "paused"),
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED: (EventKind.SUSPENDED, "migrated"),
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_IOERROR: (EventKind.SUSPENDED, "io-error"),
    },
    libvirt.VIR_DOMAIN_EVENT_RESUMED: {
        libvirt.VIR_DOMAIN_EVENT_RESUMED_UNPAUSED: (EventKind.RESUMED, "unpaused"),
        libvirt.VIR_DOMAIN_EVENT_RESUMED_MIGRATED: (EventKind.RESUMED, "migrated"),
    },
    libvirt.VIR_DOMAIN_EVENT_STOPPED: {
        libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: (EventKind.SHUT_DOWN, ""),
        libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: (EventKind.DESTROYED, ""),
        libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: (EventKind.CRASHED, "guest"),
        libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: (EventKind.FAILED, "qemu"),
        libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED: (EventKind.MIGRATED_OUT, ""),
    },
}

# For details that newer versions of libvirt may add.
LIFECYCLE_OTHER: dict[int, EventKind] = {
    libvirt.VIR_DOMAIN_EVENT_STARTED: EventKind.STARTED,
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: EventKind.SUSPENDED,
    libvirt.VIR_DOMAIN_EVENT_RESUMED: EventKind.RESUMED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED: EventKind.FAILED,
}


def vm_id_of(domain_name: str) -> str | None:
    """Return the VM of a domain of ours, None for a stranger's."""
    if not domain_name.startswith(DOMAIN_PREFIX):
        return None
    return domain_name.removeprefix(DOMAIN_PREFIX)


def event_of_lifecycle(domain_name: str, event: int, detail: int) -> DomainEvent | None:
    """Return what a lifecycle event says, None when it concerns nobody."""
    known = LIFECYCLE.get(event, {}).get(detail)
    if known is not None:
        return _event(domain_name, *known)
    other = LIFECYCLE_OTHER.get(event)
    return None if other is None else _event(domain_name, other, f"libvirt detail {detail}")


def event_of_reboot(domain_name: str) -> DomainEvent | None:
    """Return the event of a guest that restarted inside its QEMU."""
    return _event(domain_name, EventKind.REBOOTED, "")


def event_of_io_error(domain_name: str, device: str, reason: str) -> DomainEvent | None:
    """Return the event of a failed disk access; a pause of the VM follows as an event of its own."""
    return _event(domain_name, EventKind.IO_ERROR, f"{device} {reason}".strip())


def _event(domain_name: str, kind: EventKind, detail: str) -> DomainEvent | None:
    vm_id = vm_id_of(domain_name)
    return None if vm_id is None else DomainEvent(vm_id=vm_id, kind=kind, detail=detail)
