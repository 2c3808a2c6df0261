"""Changes of the set of voters: one at a time, never before the one before is committed.

Part of the engine. A newcomer counts in every quorum from the moment it is added, so it is added only when it holds
nearly all of the log: one that dies while joining must not take the service of the others with it. The leader decides
(`Changes`); every other node asks it (`ChangeRequests`), again and again until its deadline, because asking is
idempotent. (PySyncObj's own check for a change under way never fires, so it is made here.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from core.errors import ConflictError, UnavailableError
from raftstate.consensus.engine import NodeId, Peer
from raftstate.consensus.entries import MemberChange
from raftstate.consensus.journal import Journal

ENTRIES_BEHIND_MAX = 2_000  # a newcomer's; the leader's own log holds them still
POLL_S = 0.05
ASK_S = 1.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the leader says to a change: `done`, final `refusal`, or ask again later because of `obstacle`."""

    done: bool = False
    refusal: str = ""
    obstacle: str = ""


class Changes:
    """The leader's half. `holds` returns up to where a linked host has the log, None if it hasn't said lately."""

    def __init__(
        self,
        me: NodeId,
        journal: Journal,
        *,
        live: Callable[[], frozenset[NodeId]],
        holds: Callable[[NodeId], int | None],
        invite: Callable[[Peer], None],
        hand_over: Callable[[], None],
    ) -> None:
        self._me, self._journal, self._live, self._hand_over = me, journal, live, hand_over
        self._holds, self._invite = holds, invite
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
        obstacle = self._newcomer(change) if change.add else ""
        if obstacle:
            return Verdict(obstacle=obstacle)
        if not change.add and len(members.latest()) == 1:
            return Verdict(refusal=f"host {change.host_id} is the last voter; it can't be removed")
        if not change.add and change.host_id == self._me:
            self._hand_over()
            return Verdict(obstacle="the host to remove leads; it hands over first")
        if obstacle := self._quorum_lost(change):
            return Verdict(obstacle=obstacle)
        self._next = change
        return Verdict(obstacle="the change isn't committed yet: a quorum of voters is missing")

    def take(self) -> MemberChange | None:
        """Return the change to append now, once."""
        change, self._next = self._next, None
        return change

    def forget(self) -> None:
        """This node doesn't lead any more."""
        self._next = None

    def _newcomer(self, change: MemberChange) -> str:
        """Return what keeps a host from voting now; the leader calls it if there is no link."""
        newcomer = NodeId(change.host_id)
        if newcomer not in self._live():
            self._invite(Peer(newcomer, change.address))
            return (
                f"host {newcomer} has no connection to the leader; is its agent running, "
                "and is port 7444 open between the hosts?"
            )
        held, last = self._holds(newcomer), self._journal.last()
        if held is None or held < max(self._journal.first(), last - ENTRIES_BEHIND_MAX):
            return f"host {newcomer} isn't up to date yet"
        return ""

    def _quorum_lost(self, change: MemberChange) -> str:
        """Return why the voters connected now couldn't decide anything after the change; empty if they could."""
        after = {peer.id for peer in self._journal.members.latest()} - {NodeId(change.host_id)}
        if change.add:
            after.add(NodeId(change.host_id))
        up = len(after & (self._live() | {self._me}))
        if 2 * up > len(after):
            return ""
        return f"only {up} of the {len(after)} voters would be connected; wait until more are up"


class ChangeRequests:
    """The asking half. `ask(number, change)` judges here or sends the question; None if it can't be sent."""

    def __init__(self, ask: Callable[[int, MemberChange], Verdict | None]) -> None:
        self._ask = ask
        self._number = 0
        self._replies: dict[int, asyncio.Future[Verdict]] = {}

    def answered(self, number: int, verdict: Verdict) -> None:
        """The leader's verdict has come."""
        future = self._replies.get(number)
        if future is not None and not future.done():
            future.set_result(verdict)

    async def until_done(self, change: MemberChange, timeout_s: float) -> None:
        """Return when the change is committed.

        Raises:
            ConflictError: it will never be.
            UnavailableError: it isn't in time; the message says what is in the way.
        """
        verdict = Verdict(obstacle="there is no leader; are most of the voters up?")
        try:
            async with asyncio.timeout(timeout_s):
                while not verdict.done:
                    verdict = await self._verdict(change, verdict)
                    if verdict.refusal:
                        raise ConflictError(verdict.refusal)
                    if not verdict.done:
                        await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise UnavailableError(
                f"the voters could not be changed within {timeout_s:g} s: {verdict.obstacle}"
            ) from error

    async def _verdict(self, change: MemberChange, before: Verdict) -> Verdict:
        """Return the leader's verdict, the one before if there is no answer."""
        self._number += 1
        number = self._number
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._replies[number] = future
        try:
            if (at_once := self._ask(number, change)) is not None:
                return at_once
            async with asyncio.timeout(ASK_S):
                return await future
        except TimeoutError:
            return before
        finally:
            del self._replies[number]
