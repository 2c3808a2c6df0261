"""The consensus interface: what the store asks of an engine, and what an engine asks of the store.

`raftstate.store` is the only caller of `ConsensusEngine`; `raftstate.state.machine` implements `StateMachine`. The seam exists so
that the engine (PySyncObj in a safe shell) can be replaced without any other package noticing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NewType, Protocol

NodeId = NewType("NodeId", str)


@dataclass(frozen=True, slots=True)
class Peer:
    """A voter: its id (the CN of its certificate) and mesh address, such as `10.77.0.1:7444`."""

    id: NodeId
    address: str


class StateMachine(Protocol):
    """The replicated state. All calls come from the event loop's thread, one at a time."""

    def applied(self) -> int:
        """Return the index of the last applied entry, 0 at birth. Stored in the same transaction as the state."""

    def apply(self, index: int, payloads: Sequence[bytes]) -> list[bytes]:
        """Apply one log entry: many payloads, one result each, deterministically.

        Refusals are results. An exception means the environment failed (disk full): the engine stops for good.
        """

    def dump(self) -> bytes:
        """Return the whole state, `applied()` included."""

    def load(self, dump: bytes) -> None:
        """Replace the whole state by a dump of another node: all of it or, on an error, nothing."""


class ConsensusEngine(Protocol):
    """An agreed log. Methods without a timeout answer at once, from what this node knows now."""

    async def run(self) -> None:
        """Serve until cancelled. Raises FatalError when this node can't go on safely."""

    async def propose(self, payload: bytes, *, timeout_s: float) -> bytes:
        """Commit `payload` and return its result, once a quorum has it and this node has applied it.

        Raises:
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

    async def add_voter(self, peer: Peer, *, timeout_s: float) -> None:
        """Make `peer` a voter. Idempotent. It must run already and be connected to the leader.

        Raises:
            ConflictError: another change is under way, or the peer isn't connected to the leader.
            UnavailableError: no leader or quorum, or the outcome is unknown.
        """

    async def remove_voter(self, node: NodeId, *, timeout_s: float) -> None:
        """Take `node` out of the voters. Idempotent.

        Raises:
            ConflictError: another change is under way, or it is the last voter.
            UnavailableError: no leader or quorum, or the outcome is unknown.
        """
