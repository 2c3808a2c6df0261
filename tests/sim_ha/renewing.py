"""The way of a renewal: from the guard's threads through any agent to the leader, into the log, and back.

Messages are late or lost, and go one way while the other is closed. The leader's checks are the product's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from core.errors import PlatformError
from core.model import HostState, Lease
from ha.guard.lease_clock import Phase
from ha.guard.renewal import Renewed
from ha.lease import Renewal, check_renewal, lease_of
from tests.sim_ha.host import SimHost
from tests.sim_ha.log import Record

if TYPE_CHECKING:
    from tests.sim_ha.world import World

STALE_S_MAX = 4.5  # an agent drops what it could not pass on in this time


class Renewing:
    """Carries renewals; each is an attempt of its own."""

    def __init__(self, world: World) -> None:
        self._world = world

    def send(self, host: SimHost) -> None:
        """One attempt of the guard's threads. They go on while only the guard's loop is frozen."""
        world, order = self._world, host.renewals.order
        if not host.up or host.guard_dead or host.threads_frozen or order is None:
            return
        begun_s, sent_s, boots = world.timeline.now_s, host.clock.boottime_s(), host.boots
        renewal = Renewal(
            host_id=host.name,
            boot_id=host.boot_id,
            seq=int(sent_s * 1000),
            watchdog_armed=order.watchdog_armed,
            guests=order.guests,
            lease_s=order.said.lease_s,
            watchdog_s=order.said.watchdog_s,
            disarmed=order.said.disarmed,
        )
        lease_s, number = order.said.lease_s, order.number
        held = host.guard.clock.phase is Phase.HELD

        def arrive() -> None:
            stale = host.boots != boots and world.timeline.now_s - begun_s > STALE_S_MAX
            if stale or self._way_there(host) is None:
                return
            index, refused = self._take(renewal)
            if (index is not None or refused) and not world.message_is_lost():
                world.timeline.after(world.message_s(), lambda: answered(index))

        def answered(index: int | None) -> None:
            deaf = host.guard_dead or host.threads_frozen or host.renewals.order is None
            if host.boots != boots or not host.up or deaf or not self._way_back(host):
                return
            if index is not None:
                host.renewals.answers.append(
                    Renewed(sent_s, lease_s, index, "agent", number, heard=True)
                )
            if host.guard_works:
                host.tick_guard()
                if held or index is not None:  # else it was refused where no lease was at stake
                    host.carried_s = max(host.carried_s, begun_s)

        if not world.message_is_lost():
            world.timeline.after(world.message_s(), arrive)

    def _way_there(self, host: SimHost) -> str | None:
        """Return the agent through which the leader is reached: the host's own first, else any other."""
        world, leader = self._world, self._world.leadership.leader
        if leader is None:
            return None
        links = world.links
        if (host.agent_runs or not host.up) and links.one_way(host.name, leader):
            return host.name
        for other in world.hosts.values():
            reached = other.agent_runs and links.one_way(host.name, other.name)
            if reached and links.one_way(other.name, leader):
                world.reached["renewals through another agent"] += 1
                return other.name
        return None

    def _way_back(self, host: SimHost) -> bool:
        leader, links = self._world.leadership.leader, self._world.links
        return leader is not None and any(
            links.one_way(leader, other.name) and links.one_way(other.name, host.name)
            for other in self._world.hosts.values()
            if other.agent_runs
        )

    def _take(self, renewal: Renewal) -> tuple[int | None, bool]:
        """Let the leader check and commit a renewal; returns the index if that is known, and whether it was refused."""
        world = self._world
        assert world.leadership.leader is not None
        leader = world.hosts[world.leadership.leader]
        world.catch_up(leader)
        host = leader.records.hosts[renewal.host_id]
        lease = leader.records.leases.get(renewal.host_id)
        try:
            known = lease if world.rules.refuse_overtaken or lease is None else _unnumbered(lease)
            check_renewal(renewal, host, known)
            leader.batcher._check_boot(renewal, lease)
        except PlatformError as error:
            world.reached[f"renewals refused: {error.code}"] += 1
            return None, error.code not in (
                "fenced",
                "overtaken",
            )  # that one is meant to cost the host its lease
        puts: list[Record] = [lease_of(renewal, lease)]
        if host.state is not HostState.MEMBER:
            world.tell(f"{host.name} shows that its guests are gone: a member again")
            member = msgspec.structs.replace(host, state=HostState.MEMBER, off_lease_revision=0)
            if world.rules.word_for_this_lease:
                member = msgspec.structs.replace(
                    member, fenced_storage_ids=(), storage_lease_revision=0
                )
            puts.append(member)
            return world.commit(leader, *puts), False
        return world.commit(leader, *puts, guards=(host,)), False


def _unnumbered(lease: Lease) -> Lease:
    """Return the lease as one that overtakes nothing."""
    return msgspec.structs.replace(lease, seq=0)
