"""How hosts that don't vote get the log: committed entries, from any host that has them, each host asking for its own.

`FeedSource` answers, `FeedFollower` asks; both are part of the engine and know no network. A follower has one question
under way and asks the next when it has stored the answer, so a slow one slows down nobody, and after a broken link it
just goes on at its index. An answer is encoded once for all followers that are equally far. Only committed entries are
ever fed, so it doesn't matter whom they come from (State Machine Safety, Raft §5.4.3).
"""

from __future__ import annotations

import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Iterable

from raftstate.consensus.engine import NodeId, Peer
from raftstate.consensus.journal import Journal
from raftstate.consensus.messages import Fed, Follow, Message, encode

log = logging.getLogger(__name__)

FEED_BYTES = 1 << 20  # entries of one answer; it may exceed it by the last entry
SIGN_OF_LIFE_S = 1.0
FRAMES_KEPT = 32

FOLLOW_AGAIN_S = 2.5  # no answer for so long: ask again, elsewhere
LINK_PATIENCE_S = 2.0  # how long a parent may take to be connected
PATH_MAX = 32  # a longer one is a circle of others
NEVER = float("-inf")
RETURN_S = (20.0, 40.0)  # how soon a follower tries its best parent again


class FeedSource:
    """The feeding half. `hints` returns (term, leader id, hosts above) as this host knows them.

    `fresh` tells whether this host is in touch with the cluster itself: one that isn't gives no sign of life, so that
    its followers look for another.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        send: Callable[[NodeId, bytes], bool],
        offer: Callable[[NodeId], None],
        hints: Callable[[], tuple[int, str, tuple[str, ...]]],
        fresh: Callable[[], bool],
        now: Callable[[], float],
    ) -> None:
        self._journal, self._send, self._offer, self._hints = journal, send, offer, hints
        self._fresh, self._now = fresh, now
        self._waiting: dict[NodeId, tuple[int, float]] = {}  # index, when last answered
        self._frames: OrderedDict[tuple[object, ...], bytes] = OrderedDict()

    def asked(self, peer: NodeId, question: Follow) -> None:
        """A host holds everything up to an index and wants what comes behind it."""
        self._waiting[peer] = (question.index, self._now())

    def unlinked(self, peer: NodeId) -> None:
        """A host is gone."""
        self._waiting.pop(peer, None)

    def serve(self, commit: int) -> None:
        """Answer whoever can be answered now that everything up to `commit` is committed."""
        if not self._waiting:
            return
        now_s = self._now()
        for peer, (index, since_s) in list(self._waiting.items()):
            if index < commit:
                del self._waiting[peer]
                if index < self._journal.first():
                    self._offer(peer)
                else:
                    self._answer(peer, index, commit)
            elif now_s - since_s >= SIGN_OF_LIFE_S and self._fresh():
                self._waiting[peer] = (index, now_s)
                self._answer(peer, min(index, commit), min(index, commit))

    def _answer(self, peer: NodeId, index: int, commit: int) -> None:
        term, leader, path = self._hints()
        key = (index, commit, term, leader, path)
        frame = self._frames.get(key)
        if frame is None:
            previous = self._journal.term_at(index)
            if previous is None:  # a sign of life for a host that is further than this one
                return
            entries = self._journal.entries(index + 1, commit + 1, max_bytes=FEED_BYTES)
            frame = encode(Fed(term, leader, commit, (index, previous), entries, path))
            self._frames[key] = frame
            if len(self._frames) > FRAMES_KEPT:
                self._frames.popitem(last=False)
        self._send(peer, frame)


class FeedFollower:
    """The asking half: chooses a parent, asks it, and goes to the next when it falls silent."""

    def __init__(
        self,
        me: NodeId,
        *,
        send: Callable[[NodeId, Message], bool],
        live: Callable[[], frozenset[NodeId]],
        now: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._me, self._send, self._live, self._now, self._rng = me, send, live, now, rng
        self.path: tuple[str, ...] = ()  # the parent and the hosts above it, up to a voter
        self._parents: tuple[Peer, ...] = ()
        self._at = 0
        self._since_s = now()  # this parent was chosen, or last gave a sign of life
        self._return_s = 0.0
        self._asked: tuple[NodeId, int, float] | None = None
        self._asked_s = NEVER

    @property
    def parent(self) -> NodeId | None:
        """The host that feeds this one, if it is connected."""
        peer = self._current()
        return peer.id if peer is not None and peer.id in self._live() else None

    def fresh(self) -> bool:
        """Tell whether the parent gave a sign of life lately."""
        return self.parent is not None and self._now() - self._since_s < FOLLOW_AGAIN_S

    def set_parents(self, parents: Iterable[Peer]) -> None:
        """Say whom to follow, best first. An unchanged present parent is kept."""
        wanted = tuple(parents)
        if wanted == self._parents:
            return
        current = self._current()
        self._parents = wanted
        ids = [peer.id for peer in wanted]
        self._at = ids.index(current.id) if current is not None and current.id in ids else 0
        if current is None or current.id not in ids:
            self._begin()

    @property
    def parents(self) -> tuple[Peer, ...]:
        """All that may be followed, best first."""
        return self._parents

    def leave(self) -> None:
        """Go to the next parent."""
        if len(self._parents) > 1:
            self._at = (self._at + 1) % len(self._parents)
            self._begin()

    def to_call(self) -> tuple[Peer, ...]:
        """Return whom to have a link with: the present parent."""
        peer = self._current()
        return () if peer is None else (peer,)

    def heard(self, peer: NodeId, path: tuple[str, ...] | None = None) -> None:
        """The answer of a parent with the hosts above it, or a piece of a snapshot, has arrived.

        Hosts that follow each other in a circle would show each other signs of life for ever.
        """
        current = self._current()
        if current is not None and current.id == peer:
            circle = path is not None and (self._me in path or len(path) >= PATH_MAX)
            self._since_s = NEVER if circle else self._now()
            if path is not None:
                self.path = (peer, *path[: PATH_MAX - 1])
        if self._asked is not None and self._asked[0] == peer:
            self._asked = None

    def tick(self, index: int, *, busy: bool) -> None:
        """Ask for what follows `index`, unless that is under way; change the parent when it is silent.

        While a snapshot is coming (`busy`) ask now and then only: the answer is the offer of it, which counts again
        after a link has broken.
        """
        current, now_s = self._current(), self._now()
        if current is None:
            return
        linked = current.id in self._live()
        patience_s = FOLLOW_AGAIN_S if linked else LINK_PATIENCE_S
        if now_s - self._since_s > patience_s and len(self._parents) > 1:
            log.info("the feed's parent is silent", extra={"peer": current.id})
            self.leave()
            return
        if self._at and now_s >= self._return_s:
            self._at = 0
            self._begin()
            return
        if not linked or (busy and now_s - self._asked_s < FOLLOW_AGAIN_S):
            return
        asked = self._asked
        fresh = asked is not None and asked[0] == current.id and now_s - asked[2] < FOLLOW_AGAIN_S
        if fresh and asked is not None and asked[1] == index:
            return
        if self._send(current.id, Follow(index)):
            self._asked, self._asked_s = (current.id, index, now_s), now_s

    def _begin(self) -> None:
        self._since_s, self._asked, self._asked_s = self._now(), None, NEVER
        self.path = ()
        if self._at == 0 or self._return_s <= self._since_s:
            self._return_s = self._since_s + self._rng.uniform(*RETURN_S)

    def _current(self) -> Peer | None:
        return self._parents[self._at] if self._at < len(self._parents) else None
