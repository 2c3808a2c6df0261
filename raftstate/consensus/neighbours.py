"""What the hosts with a link to this one have said about themselves: how far they are, what they know, what they hold.

Part of the engine. Every ping carries a digest of the sender's state, so two hosts that applied the same log to
different states are found out within seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from raftstate.consensus.engine import NodeId, Progress
from raftstate.consensus.messages import Ping

HOLDS_FRESH_S = 3.0


@dataclass(slots=True)
class _Neighbour:
    level: int
    ping: Ping
    heard_s: float


class Neighbours:
    """`digests` maps the indexes that this node applied last to the digest of its state at each."""

    def __init__(self, digests: Mapping[int, bytes], *, now: Callable[[], float]) -> None:
        self._digests, self._now = digests, now
        self._neighbours: dict[NodeId, _Neighbour] = {}

    def met(self, peer: NodeId, level: int) -> None:
        """A host introduced itself."""
        self._neighbours[peer] = _Neighbour(level, Ping(), self._now())

    def pinged(self, peer: NodeId, ping: Ping) -> int | None:
        """A host said how far it is. Return an index at which its state differs from this node's, None if none is known.

        Looks at what it said before, too: this node may have been behind then.
        """
        neighbour = self._neighbours.get(peer)
        if neighbour is None:
            return None
        before, neighbour.ping, neighbour.heard_s = neighbour.ping, ping, self._now()
        return next((p.applied for p in (before, ping) if self._differs(p)), None)

    def _differs(self, ping: Ping) -> bool:
        mine = self._digests.get(ping.applied)
        return bool(ping.digest) and mine is not None and mine != ping.digest

    def holds(self, peer: NodeId) -> int | None:
        """Return the last entry that a host holds durably, None if it hasn't said so lately."""
        neighbour = self._neighbours.get(peer)
        if neighbour is None or self._now() - neighbour.heard_s > HOLDS_FRESH_S:
            return None
        return neighbour.ping.last

    def levels(self) -> dict[NodeId, int]:
        """Return the feature level of each host that this one ever had a link with."""
        return {peer: neighbour.level for peer, neighbour in self._neighbours.items()}

    def progress(self, live: frozenset[NodeId]) -> dict[NodeId, Progress]:
        """Return what is known of the hosts with a link."""
        return {
            peer: Progress(neighbour.ping.applied, neighbour.level, neighbour.heard_s)
            for peer, neighbour in self._neighbours.items()
            if peer in live
        }
