"""Choosing a host for a VM. Pure: a view and a request in, a host or a refusal that says why for each host out.

Called by the VM service (create, start, migrate) and by the HA manager (recovery). The choice is a hint: the guest
starts only when the host's guard allows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from core.errors import ConflictError
from core.model import VM, Cluster, DataStorage, DataStorageKind, Disk, Host, HostState
from core.model.mesh import CPU_OVERCOMMIT
from ha.placement_rules import Bounds, is_placed

VM_OVERHEAD_MIB = 64
HOST_RESERVE_MIB = 512
NOT_ITS_DISKS = "does not hold the VM's local disks"


class PlacementError(ConflictError):
    """No host can take the VM; the message says why for each. `kinds` are those of the resources that it names."""

    code = "no-host"
    kinds: tuple[str, ...] = ("host",)


class RuledOutError(PlacementError):
    """The same of a VM with placement rules, which the message may name."""

    kinds = ("host", "vm", "placement-rule")


@dataclass(frozen=True, slots=True)
class PlacementRequest:
    """What has to fit. `only_host_id` pins the VM, `only_why` is what is said of other hosts then; `vm_id` is not counted as a load where it is now. `storage_ids` are the data storages of its disks.
    `bounds` is what placement rules mean for it, None for a VM without any."""

    cpus: int
    memory_mib: int
    vm_id: str = ""
    cluster_id: str = ""
    only_host_id: str = ""
    only_why: str = NOT_ITS_DISKS
    except_host_ids: frozenset[str] = frozenset()
    storage_ids: frozenset[str] = frozenset()
    bounds: Bounds | None = None


def with_followers(
    request: PlacementRequest, bounds: Bounds | None, storages_of: Callable[[VM], frozenset[str]]
) -> PlacementRequest:
    """Return a request with what placement rules mean for it: the room and the data storages of those that follow it, too."""
    if bounds is None:
        return request
    storages = [storages_of(vm) for vm in bounds.followers]
    return replace(
        request,
        bounds=bounds,
        cpus=request.cpus + sum(vm.cpus for vm in bounds.followers),
        memory_mib=request.memory_mib
        + sum(vm.memory_mib + VM_OVERHEAD_MIB for vm in bounds.followers),
        storage_ids=request.storage_ids.union(*storages),
    )


@dataclass(frozen=True, slots=True)
class PlacementView:
    """What the choice is made from. `lease_ages_s` holds hosts that ever renewed; `fresh_s` is the age from which on a
    lease is too old to start guests under (L/2: the guard's own limit). `cpu_overcommits` are those of the clusters, by
    their ids (`overcommits_of`); a host of another cluster has the default."""

    hosts: Iterable[Host]
    vms: Iterable[VM]
    lease_ages_s: Mapping[str, float]
    cpu_overcommits: Mapping[str, int]
    fresh_s: float = 6.0
    reserve_mib: int = HOST_RESERVE_MIB

    def cpus_of(self, host: Host) -> int:
        """Return how many virtual CPUs may be placed on a host."""
        return host.cpus * self.cpu_overcommits.get(host.cluster_id, CPU_OVERCOMMIT)


def overcommits_of(clusters: Iterable[Cluster]) -> dict[str, int]:
    """Return how many virtual CPUs each cluster places on a processor thread, by its id."""
    return {cluster.id: cluster.cpu_overcommit for cluster in clusters}


@dataclass(frozen=True, slots=True)
class Placement:
    """The chosen host, and for each host one line that says why or why not."""

    host_id: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host that can take the VM. `cpus_taken` are the virtual CPUs placed on it so far."""

    host: Host
    free_mib: int
    cpus_taken: int


Prefer = Callable[[PlacementRequest, tuple[Candidate, ...]], str]
"""Chooses one of the candidates, which are in order of their hosts' names, and returns its host's id."""


def most_memory_free(request: PlacementRequest, candidates: tuple[Candidate, ...]) -> str:
    """Return the host with the most free memory; ties go to the first name."""
    del request
    return max(candidates, key=lambda candidate: candidate.free_mib).host.id


def next_in_turn(name: str) -> Prefer:
    """Return what prefers the host whose name comes next after `name`, and after the last the first."""

    def prefer(request: PlacementRequest, candidates: tuple[Candidate, ...]) -> str:
        del request
        after = [candidate for candidate in candidates if candidate.host.name > name]
        return (after or candidates)[0].host.id

    return prefer


@dataclass(slots=True)
class Load:
    """What is placed on a host."""

    memory_mib: int = 0
    cpus: int = 0


def loads_of(vms: Iterable[VM], *, except_vm_id: str = "") -> dict[str, Load]:
    """Return what is placed on each host. A migrating VM counts on both; a stopped one that shall stay so on none."""
    loads: dict[str, Load] = {}
    for vm in vms:
        if not is_placed(vm) or vm.id == except_vm_id:
            continue
        for host_id in {vm.host_id, vm.migrating_to_host_id} - {""}:
            add_load(loads, host_id, cpus=vm.cpus, memory_mib=vm.memory_mib)
    return loads


def add_load(loads: dict[str, Load], host_id: str, *, cpus: int, memory_mib: int) -> None:
    """Count one more VM on a host."""
    load = loads.setdefault(host_id, Load())
    load.memory_mib += memory_mib + VM_OVERHEAD_MIB
    load.cpus += cpus


def pinned_host_id(disks: Iterable[Disk], storages: Mapping[str, DataStorage]) -> str:
    """Return the host whose local storage holds a disk of the VM; empty when all disks are shared."""
    for disk in disks:
        storage = storages.get(disk.data_storage_id)
        if storage is None or storage.kind is DataStorageKind.LOCAL:
            return disk.host_id or "unknown"
    return ""


def choose_host(
    request: PlacementRequest,
    view: PlacementView,
    loads: Mapping[str, Load] | None = None,
    prefer: Prefer = most_memory_free,
) -> Placement:
    """Return the host that is preferred among those that can take the VM and break the fewest preferred rules.

    `loads` replaces what would be counted from the view (recovery plans many VMs at once).

    Raises:
        PlacementError: none can; the message says why for each.
    """
    counted = loads_of(view.vms, except_vm_id=request.vm_id) if loads is None else loads
    candidates: list[Candidate] = []
    reasons: list[str] = []
    for host in sorted(view.hosts, key=lambda host: host.name):
        load = counted.get(host.id, Load())
        free_mib = host.memory_mib - view.reserve_mib - load.memory_mib
        why_not = why_not_on(request, view, host, load, free_mib)
        reasons.append(f"{host.name}: {why_not or f'{free_mib} MiB free'}")
        if not why_not:
            candidates.append(Candidate(host, free_mib, load.cpus))
    if not candidates:
        error = PlacementError if request.bounds is None else RuledOutError
        raise error("no host can take the VM: " + ("; ".join(reasons) or "there are no hosts"))
    if (bounds := request.bounds) is not None:
        least = min(bounds.penalty(one.host.id) for one in candidates)
        candidates = [one for one in candidates if bounds.penalty(one.host.id) == least]
    return Placement(prefer(request, tuple(candidates)), tuple(reasons))


def why_not_on(
    request: PlacementRequest, view: PlacementView, host: Host, load: Load, free_mib: int
) -> str:
    """Return why a host can't take the VM beside its `load`, which leaves `free_mib`; empty when it can."""
    age_s = view.lease_ages_s.get(host.id)
    needed_mib = request.memory_mib + VM_OVERHEAD_MIB
    if request.only_host_id and host.id != request.only_host_id:
        return request.only_why
    if host.id in request.except_host_ids:
        return "not wanted here"
    if request.cluster_id and host.cluster_id != request.cluster_id:
        return "in another cluster"
    if host.witness:
        return "a witness: it runs no VMs"
    if host.state is not HostState.MEMBER:
        return "fenced"
    if host.maintenance:
        return "in maintenance"
    if request.storage_ids.intersection(host.unreachable_storage_ids):
        return "can't reach the VM's data storage"
    if request.storage_ids.intersection(host.refusing_storage_ids):
        return "the VM's data storage refuses it since it was fenced, until it has booted"
    if host.driver_fault:
        return f"a driver can't be used: {host.driver_fault}"
    if host.down_boot_id:
        return "being shut down, or not back yet"
    if age_s is None:
        return "never held a lease"
    if age_s >= view.fresh_s:
        return "its lease is too old"
    if request.bounds is not None and (why := request.bounds.why_not(host.id)):
        return why
    if free_mib < needed_mib:
        return f"{max(0, free_mib)} MiB free, {needed_mib} needed"
    if load.cpus + request.cpus > (most := view.cpus_of(host)):
        return f"{load.cpus} of {most} virtual CPUs taken, {request.cpus} needed"
    return ""
