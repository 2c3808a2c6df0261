"""Arbitration addresses on this host: set for the cluster, pinged once a second, and what of it others are told.

Run by `nodeagent.member` on every host, witnesses too; the API calls `choose`, the VIP asks `vetoed`. `ha.arbitration` decides.
What hosts say of themselves counts while their leases are fresh; a host without an agent may renew its lease by another's,
and its last word stands until then.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Iterable
from typing import Protocol

from msgspec.structs import replace

from core.errors import ConflictError, InvalidError, PlatformError
from core.model import (
    ARBITRATION_ADDRESSES_MAX,
    Arbitration,
    Host,
    HostState,
    Lease,
    Mesh,
    Severity,
)
from ha.arbitration import ROUND_S, Reach, is_dead, is_vetoed
from ha.health_facts import ArbitrationSeen
from ha.profile import profile_in
from netfabric.ping import Pinger
from nodeagent.joining.founding import MESH_ID
from nodeagent.node import Node
from nodeagent.services.catching_up import caught_up
from nodeagent.services.event_log import EventLog

log = logging.getLogger(__name__)

PING_TIMEOUT_S = 0.9
STEP_ASIDE_EVERY_S = 60.0
STEP_ASIDE_TIMEOUT_S = 3.0


class LeaseAges(Protocol):
    """How old leases are (`nodeagent.services.lease_relay`)."""

    def age_s(self, host_id: str) -> float: ...


class ArbitrationService:
    """One host's part. `seen` is what it says of itself."""

    def __init__(self, node: Node, pinger: Pinger, ages: LeaseAges, events: EventLog) -> None:
        self._node, self._pinger, self._ages, self._events = node, pinger, ages, events
        self._addresses: tuple[str, ...] = ()
        self._answered: frozenset[str] = frozenset()
        self._reach = Reach()
        self._why = ""
        self._told_dead = False
        self._stepped_s = float("-inf")

    async def run(self) -> None:
        """Ping, and tell what came of it, until cancelled."""
        self._begin(())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell_forever(), name="arbitration-told")
            while True:
                began_s = self._node.clock.monotonic_s()
                await self.look()
                spent_s = self._node.clock.monotonic_s() - began_s
                await asyncio.sleep(max(0.0, ROUND_S - spent_s))

    # -- what is set

    async def choose(self, texts: Iterable[str]) -> Mesh:
        """Make these the arbitration addresses; none: have none.

        Raises:
            InvalidError: one can't be pinged from every host, or there are too many.
            ConflictError: one is an address of the cluster itself, which says nothing about the network.
            UnavailableError: no quorum.
        """
        store = self._node.store
        mesh = store.need(Mesh, MESH_ID)
        addresses = checked_addresses(texts, mesh, store.all(Host))
        if addresses != mesh.arbitration_addresses:
            await store.apply(puts=(replace(mesh, arbitration_addresses=addresses),))
        return store.need(Mesh, MESH_ID)

    # -- what is found

    async def look(self) -> None:
        """Ping all addresses once."""
        mesh = self._node.store.get(Mesh, MESH_ID)
        addresses = mesh.arbitration_addresses if mesh is not None else ()
        if addresses != self._addresses:
            self._begin(addresses)
        if not addresses:
            return
        try:
            answered = await self._pinger.ping(addresses, timeout_s=PING_TIMEOUT_S)
        except PlatformError as error:
            if error.message != self._why:
                log.warning("can't ping", extra={"error": error.message})
            # It isn't known then, and who doesn't know vetoes nothing and vouches for nothing.
            self._begin(addresses, why=error.message)
            return
        self._answered, self._why = answered, ""
        before = self._reach.state
        self._reach.note(answered=bool(answered))
        if self._reach.state is not before:
            log.info("arbitration addresses", extra={"state": str(self._reach.state)})

    def seen(self) -> ArbitrationSeen | None:
        """Return what this host sees; None while there is no address."""
        if not self._addresses:
            return None
        return ArbitrationSeen(
            state=str(self._reach.state),
            answering=tuple(sorted(self._answered)),
            why=self._why,
        )

    def vetoed(self) -> bool:
        """Tell whether this host may not have the VIP now."""
        return is_vetoed(self._reach, self._others().values())

    def _begin(self, addresses: tuple[str, ...], *, why: str = "") -> None:
        self._addresses, self._answered = addresses, frozenset()
        self._reach, self._why = Reach(), why
        self._told_dead = False

    def _others(self) -> dict[str, Arbitration]:
        """Return what each other host that is alive said last."""
        store = self._node.store
        profile = profile_in(store.get(Mesh, MESH_ID))
        return {
            host.id: host.arbitration
            for host in store.all(Host)
            if host.id != self._node.host_id
            and not host.joining
            and host.state is HostState.MEMBER
            and self._ages.age_s(host.id) < profile.of(store.get(Lease, host.id)).lease_s / 2
        }

    # -- what is told

    async def _tell_forever(self) -> None:
        """Tell beside the rounds: a slow commit must not cost a ping."""
        await caught_up(self._node.store)
        while True:
            await self.tell()
            await asyncio.sleep(ROUND_S)

    async def tell(self) -> None:
        """Write what changed into this host's record. As leader, too: say when an address is dead, and let another lead."""
        await self._tell_state()
        if self._reach.state is not Arbitration.LOST:
            self._told_dead = False
        elif self._node.engine.is_leader():
            await self._tell_dead()
            await self._step_aside()

    async def _tell_state(self) -> None:
        store = self._node.store
        # Without any address that is no news, and what was said of former ones is taken back.
        state = self._reach.to_tell() if self._addresses and not self._why else Arbitration.UNKNOWN
        host = store.get(Host, self._node.host_id)
        if host is None or state is None or host.arbitration is state:
            return
        try:
            await store.apply(puts=(replace(host, arbitration=state),))
        except PlatformError as error:
            log.info("the arbitration can't be told yet", extra={"error": error.message})

    async def _tell_dead(self) -> None:
        if self._told_dead or not is_dead(self._reach, self._others().values()):
            return
        self._told_dead = True
        message = (
            f"no host is known to reach {' or '.join(self._addresses)}: the veto on the VIP is lifted "
            "until one answers again"
        )
        log.warning("the arbitration addresses are dead")
        mesh = self._node.store.need(Mesh, MESH_ID)
        await self._events.record("arbitration-dead", mesh, message, severity=Severity.ALARM)

    async def _step_aside(self) -> None:
        """Let another lead, and so hold the VIP, if this host may not: once a minute at most.

        Only if every other voter that is alive reaches an address: nobody can say who of them will lead.
        """
        node, others = self._node, self._others()
        if not node.store.need(Mesh, MESH_ID).vip or not is_vetoed(self._reach, others.values()):
            return
        voices = [others[peer.id] for peer in node.engine.voters() if peer.id in others]
        now_s = node.clock.monotonic_s()
        if not voices or set(voices) != {Arbitration.REACHED}:
            return
        if now_s - self._stepped_s < STEP_ASIDE_EVERY_S:
            return
        self._stepped_s = now_s
        log.warning("another shall lead: this host may not hold the VIP")
        await node.engine.step_aside(timeout_s=STEP_ASIDE_TIMEOUT_S)


def checked_addresses(texts: Iterable[str], mesh: Mesh, hosts: list[Host]) -> tuple[str, ...]:
    """Return addresses in their one form, in the order given, each once.

    Raises:
        InvalidError: one is none, or means something else on each host; or there are too many.
        ConflictError: one is a host's own, or the VIP.
    """
    found = tuple(dict.fromkeys(_checked(text) for text in texts))
    if len(found) > ARBITRATION_ADDRESSES_MAX:
        raise InvalidError(
            f"there may be {ARBITRATION_ADDRESSES_MAX} arbitration addresses at most"
        )
    for address in found:
        if address == mesh.vip:
            raise ConflictError(f"{address} is the VIP: take an address that is not of the cluster")
        for host in hosts:
            if host.address == address:
                raise ConflictError(
                    f"{address} is the address of host {host.name}: take one that is not of the cluster, "
                    "such as the router's"
                )
    return found


def _checked(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise InvalidError(f"{text[:60]!r} is not an IP address") from None
    if (
        address.is_loopback
        or address.is_unspecified
        or address.is_multicast
        or address.is_link_local
        or getattr(address, "ipv4_mapped", None) is not None
        or str(address) == "255.255.255.255"
    ):
        raise InvalidError(f"{address} can't be pinged from every host: take the router's, say")
    return str(address)
