"""A consensus engine of one node, in memory: every proposal is committed and applied at once.

Tests of the store and of everything above it use it in place of the real engine.
"""

import asyncio
from collections.abc import Mapping, Sequence

from core.errors import ConflictError, UnavailableError
from raftstate.consensus.engine import NodeId, Peer, Point, Progress, Role, StateMachine


class SingleNodeEngine:
    """A `ConsensusEngine` without log, network or time. Set `available` to False to play a lost quorum."""

    def __init__(self, machine: StateMachine, *, peer: Peer | None = None) -> None:
        self._machine = machine
        self._peer = peer or Peer(NodeId("single"), "127.0.0.1:7444")
        self.available = True

    async def run(self) -> None:
        """Serve until cancelled."""
        await asyncio.Event().wait()

    async def propose(self, payload: bytes, *, timeout_s: float, level: int = 1) -> bytes:
        """Apply `payload` as the next entry."""
        del timeout_s, level
        self._require_quorum()
        (result,) = self._machine.apply(self._machine.applied() + 1, [payload])
        await asyncio.sleep(0)  # like a real engine, let others run before the caller goes on
        return result

    async def read_barrier(self, *, timeout_s: float) -> int:
        """Return the applied index."""
        del timeout_s
        self._require_quorum()
        return self._machine.applied()

    def leader(self) -> NodeId | None:
        """Return this node."""
        return self._peer.id if self.available else None

    def is_leader(self) -> bool:
        """Tell whether the engine is available."""
        return self.available

    def voters(self) -> tuple[Peer, ...]:
        """Return this node alone."""
        return (self._peer,)

    def connected(self) -> frozenset[NodeId]:
        """Return nothing: there are no others."""
        return frozenset()

    def term(self) -> int:
        """Return 1: there are no elections."""
        return 1

    def commit_index(self) -> int:
        """Return the applied index."""
        return self._machine.applied()

    def applied_index(self) -> int:
        """Return the applied index."""
        return self._machine.applied()

    def lag(self) -> int:
        """Return 0: what is committed is applied."""
        return 0

    def role(self) -> Role:
        """Return that this node votes."""
        return Role.VOTER

    def progress(self) -> Mapping[NodeId, Progress]:
        """Return nothing: there are no others."""
        return {}

    def fault(self) -> str:
        """Return that all is well."""
        return ""

    def generation(self) -> int:
        """Return the first generation."""
        return 1

    def level(self) -> int:
        """Return the first feature level."""
        return 1

    def point(self) -> Point:
        """Return the applied index."""
        return Point(self._machine.applied(), 1, self.voters(), 1, 1)

    def follow(self, parents: Sequence[Peer]) -> None:
        """Do nothing: a voter follows nobody."""

    async def step_aside(self, *, timeout_s: float) -> None:
        """Go on leading: there is nobody else."""

    async def add_voter(self, peer: Peer, *, timeout_s: float) -> None:
        """Refuse every other voter."""
        del timeout_s
        if peer.id != self._peer.id:
            raise ConflictError(
                f"host {peer.id} can't become a voter: this engine has only one; use the real engine"
            )

    async def remove_voter(self, node: NodeId, *, timeout_s: float) -> None:
        """Refuse to remove the only voter."""
        del timeout_s
        if node == self._peer.id:
            raise ConflictError(f"host {node} is the last voter; it can't be removed")

    def _require_quorum(self) -> None:
        if not self.available:
            raise UnavailableError(
                "no quorum of voters; wait until most of them are up, then try again"
            )
