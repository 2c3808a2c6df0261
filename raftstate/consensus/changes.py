"""Changes of the set of voters: one at a time, never before the one before is committed.

Part of the engine. A newcomer counts in every quorum from the moment it is added, so it is added only when it has
stored the state: one that dies while joining must not take the service of the others with it. The leader decides; every other node asks it, again and again until its deadline, because asking is
idempotent. (PySyncObj's own check for a change under way never fires, so it is made here.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from raftstate.consensus.engine import NodeId
from raftstate.consensus.journal import Journal
from raftstate.consensus.messages import MemberChange


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the leader says to a change: `done`, final `refusal`, or ask again later because of `obstacle`."""

    done: bool = False
    refusal: str = ""
    obstacle: str = ""


class Changes:
    """The leader's half."""

    def __init__(
        self,
        me: NodeId,
        journal: Journal,
        *,
        live: Callable[[], frozenset[NodeId]],
        is_up_to_date: Callable[[NodeId], bool],
        bring_up: Callable[[NodeId], None],
        hand_over: Callable[[], None],
    ) -> None:
        self._me, self._journal, self._live, self._hand_over = me, journal, live, hand_over
        self._is_up_to_date, self._bring_up = is_up_to_date, bring_up
        self._next: MemberChange | None = None

    def in_effect(self, change: MemberChange, committed: int) -> bool:
        """Tell whether the log says, and will say for ever, what `change` wants."""
        members = self._journal.members
        present = any(peer.id == change.host_id for peer in members.latest())
        return members.known and present == change.add and members.latest_index() <= committed

    def consider(self, change: MemberChange, committed: int) -> Verdict:
        """Judge a change as the leader; one without an obstacle is appended at the next chance."""
        members = self._journal.members
        if self.in_effect(change, committed):
            return Verdict(done=True)
        if members.latest_index() > committed or self._next is not None:
            return Verdict(obstacle="another change of the voters is under way")
        if change.add and change.host_id not in self._live():
            return Verdict(
                obstacle=f"host {change.host_id} has no connection to the leader; is its agent running, "
                "and is port 7444 open between the hosts?"
            )
        if change.add and not self._is_up_to_date(NodeId(change.host_id)):
            self._bring_up(NodeId(change.host_id))
            return Verdict(obstacle=f"host {change.host_id} isn't up to date yet")
        if not change.add and len(members.latest()) == 1:
            return Verdict(refusal=f"host {change.host_id} is the last voter; it can't be removed")
        if not change.add and change.host_id == self._me:
            self._hand_over()
            return Verdict(obstacle="the host to remove leads; it hands over first")
        self._next = change
        return Verdict(obstacle="the change isn't committed yet: a quorum of voters is missing")

    def take(self) -> MemberChange | None:
        """Return the change to append now, once."""
        change, self._next = self._next, None
        return change

    def forget(self) -> None:
        """This node doesn't lead any more."""
        self._next = None
