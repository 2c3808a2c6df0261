"""The two ways into a cluster: founding one, and joining one. Each writes this host's identity, then enters.

Used by `nodeagent.lifecycle`, which decides when and cleans up after a failure. Everything here may be repeated.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable

from core.clock import new_id
from core.errors import ConflictError, PlatformError, UnavailableError
from core.model import Cluster, Host, Lease
from nodeagent.identity.certificates import make_authority, make_request, sign_request
from nodeagent.identity.sealing import make_key
from nodeagent.identity.tokens import new_access_token
from nodeagent.joining.founding import founding_resources
from nodeagent.joining.messages import VERSION, JoinAnswer, MemberRecord
from nodeagent.member import Basics, Member
from nodeagent.mesh_client import Nothing
from nodeagent.paths import write_file

log = logging.getLogger(__name__)

GOSSIP_KEY_BYTES = 32
FOUNDING_TIMEOUT_S = 20.0
VOTE_TIMEOUT_S = 30.0
CATCH_UP_TIMEOUT_S = 30.0
LIBVIRT_TIMEOUT_S = 20.0
FIRST_LEASE_TIMEOUT_S = 8.0
TRY_AGAIN_S = 0.5


class Founding:
    """The way of the first host."""

    def __init__(self, basics: Basics, record: MemberRecord) -> None:
        self._basics, self._record = basics, record
        self._authority = make_authority(record.cluster_name, now_ms=basics.clock.wall_ms())
        self._secrets_key = make_key()

    def write_identity(self) -> None:
        record, paths = self._record, self._basics.paths
        request_pem, key_pem = make_request(record.host_id)
        certificate = sign_request(
            self._authority,
            request_pem,
            host_id=record.host_id,
            host_name=record.host_name,
            address=record.address,
            now_ms=self._basics.clock.wall_ms(),
        )
        write_file(paths.ca_pem, self._authority.certificate_pem.encode(), mode=0o644)
        write_file(paths.host_pem, certificate.encode(), mode=0o644)
        write_file(paths.host_key, key_pem.encode())
        write_file(paths.secrets_key, self._secrets_key)

    async def take_back(self) -> bool:
        """Nobody knows of it yet."""
        return True

    async def enter(self, member: Member) -> None:
        """Commit the first transaction of the cluster."""
        record, node = self._record, member.node
        facts = await node.hypervisor.host_facts()
        admin_token = new_access_token()
        host = Host(
            id=record.host_id,
            name=record.host_name,
            cluster_id=new_id(self._basics.rng),
            address=record.address,
            api_port=record.api_port,
            mesh_port=record.mesh_port,
            version=VERSION,
            cpus=facts.cpus,
            memory_mib=facts.memory_mib,
            arch=facts.architecture,
            created_ms=self._basics.clock.wall_ms(),
        )
        resources = founding_resources(
            cluster_name=record.cluster_name,
            host=host,
            authority=self._authority,
            gossip_key=os.urandom(GOSSIP_KEY_BYTES),
            secrets_key=self._secrets_key,
            admin_token=admin_token,
            now_ms=self._basics.clock.wall_ms(),
            rng=self._basics.rng,
        )
        await node.store.apply(puts=resources, timeout_s=FOUNDING_TIMEOUT_S)
        write_file(self._basics.paths.admin_token, f"{admin_token}\n".encode())


class Joining:
    """The way of every other host."""

    def __init__(
        self,
        basics: Basics,
        record: MemberRecord,
        answer: JoinAnswer,
        key_pem: str,
        take_back: Callable[[], Awaitable[bool]],
    ) -> None:
        self._basics, self._record, self._answer = basics, record, answer
        self._key_pem = key_pem
        self.take_back = take_back

    def write_identity(self) -> None:
        paths, answer = self._basics.paths, self._answer
        write_file(paths.ca_pem, answer.ca_pem.encode(), mode=0o644)
        write_file(paths.host_pem, answer.certificate_pem.encode(), mode=0o644)
        write_file(paths.host_key, self._key_pem.encode())
        write_file(paths.secrets_key, bytes.fromhex(answer.secrets_key_hex))

    async def enter(self, member: Member) -> None:
        """Become a voter with a copy of the state."""
        await become_voter(member, self._record)


async def first_lease(member: Member) -> None:
    """Wait for the guard's first renewal, so that VMs can be placed here from now on. Without a guard, don't."""
    watch = member.node.store.watch(Lease)
    try:
        async with asyncio.timeout(FIRST_LEASE_TIMEOUT_S):
            while member.node.store.get(Lease, member.node.host_id) is None:
                await watch.next()
    except TimeoutError:
        log.warning("the guard has not renewed the lease: is kvorum-guard running on this host?")
    finally:
        member.node.store.unwatch(watch)


def is_whole(member: Member, record: MemberRecord) -> bool:
    """Tell whether a host's own log and state say that it votes: a join may have broken off before."""
    voters = {peer.id for peer in member.node.engine.voters()}
    known = member.node.store.get(Host, record.host_id) is not None
    return record.founder or (known and record.host_id in voters)


async def become_voter(member: Member, record: MemberRecord) -> None:
    """Ask to vote until a leader agrees, then wait for this host's copy of the state. Repeatable."""
    await _ask_to_vote(member, record)
    watch = member.node.store.watch(Host, Cluster)
    try:
        async with asyncio.timeout(CATCH_UP_TIMEOUT_S):
            while member.node.store.get(Host, member.node.host_id) is None:
                await watch.next()
    except TimeoutError:
        raise UnavailableError("the cluster's state did not arrive in time: try again") from None
    finally:
        member.node.store.unwatch(watch)


async def _ask_to_vote(member: Member, record: MemberRecord) -> None:
    error: PlatformError = UnavailableError("no member answers on the mesh port")
    hosts = [
        Host(id=m.id, name=m.name, address=m.address, mesh_port=m.mesh_port, cluster_id="")
        for m in record.members
    ]
    try:
        async with asyncio.timeout(VOTE_TIMEOUT_S):
            while True:
                for host in hosts:
                    try:
                        await member.node.mesh.call(
                            host, "/mesh/vote", Nothing(), Nothing, timeout_s=VOTE_TIMEOUT_S
                        )
                    except PlatformError as failure:
                        error = failure
                    else:
                        return
                await asyncio.sleep(TRY_AGAIN_S)
    except TimeoutError:
        raise UnavailableError(
            f"this host was admitted but could not become a voter in {VOTE_TIMEOUT_S:g} s: "
            f"{error.message}; are ports 7443 and 7444 open between the hosts?"
        ) from None


async def until_connected(member: Member) -> None:
    """Wait for libvirt: a host without it can't be a member."""
    try:
        async with asyncio.timeout(LIBVIRT_TIMEOUT_S):
            await member.node.hypervisor.wait_connected()
    except TimeoutError:
        raise ConflictError(
            "libvirtd does not answer on this host: start it ('systemctl start libvirtd') and try again"
        ) from None
