"""The mesh itself: cluster secrets, hosts and their leases, join tokens, access tokens.

Written by joining (`nodeagent.joining`), the lease batcher and the HA decisions (`ha`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

import msgspec

from core.model.resource import OnDelete, Relation, Resource, Tagged


class DataCenter(Tagged, tag="data-center.v1", frozen=True, kw_only=True):
    """The largest name space; holds clusters."""

    PLURAL: ClassVar[str] = "data-centers"


class Cluster(Tagged, tag="cluster.v1", frozen=True, kw_only=True):
    """A logical group of hosts inside a data center."""

    PLURAL: ClassVar[str] = "clusters"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation("data_center_id", target="data-center", name="data_center", reverse="clusters"),
    )

    data_center_id: str


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

    ca_pem: str
    sealed_ca_key: bytes
    sealed_gossip_key: bytes
    feature_level: int = 1
    ha_profile: str = "default"
    voters_max: int = 5
    voter_replace_after_s: int = 600


class HostState(StrEnum):
    """Where a host stands for the cluster. `FENCED`: its VMs were taken away and its renewals are refused
    until it reports that its guests are gone."""

    MEMBER = "member"
    FENCED = "fenced"


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

    package: str
    version: str
    group: str
    name: str
    state: PluginState = PluginState.ACTIVE
    why: str = ""


class Host(Tagged, tag="host.v1", frozen=True, kw_only=True):
    """A server that runs the agent. `address` is its IP on the management network.

    Hosts of one `failure_domain` (a rack, a room) fail together; empty: this host shares its fate with no other. A
    `witness` votes and holds the state, but runs no VMs. `feature_level` is what its agent understands. `joining` from
    its admission until it has the state and says so: it gets no vote, and may give up without a trace. `plugins` are what
    its agent found installed when it started.
    """

    PLURAL: ClassVar[str] = "hosts"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation("cluster_id", target="cluster", name="cluster", reverse="hosts"),
    )

    cluster_id: str
    address: str
    api_port: int = 7443
    mesh_port: int = 7444
    version: str = ""
    cpus: int = 0
    memory_mib: int = 0
    arch: str = "x86_64"
    accelerator: str = ""
    watchdog: str = ""
    state: HostState = HostState.MEMBER
    maintenance: bool = False
    failure_domain: str = ""
    witness: bool = False
    vote: Vote = Vote.AUTO
    feature_level: int = 1
    joining: bool = False
    plugins: tuple[Plugin, ...] = ()

    def claims(self) -> tuple[str, ...]:
        return (f"host.name/{self.name}", f"host.address/{self.address}")


class Lease(Resource, tag="lease.v1", frozen=True, kw_only=True):
    """A host's right to run lease-bound guests; id = host id, name = host id.

    Renewed about once a second; its revision is the log index of the last renewal, which is what a change
    of VM ownership guards. `boot_id` changes with each boot of the host. `watchdog_armed` is what the guard last said.
    """

    NOT_RELATIONS: ClassVar[frozenset[str]] = frozenset({"boot_id"})

    boot_id: str
    seq: int
    watchdog_armed: bool = False

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
    )
    SECRET: ClassVar[frozenset[str]] = frozenset({"secret_sha256"})

    secret_sha256: str
    expires_ms: int
    used_by_host_id: str = ""


class ApiCertificate(Resource, tag="api-certificate.v1", frozen=True, kw_only=True):
    """An operator's own certificate of the HTTPS API; id and name are a host's id, or `all`.

    `chain_pem` has the server's certificate first. The key is sealed under the name `api-key/<id>`.
    `sha256` is the fingerprint of the server's certificate.
    """

    NOT_RELATIONS: ClassVar[frozenset[str]] = frozenset({"host_id"})  # nothing to query by
    SECRET: ClassVar[frozenset[str]] = frozenset({"sealed_key"})
    SEALED: ClassVar[dict[str, str]] = {"sealed_key": "api-key/{id}"}

    chain_pem: str
    sealed_key: bytes
    sha256: str
    host_id: str = ""

    def __repr__(self) -> str:
        return f"ApiCertificate({self.id}, {self.sha256}, ***)"


class SecretsKey(Resource, tag="secrets-key.v1", frozen=True, kw_only=True):
    """Which secrets key is in use, by its id, from the first change on; exactly one, id `secrets-key`.

    `next_key_id`: the one that hosts are being given. `former_key_id`: the one before, until every host has the new one.
    """

    NOT_RELATIONS: ClassVar[frozenset[str]] = frozenset({"key_id", "next_key_id", "former_key_id"})

    key_id: str
    next_key_id: str = ""
    former_key_id: str = ""


class HostKey(Resource, tag="host-key.v1", frozen=True, kw_only=True):
    """A host says which secrets key it has, while it is being changed; id and name = host id."""

    NOT_RELATIONS: ClassVar[frozenset[str]] = frozenset({"host_id", "key_id"})

    host_id: str
    key_id: str


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

    secret_sha256: str
    expires_ms: int = 0
    account_id: str = ""
    role_ids: tuple[str, ...] = ()
