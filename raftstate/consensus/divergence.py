"""Whose state is wrong when two hosts differ at the same index, judged by each host for itself. Pure; part of the engine.

A digest says that two states differ, not which is right. A voter is wrong if more of the voters that it can compare
with differ from it than agree; with as many on both sides the leader is believed. So one damaged leader gives way
to its followers, and doesn't take them with it. A host that doesn't vote compares with whoever feeds it: it goes to
another one first, and is wrong only if it differs from that one, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from raftstate.consensus.engine import NodeId

JUDGE_AFTER_S = 3.0  # by then every connected host has been compared with


class Divergence:
    """What this host knows of whom it agrees with."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._agrees: dict[NodeId, bool] = {}
        self._since_s: float | None = None  # the first difference that still stands
        self._misfed_by: set[NodeId] = set()

    def compared(self, peer: NodeId, agrees: bool) -> None:
        """This host and another have applied the same index: to the same state, or not."""
        self._agrees[peer] = agrees
        self._note()

    def forget(self, peer: NodeId) -> None:
        """The link to a host is gone: when it is back, what was known of it may not be true any more."""
        self._agrees.pop(peer, None)
        self._note()

    def _note(self) -> None:
        """Keep the time of the first difference, as long as any stands."""
        if all(self._agrees.values()):
            self._since_s = None
        elif self._since_s is None:
            self._since_s = self._now()

    def outvoted_by(self, voters: Iterable[NodeId], leader: NodeId | None) -> NodeId | None:
        """Return a voter that shows this one to be wrong; None if it isn't, or it is too early to say.

        `voters` are the other voters with a link to this one.
        """
        if self._since_s is None or self._now() - self._since_s < JUDGE_AFTER_S:
            return None
        verdicts = {voter: self._agrees[voter] for voter in voters if voter in self._agrees}
        differing = sorted(voter for voter, agrees in verdicts.items() if not agrees)
        agreeing = 1 + len(verdicts) - len(differing)
        outvoted = len(differing) > agreeing
        tied_with_leader = len(differing) == agreeing and leader in differing
        return differing[0] if differing and (outvoted or tied_with_leader) else None

    def misfed(self, parent: NodeId, agrees: bool, parents: int) -> bool:
        """Compare with a parent, one of `parents`; tell whether this host, which doesn't vote, must be wrong.

        If it isn't but differs, it should go to another parent.
        """
        if agrees:
            self._misfed_by.clear()
            return False
        self._misfed_by.add(parent)
        return len(self._misfed_by) >= min(2, parents)
