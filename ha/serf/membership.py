"""Who is there, as the gossip says: a view kept up to date in the background, and a way to wait for changes.

The agent runs without Serf too: then the view is the last known one, or empty. Consumers (status of hosts, hints for
reconnecting) treat it as a hint; failover goes by leases.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from core.clock import Clock
from core.errors import PlatformError
from ha.serf.rpc import SerfConnection, SerfMember, SerfRpc, SerfStatus

log = logging.getLogger(__name__)

COALESCE_S = 0.1
REFRESH_S = 30.0
BACKOFF_S_MIN, BACKOFF_S_MAX = 0.2, 5.0
MEMBER_EVENTS = "member-join,member-leave,member-failed,member-update,member-reap"


class MemberStatus(StrEnum):
    """What the gossip says of a host."""

    ALIVE = "alive"
    FAILED = "failed"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Member:
    """A host in the gossip. `changed_s` is when its status changed last, monotonic seconds of this node."""

    host_id: str
    status: MemberStatus
    address: str
    version: str
    changed_s: float


class Membership(Protocol):
    """The view, and its changes."""

    @property
    def members(self) -> Mapping[str, Member]:
        """Members by host id; never changed in place."""
        ...

    @property
    def version(self) -> int:
        """Grows with each change of the view."""
        ...

    async def changed_since(self, version: int) -> int:
        """Wait until the view is newer than `version`; returns its version."""
        ...

    async def run(self) -> None:
        """Keep the view up to date until cancelled."""
        ...


class _View:
    """The view and who waits for it."""

    def __init__(self) -> None:
        self._members: Mapping[str, Member] = {}
        self._version = 0
        self._changed = asyncio.Event()

    @property
    def members(self) -> Mapping[str, Member]:
        """Members by host id; never changed in place."""
        return self._members

    @property
    def version(self) -> int:
        """Grows with each change of the view."""
        return self._version

    async def changed_since(self, version: int) -> int:
        """Wait until the view is newer than `version`; returns its version."""
        while self._version <= version:
            await self._changed.wait()
        return self._version

    def show(self, members: Mapping[str, Member]) -> None:
        """Replace the view, and wake who waits when it differs."""
        if members != self._members:
            self._members = members
            self._version += 1
            self._changed.set()
            self._changed = asyncio.Event()


class StaticMembership(_View):
    """Hosts that are alive because someone says so: tests, and meshes without gossip."""

    def __init__(self, clock: Clock, host_ids: Iterable[str] = ()) -> None:
        super().__init__()
        self._clock = clock
        self.set_alive(host_ids)

    def set_alive(self, host_ids: Iterable[str]) -> None:
        """Replace the view: these are alive, those that were and are not any more have failed."""
        alive, now_s = set(host_ids), self._clock.monotonic_s()
        view = dict(self.members)
        for host_id in alive | view.keys():
            status = MemberStatus.ALIVE if host_id in alive else MemberStatus.FAILED
            if host_id not in view or view[host_id].status is not status:
                view[host_id] = Member(host_id, status, "", "", now_s)
        self.show(view)

    async def run(self) -> None:
        """Wait until cancelled: nothing changes by itself."""
        await asyncio.Event().wait()


def merge(
    former: Mapping[str, Member], found: Iterable[SerfMember], now_s: float
) -> dict[str, Member]:
    """Return the view after a look at all members. Pure; `changed_s` stays while the status does."""
    view: dict[str, Member] = {}
    for member in found:
        host_id = member.tags.get("id") or member.name
        match member.status:
            case SerfStatus.ALIVE:
                status = MemberStatus.ALIVE
            case SerfStatus.FAILED:
                status = MemberStatus.FAILED
            case SerfStatus.LEFT | SerfStatus.LEAVING:
                status = MemberStatus.LEFT
            case _:
                continue
        old = former.get(host_id)
        changed_s = old.changed_s if old is not None and old.status is status else now_s
        view[host_id] = Member(
            host_id, status, member.address, member.tags.get("version", ""), changed_s
        )
    return view


class SerfMembership(_View):
    """The view of the local Serf agent. `connected` tells whether it is being updated."""

    def __init__(self, rpc: SerfRpc, clock: Clock) -> None:
        super().__init__()
        self.connected = False
        self._rpc = rpc
        self._clock = clock

    async def run(self) -> None:
        """Follow the agent, reconnecting with growing pauses, until cancelled."""
        pause_s, told = BACKOFF_S_MIN, ""
        while True:
            try:
                async with self._rpc.connect() as connection:
                    await self._follow(connection)
            except (PlatformError, TimeoutError) as error:
                if self.connected:
                    pause_s, told = BACKOFF_S_MIN, ""
                self.connected = False
                why = str(error) or "timeout"
                if why != told:
                    told = why
                    log.warning("the gossip is not followed", extra={"why": why})
            await asyncio.sleep(pause_s)
            pause_s = min(BACKOFF_S_MAX, pause_s * 2)

    async def _follow(self, connection: SerfConnection) -> None:
        """Look once, then after each burst of events and every 30 s: events are hints, the look is the truth."""
        async with asyncio.timeout(self._rpc.timeout_s):
            await connection.subscribe(MEMBER_EVENTS)
        while True:
            connection.drop_events()
            async with asyncio.timeout(self._rpc.timeout_s):
                found = await connection.members()
            if not self.connected:
                self.connected = True
                log.info("the gossip is followed", extra={"members": len(found)})
            self.show(merge(self.members, found, self._clock.monotonic_s()))
            try:
                async with asyncio.timeout(REFRESH_S):
                    await connection.next_event()
            except TimeoutError:
                continue
            await asyncio.sleep(COALESCE_S)
