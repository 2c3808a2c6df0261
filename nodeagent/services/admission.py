"""Admission control with this agent's knowledge: what a cluster's room would be after the loss of hosts.

Called by the VM service before a VM is created or started, by the API (`kvorum cluster room`) and by the health. It judges
by this agent's copy of the state, as placement does: of two starts at the same moment each may miss the other, which the
health then tells.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

from core.model import (
    VM,
    Admission,
    Cluster,
    DataStorage,
    DataStorageKind,
    Disk,
    Host,
    Mesh,
    PlacementRule,
    PowerState,
)
from ha.admission import AdmissionError, RoomView, can_be_lost, first_shortfall, told
from ha.health_facts import ShortRoom
from ha.profile import profile_of
from nodeagent.joining.founding import MESH_ID
from nodeagent.services.placement_rules import rules_in
from raftstate.store import Store

NEVER = float("inf")


class Ages(Protocol):
    """How old leases are: `ha.lease.LeaseJudge`, or the lease relay. A host that never had one has no age, or an infinite one."""

    def age_s(self, host_id: str) -> float | None: ...


def pinned_vms(store: Store) -> frozenset[str]:
    """Return the ids of VMs with a disk that one host has alone."""
    shared = {s.id for s in store.all(DataStorage) if s.kind is not DataStorageKind.LOCAL}
    return frozenset(d.vm_id for d in store.all(Disk) if d.data_storage_id not in shared)


def storages_of_vms(disks: Iterable[Disk]) -> dict[str, frozenset[str]]:
    """Return the ids of the data storages of each VM's disks, by the VM's id."""
    found: dict[str, frozenset[str]] = {}
    for disk in disks:
        found[disk.vm_id] = found.get(disk.vm_id, frozenset()) | {disk.data_storage_id}
    return found


def room_view(
    store: Store,
    ages: Ages,
    cluster: Cluster,
    *,
    instead: VM | None = None,
    joined: tuple[PlacementRule, ...] = (),
) -> RoomView:
    """Return a cluster as admission control sees it; `instead` stands for the VM of its id as it is stored, if it is, and
    `joined` for the rules of their ids."""
    hosts = tuple(host for host in store.all(Host) if host.cluster_id == cluster.id)
    vms = [
        vm
        for vm in store.all(VM)
        if vm.cluster_id == cluster.id and (instead is None or vm.id != instead.id)
    ]
    mesh = store.get(Mesh, MESH_ID)
    return RoomView(
        hosts=hosts,
        vms=[*vms, instead] if instead is not None else vms,
        pinned=pinned_vms(store),
        storages=storages_of_vms(store.all(Disk)),
        rules=rules_in(store, cluster.id, joined),
        lease_ages_s={
            host.id: age
            for host in hosts
            if (age := ages.age_s(host.id)) is not None and age != NEVER
        },
        failures=cluster.host_failures,
        cpu_overcommit=cluster.cpu_overcommit,
        fresh_s=profile_of(mesh.ha_profile if mesh is not None else "default").lease_s / 2,
    )


def short_rooms(store: Store, ages: Ages) -> tuple[ShortRoom, ...]:
    """Return the clusters that could not bear a loss that they should, with the worst that was tried."""
    found: list[ShortRoom] = []
    for cluster in sorted(store.all(Cluster), key=lambda cluster: cluster.name):
        if cluster.admission is Admission.OFF:
            continue
        view = room_view(store, ages, cluster)
        loss = first_shortfall(view) if can_be_lost(view) else None
        if loss is not None:
            found.append(ShortRoom(cluster_name=cluster.name, what=told(loss)))
    return tuple(found)


class AdmissionControl:
    """Lets VMs start, or not. A recovery never asks."""

    def __init__(self, store: Store, ages: Ages) -> None:
        self._store, self._ages = store, ages

    def admit(self, vm: VM, disks: tuple[Disk, ...], joined: tuple[PlacementRule, ...] = ()) -> str:
        """Judge a VM as it shall be, on the host chosen for it; `disks` are those not stored yet, `joined` rules that
        are to be about it. Return a warning, or nothing.

        Raises:
            AdmissionError: the cluster enforces its room, and the loss of a host could not be borne any more.
        """
        cluster = self._store.get(Cluster, vm.cluster_id)
        if cluster is None or cluster.admission is Admission.OFF:
            return ""
        view = room_view(self._store, self._ages, cluster, instead=vm, joined=joined)
        if cluster.admission is Admission.WARN and not can_be_lost(view):
            return ""
        view = replace(view, storages={**view.storages, **storages_of_vms(disks)})
        if any(disk.host_id for disk in disks):
            view = replace(view, pinned=view.pinned | {vm.id})
        loss = first_shortfall(view)
        if loss is None:
            return ""
        if cluster.admission is Admission.ENFORCE:
            raise AdmissionError(
                f"VM {vm.name!r} would take room that is kept for lost hosts: {told(loss)}. Stop other VMs or add a host, "
                f"or allow it with 'kvorum cluster set {cluster.name} --admission warn'"
            )
        return told(loss)


def takes_room(before: VM | None, after: VM) -> bool:
    """Tell whether a change of a VM may leave less room for others, or make it need more after the loss of its host."""
    if after.power is not PowerState.RUNNING:
        return False
    if before is None or before.power is not PowerState.RUNNING:
        return True
    return after.ha > before.ha or after.memory_mib > before.memory_mib or after.cpus > before.cpus
