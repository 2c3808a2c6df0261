"""An agent's life: unconfigured, then a member by `init` or `join`, then a member at every start.

Made by `nodeagent.main`; the API calls `init` and `join`. Becoming a member is all or nothing: whatever a try left
behind that was interrupted before `member.json` was written is removed before the next. A joining host writes it
before it asks to vote, and goes on after a crash: a voter that forgot who it is would cost a small cluster its
quorum for ever.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import shutil
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial

import msgspec
from aiohttp import web

from core.clock import new_id
from core.errors import (
    ConflictError,
    FatalError,
    PlatformError,
    UnavailableError,
    first_in,
)
from core.mesh.tls import TlsFiles
from core.model import Cluster, Host, Lease, check_name
from nodeagent.api.app import build_app, serve_https, serve_unix
from nodeagent.host_names import checked_own_address, own_name
from nodeagent.identity.certificates import make_authority, make_request, sign_request
from nodeagent.identity.sealing import make_key
from nodeagent.identity.tokens import JoinTicket, new_access_token, parse_join_token
from nodeagent.joining import joiner
from nodeagent.joining.founding import founding_resources
from nodeagent.joining.messages import (
    FEATURE_LEVEL,
    VERSION,
    JoinAnswer,
    JoinCancel,
    JoinRequest,
    MemberRecord,
)
from nodeagent.member import Basics, Member
from nodeagent.mesh_client import Nothing
from nodeagent.node import Node
from nodeagent.paths import write_file
from nodeagent.services.files_for_others import FilesForOthers
from nodeagent.services.services import Services

log = logging.getLogger(__name__)

GOSSIP_KEY_BYTES = 32
FOUNDING_TIMEOUT_S = 20.0
VOTE_TIMEOUT_S = 30.0
CATCH_UP_TIMEOUT_S = 30.0
LIBVIRT_TIMEOUT_S = 20.0
TRY_AGAIN_S = 0.5
FIRST_LEASE_TIMEOUT_S = 8.0


class Lifecycle:
    """One agent process."""

    def __init__(self, basics: Basics) -> None:
        self._basics = basics
        self._paths = basics.paths
        self._member: Member | None = None
        self._changing = asyncio.Lock()
        self._group = asyncio.TaskGroup()
        self._runner: web.AppRunner | None = None

    @property
    def node(self) -> Node | None:
        """This host as a member, None before it is one."""
        return self._member.node if self._member else None

    @property
    def services(self) -> Services | None:
        """The member's services, None before it is one."""
        return self._member.services if self._member else None

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            FatalError: the state of this host is damaged.
        """
        app = build_app(self, clock=self._basics.clock, rng=self._basics.rng)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
        await self._runner.setup()
        try:
            async with self._group:
                if (record := self._read_record()) is not None:
                    member = Member(self._basics, record)
                    self._group.create_task(member.run_consensus(), name="member-consensus")
                    if _is_whole(member, record):
                        await self._publish(member, record)
                    else:
                        self._finish_later(member, record)
                else:
                    self._remove_leftovers()
                await serve_unix(self._runner, self._paths.api_socket)
                log.info("agent ready", extra={"member": record is not None})
                await asyncio.Event().wait()
        finally:
            await self._runner.cleanup()

    async def step_aside(self) -> None:
        """Prepare for a planned stop."""
        if self._member is not None:
            await self._member.step_aside()

    async def init(self, *, cluster_name: str, host_name: str, address: str) -> MemberRecord:
        """Found a cluster with this host as its first member.

        Raises:
            ConflictError: this host is a member already.
            InvalidError: a name or the address can't be used; nothing was changed.
        """
        async with self._changing:
            self._refuse_member()
            cluster_name = check_name(cluster_name or "kvorum", "cluster")
            host_name = check_name(host_name or own_name(), "host")
            address = await checked_own_address(address)
            record = MemberRecord(
                host_id=new_id(self._basics.rng),
                host_name=host_name,
                address=address,
                cluster_name=cluster_name,
                api_port=self._basics.config.api_port,
                mesh_port=self._basics.config.mesh_port,
                founder=True,
                members=(),
            )
            self._remove_leftovers()
            return await self._become_member(record, _Founding(self._basics, record))

    async def join(self, *, token: str, host_name: str, address: str) -> MemberRecord:
        """Become a member of the token's cluster. Everything is checked there before anything is changed.

        Raises:
            ConflictError: this host is a member already, or a name or address is taken.
            PlatformError: what else forbids it; name, address and token are free again.
        """
        async with self._changing:
            self._refuse_member()
            ticket = parse_join_token(token)
            host_name = check_name(host_name or own_name(), "host")
            address = await checked_own_address(address)
            self._remove_leftovers()
            host_id = new_id(self._basics.rng)
            door = await joiner.find_door(ticket)
            request_pem, key_pem = make_request(host_id)
            request = self._join_request(ticket, host_id, host_name, address, request_pem)
            cancel = JoinCancel(
                token_id=ticket.token_id, secret_hex=ticket.secret.hex(), host_id=host_id
            )
            try:
                answer = await joiner.ask(door, request)
            except UnavailableError:
                await _give_up(door, cancel)
                raise
            record = MemberRecord(
                host_id=host_id,
                host_name=host_name,
                address=address,
                cluster_name=answer.cluster_name,
                api_port=self._basics.config.api_port,
                mesh_port=self._basics.config.mesh_port,
                founder=False,
                members=answer.members,
            )
            way = _Joining(self._basics, record, answer, key_pem, partial(_give_up, door, cancel))
            return await self._become_member(record, way)

    # -- becoming a member

    async def _become_member(self, record: MemberRecord, way: _Founding | _Joining) -> MemberRecord:
        consensus: asyncio.Task[PlatformError | None] | None = None
        member: Member | None = None
        try:
            way.write_identity()
            member = Member(self._basics, record)
            consensus = self._group.create_task(
                self._run_until_failure(member), name="member-consensus"
            )
            await self._enter(member, record, way, consensus)
            FilesForOthers(member.node, self._paths.secrets_key.read_bytes()).write()
            self._write_record(record)
        except (PlatformError, OSError, asyncio.CancelledError) as error:
            taken_back = await way.take_back()
            if not taken_back and member is not None and self._paths.member_file.exists():
                if not isinstance(error, asyncio.CancelledError):
                    self._finish_later(member, record)
                raise
            self._paths.member_file.unlink(missing_ok=True)
            if consensus is not None:
                consensus.cancel()
                await asyncio.gather(consensus, return_exceptions=True)
            self._remove_leftovers()
            raise
        await self._publish(member, record)
        await _first_lease(member)
        log.info("this host is a member", extra={"host": record.host_id})
        return record

    async def _run_until_failure(self, member: Member) -> PlatformError | None:
        """Run a member's consensus; a failure before the host is a member is its try's and not the agent's."""
        try:
            await member.run_consensus()
        except BaseExceptionGroup as errors:
            if self._member is member:
                raise
            return first_in(errors, PlatformError)
        return None

    async def _enter(
        self,
        member: Member,
        record: MemberRecord,
        way: _Founding | _Joining,
        consensus: asyncio.Task[PlatformError | None],
    ) -> None:
        """Take the steps into the cluster, as long as consensus runs.

        Raises:
            PlatformError: a step's, or what ended consensus, such as a port in use.
        """

        async def steps() -> None:
            await _until_connected(member)
            if not record.founder:
                self._write_record(record)
            await way.enter(member)

        entering = self._group.create_task(_outcome(steps()), name="entering")
        try:
            await asyncio.wait({entering, consensus}, return_when=asyncio.FIRST_COMPLETED)
            if not entering.done():
                raise consensus.result() or UnavailableError("consensus ended: try again")
        finally:
            entering.cancel()
        if (error := entering.result()) is not None:
            raise error

    def _finish_later(self, member: Member, record: MemberRecord) -> None:
        """Go on in the background with a join that broke off after this host may have become a voter."""
        self._group.create_task(self._finish_joining(member, record), name="finish-joining")

    async def _finish_joining(self, member: Member, record: MemberRecord) -> None:
        while True:
            try:
                await _become_voter(member, record)
                FilesForOthers(member.node, self._paths.secrets_key.read_bytes()).write()
            except (PlatformError, OSError) as error:
                log.info("joining goes on", extra={"error": str(error)})
                await asyncio.sleep(TRY_AGAIN_S)
            else:
                break
        await self._publish(member, record)
        log.info("this host is a member", extra={"host": record.host_id})

    def _write_record(self, record: MemberRecord) -> None:
        write_file(self._paths.member_file, msgspec.json.encode(record))

    async def _publish(self, member: Member, record: MemberRecord) -> None:
        assert self._runner is not None, "set up by run"
        self._member = member
        self._group.create_task(member.run_services(), name="member-services")
        tls = TlsFiles.in_directory(self._paths.identity)
        for address in (record.address, "127.0.0.1"):
            await serve_https(self._runner, address, record.api_port, tls)

    def _refuse_member(self) -> None:
        if self._member is not None or self._paths.member_file.exists():
            raise ConflictError("this host is a member of a cluster already: see 'kvorum status'")

    def _read_record(self) -> MemberRecord | None:
        try:
            return msgspec.json.decode(self._paths.member_file.read_bytes(), type=MemberRecord)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FatalError(
                f"{self._paths.member_file} is damaged ({error}): restore it"
            ) from None

    def _remove_leftovers(self) -> None:
        """Remove what an unfinished init or join left. Never called on a member."""
        assert not self._paths.member_file.exists(), "a member's files stay"
        serf = self._paths.serf_keyring.parent
        for directory in (self._paths.identity, self._paths.raft, serf):
            shutil.rmtree(directory, ignore_errors=True)
        for file in (
            self._paths.guard_config,
            self._paths.serf_config,
            self._paths.admin_token,
            *self._paths.state.glob(f"{self._paths.database.name}*"),
        ):
            file.unlink(missing_ok=True)

    def _join_request(
        self, ticket: JoinTicket, host_id: str, host_name: str, address: str, request_pem: str
    ) -> JoinRequest:
        return JoinRequest(
            token_id=ticket.token_id,
            secret_hex=ticket.secret.hex(),
            host_id=host_id,
            host_name=host_name,
            address=address,
            request_pem=request_pem,
            version=VERSION,
            feature_level=FEATURE_LEVEL,
            clock_ms=self._basics.clock.wall_ms(),
            cpus=os.cpu_count() or 1,
            memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
            arch=platform.machine(),
        )


class _Founding:
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


class _Joining:
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
        await _become_voter(member, self._record)


async def _first_lease(member: Member) -> None:
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


def _is_whole(member: Member, record: MemberRecord) -> bool:
    """Tell whether a host's own log and state say that it votes: a join may have broken off before."""
    voters = {peer.id for peer in member.node.engine.voters()}
    known = member.node.store.get(Host, record.host_id) is not None
    return record.founder or (known and record.host_id in voters)


async def _become_voter(member: Member, record: MemberRecord) -> None:
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


async def _outcome(steps: Coroutine[None, None, None]) -> PlatformError | OSError | None:
    """Run to the end and return the error instead of raising it, which would end the whole group."""
    try:
        await steps
    except (PlatformError, OSError) as error:
        return error
    return None


async def _until_connected(member: Member) -> None:
    """Wait for libvirt: a host without it can't be a member."""
    try:
        async with asyncio.timeout(LIBVIRT_TIMEOUT_S):
            await member.node.hypervisor.wait_connected()
    except TimeoutError:
        raise ConflictError(
            "libvirtd does not answer on this host: start it ('systemctl start libvirtd') and try again"
        ) from None


async def _give_up(door: joiner.Door, cancel: JoinCancel) -> bool:
    """Free name, address and token again; False when that can't be said, or this host votes already."""
    try:
        await joiner.give_up(door, cancel)
    except PlatformError as error:
        log.warning("an admission could not be taken back", extra={"error": error.message})
        return False
    return True
