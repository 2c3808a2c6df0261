"""Read domains and the host out of libvirt.

Runs in the connection's threads. It uses only calls that libvirtd answers from its own memory, never the QEMU
monitor: one stuck guest must not hide the others.
"""

from __future__ import annotations

import libvirt

from core.errors import InvalidError
from nodeagent.compute.domain_xml import METADATA_NAMESPACE, DomainMark, parse_mark
from nodeagent.compute.hypervisor import IO_ERROR, DomainState, DomainStatus, HostFacts
from nodeagent.compute.libvirt_events import vm_id_of

STATUS: dict[int, DomainStatus] = {
    libvirt.VIR_DOMAIN_RUNNING: DomainStatus.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: DomainStatus.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: DomainStatus.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: DomainStatus.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: DomainStatus.STOPPING,
    libvirt.VIR_DOMAIN_CRASHED: DomainStatus.CRASHED,
}

PAUSE_REASON: dict[int, str] = {
    libvirt.VIR_DOMAIN_PAUSED_USER: "user",
    libvirt.VIR_DOMAIN_PAUSED_MIGRATION: "migration",
    libvirt.VIR_DOMAIN_PAUSED_IOERROR: IO_ERROR,
    libvirt.VIR_DOMAIN_PAUSED_STARTING_UP: "starting-up",
    libvirt.VIR_DOMAIN_PAUSED_CRASHED: "crashed",
}


def read_domain_states(
    connection: libvirt.virConnect, leaving: frozenset[str]
) -> tuple[DomainState, ...]:
    """Return all running domains of ours. `leaving`: ids that this process migrates away.

    What all of them do comes in one answer; what we wrote into each has to be asked for one by one.
    """
    states = []
    for domain, stats in connection.getAllDomainStats(
        libvirt.VIR_DOMAIN_STATS_STATE, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
    ):
        if vm_id_of(domain.name()) is None:
            continue
        try:
            states.append(_state(domain, stats["state.state"], stats["state.reason"], leaving))
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # it has just ended
                raise
    return tuple(sorted(states, key=lambda state: state.vm_id))


def read_state(domain: libvirt.virDomain, leaving: frozenset[str]) -> DomainState:
    """Return what one domain does."""
    number, reason_number = domain.state()
    return _state(domain, number, reason_number, leaving)


def _state(
    domain: libvirt.virDomain, number: int, reason_number: int, leaving: frozenset[str]
) -> DomainState:
    status = STATUS.get(number, DomainStatus.UNKNOWN)
    reason = (
        PAUSE_REASON.get(reason_number, str(reason_number)) if status is DomainStatus.PAUSED else ""
    )
    mark = read_mark(domain)
    vm_id = domain.UUIDString()
    return DomainState(
        vm_id=vm_id,
        generation=-1 if mark is None or mark.vm_id != vm_id else mark.generation,
        status=status,
        reason=reason,
        migrating_in=reason == "migration" and vm_id not in leaving,
        migrating_out=vm_id in leaving,
    )


def read_mark(domain: libvirt.virDomain) -> DomainMark | None:
    """Return what we wrote into a domain, None when it is missing or damaged."""
    try:
        xml = domain.metadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT, METADATA_NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_LIVE
        )
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            raise
        return None
    try:
        return parse_mark(xml)
    except InvalidError:
        return None


def read_host_facts(connection: libvirt.virConnect) -> HostFacts:
    """Return what the machine offers."""
    facts = connection.getInfo()
    return HostFacts(
        host_name=connection.getHostname(),
        architecture=str(facts[0]),
        memory_mib=_memory_mib(connection) or int(facts[1]),
        cpus=int(facts[2]),
        libvirt_version=_version(connection.getLibVersion()),
        qemu_version=_version(connection.getVersion()),
    )


def _memory_mib(connection: libvirt.virConnect) -> int:
    """Return the whole machine's memory as its kernel counts it; 0 if the driver can't say.

    What `getInfo` says is the sum over the NUMA nodes, and that is less where the kernel
    counts memory that came later (plugged in, or given back by a balloon) to none of them.
    """
    try:
        counted = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return 0
    return counted["total"] >> 10


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
