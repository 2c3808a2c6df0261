"""Placement with this agent's knowledge: its copy of the state and its judge's view of the leases.

Any agent can place; the host's guard and the transaction's guards decide whether it holds.
"""

from __future__ import annotations

from core.errors import ConflictError
from core.model import VM, Cluster, DataStorage, Disk, Host, Mesh, PlacementRule, VMPhase
from ha.lease import LeaseJudge
from ha.placement import (
    NOT_ITS_DISKS,
    PlacementRequest,
    PlacementView,
    Prefer,
    choose_host,
    most_memory_free,
    overcommits_of,
    pinned_host_id,
    with_followers,
)
from ha.profile import profile_in
from nodeagent.joining.founding import MESH_ID
from nodeagent.node import Node
from nodeagent.services.placement_rules import bounds_in, leaving
from nodeagent.services.vm_parts import disks_of


class Placing:
    """The `Placer` of the VM service."""

    def __init__(
        self,
        node: Node,
        judge: LeaseJudge,
        prefer: Prefer = most_memory_free,
    ) -> None:
        self._node = node
        self._prefer = prefer
        self._judge = judge

    def choose(
        self,
        vm: VM,
        disks: tuple[Disk, ...],
        *,
        only: str = "",
        never: str = "",
        joined: tuple[PlacementRule, ...] = (),
        prefer: Prefer | None = None,
    ) -> str:
        """Return the id of the host that is preferred (by default that with most room); `only` and `never` are names or ids.

        `joined` are rules as they shall be, in the place of those stored. `prefer` is used instead of the usual preference. A host is asked for by `only`, also one where a preferred rule doesn't hold.

        Raises:
            ConflictError: no host will do; the message says why for each.
            NotFoundError: no such host.
        """
        store = self._node.store
        hosts = store.all(Host)
        only_id = store.find(Host, only).id if only else ""
        if never and only_id == never:
            raise ConflictError(f"VM {vm.name!r} is on host {store.need(Host, never).name} already")
        existing = [d for d in disks if d.revision]
        pinned = pinned_host_id(existing, {s.id: s for s in store.all(DataStorage)})
        if pinned and only_id and pinned != only_id:
            raise ConflictError(
                f"VM {vm.name!r} has local disks on another host: it can run only there"
            )
        ages = {host.id: age for host in hosts if (age := self._judge.age_s(host.id)) is not None}
        request = PlacementRequest(
            cpus=vm.cpus,
            memory_mib=vm.memory_mib,
            vm_id=vm.id,
            cluster_id=vm.cluster_id,
            only_host_id=only_id or pinned,
            only_why="is not the host asked for" if only_id else NOT_ITS_DISKS,
            except_host_ids=frozenset({never} if never else ()),
            storage_ids=frozenset(disk.data_storage_id for disk in disks),
        )
        request = self._with_rules(request, vm, never, joined)
        view = PlacementView(
            hosts=tuple(hosts),
            vms=tuple(store.all(VM)),
            lease_ages_s=ages,
            cpu_overcommits=overcommits_of(store.all(Cluster)),
            fresh_s=profile_in(store.get(Mesh, MESH_ID)).lease_s / 2,
        )
        return choose_host(request, view, prefer=prefer or self._prefer).host_id

    def _with_rules(
        self, request: PlacementRequest, vm: VM, never: str, joined: tuple[PlacementRule, ...]
    ) -> PlacementRequest:
        """Add what placement rules mean. Those that have to leave the host `never` as well go where the VM goes."""
        store = self._node.store

        def storages_of(other: VM) -> frozenset[str]:
            return frozenset(disk.data_storage_id for disk in disks_of(store, other.id))

        leaves = leaving(store, vm, store.get(Host, never) if never else None)
        moves = vm.phase is VMPhase.RUNNING
        bounds = bounds_in(store, vm, leaves=leaves, moves=moves, instead=joined)
        return with_followers(request, bounds, storages_of)
