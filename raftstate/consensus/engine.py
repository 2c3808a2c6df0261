"""The consensus interface: what the store asks of an engine, and what an engine asks of the store.

`raftstate.store` is the only caller of `ConsensusEngine`; `raftstate.state.machine` implements `StateMachine`. The seam exists so
that the engine (PySyncObj in a safe shell) can be replaced without any other package noticing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NewType, Protocol

NodeId = NewType("NodeId", str)


@dataclass(frozen=True, slots=True)
class Peer:
    """A voter: its id (the CN of its certificate) and mesh address, such as `10.77.0.1:7444`."""

    id: NodeId
    address: str


class Role(StrEnum):
    """What a host is to consensus: a voter decides, a replica is told what was decided."""

    VOTER = "voter"
    REPLICA = "replica"


@dataclass(frozen=True, slots=True)
class Progress:
    """What another host said last: the index it has applied, the feature level it knows; `heard_s` is loop time."""

    applied: int
    level: int
    heard_s: float


class Frozen(Protocol):
    """The state as of one moment, while the machine goes on."""

    @property
    def applied(self) -> int:
        """The index of the last entry in it."""

    def write(self, path: Path) -> None:
        """Write the state to a new file, durably. Blocks; runs in a thread."""

    def close(self) -> None:
        """Let go of it. On the loop's thread, after `write` has ended."""


class StateMachine(Protocol):
    """The replicated state. All calls come from the event loop's thread, one at a time."""

    def applied(self) -> int:
        """Return the index of the last applied entry, 0 at birth. Stored in the same transaction as the state."""

    def apply(self, index: int, payloads: Sequence[bytes]) -> list[bytes]:
        """Apply one log entry: many payloads, one result each, deterministically.

        Refusals are results. An exception means the environment failed (disk full): the engine stops for good.
        """

    def digest(self) -> bytes:
        """Return a hash of the whole state: equal at an equal index on all hosts. Takes no time to speak of."""

    def freeze(self) -> Frozen:
        """Hold on to the present state, `applied()` included, for a snapshot."""

    def stage(self, dump: Path) -> Callable[[], None]:
        """Check a dump of another host and prepare it beside the state. Blocks; may run in a thread.

        The function returned replaces the whole state, all or nothing, on the loop's thread.

        Raises:
            FatalError: it isn't a whole, sound dump; the state is unchanged.
        """


@dataclass(frozen=True, slots=True)
class Point:
    """What the state that is applied at this very moment stands for, in the log."""

    index: int
    term: int
    voters: tuple[Peer, ...]
    generation: int
    level: int  # the feature level that a reader of the state needs


class ConsensusEngine(Protocol):
    """An agreed log. Methods without a timeout answer at once, from what this node knows now."""

    async def run(self) -> None:
        """Serve until cancelled. Raises FatalError when this node can't go on safely."""

    async def propose(self, payload: bytes, *, timeout_s: float, level: int = 1) -> bytes:
        """Commit `payload` and return its result, once a quorum has it and this node has applied it.

        Raises:
            ConflictError: `level`, the feature level that applying it takes, is above what this host or a voter knows.
            UnavailableError: no leader or quorum, or the outcome is unknown: it may still be applied later.
        """

    async def read_barrier(self, *, timeout_s: float) -> int:
        """Return the applied index once this node has applied everything committed before the call.

        Raises:
            UnavailableError: no leader or quorum in time.
        """

    def leader(self) -> NodeId | None:
        """Return the last known leader: a hint."""

    def is_leader(self) -> bool:
        """Tell whether this node believes it leads: a hint; another may lead already."""

    def voters(self) -> tuple[Peer, ...]:
        """Return the members of the latest configuration in this node's log, sorted by id."""

    def connected(self) -> frozenset[NodeId]:
        """Return the nodes with a live raft connection to this one."""

    def term(self) -> int:
        """Return the current Raft term."""

    def commit_index(self) -> int:
        """Return the highest index this node knows to be committed."""

    def applied_index(self) -> int:
        """Return the highest index this node has applied."""

    def lag(self) -> int:
        """Return how many committed entries this node has still to apply."""

    def role(self) -> Role:
        """Tell whether this node votes, as far as its log says."""

    def progress(self) -> Mapping[NodeId, Progress]:
        """Return what the hosts with a link to this one said last."""

    def generation(self) -> int:
        """Return the generation of the cluster: it grows when an operator recovers it from a lost majority."""

    def level(self) -> int:
        """Return the feature level that can be written now: the lowest of the voters', as far as known."""

    def fault(self) -> str:
        """Return why this node takes no part, or can't keep up, and what to do; empty while all is well."""

    def point(self) -> Point | None:
        """Return where in the log the applied state is; None before this host has any."""

    def follow(self, parents: Sequence[Peer]) -> None:
        """Say whom to get the log from while this host doesn't vote, best first."""

    async def step_aside(self, *, timeout_s: float) -> None:
        """Let another voter lead; return when one does, or after `timeout_s`. Does nothing on others than the leader."""

    async def add_voter(self, peer: Peer, *, timeout_s: float) -> None:
        """Make `peer` a voter. Idempotent. It must run and have caught up; the leader connects to it.

        Raises:
            UnavailableError: not within `timeout_s`; the message says what is in the way, and asking again is safe.
        """

    async def remove_voter(self, node: NodeId, *, timeout_s: float) -> None:
        """Take `node` out of the voters. Idempotent.

        Raises:
            ConflictError: it is the last voter.
            UnavailableError: not within `timeout_s`; the message says what is in the way, and asking again is safe.
        """
