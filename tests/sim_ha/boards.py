"""Management boards, and the leader that uses them: whoever leads, or thinks so, takes the power from hosts that are being fenced.

As `nodeagent.services.fencing` does: it reads from a state that is certainly new that the host is still to be fenced, has
its board switch it off, hears "off" twice, and commits that. Boards are honest; they can be dead.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from core.model import Bmc, BmcState, Host, HostState
from ha.fencing import Fence, has_quorum_without
from tests.sim_ha.faults import HEAL_S
from tests.sim_ha.host import SimHost

if TYPE_CHECKING:
    from tests.sim_ha.world import World

RETRY_S = 5.0
READ_AGAIN_S = 0.5
OFF_WITHIN_S = 20.0


class Boards:
    """`records` is what the manager sees of them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.dead: set[str] = set()
        self.records = {
            name: Bmc(
                id=name,
                name=name,
                host_id=name,
                address=name,
                user="u",
                sealed_password=b"",
                state=BmcState.OK,
            )
            for name in sorted(world.setting.boards)
        }
        self._under_way: set[tuple[str, int, str]] = set()

    def fence(self, leader: SimHost, decision: Fence) -> None:
        """Commit that a host's renewals are refused."""
        world = self._world
        host = leader.records.hosts[decision.host_id]
        lease = leader.records.leases[decision.host_id]
        fencing = msgspec.structs.replace(
            host,
            state=HostState.FENCING,
            revision=decision.host_revision,
            off_lease_revision=0,
            refusing_storage_ids=tuple(sorted({*host.refusing_storage_ids, *decision.storage_ids})),
            fenced_boot_id=lease.boot_id,
        )
        if world.rules.word_for_this_lease:
            fencing = msgspec.structs.replace(
                fencing, fenced_storage_ids=(), storage_lease_revision=0
            )
        if not world.rules.fenced_is_off_later:
            fencing = msgspec.structs.replace(
                fencing, state=HostState.FENCED, off_lease_revision=decision.lease_revision
            )
        guard = msgspec.structs.replace(lease, revision=decision.lease_revision)
        if world.commit(leader, fencing, guards=(guard,)) is not None:
            world.reached["hosts being fenced"] += 1
            world.tell(f"{leader.name} has the renewals of {host.name} refused")

    def tick(self, agent: SimHost) -> None:
        """One look of an agent at what is to be fenced."""
        leads = self._world.setting.everybody_leads or agent.leads_since_s is not None
        if not agent.agent_runs or not leads:
            return
        for host in agent.records.hosts.values():
            key = (agent.name, agent.starts, host.id)
            to_do = host.state is HostState.FENCING and host.id in self.records
            if to_do and key not in self._under_way:
                self._under_way.add(key)
                _Attempt(self._world, self, agent, host, partial(self._over, key)).begin()

    def _over(self, key: tuple[str, int, str]) -> None:
        self._under_way.discard(key)


class _Attempt:
    """One try to take the power from a host."""

    def __init__(
        self, world: World, boards: Boards, agent: SimHost, host: Host, over: Callable[[], None]
    ) -> None:
        self._world, self._boards, self._agent, self._host = world, boards, agent, host
        self._soon = world.steps_of(agent)
        self._over = over
        self._until_s = world.timeline.now_s + OFF_WITHIN_S
        self._times_off = 0

    def begin(self) -> None:
        world = self._world
        if not world.leadership.serves(self._agent):  # no quorum: nothing is done
            return self._again()
        world.catch_up(self._agent)
        now = self._agent.records.hosts[self._host.id]
        self._lease = self._agent.records.leases[self._host.id]
        if now.state is not HostState.FENCING or now.revision != self._host.revision:
            return self._over()
        up = world.leadership.up_for(self._agent)
        if not has_quorum_without(self._host.id, voters=frozenset(world.hosts), up=up):
            world.reached["hosts not switched off for their vote"] += 1
            return self._again()
        return self._soon(world.message_s(), self._switch)

    def _switch(self) -> None:
        if self._host.id in self._boards.dead:
            self._world.reached["boards that did not answer"] += 1
            return self._again()
        target = self._world.hosts[self._host.id]
        if target.up:
            self._world.reached["hosts switched off"] += 1
            self._world.tell(f"the board of {target.name} takes its power")
            off_s = self._world.rng.uniform(2, 40)
            self._world.misfortune.power_cycle(target, min(off_s, HEAL_S))
        return self._soon(self._world.message_s(), self._read)

    def _read(self) -> None:
        dead = self._host.id in self._boards.dead
        if dead or self._world.timeline.now_s > self._until_s:
            return self._again()
        self._times_off = 0 if self._world.hosts[self._host.id].up else self._times_off + 1
        if self._times_off < 2:
            return self._soon(READ_AGAIN_S + self._world.message_s(), self._read)
        return self._soon(self._world.pause_s(8.0), self._say)

    def _say(self) -> None:
        now, lease = self._agent.records.hosts[self._host.id], self._lease
        if now.state is not HostState.FENCING:
            return self._over()
        off = msgspec.structs.replace(
            now, state=HostState.FENCED, off_lease_revision=lease.revision
        )
        if self._world.commit(self._agent, off, guards=(lease,)) is not None:
            self._world.reached["hosts fenced by their boards"] += 1
            self._world.tell(f"{self._host.name} is off, as its board says")
        return self._over()

    def _again(self) -> None:
        self._soon(RETRY_S, self._over)
