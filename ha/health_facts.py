"""What is known of the health of each host and of the cluster, as plain facts.

A host's `HostReport` travels over the mesh (`nodeagent.services.self_look`); the asked agent joins the reports of all
hosts with its own copy of the state to `ClusterFacts`, of which `ha.health` makes findings and a verdict. Times are
milliseconds where named so, else seconds. Nothing is decided from these facts but what people are told.
"""

from __future__ import annotations

import msgspec


class PeerSeen(msgspec.Struct, frozen=True, kw_only=True):
    """Another host as one host sees it. `round_trip_ms` is None when it gave no answer, and `why` says what came instead.

    `clock_offset_ms`: how far its clock is ahead of the asking host's, by the middle of the exchange; wrong by half of the
    round trip at most. `gossip`: alive, failed, left, or unknown.
    """

    host_id: str
    round_trip_ms: float | None = None
    why: str = ""
    clock_offset_ms: float | None = None
    gossip: str = "unknown"


class Answering(msgspec.Struct, frozen=True, kw_only=True):
    """Whether something answered in time; `why` says what came instead."""

    answers: bool
    why: str = ""


class GuardSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The host's guard as its agent sees it. `watchdog` is its kind: none, socket or device."""

    answers: bool
    why: str = ""
    phase: str = ""
    lease_valid: bool = False
    watchdog: str = ""
    armed: bool = False


class StorageSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A data storage as one host sees it. Not usable: writing, reading or finding it failed, or took too long.

    `full`: it answers, but has no room for a few bytes.
    """

    storage_id: str
    name: str
    usable: bool
    why: str = ""
    full: bool = False


class VipSeen(msgspec.Struct, frozen=True, kw_only=True):
    """Where a host stands with the VIP: `phase` is of `ha.vip.Phase`. `foreign_mac`: another machine that has the address.

    `uncovered`: callers of this host by the VIP get a certificate of the operator's that isn't for it.
    """

    address: str
    phase: str
    foreign_mac: str = ""
    why: str = ""
    uncovered: bool = False


class ArbitrationSeen(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a host reaches an arbitration address: `state` is of `core.model.Arbitration`. `answering`: those that answered
    it last. `why` it can't ping at all."""

    state: str
    answering: tuple[str, ...] = ()
    why: str = ""


class HostReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a host says of itself and of its way to others. `libvirt` is None on a witness, which has none; it is about
    the driver `hypervisor`, libvirt unless the host's settings name another. `driver_fault`: which driver can't be used.

    `store_fault`: why its copy of the state takes no part, empty while it does. `secrets_fault`: why it can't open secrets.
    `renewal_gap_s`: the longest time without a renewal of its lease lately; None: not known.
    """

    applied: int
    committed: int
    term: int
    generation: int
    leads: bool
    store_fault: str = ""
    secrets_fault: str = ""
    hypervisor: str = "libvirt"
    driver_fault: str = ""
    peers: tuple[PeerSeen, ...] = ()
    guard: GuardSeen = GuardSeen(answers=False, why="it was not asked")
    libvirt: Answering | None = None
    storages: tuple[StorageSeen, ...] = ()
    vip: VipSeen | None = None
    arbitration: ArbitrationSeen | None = None
    renewal_gap_s: float | None = None


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One host as the asked agent knows it. `report` is None when it gave none, and `silent_why` says why.

    `lease_age_s` is None when it never had a lease. `running_vms` are those that it may be running, `vms_by_storage` its
    VMs with disks on a storage (by id), running or not, counted for storages that the host can't use. `bmc_fault`: it
    has a BMC that can't be relied on.
    """

    id: str
    name: str
    votes: bool = False
    witness: bool = False
    joining: bool = False
    fenced: bool = False
    maintenance: bool = False
    maintenance_ready: bool = False
    lease_age_s: float | None = None
    lease_fresh: bool = False
    running_vms: int = 0
    vms_by_storage: dict[str, int] = {}
    report: HostReport | None = None
    silent_why: str = ""
    bmc_fault: bool = False


class BlockedVM(msgspec.Struct, frozen=True, kw_only=True):
    """A VM that can't run now, and why."""

    name: str
    host_name: str
    reason: str


class ShortRoom(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster that could not bear a loss that it should, and what that would be."""

    cluster_name: str
    what: str


class BrokenRule(msgspec.Struct, frozen=True, kw_only=True):
    """A placement rule that doesn't hold now, and which VMs are where."""

    name: str
    mandatory: bool
    what: str


class ClusterFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster as one agent, that of host `asked_id`, knows it.

    `leader_id` is whom that agent follows, empty for nobody. `voter_ids` are the voters by its log. `blocked` are the first
    few of `blocked_count` VMs. `lease_s` is the length of leases by its `profile`, 0 when not known. `disarmed` says who
    disarmed failover and why, empty while it is armed. `vip` is the management address that the leader should hold,
    `arbitration_addresses` what hosts ping.
    """

    cluster_name: str
    asked_id: str
    index: int
    leader_id: str
    voter_ids: tuple[str, ...]
    hosts: tuple[HostFacts, ...]
    blocked_count: int = 0
    blocked: tuple[BlockedVM, ...] = ()
    short_rooms: tuple[ShortRoom, ...] = ()
    broken_rules: tuple[BrokenRule, ...] = ()
    vip: str = ""
    arbitration_addresses: tuple[str, ...] = ()
    profile: str = "default"
    lease_s: float = 0.0
    disarmed: str = ""

    def host(self, host_id: str) -> HostFacts | None:
        """Return a host, None when it is not in the state."""
        return next((host for host in self.hosts if host.id == host_id), None)

    def name_of(self, host_id: str) -> str:
        """Return a host's name, or its id when the state doesn't have it."""
        host = self.host(host_id)
        return host.name if host is not None else host_id

    def asked(self) -> HostFacts | None:
        """Return the host whose agent was asked."""
        return self.host(self.asked_id)
