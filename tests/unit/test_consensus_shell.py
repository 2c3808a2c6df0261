"""One real node, and a script that plays the others: each defect of PySyncObj once, message by message."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.errors import FatalError, InvalidError, PlatformError
from raftstate.consensus.engine import NodeId, Peer
from raftstate.consensus.entries import (
    MemberChange,
    Proposal,
    TooNewError,
    check_command,
    decode_change,
    decode_proposals,
    encode_change,
    encode_proposals,
)
from raftstate.consensus.links import LinkUser
from raftstate.consensus.messages import (
    Ack,
    Append,
    ChangeRequest,
    Chunk,
    ChunkRequest,
    Fed,
    Follow,
    Hello,
    Message,
    Newer,
    NotVoter,
    Offer,
    Ping,
    PreVote,
    PreVoteGranted,
    Probe,
    ProbeAck,
    Propose,
    Refused,
    RequestVote,
    Vote,
    decode,
    encode,
)
from raftstate.consensus.pysyncobj_engine import PySyncObjEngine
from raftstate.consensus.raft_node import Settings
from raftstate.consensus.recovery import wal_path
from raftstate.consensus.snapshot_files import SnapshotStore
from raftstate.consensus.snapshot_header import CHUNK_BYTES, new_header, stream_end
from raftstate.consensus.wal import Wal
from tests.sim.checkers import History
from tests.sim.loop import SimLoop
from tests.sim.machine import SimMachine, inline

A, B, C, D, E, STRANGER = (NodeId(name) for name in ("a", "b", "c", "d", "e", "z"))
NOOP = b"\x01"


def peer(node: NodeId) -> Peer:
    return Peer(node, f"{node}:7444")


def entry(index: int, term: int, text: str = "") -> tuple[bytes, int, int]:
    payload = (text or f"e{index}t{term}").encode()
    return b"\x00" + encode_proposals([Proposal(b"elsewhere", index, payload)]), index, term


class Script:
    """The `Links` of the node, and the rest of the world."""

    def __init__(self, directory: Path, voters: tuple[NodeId, ...]) -> None:
        self.directory, self.voters = directory, voters
        self.sent: list[tuple[NodeId, Message]] = []
        self.machine = SimMachine(History(), "a")
        self.user: LinkUser
        self.node: PySyncObjEngine
        self.group: asyncio.TaskGroup
        self._working: asyncio.Task[None]
        directory.mkdir(exist_ok=True)
        header = new_header(
            (NOOP, 2, 0), (NOOP, 3, 0), map(peer, voters), machine_applied=0, generation=1, level=0
        )
        SnapshotStore(directory).write(header, self.machine.freeze().write)
        log = Wal(wal_path(directory))
        log.open()
        log.close()
        self.start()

    # Links

    def attach(self, user: LinkUser) -> None:
        self.user = user

    async def run(self) -> None:
        await asyncio.Event().wait()

    def send(self, to: NodeId, message: Message) -> bool:
        promises = (Append, Ack, Vote, RequestVote, Offer)
        assert not (isinstance(message, promises) and self.wal.dirty), "said before it was durable"
        self.sent.append((to, decode(encode(message))))
        return True

    def hang_up(self) -> None:
        self.hung_up = True

    def send_frame(self, to: NodeId, frame: bytes) -> bool:
        self.sent.append((to, decode(frame)))
        return True

    def live(self) -> frozenset[NodeId]:
        return frozenset({*self.voters, STRANGER}) - {A}

    def generation(self, to: NodeId) -> int:
        return 1

    # the script

    def start(self) -> None:
        self.wal = Wal(wal_path(self.directory))
        self.node = PySyncObjEngine(
            me=peer(A),
            directory=self.directory,
            machine=self.machine,
            links=self,
            bootstrap=(),
            rng=random.Random(1),
            settings=Settings(wal=self.wal, blocking=inline),
        )

    async def play(self, story: Callable) -> None:
        """Run a story, and the node's work on snapshots beside it."""

        async with asyncio.TaskGroup() as group:
            self.group = group
            self._work()
            try:
                await story(self)
            finally:
                self._working.cancel()

    def _work(self) -> None:
        self._working = self.group.create_task(self.node._node.snapshots.run(), name="snapshots")

    def crash(self) -> None:
        """Lose everything that the disk doesn't have, and start again."""
        self._working.cancel()
        self.node._journal.close()
        self.sent.clear()
        self.start()
        self._work()

    def say(self, sender: NodeId, message: Message) -> list[tuple[NodeId, Message]]:
        """Deliver a message, let the node act, and return what it sends."""
        before = len(self.sent)
        self.user.received(sender, message)
        self.node._turn()
        return self.sent[before:]

    async def pass_time(self, seconds: float) -> list[tuple[NodeId, Message]]:
        before, loop = len(self.sent), asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            self.node._turn()
            await asyncio.sleep(0.04)
        return self.sent[before:]

    async def stand(self) -> int:
        """Let the node become candidate by the pre-votes of all; return its term."""
        while True:
            for _, message in await self.pass_time(0.08):
                if isinstance(message, PreVote):
                    for voter in self.voters[1:]:
                        self.say(voter, PreVoteGranted(message.term))
                if isinstance(message, RequestVote):
                    return message.term

    async def lead(self) -> int:
        """Let the node be elected; return its term."""
        term = await self.stand()
        for voter in self.voters[1:]:
            self.say(voter, Vote(term))
        assert self.node.is_leader()
        return term

    def depose(self, term: int) -> None:
        self.say(B, RequestVote(term, 10**6, term, transfer=True))
        assert not self.node.is_leader()

    def has_followed(self, node: NodeId, last: int | None = None) -> None:
        """Let a host that doesn't vote say that it holds the log, up to `last` or all of it."""
        self.user.met(node, Hello(b"n", f"{node}:7444", [], 1, 1))
        self.user.pinged(node, Ping(0, b"", self.log()[-1][0] if last is None else last))

    async def fetches(self, source: NodeId, stream: bytes, *, damaged: bool = False) -> None:
        """Answer what the node asks of `source` for a snapshot, until it asks no more."""
        answered = 0
        for _ in range(50):
            requests = [m for to, m in self.sent if to == source and isinstance(m, ChunkRequest)]
            for request in requests[answered:]:
                data = stream[request.offset : request.offset + CHUNK_BYTES]
                piece = data[::-1] if damaged else data
                self.say(source, Chunk(request.index, request.crc, request.offset, piece))
            answered = len(requests)
            await asyncio.sleep(0.05)
            self.node._turn()

    def log(self) -> list[tuple[int, int]]:
        return [(index, term) for _, index, term in self.node._journal[:]]


@pytest.fixture
def scripted(tmp_path):
    """Run `story(script)` in virtual time with the voters given."""

    def run(story: Callable, *voters: NodeId) -> None:
        async def play() -> None:
            script = Script(tmp_path / "raft", voters or (A, B, C))
            try:
                async with asyncio.timeout(600):
                    await script.play(story)
            finally:
                script.node._journal.close()

        with asyncio.Runner(loop_factory=SimLoop) as runner:
            runner.run(play())

    return run


def acks(sent) -> list[tuple[int, bool]]:
    return [(message.next, message.success) for _, message in sent if isinstance(message, Ack)]


# -- following


def test_a_leader_that_repeats_itself_truncates_nothing(scripted):
    async def story(s: Script) -> None:
        first = Append(1, 3, (3, 0), [entry(4, 1), entry(5, 1)])
        assert acks(s.say(B, first)) == [(6, True)]
        assert acks(s.say(B, Append(1, 3, (5, 1), [entry(6, 1)]))) == [(7, True)]
        assert acks(s.say(B, first)) == [(6, True)]  # only what this message proves
        assert s.log()[-1] == (6, 1)
        assert acks(s.say(B, Append(1, 6, (3, 0), []))) == [(4, True)]
        assert s.log()[-1] == (6, 1)
        assert (
            s.node.commit_index() == 3
        )  # entry 6 may be another leader's, for all this message says

    scripted(story)


def test_a_conflicting_tail_is_replaced(scripted):
    async def story(s: Script) -> None:
        s.say(B, Append(1, 3, (3, 0), [entry(i, 1) for i in range(4, 9)]))
        sent = s.say(C, Append(3, 3, (8, 2), [entry(9, 3)]))
        assert acks(sent) == [(4, False)]  # goes back over the whole term at once
        assert acks(s.say(C, Append(3, 4, (3, 0), [entry(4, 2), entry(5, 3)]))) == [(6, True)]
        assert s.log()[2:] == [(4, 2), (5, 3)]
        assert s.machine.payloads() == [b"e4t2"]

    scripted(story)


def test_a_gap_is_reported_and_filled(scripted):
    async def story(s: Script) -> None:
        assert acks(s.say(B, Append(1, 9, (8, 1), [entry(9, 1)]))) == [(4, False)]
        assert s.log()[-1] == (3, 0)
        assert s.node.commit_index() == 3

    scripted(story)


def test_a_leader_that_contradicts_committed_entries_stops_the_node(scripted):
    async def story(s: Script) -> None:
        s.say(B, Append(1, 5, (3, 0), [entry(4, 1), entry(5, 1)]))
        with pytest.raises(FatalError, match="contradicts the committed entry 4"):
            s.say(C, Append(2, 5, (3, 0), [entry(4, 2)]))
        before = len(s.sent)
        s.user.received(B, Probe(2, 1))
        assert s.sent[before:] == []  # says nothing more to anybody

    scripted(story)


@pytest.mark.parametrize(
    "append",
    [
        Append(1, 3, (3, 0), [entry(5, 1)]),
        Append(1, 3, (3, 0), [entry(4, 2)]),
        Append(2, 3, (3, 0), [entry(4, 2), entry(5, 1)]),
        Append(1, 3, (3, 0), [(b"", 4, 1)]),
        Append(1, 3, (3, 0), [(b"\x03junk", 4, 1)]),
        Append(1, 3, (3, 0), [(b"\x00\x80\x02cposix\nsystem\n.", 4, 1)]),
        Append(1, 3, (3, 0), [(b"\x02\x80\x02cposix\nsystem\n.", 4, 1)]),
        Append(1, 3, None, [entry(4, 1)]),
    ],
)
def test_entries_that_make_no_sense_never_enter_the_log(scripted, append):
    async def story(s: Script) -> None:
        with pytest.raises(InvalidError):
            s.user.received(B, append)
        assert s.log() == [(2, 0), (3, 0)]

    scripted(story)


def test_an_old_leader_is_told(scripted):
    async def story(s: Script) -> None:
        s.say(B, Append(5, 3, (3, 0), []))
        assert s.say(C, Append(4, 3, (3, 0), [])) == [(C, Newer(5))]

    scripted(story)


# -- leading


def test_an_acknowledgement_of_an_old_term_commits_nothing(scripted):
    async def story(s: Script) -> None:
        first = await s.lead()
        s.depose(first + 1)
        now = await s.lead()
        last = s.log()[-1][0]
        for voter in (B, C):
            s.say(voter, Ack(first, last + 1, reset=False, success=True))
        assert s.node.commit_index() == 3
        s.say(B, Ack(now, last + 1, reset=False, success=True))
        assert s.node.commit_index() == last

    scripted(story)


def test_strangers_acknowledge_and_vote_in_vain(scripted):
    async def story(s: Script) -> None:
        term = await s.stand()
        s.say(STRANGER, Vote(term))
        assert not s.node.is_leader()
        s.say(B, Vote(term))
        assert s.node.is_leader()
        s.say(STRANGER, Ack(term, s.log()[-1][0] + 1, reset=False, success=True))
        assert s.node.commit_index() == 3

    scripted(story)


def test_a_host_has_one_vote(scripted):
    async def story(s: Script) -> None:
        term = await s.stand()
        s.say(B, Vote(term))
        s.say(B, Vote(term - 1))
        s.say(B, Vote(term))
        assert not s.node.is_leader()
        s.say(C, Vote(term))
        assert s.node.is_leader()

    scripted(story, A, B, C, D, E)


def test_a_vote_is_remembered_over_a_crash(scripted):
    async def story(s: Script) -> None:
        assert (B, Vote(9)) in s.say(B, RequestVote(9, 50, 8, transfer=True))
        s.crash()
        sent = s.say(C, RequestVote(9, 50, 8, transfer=True))
        assert not any(isinstance(message, Vote) for _, message in sent)
        assert s.node.term() == 9

    scripted(story)


def test_a_leader_without_a_quorum_steps_down(scripted):
    async def story(s: Script) -> None:
        await s.lead()
        await s.pass_time(3.0)
        assert not s.node.is_leader()

    scripted(story)


def test_a_leader_gives_way_to_a_later_term(scripted):
    async def story(s: Script) -> None:
        term = await s.lead()
        s.say(B, Newer(term + 5))
        assert not s.node.is_leader()
        assert s.node.term() == term + 5

    scripted(story)


def test_a_leader_follows_the_leader_of_a_later_term_and_no_other_of_its_own(scripted):
    async def story(s: Script) -> None:
        term = await s.lead()
        with pytest.raises(InvalidError, match="can't lead in term"):
            s.user.received(B, Append(term, 3, (3, 0), []))
        s.say(C, Append(term + 1, 3, (3, 0), [entry(4, term + 1)]))
        assert not s.node.is_leader()
        assert s.node.leader() == C
        assert s.log()[-1] == (4, term + 1)

    scripted(story)


def test_a_gap_below_a_wrong_tail_asks_for_all_that_is_not_known_to_be_committed(scripted):
    async def story(s: Script) -> None:
        s.say(B, Append(1, 3, (3, 0), [entry(4, 1), entry(5, 1)]))
        assert acks(s.say(C, Append(2, 9, (8, 2), [entry(9, 2)]))) == [(4, False)]

    scripted(story)


# -- elections


def test_a_node_that_hears_nobody_disturbs_nobody(scripted):
    async def story(s: Script) -> None:
        sent = await s.pass_time(60)
        assert s.node.term() == 0
        assert not any(isinstance(message, RequestVote) for _, message in sent)

    scripted(story)


def test_an_election_takes_a_quorum_of_pre_votes(scripted):
    async def story(s: Script) -> None:
        asked = [m for _, m in await s.pass_time(2.1) if isinstance(m, PreVote)]
        s.say(B, PreVoteGranted(asked[0].term))
        s.say(B, PreVoteGranted(asked[0].term))
        s.say(STRANGER, PreVoteGranted(asked[0].term))
        await s.pass_time(0.1)
        assert s.node.term() == 0
        s.say(C, PreVoteGranted(asked[0].term))
        await s.pass_time(0.1)
        assert s.node.term() == 1

    scripted(story, A, B, C, D, E)


def test_nobody_gets_a_vote_while_the_leader_lives(scripted):
    async def story(s: Script) -> None:
        s.say(B, Append(1, 3, (3, 0), []))
        assert s.say(C, PreVote(2, 100, 1)) == []
        assert s.say(C, RequestVote(2, 100, 1, transfer=False)) == []
        assert s.node.term() == 1
        await s.pass_time(1.3)
        assert (C, PreVoteGranted(2)) in s.say(C, PreVote(2, 100, 1))

    scripted(story)


def test_a_shorter_log_gets_no_vote(scripted):
    async def story(s: Script) -> None:
        s.say(B, Append(1, 3, (3, 0), [entry(4, 1), entry(5, 1)]))
        await s.pass_time(1.3)
        assert s.say(C, PreVote(2, 4, 1)) == []
        assert s.say(C, RequestVote(2, 4, 1, transfer=True)) == []
        assert (C, PreVoteGranted(3)) in s.say(C, PreVote(3, 5, 1))

    scripted(story)


def test_a_removed_host_is_told_and_stays_quiet(scripted):
    async def story(s: Script) -> None:
        s.say(B, Append(1, 3, (3, 0), []))
        assert (STRANGER, NotVoter(3)) in s.say(STRANGER, PreVote(7, 100, 1))
        s.say(B, NotVoter(3))
        sent = await s.pass_time(20)
        assert not any(isinstance(message, PreVote) for _, message in sent)

    scripted(story)


# -- snapshots


def offered_snapshot(
    directory: Path, term: int, last: int, *, feed: bool = False
) -> tuple[Offer, bytes]:
    """Return the offer of a snapshot of another node, and the bytes it consists of."""
    other = SimMachine(History(), "b")
    other.apply(last - 1, [b"installed" * 40_000])
    (directory / "theirs").mkdir(exist_ok=True)
    store = SnapshotStore(directory / "theirs")
    header = new_header(
        entry(last - 1, 1),
        entry(last, 1),
        map(peer, (A, B, C, D)),
        machine_applied=last - 1,
        generation=1,
        level=1,
    )
    header = store.write(header, other.freeze().write)
    info = header.info()
    offer = Offer(term, last, info.index, info.term, info.size_bytes, info.crc, feed)
    return offer, store.dump_path(header).read_bytes() + stream_end(header)


def installed(s: Script) -> bool:
    return s.machine.payloads() == [b"installed" * 40_000]


def test_a_snapshot_brings_state_and_voters(scripted):
    async def story(s: Script) -> None:
        s.say(B, Append(1, 3, (3, 0), [entry(4, 1)]))
        offer, stream = offered_snapshot(s.directory, 2, 40)
        assert not any(success for _, success in acks(s.say(C, offer)))
        await s.fetches(C, stream)
        assert acks(s.sent)[-1] == (41, True)
        assert installed(s)
        assert s.node.applied_index() == 40
        assert [voter.id for voter in s.node.voters()] == [A, B, C, D]
        s.crash()
        assert s.node.applied_index() == 40
        assert s.log() == [(39, 1), (40, 1)]
        assert [voter.id for voter in s.node.voters()] == [A, B, C, D]

    scripted(story)


def test_a_snapshot_offered_again_keeps_what_came_after_it(scripted):
    async def story(s: Script) -> None:
        offer, stream = offered_snapshot(s.directory, 2, 40)
        s.say(C, offer)
        await s.fetches(C, stream)
        s.say(C, Append(2, 40, (40, 1), [entry(41, 2), entry(42, 2)]))
        assert acks(s.say(C, offer))[-1] == (41, True)
        assert s.log()[-1] == (42, 2)

    scripted(story)


def test_an_offered_snapshot_commits_nothing_of_the_own_tail(scripted):
    async def story(s: Script) -> None:
        s.say(B, Append(1, 3, (3, 0), [entry(4, 1), entry(5, 1)]))
        offer, _ = offered_snapshot(s.directory, 2, 40)
        s.say(C, offer)
        await s.pass_time(1)
        assert s.node.commit_index() == 3
        assert s.machine.payloads() == []

    scripted(story)


def test_a_damaged_snapshot_changes_nothing_and_a_sound_one_is_taken_later(scripted):
    async def story(s: Script) -> None:
        offer, stream = offered_snapshot(s.directory, 2, 40)
        s.say(C, offer)
        await s.fetches(C, stream, damaged=True)
        assert s.log() == [(2, 0), (3, 0)]
        s.crash()
        assert s.log() == [(2, 0), (3, 0)]
        s.say(C, offer)
        await s.fetches(C, stream)
        assert installed(s)

    scripted(story)


def no_room(dump: Path) -> Callable[[], None]:
    raise FatalError("the snapshot can't be copied: No space left on device")


def test_a_snapshot_that_finds_no_room_is_installed_when_there_is_some(scripted):
    async def story(s: Script) -> None:
        stage = s.machine.stage
        s.machine.stage = no_room
        offer, stream = offered_snapshot(s.directory, 2, 40)
        s.say(C, offer)
        await s.fetches(C, stream)
        assert "No space left" in s.node.fault()
        assert s.log() == [(2, 0), (3, 0)]
        s.machine.stage = stage
        asked = len(s.sent)
        await s.pass_time(6)
        assert installed(s)
        assert not any(isinstance(m, ChunkRequest) for _, m in s.sent[asked:])
        assert s.node.fault() == ""

    scripted(story)


def test_a_snapshot_that_found_no_room_is_forgotten_when_the_log_overtakes_it(scripted):
    async def story(s: Script) -> None:
        s.machine.stage = no_room
        offer, stream = offered_snapshot(s.directory, 2, 40)
        s.say(C, offer)
        await s.fetches(C, stream)
        assert "No space left" in s.node.fault()
        s.say(C, Append(2, 42, (3, 0), [entry(index, 1) for index in range(4, 43)]))
        assert s.node.commit_index() == 42
        await s.pass_time(6)
        assert s.node.fault() == ""

    scripted(story)


def test_a_leader_offers_its_snapshot_to_who_is_too_far_behind_and_goes_on_behind_it(scripted):
    async def story(s: Script) -> None:
        term = await s.lead()
        s.say(B, Ack(term, s.log()[-1][0] + 1, reset=False, success=True))
        s.say(C, Ack(term, 1, reset=True, success=False))
        offers = [m for to, m in await s.pass_time(1) if to == C and isinstance(m, Offer)]
        assert 2 <= len(offers) <= 5
        assert (offers[0].index, offers[0].feed) == (3, False)
        (_, piece), *_ = [
            (to, m)
            for to, m in s.say(C, ChunkRequest(offers[0].index, offers[0].crc, 0))
            if isinstance(m, Chunk)
        ]
        assert piece.data
        s.say(C, Ack(term, 4, reset=False, success=True))
        sent = [m for to, m in await s.pass_time(0.3) if to == C]
        assert not any(isinstance(m, Offer) for m in sent)
        assert any(isinstance(m, Append) and m.previous == (3, 0) and m.entries for m in sent)

    scripted(story)


# -- the feed


def test_only_committed_entries_are_fed_and_an_answer_waits_for_some(scripted):
    async def story(s: Script) -> None:
        s.say(B, Append(1, 3, (3, 0), [entry(4, 1), entry(5, 1)]))
        assert s.say(STRANGER, Follow(3)) == []
        sent = s.say(B, Append(1, 4, (5, 1), []))
        assert [m for to, m in sent if to == STRANGER] == [Fed(1, B, 4, (3, 0), [entry(4, 1)])]
        assert [m for to, m in s.say(B, Append(1, 5, (5, 1), [])) if to == STRANGER] == []

    scripted(story)


def test_a_follower_behind_the_log_is_offered_the_snapshot(scripted):
    async def story(s: Script) -> None:
        (_, offer), *_ = s.say(STRANGER, Follow(1))
        assert isinstance(offer, Offer) and offer.feed and offer.index == 3

    scripted(story)


def test_what_a_voter_is_fed_by_a_stranger_counts_for_nothing(scripted):
    async def story(s: Script) -> None:
        s.say(STRANGER, Fed(7, STRANGER, 5, (3, 0), [entry(4, 7), entry(5, 7)]))
        s.say(STRANGER, offered_snapshot(s.directory, 7, 40, feed=True)[0])
        assert s.log()[-1] == (3, 0)
        assert s.node.term() == 0
        assert not any(isinstance(m, ChunkRequest) for _, m in s.sent)

    scripted(story)


def test_a_host_that_does_not_vote_takes_what_it_is_fed_and_acknowledges_nothing(scripted):
    async def story(s: Script) -> None:
        s.node.follow([peer(B)])
        assert (B, Follow(3)) in await s.pass_time(0.1)
        sent = s.say(B, Fed(4, C, 5, (3, 0), [entry(4, 1), entry(5, 4)]))
        assert sent == [(B, Follow(5))]
        assert s.machine.payloads() == [b"e4t1", b"e5t4"]
        assert s.node.leader() == C
        s.crash()
        assert s.log()[-1] == (5, 4)

    scripted(story, B, C, D)


def test_a_parent_that_has_not_heard_of_the_term_of_what_it_feeds_is_followed(scripted):
    async def story(s: Script) -> None:
        s.node.follow([peer(B)])
        await s.pass_time(0.1)
        s.say(B, Fed(3, C, 4, (3, 0), [entry(4, 4)]))
        assert s.log()[-1] == (4, 4)

    scripted(story, B, C, D)


def test_a_host_that_does_not_vote_has_what_contradicts_the_committed_replaced(scripted):
    async def story(s: Script) -> None:
        s.say(B, Append(2, 3, (3, 0), [entry(4, 2), entry(5, 2)]))
        s.say(B, NotVoter(9))
        s.node.follow([peer(C)])
        await s.pass_time(0.1)
        s.say(C, Fed(3, C, 5, (3, 0), [entry(4, 1), entry(5, 3)]))
        assert s.log()[2:] == [(4, 1), (5, 3)]

    scripted(story)


# -- upgrades, generations


def test_an_entry_of_a_newer_version_never_enters_the_log(scripted):
    async def story(s: Script) -> None:
        newer = b"\x00" + encode_proposals([Proposal(b"x", 1, b"future")], 2)
        sent = s.say(B, Append(1, 4, (3, 0), [(newer, 4, 1)]))
        assert not any(success for _, success in acks(sent))
        assert s.log()[-1] == (3, 0)
        assert "upgrade this host" in s.node.fault()
        with pytest.raises(PlatformError, match="upgrade this host"):
            await s.node.propose(b"x", timeout_s=1)

    scripted(story)


def test_nothing_is_written_that_a_voter_does_not_know(scripted):
    async def story(s: Script) -> None:
        term = await s.lead()
        s.say(B, Ack(term, s.log()[-1][0] + 1, reset=False, success=True))
        for voter, level in ((B, 2), (C, 1)):
            s.user.met(voter, Hello(b"v", "", [], 1, level))
        last = s.log()[-1]
        (_, refused), *_ = [
            (to, m)
            for to, m in s.say(B, Propose(term, b"b", 1, 2, b"future"))
            if isinstance(m, Refused)
        ]
        assert "upgrade all voters" in refused.reason
        assert s.log()[-1] == last
        with pytest.raises(PlatformError, match="upgrade this host"):
            await s.node.propose(b"future", timeout_s=1, level=2)

    scripted(story)


def test_a_host_of_an_older_generation_falls_silent(scripted):
    async def story(s: Script) -> None:
        with pytest.raises(InvalidError, match="generation"):
            s.user.met(B, Hello(b"v", "", [], 2, 1))
        assert "kvorum recover rejoin" in s.node.fault()
        assert await s.pass_time(10) == []
        with pytest.raises(PlatformError, match="generation 2"):
            await s.node.read_barrier(timeout_s=1)

    scripted(story)


def test_a_link_with_an_older_generation_is_refused(scripted):
    async def story(s: Script) -> None:
        s.node._journal.set_generation(3)
        with pytest.raises(InvalidError, match="generation 2"):
            s.user.met(B, Hello(b"v", "", [], 2, 1))
        assert s.node.fault() == ""

    scripted(story)


# -- proposals, reads, members


def test_a_proposal_for_another_term_is_refused(scripted):
    async def story(s: Script) -> None:
        assert s.say(B, Propose(0, b"b", 1, 1, b"x")) == [(B, Refused(0, b"b", 1))]
        term = await s.lead()
        assert s.say(B, Propose(term - 1, b"b", 2, 1, b"x")) == [(B, Refused(term - 1, b"b", 2))]

    scripted(story)


def test_a_proposal_that_arrives_twice_is_appended_once(scripted):
    async def story(s: Script) -> None:
        term = await s.lead()
        for _ in range(2):
            s.say(B, Propose(term, b"b", 1, 1, b"once"))
        for _ in range(3):
            for voter in (B, C):
                s.say(voter, Ack(term, s.log()[-1][0] + 1, reset=False, success=True))
        assert s.machine.payloads() == [b"once"]

    scripted(story)


def test_a_barrier_needs_a_quorum_that_was_asked_afterwards(scripted):
    async def story(s: Script) -> None:
        term = await s.lead()
        s.say(B, Ack(term, s.log()[-1][0] + 1, reset=False, success=True))
        assert s.node.commit_index() == s.log()[-1][0]
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(s.node.read_barrier(timeout_s=5), name="read")
            asked = [m for _, m in await s.pass_time(0.2) if isinstance(m, Probe)]
            s.say(B, ProbeAck(term, asked[0].round - 1))
            s.say(B, ProbeAck(term - 1, asked[0].round))
            s.say(STRANGER, ProbeAck(term, asked[0].round))
            await asyncio.sleep(0)
            assert not reading.done()
            s.say(C, ProbeAck(term, asked[0].round))
            assert await reading == s.log()[-1][0]

    scripted(story)


def test_two_changes_of_the_voters_are_never_under_way_at_once(scripted):
    async def story(s: Script) -> None:
        term = await s.lead()
        s.say(B, Ack(term, s.log()[-1][0] + 1, reset=False, success=True))
        s.has_followed(STRANGER)
        s.say(B, ChangeRequest(b"b", 1, True, STRANGER, "z:7444"))
        s.say(B, ChangeRequest(b"b", 2, False, C, ""))
        await s.pass_time(0.1)
        s.say(B, ChangeRequest(b"b", 3, False, C, ""))
        assert [voter.id for voter in s.node.voters()] == [A, B, C, STRANGER]
        for voter in (B, C):
            s.say(voter, Ack(term, s.log()[-1][0] + 1, reset=False, success=True))
        s.say(B, ChangeRequest(b"b", 4, False, C, ""))
        await s.pass_time(0.1)
        assert [voter.id for voter in s.node.voters()] == [A, B, STRANGER]

    scripted(story)


def test_a_newcomer_counts_only_once_it_has_stored_the_state(scripted):
    async def story(s: Script) -> None:
        term = await s.lead()
        s.say(B, Ack(term, s.log()[-1][0] + 1, reset=False, success=True))
        for number in range(5):
            s.say(B, ChangeRequest(b"b", number, True, STRANGER, "z:7444"))
            await s.pass_time(0.1)
        s.say(STRANGER, Ack(term, 4, reset=True, success=False))
        s.has_followed(STRANGER, 1)
        s.say(B, ChangeRequest(b"b", 9, True, STRANGER, "z:7444"))
        assert [voter.id for voter in s.node.voters()] == [A, B, C]
        s.has_followed(STRANGER)
        s.say(B, ChangeRequest(b"b", 10, True, STRANGER, "z:7444"))
        assert [voter.id for voter in s.node.voters()] == [A, B, C, STRANGER]

    scripted(story)


def test_voters_of_a_restarted_node_are_those_of_its_log(scripted):
    async def story(s: Script) -> None:
        term = await s.lead()
        s.say(B, Ack(term, s.log()[-1][0] + 1, reset=False, success=True))
        s.has_followed(STRANGER)
        s.say(B, ChangeRequest(b"b", 1, True, STRANGER, "z:7444"))
        await s.pass_time(0.1)
        s.crash()
        await s.pass_time(0.1)
        assert [voter.id for voter in s.node.voters()] == [A, B, C, STRANGER]
        assert {node.id for node in s.node._raft.otherNodes} == {B, C, STRANGER}

    scripted(story)


def test_applying_an_old_change_brings_back_no_old_voters(scripted):
    async def story(s: Script) -> None:
        changes = [(4, MemberChange(True, "z", "z:7444")), (5, MemberChange(False, "z", ""))]
        entries = [(b"\x02" + encode_change(change), index, 1) for index, change in changes]
        s.say(B, Append(1, 3, (3, 0), entries))
        s.crash()
        s.say(B, Append(1, 4, (5, 1), []))
        assert s.node.applied_index() == 4
        assert [voter.id for voter in s.node.voters()] == [A, B, C]
        assert {node.id for node in s.node._raft.otherNodes} == {B, C}

    scripted(story)


def test_a_truncated_change_is_taken_back(scripted):
    async def story(s: Script) -> None:
        change = b"\x02" + encode_change(MemberChange(True, "z", "z:7444"))
        s.say(B, Append(1, 3, (3, 0), [entry(4, 1), (change, 5, 1)]))
        assert [voter.id for voter in s.node.voters()] == [A, B, C, STRANGER]
        s.say(C, Append(2, 3, (4, 1), [entry(5, 2)]))
        assert [voter.id for voter in s.node.voters()] == [A, B, C]
        assert {node.id for node in s.node._raft.otherNodes} == {B, C}

    scripted(story)


def test_a_machine_that_fails_stops_the_node_before_it_says_anything(scripted):
    async def story(s: Script) -> None:
        def full_disk(index, payloads):
            raise OSError(28, "No space left on device")

        s.machine.apply = full_disk
        s.user.received(B, Append(1, 4, (3, 0), [entry(4, 1)]))
        with pytest.raises(FatalError, match="No space left"):
            s.node._turn()
        before = len(s.sent)
        s.user.received(B, Append(1, 5, (4, 1), [entry(5, 1)]))
        assert s.sent[before:] == []

    scripted(story)


# -- the wire


@settings(deadline=None)
@given(st.binary(max_size=200))
@example(b"\x91\xa5\x00\x00\x00\x00\x80")  # a tag that isn't UTF-8
@example(b"\x91" * 100_000)  # nesting without end
def test_any_bytes_are_a_message_or_refused(frame):
    for read in (decode, check_command, decode_proposals, decode_change):
        with contextlib.suppress(InvalidError, TooNewError):
            read(frame)


def test_a_pickle_is_no_message():
    for frame in (
        b"\x80\x02cposix\nsystem\nq\x00X\x05\x00\x00\x00falseq\x01\x85q\x02Rq\x03.",
        b"cos\nsystem\n(S'false'\ntR.",
        b"\x80\x04\x95\x15\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
    ):
        with pytest.raises(PlatformError):
            decode(frame)
