"""What a joining host and a member say to each other over HTTPS, and the versions they must share.

Used by `nodeagent.joining.joiner` (the new host) and `nodeagent.joining.doorkeeper` (any member).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from core.attributes import CLUSTER, attribute
from core.member_file import MemberAddress
from raftstate.consensus.entries import LEVEL

VERSION = "0.1.0"
FEATURE_LEVEL = LEVEL
CLOCK_DIFFERENCE_S_MAX = 300
MEMBERS_TOLD_MAX = 32
CLUSTER_NAME = "cluster.kvorum.internal"  # asked for by server name: the certificate of the cluster's authority


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new host's wish. `secret_hex` proves the token; `request_pem` is the certificate signing request."""

    token_id: Annotated[str, attribute("Id of the join token.")]
    secret_hex: Annotated[str, attribute("Its secret.")]
    host_id: Annotated[str, attribute("A UUID that the new host has chosen.")]
    host_name: Annotated[str, attribute("Name of the new host.")]
    address: Annotated[str, attribute("Its IP address on the management network.")]
    request_pem: Annotated[str, attribute("Certificate signing request of its key.")]
    version: Annotated[str, attribute("Version of its agent.")]
    feature_level: Annotated[int, attribute("What its agent understands of the replicated state.")]
    clock_ms: Annotated[int, attribute("What its clock shows.")]
    cpus: Annotated[int, attribute("Threads of its processors.")]
    memory_mib: Annotated[int, attribute("Its physical memory.")]
    arch: Annotated[str, attribute("Architecture of its processors.")]
    witness: Annotated[bool, attribute("Vote and hold the state, but run no VMs.")] = False

    def __repr__(self) -> str:
        return f"JoinRequest({self.host_name}, ***)"


class JoinAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a host a member. `secrets_key_hex` opens the sealed secrets of the replicated state. `members` are
    those from whom it gets the state first, voters before others."""

    cluster_name: Annotated[str, attribute("Name of the cluster.", by=CLUSTER)]
    certificate_pem: Annotated[str, attribute("The new host's certificate.", by=CLUSTER)]
    ca_pem: Annotated[str, attribute("The authority's certificate.", by=CLUSTER)]
    secrets_key_hex: Annotated[str, attribute("Key of the cluster's secrets.", by=CLUSTER)]
    members: Annotated[
        tuple[MemberAddress, ...], attribute("Hosts from whom it gets the state first.", by=CLUSTER)
    ]

    def __repr__(self) -> str:
        return f"JoinAnswer({self.cluster_name}, ***)"


class JoinCancel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new host gives up: its record goes and its token is good again."""

    token_id: Annotated[str, attribute("Id of the join token.")]
    secret_hex: Annotated[str, attribute("Its secret.")]
    host_id: Annotated[str, attribute("The host that gives up.")]

    def __repr__(self) -> str:
        return f"JoinCancel({self.host_id}, ***)"


class AboutStanding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A host without a way in asks whether it still belongs to the cluster."""

    host_id: Annotated[str, attribute("The host that asks.")]


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the cluster has a record of the host, as of log index `index`."""

    member: Annotated[bool, attribute("Whether there is a record of the host.", by=CLUSTER)]
    index: Annotated[int, attribute("Log index of the copy that says so.", by=CLUSTER)]
