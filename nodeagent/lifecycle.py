"""An agent's life: unconfigured, then a member by `init` or `join`, then a member at every start, until it leaves.

Made by `nodeagent.main`; the API calls `init`, `join` and `leave`. Becoming a member is all or nothing: whatever a try
left behind that was interrupted before `member.json` was written is removed before the next. A joining host writes it
before it follows the log, and goes on after a crash: the leader may make it a voter at any time from then on, and a
voter that forgot who it is would cost a small cluster its quorum for ever.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import shutil
from collections.abc import Coroutine
from contextvars import Context
from functools import partial

import msgspec
from aiohttp import web

from core.clock import new_id
from core.errors import (
    ConflictError,
    PlatformError,
    UnavailableError,
    first_in,
)
from core.identity.certificates import make_request
from core.member_file import MemberRecord, read_member_file
from core.mesh.doorway import Doorway
from core.model import check_name
from core.paths import write_file
from nodeagent.api.app import build_app, serve_unix
from nodeagent.api.plain_http import open_plain
from nodeagent.api.serving import Front, runner_of
from nodeagent.api.vip_door import VipDoor
from nodeagent.host_names import checked_own_address, own_name
from nodeagent.identity.tokens import JoinTicket, parse_join_token
from nodeagent.joining import joiner
from nodeagent.joining.messages import (
    FEATURE_LEVEL,
    VERSION,
    JoinCancel,
    JoinRequest,
)
from nodeagent.leaving import ask_out, check_forced, end_gossip
from nodeagent.member import Basics, Member
from nodeagent.node import Node
from nodeagent.services.files_for_others import FilesForOthers, serf_rpc_secret
from nodeagent.services.services import Services
from nodeagent.ways_in import (
    Founding,
    Joining,
    become_member,
    first_lease,
    is_whole,
    until_connected,
    until_voters_settle,
)

log = logging.getLogger(__name__)

TRY_AGAIN_S = 0.5
AUDITS_TIMEOUT_S = 1.0


class Lifecycle:
    """One agent process."""

    def __init__(self, basics: Basics) -> None:
        self._basics = basics
        self._paths = basics.paths
        self._member: Member | None = None
        self._changing = asyncio.Lock()
        self._group = asyncio.TaskGroup()
        self._runner: web.AppRunner | None = None
        self._front: Front | None = None
        self._doors: list[asyncio.Task[object]] = []
        self._tasks: list[asyncio.Task[object]] = []

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
        limits = self._basics.config.api
        app = build_app(self, clock=self._basics.clock, rng=self._basics.rng, limits=limits)
        self._runner = runner_of(app)
        await self._runner.setup()
        self._front = Front(self._runner, limits, rng=self._basics.rng)
        try:
            async with self._group:
                self._group.create_task(self._front.watch(), name="api-watch")
                if (record := self._read_record()) is not None:
                    member = Member(self._basics, record)
                    self._start(member.run_consensus(), "member-consensus")
                    if is_whole(member, record):
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
            return await self._become_member(record, Founding(self._basics, record))

    async def join(
        self, *, token: str, host_name: str, address: str, witness: bool = False
    ) -> MemberRecord:
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
            request = self._join_request(
                ticket, host_id, host_name, address, request_pem, witness=witness
            )
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
                witness=witness,
            )
            way = Joining(self._basics, record, answer, key_pem, partial(_give_up, door, cancel))
            await self._become_member(record, way)
            assert self._member is not None, "just became one"
            if not await until_voters_settle(self._member):
                log.info("there are not as many voters yet as there should be")
            return record

    async def leave(self, *, force: bool, confirm: str, audit_id: str = "") -> MemberRecord:
        """Leave the cluster in order, or by force one that has no place for this host any more; then forget it all.

        Afterwards this host is as before `init` or `join`: images and disks stay. `audit_id` is the record of it, whose end
        the host writes that removes this one.

        Raises:
            ConflictError: it belongs to none; VMs are on it; with force, the cluster still counts on it.
            UnavailableError: no other member answers, or there is no quorum.
        """
        async with self._changing:
            record = self._read_record()
            if record is None:
                raise ConflictError("this host belongs to no cluster: there is nothing to leave")
            node, services = self.node, self.services
            if force:
                exclusion = services.exclusion if services is not None else None
                await check_forced(record, node, exclusion, confirm)
            elif node is None or services is None:
                raise UnavailableError(
                    "this host's joining isn't finished: wait, or give it up with 'kvorum leave --force'"
                )
            else:
                await services.identity.audits.flush_ends(timeout_s=AUDITS_TIMEOUT_S)
                await ask_out(node, services.exclusion, audit_id=audit_id)
            await self._forget_cluster(record)
            log.info("this host has left its cluster", extra={"host": record.host_id})
            return record

    # -- becoming a member

    async def _become_member(self, record: MemberRecord, way: Founding | Joining) -> MemberRecord:
        consensus: asyncio.Task[PlatformError | None] | None = None
        member: Member | None = None
        try:
            await way.write_identity()
            member = Member(self._basics, record)
            consensus = self._group.create_task(
                self._run_until_failure(member), name="member-consensus", context=Context()
            )
            self._tasks = [consensus]
            await member.open_keys()
            await self._enter(member, record, way, consensus)
            FilesForOthers(member.node, member.services.secrets.keys).write()
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
        if not record.witness:
            await first_lease(member)
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
        way: Founding | Joining,
        consensus: asyncio.Task[PlatformError | None],
    ) -> None:
        """Take the steps into the cluster, as long as consensus runs.

        Raises:
            PlatformError: a step's, or what ended consensus, such as a port in use.
        """

        async def steps() -> None:
            if not record.witness:
                await until_connected(member)
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
        """Go on in the background with a join that broke off after this host may have become a member."""
        self._start(self._finish_joining(member, record), "finish-joining")

    async def _finish_joining(self, member: Member, record: MemberRecord) -> None:
        while True:
            try:
                await become_member(member)
                await member.open_keys()
                FilesForOthers(member.node, member.services.secrets.keys).write()
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
        assert self._front is not None, "set up by run"
        self._member = member
        self._start(member.run_services(), "member-services")
        context = member.api_context()
        for address in (record.address, "127.0.0.1"):
            door = self._front.open(address, record.api_port, context)
            self._open(door, address)
        vip_door = VipDoor(self._front, member.node.store, record.api_port, context)
        self._doors.append(
            self._group.create_task(vip_door.run(), name="api-door-vip", context=Context())
        )
        plain = self._basics.config.plain_http
        if plain is not None and (door_without_tls := open_plain(self._front, plain)) is not None:
            self._open(door_without_tls, "plain")

    def _open(self, door: Doorway, name: str) -> None:
        run = self._group.create_task(door.run(), name=f"api-door-{name}", context=Context())
        self._doors.append(run)

    def _start(self, work: Coroutine[None, None, None], name: str) -> None:
        """Start a part of the member, to be ended when this host leaves. It is no part of the request that began it."""
        self._tasks.append(self._group.create_task(work, name=name, context=Context()))

    async def _forget_cluster(self, record: MemberRecord) -> None:
        """End everything of the member, then remove its files, the one that makes it a member first."""
        serf_secret = serf_rpc_secret(self._paths, record.host_id)
        self._member = None
        tasks, self._tasks = self._tasks + self._doors, []
        self._doors = []
        for task in reversed(
            tasks
        ):  # doors first, services before the consensus that they write through
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._paths.serf_config.unlink(missing_ok=True)
        await end_gossip(serf_secret)
        self._paths.member_file.unlink(missing_ok=True)
        self._remove_leftovers()

    def _refuse_member(self) -> None:
        if self._member is not None or self._paths.member_file.exists():
            raise ConflictError("this host is a member of a cluster already: see 'kvorum status'")

    def _read_record(self) -> MemberRecord | None:
        return read_member_file(self._paths.member_file)

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
        self,
        ticket: JoinTicket,
        host_id: str,
        host_name: str,
        address: str,
        request_pem: str,
        *,
        witness: bool,
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
            witness=witness,
        )


async def _outcome(steps: Coroutine[None, None, None]) -> PlatformError | OSError | None:
    """Run to the end and return the error instead of raising it, which would end the whole group."""
    try:
        await steps
    except (PlatformError, OSError) as error:
        return error
    return None


async def _give_up(door: joiner.Door, cancel: JoinCancel) -> bool:
    """Free name, address and token again; False when that can't be said, or this host is in already."""
    try:
        await joiner.give_up(door, cancel)
    except PlatformError as error:
        log.warning("an admission could not be taken back", extra={"error": error.message})
        return False
    return True
