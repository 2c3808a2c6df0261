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
from raftstate.consensus.links import LinkUser
from raftstate.consensus.messages import (
    Ack,
    Append,
    ChangeRequest,
    Chunk,
    MemberChange,
    Message,
    Newer,
    NotVoter,
    PreVote,
    PreVoteGranted,
    Probe,
    ProbeAck,
    Proposal,
    Propose,
    Refused,
    RequestVote,
    Vote,
    check_command,
    decode,
    decode_change,
    decode_proposals,
    encode,
    encode_change,
    encode_proposals,
)
from raftstate.consensus.pysyncobj_engine import PySyncObjEngine
from raftstate.consensus.raft_node import Settings
from raftstate.consensus.recovery import snapshot_path, wal_path
from raftstate.consensus.snapshot import make_header, parse_snapshot, write_snapshot
from raftstate.consensus.wal import Wal
from tests.sim.checkers import History
from tests.sim.loop import SimLoop
from tests.sim.raft_cluster import SimMachine

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
        directory.mkdir(exist_ok=True)
        header = make_header((NOOP, 2, 0), (NOOP, 3, 0), map(peer, voters), 0)
        write_snapshot(snapshot_path(directory), header, self.machine.dump())
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
        promises = (Append, Ack, Vote, RequestVote, Chunk)
        assert not (isinstance(message, promises) and self.wal.dirty), "said before it was durable"
        self.sent.append((to, decode(encode(message))))
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
            settings=Settings(wal=self.wal),
        )

    def crash(self) -> None:
        """Lose everything that the disk doesn't have, and start again."""
        self.node._journal.close()
        self.sent.clear()
        self.start()

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

    def newcomer_takes_the_snapshot(self, node: NodeId) -> None:
        """Let a host that is to be added answer what the leader sends it first."""
        self.say(B, ChangeRequest(99, True, node, f"{node}:7444"))
        chunks = [m for to, m in self.sent if to == node and isinstance(m, Chunk)]
        assert chunks[-1].last
        header, _ = parse_snapshot(b"".join(chunk.data for chunk in chunks))
        self.say(node, Ack(chunks[-1].term, header.index + 1, reset=False, success=True))

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
                    await story(script)
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


def snapshot_chunks(directory: Path, term: int, last: int, *, pieces: int = 3) -> list[Chunk]:
    other = SimMachine(History(), "b")
    other.apply(last - 1, [b"installed"])
    path = directory / "theirs"
    header = make_header(entry(last - 1, 1), entry(last, 1), map(peer, (A, B, C, D)), last - 1)
    write_snapshot(path, header, other.dump())
    blob = path.read_bytes()
    size = -(-len(blob) // pieces)
    parts = [blob[at : at + size] for at in range(0, len(blob), size)] + [b""]
    return [
        Chunk(term, last, number, number == len(parts) - 1, part)
        for number, part in enumerate(parts)
    ]


def test_a_snapshot_brings_state_and_voters(scripted):
    async def story(s: Script) -> None:
        s.say(B, Append(1, 3, (3, 0), [entry(4, 1)]))
        sent = [m for chunk in snapshot_chunks(s.directory, 2, 40) for m in s.say(C, chunk)]
        assert acks(sent)[-1] == (41, True)
        assert s.machine.payloads() == [b"installed"]
        assert s.node.applied_index() == 40
        assert [voter.id for voter in s.node.voters()] == [A, B, C, D]
        s.crash()
        assert s.node.applied_index() == 40
        assert s.log() == [(39, 1), (40, 1)]
        assert [voter.id for voter in s.node.voters()] == [A, B, C, D]

    scripted(story)


def test_a_snapshot_sent_twice_keeps_what_came_after_it(scripted):
    async def story(s: Script) -> None:
        chunks = snapshot_chunks(s.directory, 2, 40)
        for chunk in chunks:
            s.say(C, chunk)
        s.say(C, Append(2, 40, (40, 1), [entry(41, 2), entry(42, 2)]))
        sent = [m for chunk in chunks for m in s.say(C, chunk)]
        assert acks(sent)[-1] == (41, True)
        assert s.log()[-1] == (42, 2)

    scripted(story)


def test_pieces_of_a_snapshot_commit_nothing_of_the_own_tail(scripted):
    async def story(s: Script) -> None:
        s.say(B, Append(1, 3, (3, 0), [entry(4, 1), entry(5, 1)]))
        for chunk in snapshot_chunks(s.directory, 2, 40)[:-1]:
            s.say(C, chunk)
        assert s.node.commit_index() == 3
        assert s.machine.payloads() == []

    scripted(story)


def test_a_damaged_or_incomplete_snapshot_changes_nothing(scripted):
    async def story(s: Script) -> None:
        chunks = snapshot_chunks(s.directory, 2, 40)
        for chunk in (chunks[0], *chunks[2:]):
            assert not any(success for _, success in acks(s.say(C, chunk)))
        broken = [Chunk(c.term, c.commit, c.number, c.last, c.data[::-1]) for c in chunks]
        for chunk in broken[:-1]:
            s.say(C, chunk)
        with pytest.raises(InvalidError):
            s.user.received(C, broken[-1])
        assert s.log() == [(2, 0), (3, 0)]
        s.crash()
        assert s.log() == [(2, 0), (3, 0)]

    scripted(story)


# -- proposals, reads, members


def test_a_proposal_for_another_term_is_refused(scripted):
    async def story(s: Script) -> None:
        assert s.say(B, Propose(0, b"b", 1, b"x")) == [(B, Refused(0, 1))]
        term = await s.lead()
        assert s.say(B, Propose(term - 1, b"b", 2, b"x")) == [(B, Refused(term - 1, 2))]

    scripted(story)


def test_a_proposal_that_arrives_twice_is_appended_once(scripted):
    async def story(s: Script) -> None:
        term = await s.lead()
        for _ in range(2):
            s.say(B, Propose(term, b"b", 1, b"once"))
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
        s.newcomer_takes_the_snapshot(STRANGER)
        s.say(B, ChangeRequest(1, True, STRANGER, "z:7444"))
        s.say(B, ChangeRequest(2, False, C, ""))
        await s.pass_time(0.1)
        s.say(B, ChangeRequest(3, False, C, ""))
        assert [voter.id for voter in s.node.voters()] == [A, B, C, STRANGER]
        for voter in (B, C):
            s.say(voter, Ack(term, s.log()[-1][0] + 1, reset=False, success=True))
        s.say(B, ChangeRequest(4, False, C, ""))
        await s.pass_time(0.1)
        assert [voter.id for voter in s.node.voters()] == [A, B, STRANGER]

    scripted(story)


def test_a_newcomer_counts_only_once_it_has_stored_the_state(scripted):
    async def story(s: Script) -> None:
        term = await s.lead()
        s.say(B, Ack(term, s.log()[-1][0] + 1, reset=False, success=True))
        for number in range(5):
            s.say(B, ChangeRequest(number, True, STRANGER, "z:7444"))
            await s.pass_time(0.1)
        s.say(STRANGER, Ack(term, 4, reset=True, success=False))
        s.say(B, ChangeRequest(9, True, STRANGER, "z:7444"))
        assert [voter.id for voter in s.node.voters()] == [A, B, C]
        s.newcomer_takes_the_snapshot(STRANGER)
        s.say(B, ChangeRequest(10, True, STRANGER, "z:7444"))
        assert [voter.id for voter in s.node.voters()] == [A, B, C, STRANGER]

    scripted(story)


def test_voters_of_a_restarted_node_are_those_of_its_log(scripted):
    async def story(s: Script) -> None:
        term = await s.lead()
        s.say(B, Ack(term, s.log()[-1][0] + 1, reset=False, success=True))
        s.newcomer_takes_the_snapshot(STRANGER)
        s.say(B, ChangeRequest(1, True, STRANGER, "z:7444"))
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
        with contextlib.suppress(InvalidError):
            read(frame)


def test_a_pickle_is_no_message():
    for frame in (
        b"\x80\x02cposix\nsystem\nq\x00X\x05\x00\x00\x00falseq\x01\x85q\x02Rq\x03.",
        b"cos\nsystem\n(S'false'\ntR.",
        b"\x80\x04\x95\x15\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
    ):
        with pytest.raises(PlatformError):
            decode(frame)
