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


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whether another host's state was the same as this one's at an index that both had applied."""

    index: int
    agrees: bool


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

    def pinged(self, peer: NodeId, ping: Ping) -> Comparison | None:
        """A host said how far it is. Compare states; None if the two have no index in common.

        Looks at what it said before, too: this node may have been behind then.
        """
        neighbour = self._neighbours.get(peer)
        if neighbour is None:
            return None
        before, neighbour.ping, neighbour.heard_s = neighbour.ping, ping, self._now()
        both = [found for p in (before, ping) if (found := self._compare(p)) is not None]
        return min(both, key=lambda found: found.agrees, default=None)

    def _compare(self, ping: Ping) -> Comparison | None:
        mine = self._digests.get(ping.applied)
        if not ping.digest or mine is None:
            return None
        return Comparison(ping.applied, mine == ping.digest)

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
