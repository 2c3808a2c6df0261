"""Takes the power from hosts that are being fenced: the leader asks their management boards, and records that they are off.

It was committed before that the host's renewals are refused (`ha.fencing`). Right before the power is taken away this is
read once more from a state that is certainly new, so that an agent that doesn't lead any more switches no host off that
has come back. "Off" counts when the board says so twice. While it doesn't, time goes on as the other proof.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from msgspec.structs import replace

from core.errors import ConflictError, PlatformError, UnavailableError
from core.model import Bmc, BmcState, Host, HostState, Lease, Severity
from ha.fencing import has_quorum_without
from nodeagent.node import Node
from nodeagent.services.bmcs import Bmcs
from nodeagent.services.event_log import EventLog
from nodeagent.services.leader_rounds import leader_rounds

log = logging.getLogger(__name__)

LOOK_S = 2.0
RETRY_S = 5.0
OFF_WITHIN_S = 20.0
READ_AGAIN_S = 0.5


@dataclass(frozen=True, slots=True)
class _Fenced:
    """A host that is being fenced, as it stood when that was read last."""

    host: Host
    lease: Lease
    bmc: Bmc


class Fencing:
    """The leader's loop; idle on every other node."""

    def __init__(self, node: Node, bmcs: Bmcs, events: EventLog) -> None:
        self._node, self._store = node, node.store
        self._bmcs = bmcs
        self._events = events
        self._under_way: set[str] = set()
        self._told: set[tuple[str, int]] = set()

    async def run(self) -> None:
        """Fence until cancelled."""
        await leader_rounds(self._node, self._begin, Host, Bmc, every_s=LOOK_S)

    def _begin(self, group: asyncio.TaskGroup) -> None:
        for host in self._store.all(Host):
            waits = host.state is HostState.FENCING and host.id not in self._under_way
            if waits and self._store.get(Bmc, host.id) is not None:
                self._under_way.add(host.id)
                group.create_task(self._fence(host), name=f"fence-{host.id}")

    async def _fence(self, host: Host) -> None:
        try:
            await self._take_power(host)
        except ConflictError as error:
            log.info("fencing was overtaken", extra={"host": host.id, "error": error.message})
        except PlatformError as error:
            await self._tell_failure(host, error)
            await asyncio.sleep(RETRY_S)
        finally:
            self._under_way.discard(host.id)

    async def _take_power(self, host: Host) -> None:
        found = await self._still_to_fence(host)
        board = self._bmcs.board(found.bmc)
        await self._bmcs.driver.turn_off(board)
        try:
            async with asyncio.timeout(OFF_WITHIN_S):
                times_off = 0
                while times_off < 2:
                    times_off = 0 if await self._bmcs.driver.is_on(board) else times_off + 1
                    if times_off < 2:
                        await asyncio.sleep(READ_AGAIN_S)
        except TimeoutError:
            raise UnavailableError(
                f"its BMC still says that it is on, {OFF_WITHIN_S:g} s after it was to switch it off"
            ) from None
        now = self._store.get(Host, host.id)  # its storages may have said something meanwhile
        if now is None or now.state is not HostState.FENCING:
            raise ConflictError(f"host {host.name} came back, or was changed")
        off = replace(now, state=HostState.FENCED, off_lease_revision=found.lease.revision)
        message = f"host {host.name} is off: its BMC took its power away"
        event = self._events.make("host-fenced", host, message, severity=Severity.WARNING)
        await self._store.apply(puts=(off, event), guards=(found.lease, found.bmc))
        log.warning("a host was fenced", extra={"host": host.id})

    async def _still_to_fence(self, host: Host) -> _Fenced:
        """Return what is to be fenced, by a state that is new.

        Raises:
            ConflictError: it is not to be, any more.
            UnavailableError: no quorum, or none without this host; or its board isn't relied on: nothing is done.
        """
        now, lease = await still_being_fenced(self._node, host)
        bmc = self._store.get(Bmc, host.id)
        if bmc is None:
            raise ConflictError(f"host {host.name} is not this agent's to fence any more")
        if bmc.state is not BmcState.OK:
            raise UnavailableError("its BMC is not relied on: see kvorum bmc list")
        return _Fenced(now, lease, bmc)

    async def _tell_failure(self, host: Host, error: PlatformError) -> None:
        log.warning(
            "a host can't be fenced by its BMC", extra={"host": host.id, "error": error.message}
        )
        if (host.id, host.revision) in self._told:
            return
        self._told = {told for told in self._told if told[0] != host.id} | {
            (host.id, host.revision)
        }
        message = f"host {host.name} can't be switched off, its VMs wait longer: {error.message}"
        try:
            await self._events.record(
                "host-power-off-failed", host, message, severity=Severity.ALARM
            )
        except PlatformError as failure:
            log.warning("can't record it", extra={"error": failure.message})


async def still_being_fenced(node: Node, host: Host) -> tuple[Host, Lease]:
    """Return a host that is being fenced and the lease that it held, by a state that is new.

    Raises:
        ConflictError: it is not to be fenced by this agent, any more, or its record changed.
        UnavailableError: there is no quorum, or none without this host.
    """
    await node.store.barrier()
    now, lease = node.store.get(Host, host.id), node.store.get(Lease, host.id)
    if now is None or lease is None or not node.engine.is_leader():
        raise ConflictError(f"host {host.name} is not this agent's to fence any more")
    if now.state is not HostState.FENCING or now.revision != host.revision:
        raise ConflictError(f"host {host.name} came back, or was changed")
    voters = frozenset(peer.id for peer in node.engine.voters())
    up = node.engine.connected() | {node.host_id}
    if not has_quorum_without(host.id, voters=voters, up=up):
        raise UnavailableError("without its vote there would be no quorum")
    return now, lease
