"""The two ways into a cluster: founding one, and joining one. Each writes this host's identity, then enters.

Used by `nodeagent.lifecycle`, which decides when and cleans up after a failure. Everything here may be repeated.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from core.clock import new_id
from core.errors import ConflictError, UnavailableError
from core.identity.certificates import make_authority, make_request, sign_request
from core.identity.keyring import Keyring
from core.identity.sealing import make_key
from core.member_file import MemberRecord
from core.model import Cluster, Host, Lease, Mesh
from core.paths import write_file
from nodeagent.identity.tokens import new_access_token
from nodeagent.joining.founding import MESH_ID, founding_resources
from nodeagent.joining.messages import FEATURE_LEVEL, VERSION, JoinAnswer
from nodeagent.member import Basics, Member
from raftstate.voters import may_vote, voters_for

log = logging.getLogger(__name__)

GOSSIP_KEY_BYTES = 32
FOUNDING_TIMEOUT_S = 20.0
CATCH_UP_TIMEOUT_S = 60.0
VOTERS_TIMEOUT_S = 20.0
POLL_S = 0.2
LIBVIRT_TIMEOUT_S = 20.0
FIRST_LEASE_TIMEOUT_S = 8.0


class Founding:
    """The way of the first host."""

    def __init__(self, basics: Basics, record: MemberRecord) -> None:
        self._basics, self._record = basics, record
        self._authority = make_authority(record.cluster_name, now_ms=basics.clock.wall_ms())
        self._secrets_key = make_key()

    async def write_identity(self) -> None:
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
        await _keep(self._basics, self._secrets_key)

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
            feature_level=FEATURE_LEVEL,
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

    async def write_identity(self) -> None:
        paths, answer = self._basics.paths, self._answer
        write_file(paths.ca_pem, answer.ca_pem.encode(), mode=0o644)
        write_file(paths.host_pem, answer.certificate_pem.encode(), mode=0o644)
        write_file(paths.host_key, self._key_pem.encode())
        await _keep(self._basics, bytes.fromhex(answer.secrets_key_hex))

    async def enter(self, member: Member) -> None:
        """Become a replica with a copy of the state; whether it votes is the leader's decision."""
        await become_member(member)


async def _keep(basics: Basics, secrets_key: bytes) -> None:
    """Keep the secrets key as the settings say, from the beginning: a wrapped one is never on disk in clear."""
    await Keyring(basics.paths, basics.config.secrets_key).put(secrets_key)


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
    """Tell whether a host has the state, and has said so: a join may have broken off before."""
    host = member.node.store.get(Host, record.host_id)
    return record.founder or (host is not None and not host.joining)


async def become_member(member: Member) -> None:
    """Wait for this host's copy of the state, as a replica, then tell the cluster that it is in. Repeatable.

    Telling is a commit of this host's own: a member that could read but not write would be none.

    Raises:
        UnavailableError: the state did not come in time, or nothing can be committed.
    """
    member.follow_the_first_members()
    await until_caught_up(member)
    host = member.node.host()
    if host.joining:
        await member.node.store.apply(puts=(replace(host, joining=False),))


async def until_caught_up(member: Member) -> None:
    """Wait until this host's own record has come to it.

    Raises:
        UnavailableError: not in time.
    """
    node = member.node
    watch = node.store.watch(Host, Cluster)
    try:
        async with asyncio.timeout(CATCH_UP_TIMEOUT_S):
            while node.store.get(Host, node.host_id) is None:
                await watch.next()
    except TimeoutError:
        fault = node.engine.fault()
        raise UnavailableError(
            f"this host was admitted, but the cluster's state did not come within {CATCH_UP_TIMEOUT_S:g} s"
            + (f" ({fault})" if fault else "")
            + ": are ports 7443 and 7444 open between the hosts?"
        ) from None
    finally:
        node.store.unwatch(watch)


async def until_voters_settle(member: Member) -> bool:
    """Wait until as many hosts vote as should, so that the cluster is as safe as its size allows; False: not in time."""
    node = member.node
    try:
        async with asyncio.timeout(VOTERS_TIMEOUT_S):
            while True:
                hosts, mesh = node.store.all(Host), node.store.need(Mesh, MESH_ID)
                wanted = voters_for(sum(map(may_vote, hosts)), mesh.voters_max)
                if len(node.engine.voters()) == wanted:
                    return True
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        return False


async def until_connected(member: Member) -> None:
    """Wait for libvirt, or what the settings name instead: a host without it can't become a member.

    Raises:
        ConflictError: it isn't there.
    """
    if member.node.driver_fault:
        raise ConflictError(member.node.driver_fault)
    try:
        async with asyncio.timeout(LIBVIRT_TIMEOUT_S):
            await member.node.hypervisor.wait_connected()
    except TimeoutError:
        raise ConflictError(
            f"{member.node.hypervisor_name} does not answer on this host"
            if member.node.hypervisor_name != "libvirt"
            else "libvirtd does not answer on this host: start it ('systemctl start libvirtd') and try again"
        ) from None
