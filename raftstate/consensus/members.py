"""Which hosts are voters, at every index the log still holds.

Raft uses the latest configuration in the log, committed or not, and falls back to the one before when an entry is
truncated. PySyncObj forgets this at a restart, so the journal keeps it here and the shell counts by it.
"""

from __future__ import annotations

from collections.abc import Iterable

from raftstate.consensus.engine import NodeId, Peer
from raftstate.consensus.entries import MemberChange

Voters = tuple[Peer, ...]


def as_voters(peers: Iterable[Peer]) -> Voters:
    """Return peers in the canonical order."""
    return tuple(sorted(peers, key=lambda peer: peer.id))


class Members:
    """The configurations of a log: a base (from the snapshot) and one more for each membership entry after it.

    Without a snapshot the base is unknown (`known` is False): this host has just joined and must stay passive.
    """

    def __init__(self) -> None:
        self._history: list[tuple[int, Voters]] = []

    @property
    def known(self) -> bool:
        """Tell whether the log says who the voters are."""
        return bool(self._history)

    def reset(self, index: int, voters: Voters) -> None:
        """Start from the configuration of a snapshot at `index`."""
        self._history = [(index, as_voters(voters))]

    def change(self, index: int, change: MemberChange) -> None:
        """Take in the membership entry at `index`; entries up to the base are part of it already."""
        if not self._history or index <= self._history[-1][0]:
            return
        others = [peer for peer in self.latest() if peer.id != change.host_id]
        if change.add:
            others.append(Peer(NodeId(change.host_id), change.address))
        self._history.append((index, as_voters(others)))

    def truncate(self, index: int) -> None:
        """Forget the changes at `index` and above."""
        while len(self._history) > 1 and self._history[-1][0] >= index:
            self._history.pop()

    def compact(self, index: int) -> None:
        """Forget how the configuration at `index` came to be."""
        while len(self._history) > 1 and self._history[1][0] <= index:
            self._history.pop(0)

    def latest(self) -> Voters:
        """Return the configuration that counts now."""
        return self._history[-1][1] if self._history else ()

    def latest_index(self) -> int:
        """Return the index of the entry that made the latest configuration."""
        return self._history[-1][0] if self._history else 0

    def at(self, index: int) -> Voters:
        """Return the configuration as of `index`."""
        return next((voters for at, voters in reversed(self._history) if at <= index), ())
