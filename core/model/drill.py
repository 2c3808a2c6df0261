"""Drills: rehearsed, measured failures of hosts, and what came of each.

Written by the agent that observes a drill (`nodeagent.drills`); any agent can show it after the observer is gone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec

from core.attributes import CLUSTER, OWNER, attribute
from core.model.resource import OnDelete, Relation, Tagged

NOT_SEEN = -1
FAULT = "fault"
"""Code of the event that says what was broken."""


class DrillKind(StrEnum):
    """Which failure is rehearsed."""

    AGENT_KILL = "agent-kill"
    GUARD_KILL = "guard-kill"
    NETWORK_CUT = "network-cut"
    POWER_OFF = "power-off"
    LEADER_LOSS = "leader-loss"
    STORAGE_LOSS = "storage-loss"
    FULL_POWER_LOSS = "full-power-loss"


class DrillState(StrEnum):
    """How far a drill is. `PREPARED`: nobody has begun. `STARTING`: its host may do the fault now. `WATCHING`: the fault was
    ordered, once and for all. `UNDOING`: what was broken is put right. `ENDED`: it never changes any more."""

    PREPARED = "prepared"
    STARTING = "starting"
    WATCHING = "watching"
    UNDOING = "undoing"
    ENDED = "ended"


class DrillVerdict(StrEnum):
    """What a drill has shown of a promise. `INCONCLUSIVE`: neither that it is kept nor that it isn't."""

    OPEN = "open"
    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    ABORTED = "aborted"


class DrillPromise(StrEnum):
    """What is promised of a VM. `STAYS`: it isn't touched. `MOVES`: it runs elsewhere in time. `RETURNS`: it runs again in
    time after the power is back. `WAITS`: it runs again when its host is back, nobody says when."""

    STAYS = "stays"
    MOVES = "moves"
    RETURNS = "returns"
    WAITS = "waits"


class DrillEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a drill's timeline, by the clock of the host that observes it."""

    after_ms: Annotated[int, attribute("When, after the fault.", by=OWNER, unit="milliseconds")]
    code: Annotated[str, attribute("What kind of thing happened.", by=OWNER)]
    text: Annotated[str, attribute("What happened, in words.", by=OWNER)]


class DrillVM(msgspec.Struct, frozen=True, kw_only=True):
    """A VM that the fault was to touch, or not to. Times are milliseconds after the fault; -1: not seen."""

    vm: Annotated[str, attribute("Id of the VM.", by=OWNER)]
    name: Annotated[str, attribute("Its name.", by=OWNER)]
    promise: Annotated[DrillPromise, attribute("What is promised of it.", by=OWNER)]
    was_on: Annotated[str, attribute("Name of the host that ran it before.", by=OWNER)]
    generation: Annotated[
        int, attribute("Its generation before; each start makes another.", by=OWNER)
    ]
    bound_ms: Annotated[
        int,
        attribute(
            "Within which time it has to run again; 0: no promise.",
            by=OWNER,
            unit="milliseconds",
            least=0,
        ),
    ] = 0
    taken_ms: Annotated[
        int,
        attribute(
            "When it was given a new start, here or elsewhere.", by=OWNER, unit="milliseconds"
        ),
    ] = NOT_SEEN
    running_ms: Annotated[int, attribute("When it ran again.", by=OWNER, unit="milliseconds")] = (
        NOT_SEEN
    )
    now_on: Annotated[str, attribute("Name of the host that runs it.", by=OWNER)] = ""
    blocked: Annotated[str, attribute("Why it could not run.", by=OWNER)] = ""
    stopped_by_user: Annotated[
        bool, attribute("Whether it was stopped or moved by a user meanwhile.", by=OWNER)
    ] = False
    verdict: Annotated[DrillVerdict, attribute("Whether the promise was kept.", by=OWNER)] = (
        DrillVerdict.OPEN
    )
    why: Annotated[str, attribute("The reason of the verdict.", by=OWNER)] = ""


class Drill(Tagged, tag="drill.v1", frozen=True, kw_only=True):
    """A rehearsal of a failure on a living cluster: what was broken where, what followed when, and whether a promise was kept.

    One at a time in the cluster. `host_id` is the host that fails, empty when all do. `observer_host_id` is whose agent
    conducts it and whose clock all times are by; the fault doesn't touch it.
    """

    INDEXED: ClassVar[tuple[str, ...]] = ("state", "kind")
    PLURAL: ClassVar[str] = "drills"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation("host_id", target="host", name="host", reverse="drills", on_delete=OnDelete.KEEP),
        Relation(
            "observer_host_id",
            target="host",
            name="observer_host",
            reverse="observed_drills",
            on_delete=OnDelete.KEEP,
        ),
        Relation(
            "data_storage_id",
            target="data-storage",
            name="data_storage",
            reverse="drills",
            on_delete=OnDelete.KEEP,
        ),
    )

    kind: Annotated[DrillKind, attribute("Which failure is rehearsed.", by=CLUSTER)]
    host_id: Annotated[str, attribute("The host that fails; empty: all.", by=CLUSTER)] = ""
    host_label: Annotated[str, attribute("The name that the host had.", by=CLUSTER)] = ""
    observer_host_id: Annotated[
        str, attribute("The host whose agent conducts it; empty: whoever leads.", by=CLUSTER)
    ] = ""
    data_storage_id: Annotated[
        str, attribute("The data storage that is lost; empty: none.", by=CLUSTER)
    ] = ""
    duration_s: Annotated[
        int, attribute("How long a fault lasts that ends by itself; 0: it doesn't.", by=CLUSTER)
    ] = 0
    profile: Annotated[str, attribute("HA profile whose promise is tried.", by=CLUSTER)] = "default"
    boots: Annotated[
        dict[str, str], attribute("Boot of each host before, by the host's id.", by=CLUSTER)
    ] = {}
    state: Annotated[DrillState, attribute("How far it is.", by=OWNER)] = DrillState.PREPARED
    events: Annotated[
        tuple[DrillEvent, ...], attribute("The timeline, oldest first.", by=OWNER)
    ] = ()
    vms: Annotated[
        tuple[DrillVM, ...],
        attribute("The VMs that it is about, and what became of them.", by=OWNER),
    ] = ()
    verdict: Annotated[DrillVerdict, attribute("Whether the promise was kept.", by=OWNER)] = (
        DrillVerdict.OPEN
    )
    why: Annotated[str, attribute("The reason of the verdict, in a line.", by=OWNER)] = ""
    left_to_do: Annotated[
        str, attribute("What could not be put right by itself, and how to do it.", by=OWNER)
    ] = ""
    abort_reason: Annotated[
        str, attribute("Why it is to end early; empty: it isn't.", by=CLUSTER)
    ] = ""
    ended_ms: Annotated[int, attribute("When it ended; 0: not yet.", by=OWNER)] = 0

    def claims(self) -> tuple[str, ...]:
        """One drill at a time is open in the cluster."""
        name = f"drill.name/{self.name}"
        return (name,) if self.state is DrillState.ENDED else (name, "drill.open/one")
