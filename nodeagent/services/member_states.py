"""How far each host is in the log, and whether it is well: what links say, and what hosts answer when asked.

Used by the API for `kvorum members`, and by the leader before it makes a host a voter. Only a hint: nothing is decided
from it that a transaction or the engine doesn't decide again. Asking is bounded: hosts that were asked a moment ago are
not asked again, at most `ASKED_MAX` are asked at once, and none is waited for longer than a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from core.errors import PlatformError
from core.identity.keyring import KeptKey
from core.mesh.client import Nothing
from core.model import Host
from core.service_faults import ServiceFault
from core.work_queue import KindState
from ha.serf.membership import MemberStatus
from nodeagent.joining.messages import FEATURE_LEVEL
from nodeagent.node import Node
from raftstate.consensus.engine import NodeId, Progress, Role

ASK_TIMEOUT_S = 1.0
ASKED_MAX = 64
ANSWER_KEPT_S = 2.0
SILENCE_KEPT_S = 5.0
LAG_CATCHING_UP = 1_000


class Linked(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent knows of a host that it has a link to."""

    applied: int
    level: int


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent says of itself, and of the hosts it has links to.

    `work` is what its queues hold, `faults` the last fault of each of its services, `secrets_key` how it keeps that.
    `plain_http` is where it serves the API without TLS, empty for nowhere.
    """

    applied: int
    committed: int
    level: int
    generation: int
    votes: bool
    fault: str = ""
    linked: dict[str, Linked] = {}
    work: tuple[KindState, ...] = ()
    faults: tuple[ServiceFault, ...] = ()
    secrets_key: KeptKey | None = None
    plain_http: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """How a host stands, in words; None and "-" where nobody could tell."""

    applied: int | None
    lag: int | None
    health: str
    level: int | None
    generation: int | None
    work: tuple[KindState, ...] = ()
    faults: tuple[ServiceFault, ...] = ()
    plain_http: str = ""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of asking a host: None when it was silent."""

    state: State | None
    at_s: float


class MemberStates:
    """What this agent knows of all hosts."""

    def __init__(
        self,
        node: Node,
        kept: Callable[[], KeptKey | None] = lambda: None,
        *,
        plain_http: str = "",
    ) -> None:
        self._node, self._kept, self._plain_http = node, kept, plain_http
        self._answers: dict[str, _Answer] = {}

    def own(self) -> State:
        """Return what is true of this host."""
        engine = self._node.engine
        return State(
            applied=engine.applied_index(),
            committed=engine.commit_index(),
            level=FEATURE_LEVEL,
            generation=engine.generation(),
            votes=engine.role() is Role.VOTER,
            fault=engine.fault(),
            linked={
                id_: Linked(applied=p.applied, level=p.level)
                for id_, p in engine.progress().items()
            },
            work=self._node.queues.state(),
            faults=self._node.faults.all(),
            plain_http=self._plain_http,
            secrets_key=self._kept(),
        )

    async def ask(self, hosts: Iterable[Host]) -> dict[str, State]:
        """Ask hosts for their state, all at once, for at most a second; the silent ones are left out."""
        now_s = self._node.clock.monotonic_s()
        hosts = [host for host in hosts if host.id != self._node.host_id]
        due = [host for host in hosts if self._is_due(host.id, now_s)]
        async with asyncio.TaskGroup() as group:
            for host in due[:ASKED_MAX]:
                group.create_task(self._ask(host), name=f"ask-{host.name}")
        known = {h.id: self._answers[h.id].state for h in hosts if h.id in self._answers}
        return {id_: state for id_, state in known.items() if state is not None}

    async def health(self) -> dict[str, Health]:
        """Return how every host stands. Takes a second at most."""
        store, engine = self._node.store, self._node.engine
        hosts = store.all(Host)
        voters = {peer.id for peer in engine.voters()}
        order = sorted(hosts, key=lambda h: (h.id not in voters, h.id in engine.progress()))
        asked = [h for h in order if not self._seems_gone(h.id)][: ASKED_MAX + 1]
        states = await self.ask(asked)
        states[self._node.host_id] = self.own()
        linked = {id_: found for state in states.values() for id_, found in state.linked.items()}
        leader = states.get(engine.leader() or "")
        committed = leader.committed if leader is not None else engine.commit_index()
        shown = {}
        for host in hosts:
            told = linked.get(host.id)
            if (state := states.get(host.id)) is not None:
                shown[host.id] = _told(state, committed)
            elif told is not None:
                lag = max(0, committed - told.applied)
                shown[host.id] = Health(told.applied, lag, _pace(lag), told.level, None)
            else:
                silent = host in asked or self._seems_gone(host.id)
                shown[host.id] = Health(None, None, "disconnected" if silent else "-", None, None)
        return shown

    def _is_due(self, host_id: str, now_s: float) -> bool:
        answer = self._answers.get(host_id)
        if answer is None:
            return True
        kept_s = SILENCE_KEPT_S if answer.state is None else ANSWER_KEPT_S
        return now_s - answer.at_s >= kept_s

    async def _ask(self, host: Host) -> None:
        state = None
        try:
            state = await self._node.mesh.call(
                host, "/mesh/state", Nothing(), State, timeout_s=ASK_TIMEOUT_S
            )
        except PlatformError:
            pass  # silence is an answer, too
        self._answers[host.id] = _Answer(state, self._node.clock.monotonic_s())

    def _seems_gone(self, host_id: str) -> bool:
        """Tell whether gossip misses a host that has no link to this one."""
        if host_id == self._node.host_id or host_id in self._node.engine.connected():
            return False
        seen = self._node.membership.members.get(host_id)
        return seen is not None and seen.status is not MemberStatus.ALIVE


def progress_of(state: State, heard_s: float) -> Progress:
    """Return a host's own word in the engine's terms."""
    return Progress(applied=state.applied, level=state.level, heard_s=heard_s)


def alive_hosts(node: Node, hosts: Iterable[Host]) -> frozenset[NodeId]:
    """Return the hosts that gossip doesn't miss, and those with a link. Gossip is late: unknown counts as alive."""
    gossip, linked = node.membership.members, node.engine.connected()
    return frozenset(
        NodeId(host.id)
        for host in hosts
        if host.id == node.host_id
        or host.id in linked
        or (seen := gossip.get(host.id)) is None
        or seen.status is MemberStatus.ALIVE
    )


def _told(state: State, committed: int) -> Health:
    lag = max(0, committed - state.applied)
    health = f"silent: {state.fault}" if state.fault else _pace(lag)
    return Health(
        state.applied,
        lag,
        health,
        state.level,
        state.generation,
        state.work,
        state.faults,
        state.plain_http,
    )


def _pace(lag: int) -> str:
    return "catching-up" if lag > LAG_CATCHING_UP else "ok"
