"""The decisions of failover, as one pure function: what is known in, what to do out.

The agent that leads calls `decide` about once a second with its store's state and its own `LeaseJudge`'s stamps, and
performs each decision as one guarded transaction. A decision is a proposal: whoever commits first wins, and a renewal of
the lost host that slips in changes the lease's revision and so voids the recovery.

The rules are those of docs/ha.md: an owner changes only with a proof that the old one can no longer write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from core.model import (
    VM,
    Bmc,
    DataStorage,
    Disk,
    Host,
    HostState,
    Lease,
    PlacementRule,
    PowerState,
    VMPhase,
)
from ha.cold_start import waited_for
from ha.fencing import Fence, is_movable, to_fence
from ha.placement import (
    Load,
    PlacementError,
    PlacementRequest,
    PlacementView,
    add_load,
    choose_host,
    loads_of,
    pinned_host_id,
    with_followers,
)
from ha.placement_rules import Bounds, RuleBook, bounds_of
from ha.profile import Profile
from ha.proofs import Proof, is_refused_by, silence_of
from ha.start_order import recovery_order

LEADER_AGE_S_MIN = 4.0
RECOVERIES_MAX = 16
REASON = "failover: "


@dataclass(frozen=True, slots=True)
class LeaseGuard:
    """The recovery holds only if this host's lease is still at this revision."""

    host_id: str
    revision: int


@dataclass(frozen=True, slots=True)
class Recover:
    """Make `to_host` the owner (`ha.ownership.given_to`).

    Guards: `vm_revision`, the old owner's `lease_revision`, and `other_lease` when a migration's target died too.
    """

    vm_id: str
    from_host: str
    to_host: str
    lease_revision: int
    vm_revision: int
    proof: Proof
    other_lease: LeaseGuard | None = None


@dataclass(frozen=True, slots=True)
class EndMigration:
    """The target of a migration is lost: clear migrating_to_host_id, the owner stays. Guards both revisions."""

    vm_id: str
    lost_host: str
    lease_revision: int
    vm_revision: int
    proof: Proof


@dataclass(frozen=True, slots=True)
class Block:
    """Write the reason into the VM; it begins with `REASON`. Not repeated while the VM says so already."""

    vm_id: str
    vm_revision: int
    reason: str


@dataclass(frozen=True, slots=True)
class Unblock:
    """The owner renews again: take a reason of ours away."""

    vm_id: str
    vm_revision: int


@dataclass(frozen=True, slots=True)
class Suspect:
    """Event only: a host missed several renewals."""

    host_id: str


@dataclass(frozen=True, slots=True)
class HostLost:
    """Event: a host's lease has ended."""

    host_id: str


@dataclass(frozen=True, slots=True)
class HostReturned:
    """Event: a suspected or lost host renews again."""

    host_id: str


Decision = Fence | Recover | EndMigration | Block | Unblock | Suspect | HostLost | HostReturned


@dataclass(frozen=True, slots=True)
class HAView:
    """What is known to the node that decides. Times are monotonic seconds of its own clock.

    `stamps_s` and `booted_s` come from the `LeaseJudge`; `leader_since_s` is None when this node does not lead. `frozen` are
    hosts that VMs wait for (`ha.shutdown`). `cpu_overcommits` as in `PlacementView`. `fencing_storages` are those that this node can have refuse a host. `suspected` and
    `lost` are the hosts already told, see `remember`; both begin empty with each leadership.
    """

    profile: Profile
    leader_since_s: float | None
    hosts: Mapping[str, Host]
    vms: Mapping[str, VM]
    disks: Mapping[str, Disk]
    storages: Mapping[str, DataStorage]
    leases: Mapping[str, Lease]
    stamps_s: Mapping[str, float]
    bmcs: Mapping[str, Bmc] = field(default_factory=dict)
    fencing_storages: frozenset[str] = frozenset()
    rules: tuple[PlacementRule, ...] = ()
    voters: frozenset[str] = frozenset()
    up: frozenset[str] = frozenset()
    suspected: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()
    booted_s: Mapping[str, float] = field(default_factory=dict)
    frozen: frozenset[str] = frozenset()
    cpu_overcommits: Mapping[str, int] = field(default_factory=dict)
    recovery_enabled: bool = True
    recovery_off_why: str = "recovery is switched off for this cluster"
    recoveries_max: int = RECOVERIES_MAX


def remember(
    view: HAView, decisions: tuple[Decision, ...]
) -> tuple[frozenset[str], frozenset[str]]:
    """Return `suspected` and `lost` for the next view, so that each event is told once."""
    suspected, lost = set(view.suspected), set(view.lost)
    for decision in decisions:
        match decision:
            case Suspect(host_id=host_id):
                suspected.add(host_id)
            case HostLost(host_id=host_id):
                lost.add(host_id)
            case HostReturned(host_id=host_id):
                suspected.discard(host_id)
                lost.discard(host_id)
            case _:
                pass
    return frozenset(suspected & view.hosts.keys()), frozenset(lost & view.hosts.keys())


def decide(view: HAView, now_s: float) -> tuple[Decision, ...]:
    """Return what to do now, events first, then VMs by `recovery_order`. Empty on a node that does not lead, or only just began to."""
    if view.leader_since_s is None or now_s - view.leader_since_s < LEADER_AGE_S_MIN:
        return ()
    decisions = _host_events(view, now_s)
    plan = _Plan(view, now_s, waited_for(view.hosts.values(), view.booted_s, now_s))
    decisions.extend(plan.fences())
    for vm in sorted(view.vms.values(), key=recovery_order):
        decision = plan.for_vm(vm)
        if decision is not None:
            decisions.append(decision)
    return tuple(decisions)


def _host_events(view: HAView, now_s: float) -> list[Decision]:
    events: list[Decision] = []
    for host in sorted(view.hosts.values(), key=lambda host: host.name):
        stamp_s = view.stamps_s.get(host.id)
        if stamp_s is None:
            continue
        age_s, profile = now_s - stamp_s, view.profile.of(view.leases.get(host.id))
        if age_s < profile.suspect_s:
            if host.id in view.suspected or host.id in view.lost:
                events.append(HostReturned(host.id))
            continue
        if host.id not in view.suspected:
            events.append(Suspect(host.id))
        if age_s >= profile.ended_s and host.id not in view.lost:
            events.append(HostLost(host.id))
    return events


def proof_of(
    view: HAView, vm: VM, host_id: str, now_s: float, storage_ids: frozenset[str]
) -> Proof | None:
    """Return the proof that `host_id` can no longer write to the VM's disks; None when there is none yet.

    `storage_ids` are the storages of all of these. Their word doesn't count for a VM that is being migrated: its guest may
    run on both ends, and which one it is must be known, not only that one can't write.
    """
    lease, stamp_s = view.leases.get(host_id), view.stamps_s.get(host_id)
    host = view.hosts.get(host_id)
    if lease is None or stamp_s is None:
        return None
    age_s = now_s - stamp_s
    started_before = host_id == vm.host_id and vm.boot_id != lease.boot_id
    proof = silence_of(view.profile, host, lease, age_s)
    waited = age_s >= view.profile.of(lease).safe_s and not lease.disarmed
    if proof in (None, Proof.TIME) and started_before and waited:
        return Proof.BOOT
    settled = host_id == vm.host_id and not vm.migrating_to_host_id
    if proof is None and settled and is_refused_by(host, lease, storage_ids):
        return Proof.STORAGE
    return proof


@dataclass(slots=True)
class _Plan:
    """One round of decisions; what is recovered counts as load for the next, and as being where it goes.

    `_kept` are the hosts, by VM, where room is kept for those that follow one that was placed.
    """

    view: HAView
    now_s: float
    waited_for: frozenset[str]
    recovered: int = 0
    _loads: dict[str, Load] | None = None
    _disks: dict[str, list[Disk]] | None = None
    _book: RuleBook | None = None
    _planned: dict[str, str] = field(default_factory=dict)
    _kept: dict[str, str] = field(default_factory=dict)

    def loads(self) -> dict[str, Load]:
        """Return what is placed on each host; counted once, and only when something is to be placed."""
        if self._loads is None:
            self._loads = loads_of(self.view.vms.values())
        return self._loads

    def disks_of(self, vm_id: str) -> list[Disk]:
        """Return the disks of a VM; sorted out once, and only when a host is lost."""
        if self._disks is None:
            self._disks = {}
            for disk in self.view.disks.values():
                self._disks.setdefault(disk.vm_id, []).append(disk)
        return self._disks.get(vm_id, [])

    def storages_of(self, vm: VM) -> frozenset[str]:
        """Return the ids of the data storages of a VM's disks."""
        return frozenset(disk.data_storage_id for disk in self.disks_of(vm.id))

    def bounds(self, vm: VM) -> Bounds | None:
        """Return what placement rules mean for a VM whose host is lost; None: it has none."""
        if self._book is None:
            self._book = RuleBook.of(self.view.rules)

        def leaves(other: VM) -> bool:
            return is_movable(other) and not pinned_host_id(
                self.disks_of(other.id), self.view.storages
            )

        return bounds_of(self._book, vm, self.view.vms.get, planned=self._planned, leaves=leaves)

    def place(self, vm: VM) -> str:
        """Choose a host and count the VM there, with those that have to be on one host with it.

        Raises:
            PlacementError: there is none.
        """
        if kept := self._kept.pop(vm.id, ""):
            return kept
        view = PlacementView(
            hosts=tuple(self.view.hosts.values()),
            vms=(),
            lease_ages_s={host: self.now_s - stamp for host, stamp in self.view.stamps_s.items()},
            cpu_overcommits=self.view.cpu_overcommits,
            fresh_s=self.view.profile.lease_s / 2,
        )
        request = PlacementRequest(
            cpus=vm.cpus,
            memory_mib=vm.memory_mib,
            vm_id=vm.id,
            cluster_id=vm.cluster_id,
            storage_ids=self.storages_of(vm),
        )
        bounds = self.bounds(vm)
        request = with_followers(request, bounds, self.storages_of)
        host_id = choose_host(request, view, self.loads()).host_id
        followers = bounds.followers if bounds is not None else ()
        for one in (vm, *followers):
            add_load(self.loads(), host_id, cpus=one.cpus, memory_mib=one.memory_mib)
            self._planned[one.id] = host_id
        self._kept.update((one.id, host_id) for one in followers)
        return host_id

    def for_vm(self, vm: VM) -> Decision | None:
        """Return the one thing to do about a VM, if any."""
        if self._is_alive(vm.host_id):
            return self._with_living_owner(vm)
        if vm.power is not PowerState.RUNNING or vm.phase is VMPhase.DELETING or not vm.ha:
            return None
        if not vm.host_id:
            return None  # not placed yet: whoever creates it does that
        if vm.host_id in self.view.frozen:
            return None
        if not self._is_lost(vm.host_id) and self._proof(vm, vm.host_id) is not Proof.STORAGE:
            return None
        return self._with_lost_owner(vm)

    def _proof(self, vm: VM, host_id: str) -> Proof | None:
        return proof_of(self.view, vm, host_id, self.now_s, self.storages_of(vm))

    def _age_s(self, host_id: str) -> float:
        stamp_s = self.view.stamps_s.get(host_id)
        return float("inf") if stamp_s is None else self.now_s - stamp_s

    def _is_alive(self, host_id: str) -> bool:
        host = self.view.hosts.get(host_id)
        if host is not None and host.state is not HostState.MEMBER:
            return False
        return self._age_s(host_id) < self._profile(host_id).lease_s / 2

    def _profile(self, host_id: str) -> Profile:
        return self.view.profile.of(self.view.leases.get(host_id))

    def _is_lost(self, host_id: str) -> bool:
        """Tell whether a host's guests are dead by its own guard, if that works, or by its power."""
        age_s, lease = self._age_s(host_id), self.view.leases.get(host_id)
        ended_s = self._profile(host_id).ended_s
        if age_s >= ended_s or lease is None:
            return age_s >= ended_s
        host = self.view.hosts.get(host_id)
        return silence_of(self.view.profile, host, lease, age_s) is Proof.POWER

    def fences(self) -> list[Fence]:
        """Return the hosts whose power is to be taken away, or whose writes are to be refused."""
        view = self.view
        if not view.recovery_enabled or not (view.bmcs or view.fencing_storages):
            return []
        movable = [
            vm
            for vm in view.vms.values()
            if is_movable(vm)
            and vm.host_id not in view.frozen
            and not pinned_host_id(self.disks_of(vm.id), view.storages)
        ]
        found = to_fence(
            profile=view.profile,
            hosts=view.hosts,
            leases=view.leases,
            bmcs=view.bmcs,
            movable=movable,
            ages_s={id_: self.now_s - stamp_s for id_, stamp_s in view.stamps_s.items()},
            suspected=view.suspected,
            voters=view.voters,
            up=view.up,
            by_storage=self._freed_by_storages(movable),
        )
        return [fence for fence in found if self._is_worth_fencing(fence.host_id)]

    def _freed_by_storages(self, movable: list[VM]) -> dict[str, frozenset[str]]:
        """Return by host the storages of those VMs that are free when these refuse it: all their disks are there."""
        found: dict[str, frozenset[str]] = {}
        if not self.view.fencing_storages:
            return found
        for vm in movable:
            storages = self.storages_of(vm)
            if storages and not vm.migrating_to_host_id and storages <= self.view.fencing_storages:
                found[vm.host_id] = found.get(vm.host_id, frozenset()) | storages
        return found

    def _is_worth_fencing(self, host_id: str) -> bool:
        """Leave a host on that may still be booting after a cold start, or whose VMs are free already."""
        if host_id in self.waited_for:
            return False
        lease, host = self.view.leases[host_id], self.view.hosts[host_id]
        return silence_of(self.view.profile, host, lease, self._age_s(host_id)) is None

    def _host_name(self, host_id: str) -> str:
        host = self.view.hosts.get(host_id)
        return host.name if host is not None else host_id or "no host"

    def _with_living_owner(self, vm: VM) -> Decision | None:
        target = vm.migrating_to_host_id
        if target and not self._is_alive(target):
            proof = self._proof(vm, target)
            if proof is not None:
                revision = self.view.leases[target].revision
                return EndMigration(vm.id, target, revision, vm.revision, proof)
            return self._without_proof(vm, target)  # it may run there, and nowhere else
        if vm.blocked_reason.startswith(REASON):
            return Unblock(vm.id, vm.revision)
        return None

    def _with_lost_owner(self, vm: VM) -> Decision | None:
        name = self._host_name(vm.host_id)
        if pinned_host_id(self.disks_of(vm.id), self.view.storages):
            return self._block(
                vm, f"its disks are on {name}, which is lost; it starts when {name} is back"
            )
        if vm.phase is VMPhase.CREATING:
            return self._block(
                vm, f"{name} was lost while the VM was being created; delete it and create it again"
            )
        if not self.view.recovery_enabled:
            return self._block(vm, self.view.recovery_off_why)
        proof = self._proof(vm, vm.host_id)
        if proof is None:
            return self._without_proof(vm, vm.host_id)
        return self._recover(vm, proof)

    def _without_proof(self, vm: VM, host_id: str) -> Decision | None:
        lease = self.view.leases.get(host_id)
        disarmed = lease is not None and lease.disarmed
        if lease is not None and (
            (lease.watchdog_armed and not disarmed)
            or self._age_s(host_id) < self._profile(host_id).safe_s
        ):
            return None  # time will tell
        name = self._host_name(host_id)
        then = f"make sure that it is off, then run: kvorum host confirm-off {name}"
        if disarmed:
            return self._block(vm, f"no proof that {name} is off: its guard was disarmed; {then}")
        return self._block(vm, f"no proof that {name} is off: it had no watchdog; {then}")

    def _recover(self, vm: VM, proof: Proof) -> Decision | None:
        target, other = vm.migrating_to_host_id, None
        if target and not self._is_alive(target):
            if not self._is_lost(target):
                return None
            if self._proof(vm, target) is None:
                return self._without_proof(vm, target)
            other = LeaseGuard(target, self.view.leases[target].revision)
            target = ""
        if vm.host_id in self.waited_for:
            return None
        if self.recovered >= self.view.recoveries_max:
            return None
        if not target:  # a living target of a migration may run the guest already: nobody else can
            try:
                target = self.place(vm)
            except PlacementError as error:
                return self._block(vm, error.message)
        self.recovered += 1
        revision = self.view.leases[vm.host_id].revision
        return Recover(vm.id, vm.host_id, target, revision, vm.revision, proof, other)

    def _block(self, vm: VM, reason: str) -> Block | None:
        return (
            None
            if vm.blocked_reason == REASON + reason
            else Block(vm.id, vm.revision, REASON + reason)
        )
