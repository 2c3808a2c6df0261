"""What a joining host and a member say to each other over HTTPS, and the versions they must share.

Used by `nodeagent.joining.joiner` (the new host) and `nodeagent.joining.doorkeeper` (any member).
"""

from __future__ import annotations

import msgspec

from core.member_file import MemberAddress
from raftstate.consensus.entries import LEVEL

VERSION = "0.1.0"
FEATURE_LEVEL = LEVEL
CLOCK_DIFFERENCE_S_MAX = 300
MEMBERS_TOLD_MAX = 32
CLUSTER_NAME = "cluster.kvorum.internal"  # asked for by server name: the certificate of the cluster's authority


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new host's wish. `secret_hex` proves the token; `request_pem` is the certificate signing request."""

    token_id: str
    secret_hex: str
    host_id: str
    host_name: str
    address: str
    request_pem: str
    version: str
    feature_level: int
    clock_ms: int
    cpus: int
    memory_mib: int
    arch: str
    witness: bool = False

    def __repr__(self) -> str:
        return f"JoinRequest({self.host_name}, ***)"


class JoinAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a host a member. `secrets_key_hex` opens the sealed secrets of the replicated state. `members` are
    those from whom it gets the state first, voters before others."""

    cluster_name: str
    certificate_pem: str
    ca_pem: str
    secrets_key_hex: str
    members: tuple[MemberAddress, ...]

    def __repr__(self) -> str:
        return f"JoinAnswer({self.cluster_name}, ***)"


class JoinCancel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new host gives up: its record goes and its token is good again."""

    token_id: str
    secret_hex: str
    host_id: str

    def __repr__(self) -> str:
        return f"JoinCancel({self.host_id}, ***)"


class AboutStanding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A host without a way in asks whether it still belongs to the cluster."""

    host_id: str


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the cluster has a record of the host, as of log index `index`."""

    member: bool
    index: int
