"""Makes hosts voters and takes votes away: on the leader, once a second, one step of `raftstate.voters` becomes an order.

Acting on "I lead" is safe here: the engine refuses a change that isn't the leader's, and two changes at a time. Raises
the cluster's feature level, too, because that depends on nothing but the voters.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from msgspec.structs import replace as changed

from core.errors import PlatformError
from core.model import Host, Mesh, Severity
from nodeagent.joining.doorkeeper import peer_of
from nodeagent.joining.founding import MESH_ID
from nodeagent.joining.messages import FEATURE_LEVEL
from nodeagent.node import Node
from nodeagent.services.event_log import EventLog
from nodeagent.services.member_states import MemberStates, alive_hosts, progress_of
from raftstate.consensus.engine import NodeId, Progress
from raftstate.voters import (
    LAG_USABLE,
    Change,
    Policy,
    Situation,
    Step,
    assuming,
    note_lost,
    plan,
    wished,
)

log = logging.getLogger(__name__)

ROUND_S = 1.0
CHANGE_TIMEOUT_S = 10.0
HAND_OVER_TIMEOUT_S = 3.0
ASIDE_S_MIN, ASIDE_S_MAX = 2.0, 60.0


@dataclass(frozen=True, slots=True)
class _Signs:
    """What may change without a change of the store, and then asks for a new look at all hosts."""

    voters: frozenset[NodeId]
    linked: frozenset[NodeId]
    gossip: int
    aside: frozenset[NodeId]
    dead: frozenset[NodeId]


class VoterController:
    """The leader's loop over voters; idle on every other host."""

    def __init__(self, node: Node, states: MemberStates, events: EventLog) -> None:
        self._node, self._store, self._engine = node, node.store, node.engine
        self._states, self._events = states, events
        self._forget()

    def _forget(self) -> None:
        """Know nothing: a new leader begins to count silence anew."""
        self._lost_since_s: dict[NodeId, float] = {}
        self._told_dead: frozenset[NodeId] = frozenset()
        self._aside_until_s: dict[NodeId, float] = {}
        self._asides: Counter[NodeId] = Counter()
        self._settled: _Signs | None = None

    async def run(self) -> None:
        """Plan and act until cancelled: once a second, at once after a change of hosts or of the policy."""
        watch = self._store.watch(Host, Mesh)
        try:
            while True:
                if self._engine.is_leader():
                    await self._round()
                else:
                    self._forget()
                try:
                    async with asyncio.timeout(ROUND_S):
                        await watch.next()
                    self._settled = None
                except TimeoutError:
                    continue
        finally:
            self._store.unwatch(watch)

    async def _round(self) -> None:
        try:
            mesh = self._store.get(Mesh, MESH_ID)
            if mesh is None:
                return  # founding
            policy = policy_of(mesh)
            signs = self._read_signs(policy)
            if signs != self._settled:  # thousands of hosts aren't gone through for nothing
                await self._settle(signs, policy)
            await self._raise_level(mesh)
        except PlatformError as error:
            log.warning("the voters could not be changed", extra={"error": error.message})

    # -- what is known

    def _read_signs(self, policy: Policy) -> _Signs:
        now_s = self._node.clock.monotonic_s()
        voters = frozenset(peer.id for peer in self._engine.voters())
        linked = frozenset({NodeId(self._node.host_id), *self._engine.connected()})
        self._lost_since_s = note_lost(self._lost_since_s, voters, linked, now_s)
        return _Signs(
            voters=voters,
            linked=linked,
            gossip=self._node.membership.version,
            aside=frozenset(id_ for id_, end_s in self._aside_until_s.items() if end_s > now_s),
            dead=frozenset(
                id_
                for id_, since_s in self._lost_since_s.items()
                if now_s - since_s >= policy.replace_after_s
            ),
        )

    async def _settle(self, signs: _Signs, policy: Policy) -> None:
        """Take the next step; when all are as wished, remember under which signs."""
        hosts = {NodeId(host.id): host for host in self._store.all(Host)}
        others = alive_hosts(self._node, hosts.values()) - signs.voters - signs.aside
        situation = Situation(
            leader=NodeId(self._node.host_id),
            hosts=hosts,
            voters=signs.voters,
            live=signs.voters & signs.linked | others,
            lost_since_s=self._lost_since_s,
            progress=self._engine.progress(),
            index=self._engine.commit_index(),
        )
        now_s = self._node.clock.monotonic_s()
        await self._tell_of_dead(signs.dead, policy)
        hopeful = wished(assuming(situation, others, FEATURE_LEVEL), policy, now_s)
        if hopeful == signs.voters:
            self._settled = signs
            return
        situation = await self._with_answers(situation, hopeful)
        change = plan(situation, policy, self._node.clock.monotonic_s())
        if change is not None:
            await self._perform(change, situation)

    async def _with_answers(self, situation: Situation, hopeful: frozenset[NodeId]) -> Situation:
        """Ask the hosts that would be made voters if they kept up; those that don't answer well are set aside."""
        unknown = hopeful - situation.voters - situation.progress.keys()
        heard = await self._ask(situation.hosts[id_] for id_ in sorted(unknown))
        for id_ in unknown - heard.keys():
            self._set_aside(id_)
        for id_ in heard:
            del self._asides[id_]
        return replace(
            situation,
            live=situation.live - (unknown - heard.keys()),
            progress={**situation.progress, **heard},
            index=self._engine.commit_index(),
        )

    async def _ask(self, hosts: Iterable[Host]) -> dict[NodeId, Progress]:
        """Return how far those hosts are that answer, are well and not hopelessly behind."""
        answers = await self._states.ask(hosts)
        now_s, index = self._node.clock.monotonic_s(), self._engine.commit_index()
        return {
            NodeId(id_): progress_of(state, now_s)
            for id_, state in answers.items()
            if not state.fault and index - state.applied <= LAG_USABLE
        }

    def _set_aside(self, host_id: NodeId) -> None:
        """Let others have a try before this host is considered again: soon at first, it may be just joining."""
        pause_s = min(ASIDE_S_MIN * 2 ** self._asides[host_id], ASIDE_S_MAX)
        self._asides[host_id] = min(self._asides[host_id] + 1, 10)
        self._aside_until_s[host_id] = self._node.clock.monotonic_s() + pause_s

    # -- what is done

    async def _perform(self, change: Change, situation: Situation) -> None:
        host = situation.hosts.get(change.host_id)
        name = host.name if host is not None else change.host_id
        log.info("changing the voters", extra={"change": change.step, "host": name})
        match change.step:
            case Step.ADD:
                assert host is not None, "only hosts with a record are planned for"
                try:
                    await self._engine.add_voter(peer_of(host), timeout_s=CHANGE_TIMEOUT_S)
                except PlatformError:
                    self._set_aside(change.host_id)
                    raise
                await self._events.record(
                    "voter-added", host, f"host {name} votes now: {change.reason}"
                )
            case Step.REMOVE:
                await self._engine.remove_voter(change.host_id, timeout_s=CHANGE_TIMEOUT_S)
                if host is not None:
                    await self._events.record(
                        "voter-removed",
                        host,
                        f"host {name} votes no more: {change.reason}",
                        severity=Severity.WARNING if change.dead else Severity.NOTICE,
                    )
            case Step.HAND_OVER:
                await self._engine.step_aside(timeout_s=HAND_OVER_TIMEOUT_S)

    async def _tell_of_dead(self, now_dead: frozenset[NodeId], policy: Policy) -> None:
        """Record a voter's death once."""
        fresh, self._told_dead = now_dead - self._told_dead, now_dead
        for id_ in sorted(fresh):
            host = self._store.get(Host, id_)
            if host is not None:
                message = (
                    f"host {host.name} votes, but has been silent for {policy.replace_after_s:g} s: "
                    "another host takes its place as soon as one can"
                )
                await self._events.record("voter-dead", host, message, severity=Severity.WARNING)

    async def _raise_level(self, mesh: Mesh) -> None:
        """Let the cluster use what every voter's program knows. It never goes back: written entries stay."""
        known = self._engine.progress()
        others = [p.id for p in self._engine.voters() if p.id != self._node.host_id]
        if any(id_ not in known for id_ in others):
            return
        lowest = min([FEATURE_LEVEL, *(known[id_].level for id_ in others)])
        if lowest > mesh.feature_level:
            event = self._events.make(
                "feature-level-raised",
                mesh,
                f"all voters know feature level {lowest}: the cluster uses it from now on",
            )
            await self._store.apply(puts=(changed(mesh, feature_level=lowest), event))


def policy_of(mesh: Mesh) -> Policy:
    """Return the operator's policy."""
    return Policy(
        voters_max=mesh.voters_max,
        replace_after_s=float(mesh.voter_replace_after_s),
        feature_level=mesh.feature_level,
    )
