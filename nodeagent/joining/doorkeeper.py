"""The member's side of joining: make tokens, check a new host's request, sign its certificate.

Called by the HTTPS API (`nodeagent.api.joining`). Any member can do all of it. A refused request changes nothing.
"""

from __future__ import annotations

import ipaddress
import random
import uuid
from collections.abc import Callable

from msgspec.structs import replace

from core.clock import Clock, new_id
from core.errors import ConflictError, InvalidError, UnauthenticatedError
from core.identity.certificates import KeyPair, fingerprint, sign_request
from core.identity.sealing import Keys, opening_key, unseal
from core.member_file import MemberAddress, bracketed
from core.model import Cluster, Host, JoinToken, Lease, Mesh, SecretsKey, check_name
from nodeagent.identity.tokens import (
    JoinTicket,
    format_join_token,
    is_secret,
    new_secret,
    secret_hash,
)
from nodeagent.joining.founding import MESH_ID
from nodeagent.joining.messages import (
    CLOCK_DIFFERENCE_S_MAX,
    FEATURE_LEVEL,
    MEMBERS_TOLD_MAX,
    VERSION,
    JoinAnswer,
    JoinCancel,
    JoinRequest,
)
from nodeagent.services.places import cluster_of
from raftstate.consensus.engine import ConsensusEngine, NodeId, Peer
from raftstate.store import Store

TOKEN_TTL_S_MAX = 7 * 86_400
TOKENS_AT_ONCE_MAX = 100
ADDRESSES_IN_TOKEN_MAX = 16


class Doorkeeper:
    """Lets hosts in, and no one else."""

    def __init__(
        self,
        store: Store,
        engine: ConsensusEngine,
        *,
        clock: Clock,
        rng: random.Random,
        secrets_key: Callable[[], Keys],
    ) -> None:
        self._store = store
        self._engine = engine
        self._clock = clock
        self._rng = rng
        self._secrets_key = secrets_key

    async def make_tokens(self, count: int, ttl_s: int, cluster: str = "") -> tuple[list[str], int]:
        """Return (texts of new single-use tokens, their expiry in Unix ms). `cluster` is a name or id, empty: the first.

        Raises:
            InvalidError: count or lifetime out of bounds.
            NotFoundError: there is no such cluster.
        """
        if not 1 <= count <= TOKENS_AT_ONCE_MAX:
            raise InvalidError(f"count must be 1 to {TOKENS_AT_ONCE_MAX}")
        if not 1 <= ttl_s <= TOKEN_TTL_S_MAX:
            raise InvalidError(f"ttl must be 1 second to {TOKEN_TTL_S_MAX // 86_400} days")
        cluster_id = self._store.find(Cluster, cluster).id if cluster else ""
        now_ms = self._clock.wall_ms()
        expires_ms = now_ms + ttl_s * 1000
        mesh = self._store.need(Mesh, MESH_ID)
        addresses = tuple(
            f"{bracketed(h.address)}:{h.api_port}"
            for h in self._voters_first()[:ADDRESSES_IN_TOKEN_MAX]
        )
        records, texts = [], []
        for _ in range(count):
            token_id, secret = new_id(self._rng), new_secret()
            records.append(
                JoinToken(
                    id=token_id,
                    name=token_id,
                    secret_sha256=secret_hash(secret),
                    expires_ms=expires_ms,
                    created_ms=now_ms,
                    cluster_id=cluster_id,
                )
            )
            ticket = JoinTicket(
                token_id=token_id,
                secret=secret,
                ca_fingerprint=fingerprint(mesh.ca_pem),
                cluster_name=mesh.name,
                addresses=addresses,
            )
            texts.append(format_join_token(ticket))
        await self._store.apply(puts=records)
        return texts, expires_ms

    async def admit(self, request: JoinRequest) -> JoinAnswer:
        """Check everything, then record the host, use up its token and sign its certificate.

        Raises:
            UnauthenticatedError: token unknown, wrong, used or expired.
            InvalidError, ConflictError: anything else that forbids it; nothing was changed.
        """
        token = self._checked_token(request.token_id, request.secret_hex)
        unfinished = await self._unfinished(token, request)
        if token.used_by_host_id and unfinished is None:
            raise UnauthenticatedError(
                "this join token was used already: each token joins one host; "
                "make another with 'kvorum token create'"
            )
        mesh = self._store.need(Mesh, MESH_ID)
        self._check(request, mesh, besides=unfinished)
        cluster = cluster_of(self._store, token.cluster_id)
        key = opening_key(self._secrets_key(), mesh.sealed_ca_key)
        authority = KeyPair(mesh.ca_pem, unseal(key, "ca-key", mesh.sealed_ca_key).decode())
        now_ms = self._clock.wall_ms()
        certificate = sign_request(
            authority,
            request.request_pem,
            host_id=request.host_id,
            host_name=request.host_name,
            address=request.address,
            now_ms=now_ms,
        )
        host = Host(
            id=request.host_id,
            name=request.host_name,
            cluster_id=cluster.id,
            address=request.address,
            version=request.version,
            cpus=request.cpus,
            memory_mib=request.memory_mib,
            arch=request.arch,
            witness=request.witness,
            joining=True,
            feature_level=request.feature_level,
            created_ms=now_ms,
        )
        members = tuple(
            MemberAddress(id=h.id, name=h.name, address=h.address, mesh_port=h.mesh_port)
            for h in self._voters_first()[: MEMBERS_TOLD_MAX + 1]
            if unfinished is None or h.id != unfinished.id
        )
        await self._store.apply(
            puts=(host, _used(token, request.host_id)),
            deletes=(unfinished,) if unfinished is not None else (),
        )
        return JoinAnswer(
            cluster_name=mesh.name,
            certificate_pem=certificate,
            ca_pem=mesh.ca_pem,
            secrets_key_hex=key.hex(),
            members=members,
        )

    async def _unfinished(self, token: JoinToken, request: JoinRequest) -> Host | None:
        """Return what this token admitted before, if that was the same host and it never came in.

        So a host that died in the middle, or heard no answer, just joins again.
        """
        if not token.used_by_host_id:
            return None
        await self._store.barrier()
        host = self._store.get(Host, token.used_by_host_id)
        if host is None or self._is_in(host):
            return None
        same = (host.name, host.address) == (request.host_name, request.address)
        return host if same else None

    async def forget(self, request: JoinCancel) -> None:
        """Undo an admission whose host gave up before it was in.

        The token of a host that was removed since stays used: it must not come back by itself.
        """
        token = self._checked_token(request.token_id, request.secret_hex)
        if token.used_by_host_id != request.host_id:
            return
        await self._store.barrier()
        host = self._store.get(Host, request.host_id)
        if host is None:
            return
        if self._is_in(host):
            raise ConflictError("the host is a member already: remove it with 'kvorum host remove'")
        lease = self._store.get(Lease, request.host_id)
        await self._store.apply(
            puts=(_used(token, ""),), deletes=[r for r in (host, lease) if r is not None]
        )

    def _is_in(self, host: Host) -> bool:
        """Tell whether a host said that it has the state, or votes."""
        return not host.joining or NodeId(host.id) in {p.id for p in self._engine.voters()}

    def _voters_first(self) -> list[Host]:
        voters = {peer.id for peer in self._engine.voters()}
        return sorted(self._store.all(Host), key=lambda h: (h.id not in voters, h.name))

    def _checked_token(self, token_id: str, secret_hex: str) -> JoinToken:
        token = self._store.get(JoinToken, token_id)
        if token is None or not is_secret(_from_hex(secret_hex), token.secret_sha256):
            raise UnauthenticatedError(
                "this join token is not known here: it was revoked, belongs to another cluster, "
                "or is wrong; make one with 'kvorum token create'"
            )
        if self._clock.wall_ms() >= token.expires_ms:
            raise UnauthenticatedError(
                "this join token has expired: make another with 'kvorum token create'"
            )
        return token

    def _check(self, request: JoinRequest, mesh: Mesh, *, besides: Host | None) -> None:
        if not mesh.feature_level <= request.feature_level <= FEATURE_LEVEL:
            raise InvalidError(
                f"versions do not fit: this member runs {VERSION} "
                f"(feature levels {mesh.feature_level} to {FEATURE_LEVEL}), "
                f"the new host {request.version[:20]} (level {request.feature_level}): "
                "install the cluster's version on it"
            )
        if any(key.next_key_id for key in self._store.all(SecretsKey)):
            raise ConflictError("the secrets key is being changed: join again in a minute")
        off_s = abs(request.clock_ms - self._clock.wall_ms()) / 1000
        if off_s > CLOCK_DIFFERENCE_S_MAX:
            raise InvalidError(
                f"the new host's clock differs by {off_s:.0f} s from the cluster's "
                f"(allowed: {CLOCK_DIFFERENCE_S_MAX} s): set its clock, e.g. by chrony, then join again"
            )
        check_name(request.host_name, "host")
        address = checked_address(request.address)
        if not _is_id(request.host_id):
            raise InvalidError("the host id is not a UUID in lower case with dashes")
        if address == mesh.vip:
            raise ConflictError(f"address {address} is the cluster's VIP: join with --address")
        hosts = [h for h in self._store.all(Host) if besides is None or h.id != besides.id]
        for host in hosts:
            if host.id == request.host_id:
                raise ConflictError(f"host id {host.id} is a member already: was its disk cloned?")
            if host.name == request.host_name:
                raise ConflictError(
                    f"host name {host.name!r} is already taken by {host.address}: "
                    "join with --host-name, or remove the old host with 'kvorum host remove'"
                )
            if host.address == address:
                raise ConflictError(
                    f"address {address} is already taken by host {host.name!r}: join with --address"
                )


def peer_of(host: Host) -> Peer:
    """Return how consensus reaches a host."""
    return Peer(NodeId(host.id), f"{bracketed(host.address)}:{host.mesh_port}")


def checked_address(address: str) -> str:
    """Return a canonical IP address that other hosts can reach.

    Raises:
        InvalidError: not an IP address, or loopback, unspecified, multicast or link-local.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        raise InvalidError(f"{address[:60]!r} is not an IP address") from None
    if parsed.version == 6:
        raise InvalidError(
            f"{address} is IPv6: hosts need an IPv4 address for now, tunnels run over it"
        )
    if parsed.is_loopback or parsed.is_unspecified or parsed.is_multicast or parsed.is_link_local:
        raise InvalidError(f"other hosts can't reach {address}: give this host's own address")
    return str(parsed)


def _is_id(text: str) -> bool:
    """Tell whether a text is a UUID in the one form that we write, so that no host has two ids."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _from_hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _used(token: JoinToken, host_id: str) -> JoinToken:
    return replace(token, used_by_host_id=host_id)
