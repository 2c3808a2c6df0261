"""Whether a cluster could bear the loss of hosts: would their highly available VMs find room on the rest?

Pure; asked before a VM is created or started (`nodeagent.services.admission`) and by the health of the cluster. It does for
each set of lost hosts what failover would do (`ha.manager`): the same order, the same filter, the same choice of the host
with most room. So a loss that it calls bearable is one that failover bears, as long as nothing else changes.

Work: all single hosts are tried, or all sets of `failures` hosts, while these are `SETS_MAX` at most. Beyond that the worst
are tried: those with most memory to be started again, and those with the largest VMs. A set costs O(k log k) for its k VMs
while processors aren't what is short, since only the hosts with most room are looked at; all sets together place
`PLACED_MAX` VMs, then the rest is left out. With 10,000 hosts and 100,000 VMs that is one pass over the VMs and about 3,000
placements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import combinations
from math import comb

from core.errors import ConflictError
from core.model import VM, Host, HostState, PlacementRule, PowerState, VMPhase
from core.model.mesh import CPU_OVERCOMMIT
from ha.fencing import is_movable
from ha.placement import (
    HOST_RESERVE_MIB,
    VM_OVERHEAD_MIB,
    Load,
    PlacementRequest,
    PlacementView,
    loads_of,
    why_not_on,
    with_followers,
)
from ha.placement_rules import Bounds, RuleBook, bounds_of, can_leave
from ha.start_order import recovery_order

SETS_MAX = 256
LARGEST_MAX = 32
PLACED_MAX = 20_000
_NOTHING = PlacementRequest(cpus=0, memory_mib=0)


class AdmissionError(ConflictError):
    """The VM would take room that is kept for lost hosts; the message names the host and what is missing."""

    code = "no-failover-room"


@dataclass(frozen=True, slots=True)
class RoomView:
    """One cluster as one agent knows it. `hosts` and `vms` are those of the cluster, `pinned` the ids of VMs with disks on
    one host only, which can't be started elsewhere, and `storages` the ids of the data storages of each VM's disks, by its id. `rules` are the cluster's placement rules. `cpu_overcommit` is the cluster's, `fresh_s` as in `PlacementView`."""

    hosts: tuple[Host, ...]
    vms: Sequence[VM]
    pinned: frozenset[str]
    lease_ages_s: Mapping[str, float]
    storages: Mapping[str, frozenset[str]] = field(default_factory=dict)
    rules: tuple[PlacementRule, ...] = ()
    failures: int = 1
    cpu_overcommit: int = CPU_OVERCOMMIT
    fresh_s: float = 6.0
    reserve_mib: int = HOST_RESERVE_MIB


@dataclass(frozen=True, slots=True)
class Loss:
    """What would become of the VMs if these hosts were lost together: `placed` counts them by host, `left_out` find no room,
    and `ruled_out` no host that their placement rules allow, though there is room."""

    hosts: tuple[Host, ...]
    vms: int
    memory_mib: int
    placed: Mapping[str, int]
    left_out: tuple[VM, ...]
    ruled_out: tuple[VM, ...] = ()

    @property
    def missing_mib(self) -> int:
        """Return how much memory is needed by those that find no room; 0: the loss can be borne."""
        return sum(_needed_mib(vm) for vm in self.left_out)


def losses(view: RoomView) -> Iterator[Loss]:
    """Yield what would become of each set of hosts that is tried, the worst sets first."""
    room = _Room.of(view)
    left = PLACED_MAX
    for hosts in _sets(view, room.at_home):
        vms = [vm for host in hosts for vm in room.at_home.get(host.id, ())]
        left -= len(vms)
        if left < 0 and len(vms) < PLACED_MAX:
            return
        yield room.without(hosts, vms)


def first_shortfall(view: RoomView) -> Loss | None:
    """Return a loss that could not be borne, the worst that is tried first; None: all can."""
    return next((loss for loss in losses(view) if loss.left_out), None)


def lost_alone(view: RoomView, host: Host) -> Loss:
    """Return what would become of the VMs of one host if it alone were lost."""
    room = _Room.of(view)
    return room.without((host,), room.at_home.get(host.id, []))


def left_out_elsewhere(view: RoomView, host: Host, vms: list[VM]) -> tuple[VM, ...]:
    """Return which of these VMs would find no host if all of them left theirs together, for want of room or by their rules."""
    room = _Room.of(view)
    room.alive = True
    loss = room.without((host,), vms)
    return (*loss.left_out, *loss.ruled_out)


def can_be_lost(view: RoomView) -> bool:
    """Tell whether there would be hosts left at all; a smaller cluster can't bear it, and nobody expects it."""
    return sum(not host.witness for host in view.hosts) > view.failures


def told(loss: Loss) -> str:
    """Return in words why a loss could not be borne."""
    names = " and ".join(sorted(host.name for host in loss.hosts))
    count = len(loss.left_out)
    return (
        f"if {names} {'were' if len(loss.hosts) > 1 else 'was'} lost, {count} of {loss.vms} highly available "
        f"{'VM' if loss.vms == 1 else 'VMs'} would find no room: {loss.missing_mib} MiB are missing"
    )


def is_recovered(vm: VM) -> bool:
    """Tell whether failover would start a VM elsewhere, if its disks allow it."""
    return (
        vm.ha
        and vm.power is PowerState.RUNNING
        and bool(vm.host_id)
        and vm.phase is not VMPhase.DELETING
    )


def _needed_mib(vm: VM) -> int:
    return vm.memory_mib + VM_OVERHEAD_MIB


def _sets(view: RoomView, at_home: Mapping[str, list[VM]]) -> Iterator[tuple[Host, ...]]:
    """Yield the sets of hosts to be tried; hosts with nothing to be started again are never alone."""
    hosts = [host for host in view.hosts if at_home.get(host.id)]
    memory = {host.id: sum(map(_needed_mib, at_home[host.id])) for host in hosts}
    hosts.sort(key=lambda host: (-memory[host.id], host.name))
    size = min(view.failures, len(hosts))
    if not size:
        return
    if comb(len(hosts), size) <= SETS_MAX:
        yield from combinations(hosts, size)
        return
    largest = sorted(
        hosts, key=lambda host: (-max(vm.memory_mib for vm in at_home[host.id]), host.name)
    )
    leaders = [*hosts[: SETS_MAX - LARGEST_MAX], *largest[:LARGEST_MAX]]
    worst = hosts[:size]
    yield tuple(worst)
    seen = {frozenset(host.id for host in worst)}
    for host in leaders:
        beside = [other for other in worst if other.id != host.id][: size - 1]
        ids = frozenset(one.id for one in (host, *beside))
        if ids not in seen:
            seen.add(ids)
            yield (host, *beside)


_Spot = tuple[int, str, str]
"""A host by its free memory, negative: the first is the one with most room, ties go to the first name."""


@dataclass(slots=True)
class _Room:
    """The hosts that can take VMs, in the order of their room, with what is on them; the same for all sets.

    `alive`: VMs are moved off a host that is to be emptied, not started again after a loss.
    """

    view: PlacementView
    hosts: Mapping[str, Host]
    loads: dict[str, Load]
    at_home: Mapping[str, list[VM]]
    storages: Mapping[str, frozenset[str]]
    pinned: frozenset[str]
    book: RuleBook
    in_rules: Mapping[str, VM]
    spots: list[_Spot] = field(default_factory=list)
    planned: dict[str, str] = field(default_factory=dict)
    alive: bool = False

    @classmethod
    def of(cls, view: RoomView) -> _Room:
        """Sort the hosts; what has lost its host already takes its room first."""
        vms = tuple(view.vms)
        placement = PlacementView(
            hosts=view.hosts,
            vms=(),
            lease_ages_s=view.lease_ages_s,
            cpu_overcommits={host.cluster_id: view.cpu_overcommit for host in view.hosts},
            fresh_s=view.fresh_s,
            reserve_mib=view.reserve_mib,
        )
        dead = {
            host.id
            for host in view.hosts
            if host.state is not HostState.MEMBER
            or view.lease_ages_s.get(host.id, float("inf")) >= view.fresh_s
        }
        at_home: dict[str, list[VM]] = {}
        homeless: list[VM] = []
        for vm in vms:
            if not is_recovered(vm) or vm.id in view.pinned:
                continue
            if vm.host_id in dead:
                if vm.migrating_to_host_id in dead | {""}:
                    homeless.append(vm)
            else:
                at_home.setdefault(vm.host_id, []).append(vm)
        hosts = {host.id: host for host in view.hosts}
        book = RuleBook.of(view.rules)
        room = cls(
            placement,
            hosts,
            loads_of(vms),
            at_home,
            storages=view.storages,
            pinned=view.pinned,
            book=book,
            in_rules={vm.id: vm for vm in vms if vm.id in book.by_vm},
        )
        room._sort()
        if homeless:
            done = room.placing(()).place_all(homeless)
            room.loads, room.planned = done.loads_after(), done.planned
            room._sort()
        return room

    def _sort(self) -> None:
        able = (
            (host, load, free)
            for host in self.view.hosts
            if not why_not_on(
                _NOTHING,
                self.view,
                host,
                load := self.loads.get(host.id, Load()),
                free := host.memory_mib - self.view.reserve_mib - load.memory_mib,
            )
        )
        self.spots = sorted((-free, host.name, host.id) for host, _, free in able)

    def placing(self, lost: tuple[Host, ...]) -> _Placing:
        """Begin to place VMs on the hosts that are left."""
        return _Placing(self, frozenset(host.id for host in lost), planned=dict(self.planned))

    def without(self, lost: tuple[Host, ...], vms: list[VM]) -> Loss:
        """Return what becomes of VMs when these hosts are lost."""
        ids = {host.id for host in lost}
        # A VM that moves to a host that is left is counted there already: it goes on there, or is started there.
        here = [vm for vm in vms if vm.migrating_to_host_id in ids | {""}]
        done = self.placing(lost).place_all(here)
        return Loss(
            hosts=lost,
            vms=len(vms),
            memory_mib=sum(map(_needed_mib, vms)),
            placed=done.placed,
            left_out=tuple(done.left_out),
            ruled_out=tuple(done.ruled_out),
        )


@dataclass(slots=True)
class _Placing:
    """VMs being put on hosts, over the shared `room`, which stays as it is."""

    room: _Room
    lost: frozenset[str]
    left_out: list[VM] = field(default_factory=list)
    ruled_out: list[VM] = field(default_factory=list)
    placed: Counter[str] = field(default_factory=Counter)
    planned: dict[str, str] = field(default_factory=dict)
    _kept: dict[str, str] = field(default_factory=dict)
    _next: int = 0
    _touched: list[_Spot] = field(default_factory=list)
    _loads: dict[str, Load] = field(default_factory=dict)

    def place_all(self, vms: Iterable[VM]) -> _Placing:
        """Put VMs where failover would, in its order."""
        for vm in sorted(vms, key=recovery_order):
            self._place(vm)
        return self

    def loads_after(self) -> dict[str, Load]:
        """Return what is on each host now."""
        return self.room.loads | self._loads

    def _place(self, vm: VM) -> None:
        """Put a VM where failover would (`ha.manager`); with it the room of those that have to be on one host with it."""
        if kept := self._kept.pop(vm.id, ""):
            self.placed[kept] += 1
            return
        bounds = self._bounds(vm)
        request = PlacementRequest(
            cpus=vm.cpus,
            memory_mib=vm.memory_mib,
            vm_id=vm.id,
            cluster_id=vm.cluster_id,
            storage_ids=self._storages_of(vm),
        )
        request = with_followers(request, bounds, self._storages_of)
        spot = self._choose(request)
        if spot is None:
            room = bounds is not None and self._has_room(replace(request, bounds=None))
            (self.ruled_out if room else self.left_out).append(vm)
            return
        host_id, followers = spot[2], bounds.followers if bounds is not None else ()
        load = self._load(host_id)
        needed_mib = sum(map(_needed_mib, (vm, *followers)))
        cpus = sum(one.cpus for one in (vm, *followers))
        self._loads[host_id] = Load(load.memory_mib + needed_mib, load.cpus + cpus)
        heappush(self._touched, (spot[0] + needed_mib, spot[1], host_id))
        self.placed[host_id] += 1
        if bounds is not None:
            self.planned.update((one.id, host_id) for one in (vm, *followers))
            self._kept.update((one.id, host_id) for one in followers)

    def _has_room(self, request: PlacementRequest) -> bool:
        spot = self._choose(request)
        if spot is not None:
            heappush(self._touched, spot)
        return spot is not None

    def _choose(self, request: PlacementRequest) -> _Spot | None:
        """Take out the host with most room among those that break the fewest preferred rules; None: none will do."""
        bounds = request.bounds
        passed: list[_Spot] = []
        best: tuple[int, _Spot] | None = None
        while (spot := self._take()) is not None:
            free_mib, host = -spot[0], self.room.hosts[spot[2]]
            if why_not_on(request, self.room.view, host, self._load(host.id), free_mib):
                passed.append(spot)
                if free_mib < request.memory_mib + VM_OVERHEAD_MIB:
                    break  # nobody has more
                continue
            penalty = bounds.penalty(host.id) if bounds is not None else 0
            if best is None or penalty < best[0]:
                passed.extend((best[1],) if best is not None else ())
                best = (penalty, spot)
            else:
                passed.append(spot)
            if not best[0]:
                break
        for spot in passed:
            heappush(self._touched, spot)
        return best[1] if best is not None else None

    def _load(self, host_id: str) -> Load:
        return self._loads.get(host_id) or self.room.loads.get(host_id, Load())

    def _storages_of(self, vm: VM) -> frozenset[str]:
        return self.room.storages.get(vm.id, frozenset())

    def _bounds(self, vm: VM) -> Bounds | None:
        room = self.room

        def leaves(other: VM) -> bool:
            goes = can_leave(other) if room.alive else is_movable(other)
            return goes and other.id not in room.pinned

        return bounds_of(room.book, vm, room.in_rules.get, planned=self.planned, leaves=leaves)

    def _take(self) -> _Spot | None:
        """Take out the host with most room."""
        spots = self.room.spots
        while self._next < len(spots) and spots[self._next][2] in self.lost:
            self._next += 1
        fresh = spots[self._next] if self._next < len(spots) else None
        if self._touched and (fresh is None or self._touched[0] < fresh):
            return heappop(self._touched)
        self._next += fresh is not None
        return fresh
