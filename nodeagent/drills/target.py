"""The host that a drill breaks: it breaks itself, when the replicated state says that it shall, and only once.

Another agent asks it over the mesh (`POST /mesh/drill/...`). That is no reason by itself: the drill must be committed, of
this host, in the state `starting`, observed by who asks, and seen here for the first time a moment ago. Then this agent
commits that the fault is done before it does it, so that no repetition and no restart does it twice.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec
from msgspec.structs import replace

from core.errors import ConflictError, ForbiddenError, PlatformError
from core.model import (
    FAULT,
    DataStorage,
    Drill,
    DrillEvent,
    DrillKind,
    DrillState,
    Host,
)
from ha.drills.promises import CUT_S_MAX, TIMED
from nodeagent.drills.faults import Faults
from nodeagent.node import Node

log = logging.getLogger(__name__)

READY_PATH = "/mesh/drill/ready"
BEGIN_PATH = "/mesh/drill/begin"
FRESH_S = 30.0
ANSWER_FIRST_S = 0.2
BY_ITSELF = {
    DrillKind.AGENT_KILL: "the agent of {host} is killed",
    DrillKind.LEADER_LOSS: "the agent of {host}, which leads, is killed",
    DrillKind.GUARD_KILL: "the guard of {host} is killed",
    DrillKind.NETWORK_CUT: "{host} is cut off from all other hosts for {duration} s",
    DrillKind.STORAGE_LOSS: "{host} is cut off from the server of the data storage for {duration} s",
}


class AskReady(msgspec.Struct, frozen=True, kw_only=True):
    """Could this host do that to itself? Nothing is done."""

    kind: DrillKind
    data_storage_id: str = ""


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """`refusal` is empty when it could."""

    refusal: str = ""


class BeginFault(msgspec.Struct, frozen=True, kw_only=True):
    """The observer asks for the fault of a drill that is committed."""

    drill_id: str


class FaultBegun(msgspec.Struct, frozen=True, kw_only=True):
    """It is committed that the fault is done; it follows in a moment."""

    revision: int


class DrillTarget:
    """This host's side of drills on it."""

    def __init__(self, node: Node, faults: Faults) -> None:
        self._node, self._store = node, node.store
        self._faults = faults
        self._old: frozenset[str] | None = None
        self._first_seen_s: dict[str, float] = {}
        self._healed: set[str] = set()
        self._to_do: asyncio.Queue[Drill] = asyncio.Queue(maxsize=1)

    async def run(self) -> None:
        """Do what was promised, and end cuts whose drill is over, until cancelled."""
        self._old = frozenset(drill.id for drill in self._store.all(Drill))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._do_faults(), name="drill-faults")
            group.create_task(self._follow(), name="drill-follow")

    async def ready(self, question: AskReady) -> Ready:
        """Tell whether this host could do the fault to itself."""
        try:
            self._check(question.kind, question.data_storage_id)
        except PlatformError as error:
            return Ready(refusal=error.message)
        return Ready()

    async def begin(self, asked_by: str, order: BeginFault) -> FaultBegun:
        """Commit that the fault is done, and do it once the answer is on its way.

        Raises:
            ForbiddenError: who asks isn't the drill's observer, or it isn't this host's.
            ConflictError: no such drill may be done now; nothing was done.
            UnavailableError: not known to be committed; the observer looks at the drill's state.
        """
        await self._store.barrier()
        drill = self._store.need(Drill, order.drill_id)
        if drill.observer_host_id != asked_by or drill.host_id != self._node.host_id:
            raise ForbiddenError(
                "this host breaks itself only for a drill of its own, asked by its observer"
            )
        if drill.kind not in BY_ITSELF:
            raise ConflictError(f"no host does a {drill.kind} to itself")
        if drill.state is not DrillState.STARTING or drill.abort_reason:
            raise ConflictError(f"drill {drill.name} is {drill.state}", code="drill-not-starting")
        self._check_fresh(drill)
        self._check(drill.kind, drill.data_storage_id)
        if self._to_do.full():
            raise ConflictError("another fault is about to be done here")
        text = BY_ITSELF[drill.kind].format(host=drill.host_label, duration=drill.duration_s)
        event = DrillEvent(after_ms=0, code=FAULT, text=text)
        begun = replace(drill, state=DrillState.WATCHING, events=(*drill.events, event))
        revision = await self._store.apply(puts=(begun,))
        self._to_do.put_nowait(begun)
        log.warning("a drill breaks this host", extra={"drill": drill.name, "kind": drill.kind})
        return FaultBegun(revision=revision)

    def _check_fresh(self, drill: Drill) -> None:
        """See that the drill came up in this process a moment ago, by this host's own clock."""
        if self._old is None or drill.id in self._old:
            raise ConflictError(
                f"drill {drill.name} is older than this agent", code="drill-not-starting"
            )
        now_s = self._node.clock.monotonic_s()
        if now_s - self._first_seen_s.setdefault(drill.id, now_s) > FRESH_S:
            raise ConflictError(
                f"drill {drill.name} was prepared too long ago", code="drill-not-starting"
            )

    def _check(self, kind: DrillKind, data_storage_id: str) -> None:
        match kind:
            case DrillKind.GUARD_KILL:
                self._faults.guard_pid()
            case DrillKind.STORAGE_LOSS:
                self._server_of(data_storage_id)
            case DrillKind.NETWORK_CUT:
                self._other_addresses()
            case _:
                pass

    def _server_of(self, data_storage_id: str) -> str:
        storage = self._store.need(DataStorage, data_storage_id)
        server = self._faults.storage_server(storage.path)
        if server in {host.address for host in self._store.all(Host)}:
            raise ConflictError(
                f"{storage.name} is served by a host of the cluster, {server}: that would cut it off too"
            )
        return server

    def _other_addresses(self) -> list[str]:
        others = [host.address for host in self._store.all(Host) if host.id != self._node.host_id]
        if not others:
            raise ConflictError("there are no other hosts")
        return others

    async def _do_faults(self) -> None:
        while True:
            drill = await self._to_do.get()
            await asyncio.sleep(ANSWER_FIRST_S)
            try:
                await self._do(drill)
            except (PlatformError, OSError) as error:
                log.error(
                    "a drill's fault failed", extra={"drill": drill.name, "error": str(error)}
                )

    async def _do(self, drill: Drill) -> None:
        match drill.kind:
            case DrillKind.AGENT_KILL | DrillKind.LEADER_LOSS:
                self._faults.kill_agent()
            case DrillKind.GUARD_KILL:
                self._faults.kill_guard()
            case DrillKind.NETWORK_CUT:
                await self._faults.cut(self._other_addresses(), _bounded(drill.duration_s))
            case DrillKind.STORAGE_LOSS:
                server = self._server_of(drill.data_storage_id)
                await self._faults.cut([server], _bounded(drill.duration_s))
            case _:
                raise AssertionError(f"{drill.kind} was refused before")

    async def _follow(self) -> None:
        """Note when drills come up, and end a cut as soon as its drill is over, or there is none."""
        watch = self._store.watch(Drill)
        try:
            while True:
                await watch.next()
                now_s = self._node.clock.monotonic_s()
                for drill in self._store.all(Drill):
                    self._first_seen_s.setdefault(drill.id, now_s)
                await self._heal_if_over()
        finally:
            self._store.unwatch(watch)

    async def _heal_if_over(self) -> None:
        """End the cuts of this host's drills that are over, each once in this process's life."""
        cuts = [
            drill
            for drill in self._store.all(Drill)
            if drill.host_id == self._node.host_id and drill.kind in TIMED
        ]
        over = {d.id for d in cuts if d.state in (DrillState.UNDOING, DrillState.ENDED)}
        if over <= self._healed or len(over) < len(cuts):
            return
        try:
            await self._faults.heal()
        except PlatformError as error:
            log.warning("a drill's cut can't be ended early", extra={"error": error.message})
        self._healed |= over


def _bounded(duration_s: int) -> int:
    return max(1, min(duration_s, CUT_S_MAX))
