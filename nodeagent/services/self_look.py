"""What this host says of its health: its guard, libvirtd, storages, secrets, store, and its way to other hosts.

Asked by the own agent and over the mesh (`POST /mesh/health`) for `nodeagent.services.health`. All is looked at side by
side, each with a deadline, so that nothing that hangs holds up the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from core.errors import PlatformError, UnavailableError
from core.identity.keyring import KeptKey
from core.mesh.client import Nothing
from core.model import Host
from ha.health_facts import (
    Answering,
    ArbitrationSeen,
    GuardSeen,
    HostReport,
    PeerSeen,
    VipSeen,
)
from nodeagent.compute.missing_hypervisor import MissingHypervisor
from nodeagent.node import Node
from nodeagent.services.shared_look import SharedLook
from nodeagent.services.storage_checks import StorageChecks, storages_of_host

LOOK_TIMEOUT_S = 1.0
LOOK_KEPT_S = 1.0
PEERS_MAX = 16
PINGS = 2

PING_PATH = "/mesh/ping"
HEALTH_PATH = "/mesh/health"


class Pong(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a ping: the time of day there, in Unix milliseconds."""

    wall_ms: int


@dataclass(frozen=True, slots=True)
class _Trip:
    """One exchange with a host; see `PeerSeen`."""

    round_trip_ms: float
    clock_offset_ms: float | None


class SelfLook:
    """Makes this host's report; `kept` says how it keeps its secrets key, None for nobody knows; `gap_s` how long its lease wasn't renewed lately;
    `vip` where it stands with the VIP, `arbitration` whether it reaches the arbitration addresses."""

    def __init__(
        self,
        node: Node,
        checks: StorageChecks,
        kept: Callable[[], KeptKey | None] = lambda: None,
        gap_s: Callable[[], float | None] = lambda: None,
        vip: Callable[[], VipSeen | None] = lambda: None,
        arbitration: Callable[[], ArbitrationSeen | None] = lambda: None,
    ) -> None:
        self._node, self._checks, self._kept = node, checks, kept
        self._gap_s, self._vip, self._arbitration = gap_s, vip, arbitration
        self._look = SharedLook(self._measure, kept_s=LOOK_KEPT_S)

    async def report(self) -> HostReport:
        """Return what is true of this host now, or was a second ago. Takes a second at most."""
        return await self._look.get()

    def pong(self) -> Pong:
        """Answer a ping."""
        return Pong(wall_ms=self._node.clock.wall_ms())

    async def _measure(self) -> HostReport:
        async with asyncio.TaskGroup() as group:
            guard = group.create_task(self._guard(), name="look-guard")
            libvirt = group.create_task(self._libvirt(), name="look-libvirt")
            storages = group.create_task(
                self._checks.look(storages_of_host(self._node.store, self._node.host_id)),
                name="look-storages",
            )
            pings = [
                group.create_task(self._ping(peer), name=f"ping-{peer.name}")
                for peer in self._peers()
            ]
        engine, kept = self._node.engine, self._kept()
        return HostReport(
            applied=engine.applied_index(),
            committed=engine.commit_index(),
            term=engine.term(),
            generation=engine.generation(),
            leads=engine.is_leader(),
            store_fault=engine.fault(),
            secrets_fault=kept.fault if kept is not None else "",
            hypervisor=self._node.hypervisor_name,
            driver_fault="" if self._is_witness() else self._node.driver_fault,
            peers=tuple(ping.result() for ping in pings),
            guard=guard.result(),
            libvirt=libvirt.result(),
            storages=storages.result(),
            vip=self._vip(),
            arbitration=self._arbitration(),
            renewal_gap_s=self._gap_s(),
        )

    async def _guard(self) -> GuardSeen:
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                found = await self._node.guard.status()
        except PlatformError as error:
            return GuardSeen(answers=False, why=error.message)
        except TimeoutError:
            return GuardSeen(answers=False, why=_silence())
        return GuardSeen(
            answers=True,
            phase=found.phase,
            lease_valid=found.lease_valid,
            watchdog=found.watchdog.kind,
            armed=found.watchdog.armed,
        )

    async def _libvirt(self) -> Answering | None:
        if self._is_witness():
            return None
        hypervisor = self._node.hypervisor
        if isinstance(hypervisor, MissingHypervisor):
            return None  # the driver's fault says it all
        if not hypervisor.is_healthy:
            return Answering(answers=False, why="the agent has no connection to it")
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                await hypervisor.host_facts()
        except PlatformError as error:
            return Answering(answers=False, why=error.message)
        except TimeoutError:
            return Answering(answers=False, why=_silence())
        return Answering(answers=True)

    def _peers(self) -> list[Host]:
        """Return whom to ping: all in a small cluster; in a large one the voters, and those next to this host."""
        node = self._node
        others = {h.id: h for h in node.store.all(Host) if h.id != node.host_id and not h.joining}
        voters = {peer.id for peer in node.engine.voters()}
        order = sorted(others, key=lambda id_: (id_ not in voters, id_ < node.host_id, id_))
        return [others[id_] for id_ in order[:PEERS_MAX]]

    async def _ping(self, peer: Host) -> PeerSeen:
        """Measure the way to a host: the quickest of some exchanges, as the first may have to make a connection."""
        seen = self._node.membership.members.get(peer.id)
        gossip = str(seen.status) if seen is not None else "unknown"
        trips: list[_Trip] = []
        why = ""
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                while len(trips) < PINGS:
                    trips.append(await self._trip(peer))
        except UnavailableError as error:
            why = error.message.removeprefix(f"host {peer.name} does not answer: ")
        except TimeoutError:
            why = _silence()
        if not trips:
            return PeerSeen(host_id=peer.id, why=why, gossip=gossip)
        best = min(trips, key=lambda trip: trip.round_trip_ms)
        return PeerSeen(
            host_id=peer.id,
            round_trip_ms=best.round_trip_ms,
            clock_offset_ms=best.clock_offset_ms,
            gossip=gossip,
        )

    async def _trip(self, peer: Host) -> _Trip:
        loop, clock = asyncio.get_running_loop(), self._node.clock
        sent_s, sent_ms, offset_ms = loop.time(), clock.wall_ms(), None
        try:
            pong = await self._node.mesh.call(
                peer, PING_PATH, Nothing(), Pong, timeout_s=LOOK_TIMEOUT_S
            )
        except UnavailableError:
            raise
        except PlatformError:
            pass  # an agent that doesn't know the question: it was reached all the same
        else:
            offset_ms = pong.wall_ms - (sent_ms + clock.wall_ms()) / 2
        return _Trip(round(1000 * (loop.time() - sent_s), 2), offset_ms)

    def _is_witness(self) -> bool:
        host = self._node.store.get(Host, self._node.host_id)
        return host is not None and host.witness


def _silence() -> str:
    return f"no answer within {LOOK_TIMEOUT_S:g} s"
