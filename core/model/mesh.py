"""The mesh itself: cluster secrets, hosts and their leases, join tokens, access tokens.

Written by joining (`nodeagent.joining`), the lease batcher and the HA decisions (`ha`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec

from core.attributes import CLUSTER, OWNER, attribute
from core.errors import InvalidError
from core.model.resource import DESCRIPTION_LENGTH_MAX, OnDelete, Relation, Resource, Tagged


class DataCenter(Tagged, tag="data-center.v1", frozen=True, kw_only=True):
    """The largest name space; holds clusters."""

    PLURAL: ClassVar[str] = "data-centers"
    BY_DECLARATION: ClassVar[bool] = True

    description: Annotated[
        str, attribute("A note for people.", length_max=DESCRIPTION_LENGTH_MAX)
    ] = ""


class Admission(StrEnum):
    """What is done about a VM for which, after its start, the loss of hosts could not be borne: nothing, a warning, a refusal."""

    OFF = "off"
    WARN = "warn"
    ENFORCE = "enforce"


class ShutdownPolicy(StrEnum):
    """What becomes of the VMs of a host that is shut down in order. `MIGRATE`: they are moved away live first. `FAILOVER`: they
    are shut down and started elsewhere. `FREEZE`: they are shut down and wait for the host. `CONDITIONAL`: freeze for a reboot,
    failover for a power-off. `CLUSTER`, of a host only: as its cluster says."""

    CONDITIONAL = "conditional"
    MIGRATE = "migrate"
    FAILOVER = "failover"
    FREEZE = "freeze"
    CLUSTER = "cluster"


CPU_OVERCOMMIT = 8
CPU_OVERCOMMIT_MAX = 64


class Cluster(Tagged, tag="cluster.v1", frozen=True, kw_only=True):
    """A logical group of hosts inside a data center.

    `admission` keeps room for the highly available VMs of `host_failures` hosts that may be lost at a time (`ha.admission`).
    """

    PLURAL: ClassVar[str] = "clusters"
    BY_DECLARATION: ClassVar[bool] = True
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(
            "data_center_id",
            target="data-center",
            name="data_center",
            reverse="clusters",
            required=True,
        ),
    )

    data_center_id: Annotated[str, attribute("The data center that it lies in.")]
    description: Annotated[
        str, attribute("A note for people.", length_max=DESCRIPTION_LENGTH_MAX)
    ] = ""
    admission: Annotated[
        Admission,
        attribute(
            "What is done about a start that leaves too little room for the VMs of lost hosts."
        ),
    ] = Admission.WARN
    host_failures: Annotated[
        int, attribute("The loss of how many hosts at a time is to be borne.", least=1, most=4)
    ] = 1
    shutdown_policy: Annotated[
        ShutdownPolicy,
        attribute("What becomes of the VMs of a host that is shut down in order; not `cluster`."),
    ] = ShutdownPolicy.CONDITIONAL
    freeze_s_max: Annotated[
        int,
        attribute(
            "For how long VMs wait for a host that was shut down with `freeze`; then they are started elsewhere.",
            least=60,
            most=86_400,
        ),
    ] = 900
    cpu_overcommit: Annotated[
        int,
        attribute(
            "How many virtual CPUs are placed on each processor thread of a host at most.",
            least=1,
            most=CPU_OVERCOMMIT_MAX,
        ),
    ] = CPU_OVERCOMMIT

    def check(self) -> None:
        if self.shutdown_policy is ShutdownPolicy.CLUSTER:
            raise InvalidError(
                "shutdown_policy of a cluster is conditional, migrate, failover or freeze; only a host's is 'cluster'"
            )


class Arming(StrEnum):
    """Whether failover acts. `DISARMING`: waits until what is under way has ended. `DISARMED`: no host gives its guests up,
    and none is taken over."""

    ARMED = "armed"
    DISARMING = "disarming"
    DISARMED = "disarmed"


ARBITRATION_ADDRESSES_MAX = 3


class Mesh(Resource, tag="mesh.v1", frozen=True, kw_only=True):
    """What all agents of one mesh share; exactly one, id `mesh`.

    `sealed_*` are encrypted with the secrets key that each host keeps in a file (0600). `feature_level` is the lowest
    of all voters and never falls. `voters_max` is 1, 3, 5 or 7; a voter that was silent for `voter_replace_after_s`
    gives its place to another host.
    """

    SECRET: ClassVar[frozenset[str]] = frozenset({"sealed_ca_key", "sealed_gossip_key"})
    SEALED: ClassVar[dict[str, str]] = {
        "sealed_ca_key": "ca-key",
        "sealed_gossip_key": "gossip-key",
    }

    ca_pem: Annotated[str, attribute("Certificate of the cluster's authority.", by=CLUSTER)]
    sealed_ca_key: Annotated[bytes, attribute("Key of the authority, sealed.", by=CLUSTER)]
    sealed_gossip_key: Annotated[
        bytes, attribute("Key of the gossip between hosts, sealed.", by=CLUSTER)
    ]
    feature_level: Annotated[
        int, attribute("Lowest feature level of all voters; never falls.", by=CLUSTER)
    ] = 1
    ha_profile: Annotated[str, attribute("Which set of time limits failover goes by.")] = "default"
    ha_profiles_before: Annotated[
        tuple[str, ...], attribute("Those it went by at some time before.", by=CLUSTER)
    ] = ()
    ha_arming: Annotated[Arming, attribute("Whether failover acts.", by=CLUSTER)] = Arming.ARMED
    ha_disarmed_by: Annotated[
        str, attribute("Who disarmed it, or wishes to; empty: nobody.", by=CLUSTER)
    ] = ""
    ha_disarmed_ms: Annotated[int, attribute("When that was asked for.", by=CLUSTER)] = 0
    ha_disarm_reason: Annotated[str, attribute("Why, in that person's words.", by=CLUSTER)] = ""
    ha_rearm_ms: Annotated[
        int, attribute("When it is armed again by itself; 0: when someone does so.", by=CLUSTER)
    ] = 0
    voters_max: Annotated[
        int, attribute("How many hosts vote at most: 1, 3, 5 or 7.", least=1, most=7)
    ] = 5
    voter_replace_after_s: Annotated[
        int,
        attribute(
            "Silence after which a voter gives its place to another host.", least=10, most=604_800
        ),
    ] = 600
    vip: Annotated[
        str, attribute("Management address that the leader holds (docs/vip.md); empty: none.")
    ] = ""
    arbitration_addresses: Annotated[
        tuple[str, ...],
        attribute(
            "Addresses that every host pings: a leader that reaches none while another host does may not hold the VIP.",
            count_max=ARBITRATION_ADDRESSES_MAX,
        ),
    ] = ()


class HostState(StrEnum):
    """Where a host stands for the cluster. `FENCING`: its renewals are refused while its power is being taken away.
    `FENCED`: it is off, as an operator or its management board says. Either ends when the host comes with another boot, or
    its guard reports that no guests are left."""

    MEMBER = "member"
    FENCING = "fencing"
    FENCED = "fenced"


class Arbitration(StrEnum):
    """Whether a host reaches an arbitration address. `UNKNOWN`: there is none, it was just begun, or its agent is an older one."""

    UNKNOWN = "unknown"
    REACHED = "reached"
    LOST = "lost"


class Unmovable(StrEnum):
    """What becomes of VMs that can't leave a host alive when it is emptied for maintenance. `REFUSE`: it isn't begun while
    there are any; `STOP`: they are shut down, and started again afterwards; `KEEP`: they stay."""

    REFUSE = "refuse"
    STOP = "stop"
    KEEP = "keep"


class Vote(StrEnum):
    """What an operator says about a host's vote: the cluster chooses, or it shall vote always, or never."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class PluginState(StrEnum):
    """`REFUSED`: left out when it was loaded. `FAILING`: its last call failed, or took too long and it is called no
    more; `why` says which."""

    ACTIVE = "active"
    REFUSED = "refused"
    FAILING = "failing"


class Plugin(msgspec.Struct, frozen=True, kw_only=True):
    """What one entry point of an installed package gives to the agent of a host, and why not."""

    package: Annotated[str, attribute("The package that it is from.", by=OWNER)]
    version: Annotated[str, attribute("The package's version.", by=OWNER)]
    group: Annotated[str, attribute("The group of entry points: what it gives.", by=OWNER)]
    name: Annotated[str, attribute("The entry point's name.", by=OWNER)]
    state: Annotated[
        PluginState, attribute("Whether it is in use, was left out, or fails.", by=OWNER)
    ] = PluginState.ACTIVE
    why: Annotated[str, attribute("Why it was left out, or what failed last.", by=OWNER)] = ""


class Host(Tagged, tag="host.v1", frozen=True, kw_only=True):
    """A server that runs the agent. `address` is its IP on the management network.

    Hosts of one `failure_domain` (a rack, a room) fail together; empty: this host shares its fate with no other. A
    `witness` votes and holds the state, but runs no VMs. `feature_level` is what its agent understands. `joining` from
    its admission until it has the state and says so: it gets no vote, and may give up without a trace. `plugins` are what
    its agent found installed when it started. No VM is placed on a host that can't reach a data storage of its disks.
    `maintenance` is begun and ended by actions; the leader's `nodeagent.services.evacuation` does what it takes.
    """

    PLURAL: ClassVar[str] = "hosts"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation("cluster_id", target="cluster", name="cluster", reverse="hosts", required=True),
        Relation(
            "unreachable_storage_ids",
            target="data-storage",
            name="unreachable_storages",
            reverse="cut_off_hosts",
            many=True,
            on_delete=OnDelete.DETACH,
        ),
    )
    NOT_RELATIONS: ClassVar[frozenset[str]] = frozenset(
        {"down_boot_id", "fenced_boot_id", "fenced_storage_ids", "refusing_storage_ids"}
    )

    cluster_id: Annotated[str, attribute("The cluster that it belongs to.")]
    address: Annotated[str, attribute("IP address on the management network.", by=CLUSTER)]
    api_port: Annotated[
        int, attribute("TCP port of the HTTPS API.", by=OWNER, least=1, most=65_535)
    ] = 7443
    mesh_port: Annotated[
        int, attribute("TCP port of the mesh between hosts.", by=OWNER, least=1, most=65_535)
    ] = 7444
    version: Annotated[str, attribute("Version of its agent.", by=OWNER)] = ""
    cpus: Annotated[int, attribute("Threads of its processors.", by=OWNER, least=0)] = 0
    memory_mib: Annotated[int, attribute("Physical memory.", by=OWNER, least=0)] = 0
    arch: Annotated[str, attribute("Architecture of its processors, e.g. `x86_64`.", by=OWNER)] = (
        "x86_64"
    )
    accelerator: Annotated[
        str,
        attribute(
            "What guests run on: `kvm`, or `tcg` where there is none; empty before it was asked.",
            by=OWNER,
        ),
    ] = ""
    watchdog: Annotated[
        str, attribute("Kind of the watchdog that resets it when its lease ends.", by=OWNER)
    ] = ""
    state: Annotated[
        HostState,
        attribute(
            "Whether its renewals are refused, and whether it is known to be off.", by=CLUSTER
        ),
    ] = HostState.MEMBER
    off_lease_revision: Annotated[
        int,
        attribute(
            "Revision of the lease that it held when its management board said that it is off; 0: none said so.",
            by=CLUSTER,
            least=0,
        ),
    ] = 0
    fenced_storage_ids: Annotated[
        tuple[str, ...],
        attribute(
            "Data storages that said, while it was being fenced, that they take nothing any more that it writes.",
            by=CLUSTER,
        ),
    ] = ()
    storage_lease_revision: Annotated[
        int,
        attribute(
            "Revision of the lease that it held when these data storages said so; 0: none said so.",
            by=CLUSTER,
            least=0,
        ),
    ] = 0
    refusing_storage_ids: Annotated[
        tuple[str, ...],
        attribute(
            "Data storages that may refuse what it writes, until it has booted and they have readmitted it.",
            by=CLUSTER,
        ),
    ] = ()
    fenced_boot_id: Annotated[
        str, attribute("The boot that these data storages refuse; empty: none.", by=CLUSTER)
    ] = ""
    maintenance: Annotated[
        bool, attribute("Whether it gets no new VMs, and those on it are moved away.")
    ] = False
    maintenance_unmovable: Annotated[
        Unmovable, attribute("What becomes of VMs that can't be moved away from it.")
    ] = Unmovable.REFUSE
    maintenance_ready: Annotated[
        bool,
        attribute("Whether all that had to leave it for its maintenance has left.", by=CLUSTER),
    ] = False
    maintenance_back: Annotated[
        bool, attribute("Whether its VMs come back when its maintenance ends.")
    ] = True
    shutdown_policy: Annotated[
        ShutdownPolicy, attribute("What becomes of its VMs when it is shut down in order.")
    ] = ShutdownPolicy.CLUSTER
    down_boot_id: Annotated[
        str,
        attribute("Boot in which it was told to shut down; empty once it is back.", by=OWNER),
    ] = ""
    frozen: Annotated[
        bool,
        attribute("Whether its VMs wait for it to be back from its shutdown.", by=OWNER),
    ] = False
    maintenance_for_shutdown: Annotated[
        bool, attribute("Whether its maintenance ends by itself when it is back.", by=OWNER)
    ] = False
    failure_domain: Annotated[
        str,
        attribute("Hosts of one domain fail together; empty: it shares its fate with no other."),
    ] = ""
    witness: Annotated[
        bool, attribute("Whether it votes and holds the state, but runs no VMs.", by=CLUSTER)
    ] = False
    vote: Annotated[
        Vote, attribute("Whether the cluster chooses if it votes, or it shall always or never.")
    ] = Vote.AUTO
    feature_level: Annotated[
        int, attribute("What its agent understands of the replicated state.", by=OWNER)
    ] = 1
    joining: Annotated[bool, attribute("Admitted, but doesn't have the state yet.", by=OWNER)] = (
        False
    )
    plugins: Annotated[
        tuple[Plugin, ...], attribute("What plug-ins its agent found when it started.", by=OWNER)
    ] = ()
    resource_types: Annotated[
        tuple[str, ...], attribute("Collections that plug-ins bring on it.", by=OWNER)
    ] = ()
    unreachable_storage_ids: Annotated[
        tuple[str, ...],
        attribute("Data storages that it could not use when it looked last.", by=OWNER),
    ] = ()
    arbitration: Annotated[
        Arbitration,
        attribute("Whether it reaches an arbitration address, as it said last.", by=OWNER),
    ] = Arbitration.UNKNOWN
    hypervisor: Annotated[
        str,
        attribute("The driver that its guests run under; empty: its agent never said.", by=OWNER),
    ] = ""
    driver_fault: Annotated[
        str,
        attribute(
            "Why a driver that its settings name can't be used, so that no VM starts on it; empty: all can.",
            by=OWNER,
        ),
    ] = ""

    def claims(self) -> tuple[str, ...]:
        return (f"host.name/{self.name}", f"host.address/{self.address}")

    def is_leaving(self) -> bool:
        return self.joining


class Lease(Resource, tag="lease.v1", frozen=True, kw_only=True):
    """A host's right to run lease-bound guests; id = host id, name = host id.

    Renewed about once a second; its revision is the log index of the last renewal, which is what a change
    of VM ownership guards. `boot_id` changes with each boot of the host. `watchdog_armed` is what the guard last said.
    """

    NOT_RELATIONS: ClassVar[frozenset[str]] = frozenset({"boot_id"})

    boot_id: Annotated[
        str, attribute("The boot that the host was in at its last renewal.", by=OWNER)
    ]
    seq: Annotated[int, attribute("Counts renewals within a boot.", by=OWNER, least=0)]
    watchdog_armed: Annotated[
        bool, attribute("What the guard last said of its watchdog.", by=OWNER)
    ] = False
    lease_s: Annotated[
        float, attribute("How long the guard takes a renewal for; 0: it doesn't say.", by=OWNER)
    ] = 0.0
    watchdog_s: Annotated[
        float, attribute("Time of its watchdog; counts if it says how long a lease is.", by=OWNER)
    ] = 0.0
    disarmed: Annotated[
        bool, attribute("Whether the end of its lease may have no consequence.", by=OWNER)
    ] = False

    def claims(self) -> tuple[str, ...]:
        return ()


class HostRoom(Resource, tag="host-room.v1", frozen=True, kw_only=True):
    """Stands for the room on a host; id and name = host id. It says nothing by itself: its revision is what counts.

    Whatever brings a VM to a host, or lets one take room there again, stores it at the revision that was seen when the host was
    chosen. So of two that were chosen without knowing of each other, the log refuses the second.
    """

    def claims(self) -> tuple[str, ...]:
        return ()


class JoinToken(Tagged, tag="join-token.v1", frozen=True, kw_only=True):
    """A single-use right to join. Only the SHA-256 of its secret is kept; name = id."""

    PLURAL: ClassVar[str] = "join-tokens"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(
            "used_by_host_id",
            target="host",
            name="used_by_host",
            reverse="join_tokens",
            on_delete=OnDelete.KEEP,
        ),
        Relation(
            "cluster_id",
            target="cluster",
            name="cluster",
            reverse="join_tokens",
            on_delete=OnDelete.ALONG,
        ),
    )
    SECRET: ClassVar[frozenset[str]] = frozenset({"secret_sha256"})

    secret_sha256: Annotated[str, attribute("Hash of its secret.", by=CLUSTER)]
    expires_ms: Annotated[int, attribute("Until when a host can join with it.")]
    used_by_host_id: Annotated[
        str, attribute("The host that joined with it; empty: none yet.", by=CLUSTER)
    ] = ""
    cluster_id: Annotated[
        str, attribute("The cluster that a host joins into; empty: the first.")
    ] = ""


class ApiCertificate(Resource, tag="api-certificate.v1", frozen=True, kw_only=True):
    """An operator's own certificate of the HTTPS API; id and name are a host's id, or `all`.

    `chain_pem` has the server's certificate first. The key is sealed under the name `api-key/<id>`.
    `sha256` is the fingerprint of the server's certificate.
    """

    NOT_RELATIONS: ClassVar[frozenset[str]] = frozenset({"host_id"})  # nothing to query by
    SECRET: ClassVar[frozenset[str]] = frozenset({"sealed_key"})
    SEALED: ClassVar[dict[str, str]] = {"sealed_key": "api-key/{id}"}

    chain_pem: Annotated[
        str, attribute("The certificate and those that lead to its root, the server's first.")
    ]
    sealed_key: Annotated[bytes, attribute("Its key, sealed.", by=CLUSTER)]
    sha256: Annotated[str, attribute("Fingerprint of the server's certificate.", by=CLUSTER)]
    host_id: Annotated[str, attribute("The host that serves it; empty: all.")] = ""

    def __repr__(self) -> str:
        return f"ApiCertificate({self.id}, {self.sha256}, ***)"


class SecretsKey(Resource, tag="secrets-key.v1", frozen=True, kw_only=True):
    """Which secrets key is in use, by its id, from the first change on; exactly one, id `secrets-key`.

    `next_key_id`: the one that hosts are being given. `former_key_id`: the one before, until every host has the new one.
    """

    NOT_RELATIONS: ClassVar[frozenset[str]] = frozenset({"key_id", "next_key_id", "former_key_id"})

    key_id: Annotated[str, attribute("The key in use.", by=CLUSTER)]
    next_key_id: Annotated[
        str, attribute("The key that hosts are being given; empty: none.", by=CLUSTER)
    ] = ""
    former_key_id: Annotated[
        str,
        attribute("The key before, until every host has the present one; empty: none.", by=CLUSTER),
    ] = ""


class HostKey(Resource, tag="host-key.v1", frozen=True, kw_only=True):
    """A host says which secrets key it has, while it is being changed; id and name = host id.

    An empty `key_id`: its HSM doesn't open or keep keys now.
    """

    NOT_RELATIONS: ClassVar[frozenset[str]] = frozenset({"host_id", "key_id"})

    host_id: Annotated[str, attribute("The host that says so.", by=OWNER)]
    key_id: Annotated[str, attribute("The key that it has.", by=OWNER)]


class AccessToken(Tagged, tag="access-token.v1", frozen=True, kw_only=True):
    """A bearer token of the HTTPS API; only the SHA-256 of its secret is kept.

    It may do what its `role_ids` allow or, if it has an `account_id`, what that account may; with neither, everything.
    """

    INDEXED: ClassVar[tuple[str, ...]] = ("secret_sha256",)

    PLURAL: ClassVar[str] = "access-tokens"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation("account_id", target="account", name="account", reverse="access_tokens"),
    )
    NOT_RELATIONS: ClassVar[frozenset[str]] = frozenset({"role_ids"})
    SECRET: ClassVar[frozenset[str]] = frozenset({"secret_sha256"})

    secret_sha256: Annotated[str, attribute("Hash of its secret.", by=CLUSTER)]
    expires_ms: Annotated[int, attribute("Until when it is good; 0: for ever.")] = 0
    account_id: Annotated[
        str, attribute("It may do what this account may; empty: by its roles.")
    ] = ""
    role_ids: Annotated[
        tuple[str, ...],
        attribute(
            "Roles that say what it may do; with neither roles nor account it may do everything."
        ),
    ] = ()
