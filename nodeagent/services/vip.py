"""The management address (VIP) on this host: set and cleared for the cluster, held while this host leads it.

Run by `nodeagent.member` on every host; the API calls `choose` and `clear`. `ha.vip` decides, `netfabric.vip` does it. Being
leader is never enough: every extension follows a barrier, by which a quorum said in this very term that nobody else leads.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from core.errors import ConflictError, InvalidError, PlatformError, UnavailableError
from core.identity.own_certificate import chain_of, names_of
from core.model import ApiCertificate, Host, Mesh, Severity
from ha.health_facts import VipSeen
from ha.vip import Action, Phase, Seen, VipRules
from netfabric.vip import VipDriver
from nodeagent.joining.founding import MESH_ID
from nodeagent.node import Node
from nodeagent.services.event_log import EventLog
from nodeagent.services.own_certificates import ALL_HOSTS
from raftstate.store import Store

log = logging.getLogger(__name__)

ROUND_S = 0.5
WATCHFUL_ROUND_S = 0.2  # while it isn't held: each moment counts when this host begins to lead
BARRIER_TIMEOUT_S = 2.0
STOP_TIMEOUT_S = 1.5
TOLD_MAX = 16
VETO_WHY = "vetoed, as this host reaches no arbitration address while another does"

_Told = tuple[str, str, Severity]


class VipService:
    """One host's part. `seen` is what it says of itself. `vetoed` says whether it may not have the address though it leads."""

    def __init__(
        self,
        node: Node,
        driver: VipDriver,
        events: EventLog,
        vetoed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._node, self._driver, self._events = node, driver, events
        self._vetoed = vetoed
        self._rules = VipRules()
        self._released = ""
        self._present = ""
        self._why = ""
        self._told: asyncio.Queue[_Told] = asyncio.Queue(TOLD_MAX)

    async def run(self) -> None:
        """Hold the address while this host is entitled to it, until cancelled; then have it no more.

        What a former agent of this host left goes first: nobody knows until when it was entitled.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._tell(), name="vip-events")
                while True:
                    await asyncio.sleep(await self._round())
        finally:
            await self._let_go()

    # -- what is set

    async def choose(self, text: str) -> Mesh:
        """Make `ADDRESS` or `ADDRESS/PREFIX` the VIP.

        Raises:
            InvalidError: it can't be one: not of the network that all hosts are in, for example.
            ConflictError: it is in use, by a host or another machine.
            UnavailableError: no quorum.
        """
        node = self._node
        own = node.host().address
        mesh = node.store.need(Mesh, MESH_ID)
        network = ipaddress.ip_network(await self._driver.network(own))
        address = checked_vip(text, str(network), node.store.all(Host))
        if address == mesh.vip:
            return mesh
        if address in mesh.arbitration_addresses:
            raise ConflictError(f"{address} is an arbitration address: take a free one")
        if mac := await self._driver.probe(address, near=own):
            raise ConflictError(
                f"{address} is in use already: the machine with MAC {mac} answers for it"
            )
        await node.store.apply(puts=(replace(mesh, vip=address),))
        return node.store.need(Mesh, MESH_ID)

    async def clear(self) -> Mesh:
        """Have no VIP. Raises UnavailableError: no quorum."""
        mesh = self._node.store.need(Mesh, MESH_ID)
        if mesh.vip:
            await self._node.store.apply(puts=(replace(mesh, vip=""),))
        return self._node.store.need(Mesh, MESH_ID)

    def seen(self) -> VipSeen | None:
        """Return where this host stands; None while no VIP is set."""
        vip = self._vip()
        if not vip:
            return None
        return VipSeen(
            address=vip,
            phase=str(self._rules.phase),
            foreign_mac=self._rules.foreign_mac,
            why=VETO_WHY if self._rules.phase is Phase.VETOED else self._why,
            uncovered=self._is_uncovered(vip),
        )

    def _vip(self) -> str:
        mesh = self._node.store.get(Mesh, MESH_ID)
        return mesh.vip if mesh is not None else ""

    def _is_uncovered(self, vip: str) -> bool:
        store = self._node.store
        own = store.get(ApiCertificate, self._node.host_id) or store.get(ApiCertificate, ALL_HOSTS)
        return own is not None and vip not in names_of(chain_of(own.chain_pem)[0])

    # -- what is held

    async def _round(self) -> float:
        """Look and act once; return after how many seconds to do so again."""
        try:
            return await self._act(await self._look())
        except PlatformError as error:
            if error.message != self._why:
                log.warning("the VIP can't be held", extra={"error": error.message})
            self._why = error.message
            return ROUND_S

    async def _look(self) -> Seen:
        """Ask a quorum whether this host leads, if it seems to."""
        node, engine = self._node, self._node.engine
        began_s, term = node.clock.monotonic_s(), engine.term()
        confirmed = False
        if self._vip() and engine.is_leader():
            try:
                await node.store.barrier(timeout_s=BARRIER_TIMEOUT_S)
                confirmed = True
            except UnavailableError as error:
                self._why = error.message
        # In one term a host begins to lead once: if it leads in the same one now, it was itself that was confirmed.
        leads = engine.is_leader() and engine.term() == term
        return Seen(
            vip=self._vip(),
            leads=leads,
            term=term,
            confirmed=confirmed and leads,
            began_s=began_s,
            now_s=node.clock.monotonic_s(),
            vetoed=self._vetoed(),
        )

    async def _act(self, seen: Seen) -> float:
        before = self._rules.phase
        decision = self._rules.decide(seen)
        if self._rules.phase is Phase.VETOED and before is not Phase.VETOED:
            self._note_veto(seen.vip)
        near, pause_s = self._node.host().address, WATCHFUL_ROUND_S if seen.vip else ROUND_S
        if self._present and self._present != seen.vip:
            await self._release(self._present)
        match decision.action:
            case Action.LEAVE:
                return ROUND_S
            case Action.RELEASE:
                await self._release(seen.vip)
            case Action.PROBE:
                pause_s = await self._probe(seen.vip, near)
            case Action.HOLD:
                await self._hold(seen.vip, near, decision.until_s, announce=decision.announce)
                pause_s = ROUND_S
        if seen.confirmed or not seen.leads:
            self._why = ""
        return pause_s

    async def _release(self, vip: str) -> None:
        """Have the address no more. Looked for once only, while it can't be here."""
        if vip and (vip != self._released or vip == self._present):
            if await self._driver.release(vip):
                log.info("the VIP is released", extra={"vip": vip})
            self._released, self._present = vip, ""

    async def _probe(self, vip: str, near: str) -> float:
        before = self._rules.foreign_mac
        mac = await self._driver.probe(vip, near=near)
        self._rules.probed(mac, self._node.clock.monotonic_s())
        if mac and mac != before:
            message = f"the VIP {vip} is not taken: the machine with MAC {mac} has that address"
            log.warning("the VIP is in use", extra={"vip": vip, "mac": mac})
            self._note("vip-conflict", message, Severity.ALARM)
        return ROUND_S if mac else 0.0

    async def _hold(self, vip: str, near: str, until_s: float, *, announce: bool) -> None:
        self._present = vip  # from now on it may be
        if not await self._driver.hold(vip, near=near, until_s=until_s):
            return
        first = self._rules.phase is not Phase.HELD
        if announce:
            await self._driver.announce(vip, near=near)
        now_s = self._node.clock.monotonic_s()
        self._rules.held(until_s, announced_s=now_s if announce else None)
        if first:
            log.info("the VIP is held", extra={"vip": vip})
            message = f"host {self._node.host_name} holds the VIP {vip}"
            self._note("vip-held", message, Severity.NOTICE)

    async def _let_go(self) -> None:
        if not self._present:
            return
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._driver.release(self._present)
        except (PlatformError, TimeoutError) as error:
            log.warning("the kernel will take the VIP away", extra={"error": str(error)})

    # -- what is told

    def _note_veto(self, vip: str) -> None:
        log.warning("the VIP is vetoed", extra={"vip": vip})
        message = (
            f"host {self._node.host_name} leads, but may not hold the VIP {vip}: it reaches no arbitration address, "
            "and another host does"
        )
        self._note("vip-vetoed", message, Severity.ALARM)

    def _note(self, code: str, message: str, severity: Severity) -> None:
        """Tell it beside the rounds: a slow commit must not cost the address."""
        if not self._told.full():
            self._told.put_nowait((code, message, severity))

    async def _tell(self) -> None:
        while True:
            code, message, severity = await self._told.get()
            mesh = self._node.store.need(Mesh, MESH_ID)
            await self._events.record(code, mesh, message, severity=severity)


def own_addresses(store: Store) -> Iterator[str]:
    """Yield the addresses at which hosts of the cluster answer, the VIP included."""
    yield from (host.address for host in store.all(Host))
    mesh = store.get(Mesh, MESH_ID)
    if mesh is not None and mesh.vip:
        yield mesh.vip


def checked_vip(text: str, network: str, hosts: list[Host]) -> str:
    """Return the address of `ADDRESS` or `ADDRESS/PREFIX` in its one form. `network` is that of the asked host's interface.

    Raises:
        InvalidError: it is none, not usable as one, or not in the network of every host: each may come to lead.
        ConflictError: it is a host's own.
    """
    address_text, slash, prefix = text.partition("/")
    try:
        address = ipaddress.ip_address(address_text)
    except ValueError:
        raise InvalidError(f"{address_text[:60]!r} is not an IP address") from None
    if address.version != 4:
        raise InvalidError(
            f"{address} is IPv6: hosts have IPv4 addresses, and the VIP is of their network"
        )
    if (
        address.is_loopback
        or address.is_unspecified
        or address.is_multicast
        or address.is_link_local
    ):
        raise InvalidError(f"{address} can't be a VIP: take a free address of the hosts' network")
    of_hosts = ipaddress.ip_network(network)
    if slash and prefix != str(of_hosts.prefixlen):
        raise InvalidError(
            f"/{prefix[:8]} is not the hosts' network, which is {of_hosts}: leave it out"
        )
    if address not in of_hosts:
        raise InvalidError(
            f"{address} is not in {of_hosts}, the network of the hosts' management addresses"
        )
    if of_hosts.prefixlen < 31 and address in (
        of_hosts.network_address,
        of_hosts.broadcast_address,
    ):
        raise InvalidError(f"{address} is the network's own address: take another of {of_hosts}")
    for host in hosts:
        if host.address == str(address):
            raise ConflictError(f"{address} is the address of host {host.name}: take a free one")
        if ipaddress.ip_address(host.address) not in of_hosts:
            raise InvalidError(
                f"host {host.name} ({host.address}) is not in {of_hosts}: a VIP needs all hosts in one network, "
                "as each may come to lead"
            )
    return str(address)
