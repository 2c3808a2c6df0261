"""Snapshots on their way: pieces asked for, lost, resumed after restarts, and never installed unless whole."""

import errno
import os
import random
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.errors import InvalidError
from raftstate.consensus import snapshot_part
from raftstate.consensus.engine import NodeId, Peer
from raftstate.consensus.snapshot_fetch import IDLE_S, SILENCE_S, WINDOW, Request, SnapshotFetch
from raftstate.consensus.snapshot_files import SnapshotStore
from raftstate.consensus.snapshot_header import (
    CHUNK_BYTES,
    SnapshotHeader,
    SnapshotInfo,
    new_header,
    stream_end,
)
from raftstate.consensus.snapshot_source import ACTIVE_S, MAX_OPEN, OPEN_S, SnapshotSource

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
NOOP = b"\x01"


class Time:
    """Seconds that a test moves."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Sender:
    """A peer with snapshots in a directory of its own."""

    def __init__(self, directory: Path, time: Time) -> None:
        directory.mkdir()
        self.store = SnapshotStore(directory)
        self.source = SnapshotSource(self.store, time)

    def write(self, index: int, dump: bytes) -> SnapshotInfo:
        header = new_header(
            (NOOP, index - 1, 1),
            (NOOP, index, 1),
            (Peer(A, "10.0.0.1:7444"),),
            machine_applied=index,
            generation=0,
            level=1,
        )
        return self.store.write(header, lambda path: path.write_bytes(dump) and None).info()

    def header(self) -> SnapshotHeader:
        header = self.store.latest()
        assert header is not None
        return header


class Scene:
    """Two senders and a receiver."""

    def __init__(self, directory: Path) -> None:
        self.time = Time()
        self.senders = {peer: Sender(directory / peer, self.time) for peer in (A, B)}
        (directory / "me").mkdir()
        self.store = SnapshotStore(directory / "me")
        self.fetch = SnapshotFetch(self.store)

    def restart(self) -> None:
        self.fetch.close()
        self.store = SnapshotStore(self.store.directory)
        self.store.sweep()
        self.fetch = SnapshotFetch(self.store)

    def answer(self, ask: Request) -> list[Request]:
        """Have the peer answer, and return what is asked next."""
        data = self.senders[ask.peer].source.read(ask.index, ask.crc, ask.offset)
        if data is None:
            return self.fetch.gone(ask.peer, ask.index, ask.crc, self.time())
        return self.fetch.arrived(ask.peer, ask.index, ask.crc, ask.offset, data, self.time())

    def run(self, asks: list[Request], *, pieces: int = 1 << 20) -> deque[Request]:
        """Answer all that is asked, in order; return what is left after so many `pieces`."""
        queue = deque(asks)
        while queue and pieces > 0:
            queue.extend(self.answer(queue.popleft()))
            pieces -= 1
        return queue

    def install(self) -> bytes:
        header, dump = self.fetch.verify_and_open()
        content = dump.read_bytes()
        self.fetch.adopt(header)
        after = SnapshotStore(self.store.directory)
        after.check()
        assert after.latest() == header
        assert after.dump_path(header).read_bytes() == content
        return content


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.fetch.close()
    for sender in scene.senders.values():
        sender.source.close()


def state(pieces: float, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(int(pieces * CHUNK_BYTES))


# -- the receiver


def test_a_snapshot_arrives_whole_and_becomes_the_receiver_s_own(scene):
    info = scene.senders[A].write(9, state(9.5))
    asks = scene.fetch.offered(A, info, 0)
    assert [ask.offset for ask in asks] == [i * CHUNK_BYTES for i in range(WINDOW)]
    scene.run(asks)
    assert scene.fetch.complete
    assert scene.install() == state(9.5)
    assert (scene.fetch.running, scene.fetch.complete) == (None, None)
    assert len(list(scene.store.directory.iterdir())) == 2


@pytest.mark.parametrize("size_bytes", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 4 * CHUNK_BYTES])
def test_a_dump_of_any_size_arrives(scene, size_bytes):
    dump = state(size_bytes / CHUNK_BYTES)
    scene.run(scene.fetch.offered(A, scene.senders[A].write(9, dump), 0))
    assert scene.install() == dump


def test_no_more_than_the_window_is_ever_in_flight(scene):
    queue = deque(scene.fetch.offered(A, scene.senders[A].write(9, state(30)), 0))
    while queue:
        assert len(queue) <= WINDOW
        queue.extend(scene.answer(queue.popleft()))
    assert scene.fetch.complete


def test_after_a_restart_it_goes_on_where_it_was_and_with_another_peer(scene):
    info = scene.senders[A].write(9, state(9.5))
    scene.run(scene.fetch.offered(A, info, 0), pieces=6)
    scene.restart()
    assert scene.senders[B].write(9, state(9.5)) == info
    asks = scene.fetch.offered(B, info, 0)
    assert (asks[0].peer, asks[0].offset) == (B, 6 * CHUNK_BYTES)
    scene.run(asks)
    assert scene.install() == state(9.5)


def test_after_a_restart_a_whole_snapshot_needs_no_piece(scene):
    info = scene.senders[A].write(9, state(2))
    scene.run(scene.fetch.offered(A, info, 0))
    scene.restart()
    assert scene.fetch.offered(A, info, 0) == []
    assert scene.install() == state(2)


def test_after_a_restart_between_checking_and_adopting_only_the_end_is_asked_again(scene):
    info = scene.senders[A].write(9, state(5))
    scene.run(scene.fetch.offered(A, info, 0))
    scene.fetch.verify_and_open()
    scene.restart()
    (ask,) = scene.fetch.offered(A, info, 0)
    assert ask.offset == 5 * CHUNK_BYTES
    scene.run([ask])
    assert scene.install() == state(5)


def test_a_lost_piece_is_asked_again_at_the_next_one_and_after_a_silence(scene):
    info = scene.senders[A].write(9, state(6))
    first, second, third, _ = scene.fetch.offered(A, info, 0)
    assert scene.answer(second) == [first]  # a gap: what is behind it counts for nothing
    assert scene.answer(third) == []
    assert scene.fetch.received_bytes == 0
    assert scene.fetch.tick(SILENCE_S - 0.1) == []
    assert scene.fetch.tick(SILENCE_S) == [first]
    scene.run([first])
    assert scene.install() == state(6)


def test_pieces_that_come_twice_are_written_once(scene):
    info = scene.senders[A].write(9, state(6))
    asks = scene.fetch.offered(A, info, 0)
    scene.answer(asks[0])
    assert scene.answer(asks[0]) == []
    assert scene.fetch.received_bytes == CHUNK_BYTES


def test_a_silent_peer_s_turn_goes_to_another_that_has_the_same(scene):
    info = scene.senders[A].write(9, state(6))
    scene.senders[B].write(9, state(6))
    scene.fetch.offered(A, info, 0)
    assert scene.fetch.offered(B, info, 0) == []
    asks = scene.fetch.tick(SILENCE_S)
    assert {ask.peer for ask in asks} == {B}
    scene.run(asks)
    assert scene.install() == state(6)


def test_a_lost_link_s_turn_goes_to_another_at_once(scene):
    info = scene.senders[A].write(9, state(6))
    scene.fetch.offered(A, info, 0)
    scene.fetch.offered(B, info, 0)
    scene.fetch.link_lost(A)
    assert {ask.peer for ask in scene.fetch.tick(0.1)} == {B}
    scene.fetch.link_lost(B)
    assert scene.fetch.tick(5) == []
    assert [ask.peer for ask in scene.fetch.offered(A, info, 6)] == [A]


def test_a_newer_snapshot_waits_while_the_running_one_gets_on(scene):
    old = scene.senders[A].write(9, state(6))
    queue = scene.run(scene.fetch.offered(A, old, 0), pieces=2)
    new = scene.senders[A].write(20, state(7, seed=1))
    assert scene.fetch.offered(A, new, 1) == []
    scene.run(list(queue))
    assert scene.install() == state(6)


@pytest.mark.parametrize("index", [5, 9, 20])
def test_another_snapshot_takes_over_when_the_running_one_is_idle(scene, index):
    running = scene.senders[A].write(9, state(6))
    scene.run(scene.fetch.offered(A, running, 0), pieces=2)
    scene.fetch.link_lost(A)
    other = scene.senders[B].write(index, state(7, seed=1))
    assert scene.fetch.offered(B, other, IDLE_S - 0.1) == []
    asks = scene.fetch.tick(IDLE_S)
    assert {ask.peer for ask in asks} == {B}
    scene.run(asks)
    assert len(list(scene.store.directory.iterdir())) == 1  # nothing of the other is left
    assert scene.install() == state(7, seed=1)


def test_two_peers_that_offer_the_same_other_are_both_its_sources(scene):
    scene.fetch.offered(C, SnapshotInfo(9, 1, 1000, 5), 0)
    other = scene.senders[A].write(20, state(6))
    scene.senders[B].write(20, state(6))
    scene.fetch.offered(A, other, 0)
    scene.fetch.offered(B, other, 0)
    (first, *_) = scene.fetch.tick(IDLE_S)
    scene.time.now_s = IDLE_S
    scene.answer(first)
    scene.fetch.link_lost(first.peer)
    (ask,) = scene.fetch.tick(2 * IDLE_S)  # it isn't begun anew for being idle
    assert (ask.peer != first.peer, ask.offset) == (True, CHUNK_BYTES)
    scene.time.now_s = 2 * IDLE_S
    scene.run([ask])
    assert scene.install() == state(6)


def test_another_snapshot_takes_over_at_once_when_no_peer_has_the_running_one(scene):
    running = scene.senders[A].write(9, state(6))
    scene.fetch.offered(A, running, 0)
    scene.fetch.offered(B, running, 0)
    scene.fetch.offered(A, scene.senders[A].write(20, state(2, seed=1)), 0)
    asks = scene.fetch.gone(A, running.index, running.crc, 0)
    assert {(ask.peer, ask.index) for ask in asks} == {(B, 9)}
    asks = scene.fetch.gone(B, running.index, running.crc, 0)
    assert {(ask.peer, ask.index) for ask in asks} == {(A, 20)}
    scene.run(asks)
    assert scene.install() == state(2, seed=1)


def test_pieces_nobody_asked_for_change_nothing(scene):
    info = scene.senders[A].write(9, state(6))
    scene.fetch.offered(A, info, 0)
    size = info.size_bytes
    for peer, index, crc in ((B, 9, info.crc), (A, 8, info.crc), (A, 9, info.crc ^ 1)):
        assert scene.fetch.arrived(peer, index, crc, 0, b"x", 0) == []
    for offset, data in (
        (0, b""),
        (0, b"x" * (CHUNK_BYTES + 1)),
        (size, b"x"),
        (size - 1, b"xx"),
        (1 << 61, b"x"),
    ):
        with pytest.raises(InvalidError):
            scene.fetch.arrived(A, 9, info.crc, offset, data, 0)
    assert scene.fetch.received_bytes == 0


def test_offers_of_impossible_sizes_are_refused(scene):
    for size_bytes in (0, 10, 65 << 30, 1 << 61):
        with pytest.raises(InvalidError):
            scene.fetch.offered(A, SnapshotInfo(9, 1, size_bytes, 0), 0)
    assert scene.fetch.running is None


@pytest.mark.parametrize("place", [0, -1, -20, CHUNK_BYTES])
def test_a_snapshot_with_a_changed_byte_is_thrown_away(scene, place):
    info = scene.senders[A].write(9, state(2))
    scene.run(scene.fetch.offered(A, info, 0))
    path = scene.fetch.complete
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(InvalidError):
        scene.fetch.verify_and_open()
    assert list(scene.store.directory.iterdir()) == []
    scene.run(scene.fetch.offered(A, info, 0))
    assert scene.install() == state(2)


def test_a_whole_snapshot_that_is_not_the_one_offered_is_thrown_away(scene):
    real = scene.senders[A].write(9, state(0.5))
    stream = state(0.5) + stream_end(scene.senders[A].header())
    for wrong in (
        msgspec.structs.replace(real, crc=real.crc ^ 1),
        msgspec.structs.replace(real, term=2),
        msgspec.structs.replace(real, index=8),
    ):
        scene.fetch.offered(A, wrong, 0)
        scene.fetch.arrived(A, wrong.index, wrong.crc, 0, stream, 0)
        with pytest.raises(InvalidError):
            scene.fetch.verify_and_open()


@pytest.mark.parametrize("seed", range(30))
def test_a_lying_peer_gets_nothing_installed_and_fills_no_memory(scene, seed):
    rng = random.Random(seed)
    good = scene.senders[A].write(9, state(0.01))
    stream = bytearray(state(0.01) + stream_end(scene.senders[A].header()))
    for _ in range(rng.randint(1, 3)):
        stream[rng.randrange(max(0, len(stream) - 150), len(stream))] = rng.randrange(256)
    info = msgspec.structs.replace(good, crc=rng.choice([good.crc, rng.getrandbits(32)]))
    if bytes(stream) == state(0.01) + stream_end(scene.senders[A].header()) and info == good:
        return
    scene.fetch.offered(B, info, 0)
    scene.fetch.arrived(B, 9, info.crc, 0, bytes(stream), 0)
    with pytest.raises(InvalidError):
        scene.fetch.verify_and_open()
    assert scene.store.latest() is None


def test_a_full_disk_stops_the_asking_and_is_tried_again(scene, monkeypatch):
    info = scene.senders[A].write(9, state(8))
    queue = scene.run(scene.fetch.offered(A, info, 0), pieces=2)
    full = FullDisk()
    monkeypatch.setattr(snapshot_part, "os", full)
    assert scene.run(list(queue)) == deque()
    assert "No space left on device" in scene.fetch.blocked
    assert scene.fetch.received_bytes == 2 * CHUNK_BYTES + 1000  # what the disk still took
    for second in range(1, 30):  # and a newer snapshot doesn't cost what has come
        scene.time.now_s = float(second)
        scene.fetch.offered(B, scene.senders[B].write(9 + second, b"newer"), scene.time())
        asks = scene.fetch.tick(scene.time())
        assert len(asks) <= 1
        assert scene.run(asks) == deque()
        assert scene.fetch.running == info
    full.full = False
    scene.time.now_s += SILENCE_S
    scene.run(scene.fetch.tick(scene.time()))
    assert scene.fetch.blocked == ""
    assert scene.install() == state(8)


def test_a_disk_that_takes_no_file_is_tried_again(scene, monkeypatch):
    full = FullDisk()
    monkeypatch.setattr(snapshot_part, "os", full)
    info = scene.senders[A].write(9, state(2))
    assert scene.fetch.offered(A, info, 0) == []
    assert scene.fetch.blocked
    assert scene.fetch.tick(SILENCE_S) == []
    full.full = False
    scene.run(scene.fetch.tick(2 * SILENCE_S))
    assert scene.fetch.blocked == ""
    assert scene.install() == state(2)


class FullDisk:
    """Stands in for `os`: no space, but for the first 1000 bytes."""

    full, room = True, 1000

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _check(self) -> None:
        if self.full and self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def open(self, path: Path, flags: int, mode: int) -> int:
        if self.full:
            self.room = 0
        self._check()
        return os.open(path, flags, mode)

    def write(self, file: int, data: memoryview) -> int:
        self._check()
        written = os.write(file, data[: self.room] if self.full else data)
        self.room -= min(written, self.room)
        return written


# -- the sender


def test_a_running_transfer_outlives_a_newer_snapshot(scene):
    sender = scene.senders[A]
    old = sender.write(9, state(6))
    queue = scene.run(scene.fetch.offered(A, old, 0), pieces=1)
    sender.write(20, b"newer")
    scene.time.now_s = OPEN_S
    scene.run(list(queue))
    assert scene.install() == state(6)


def test_what_nobody_asked_for_in_a_minute_is_gone(scene):
    sender = scene.senders[A]
    old = sender.write(9, state(6))
    assert sender.source.read(9, old.crc, 0)
    sender.write(20, b"newer")
    scene.time.now_s = OPEN_S + 1
    assert sender.source.read(9, old.crc, 0) is None
    assert sender.source.read(20, old.crc, 0) is None


def test_never_more_than_two_snapshots_are_open(scene):
    sender = scene.senders[A]
    infos = []
    for index in range(9, 9 + MAX_OPEN + 1):
        scene.time.now_s += 1
        infos.append(sender.write(index, b"state %d" % index))
        assert sender.source.read(index, infos[-1].crc, 0)
    served = [sender.source.read(info.index, info.crc, 0) is not None for info in infos]
    assert served == [False] + [True] * MAX_OPEN


def test_the_log_behind_a_snapshot_being_fetched_is_in_use(scene):
    sender = scene.senders[A]
    assert sender.source.in_use() is None
    old = sender.write(9, state(6))
    sender.source.read(9, old.crc, 0)
    new = sender.write(20, state(1))
    assert sender.source.in_use() == 9
    scene.time.now_s = ACTIVE_S + 1
    assert sender.source.in_use() is None
    sender.source.read(20, new.crc, CHUNK_BYTES)  # to the end: now the receiver installs it
    scene.time.now_s += ACTIVE_S + 1
    assert sender.source.in_use() == 20


def test_reads_are_bounded_and_end_with_the_stream(scene):
    sender = scene.senders[A]
    info = sender.write(9, state(2.5))
    stream = state(2.5) + stream_end(sender.header())
    read = sender.source.read
    assert read(9, info.crc, 0, 1 << 40) == stream[:CHUNK_BYTES]
    assert read(9, info.crc, 2 * CHUNK_BYTES) == stream[2 * CHUNK_BYTES :]
    assert read(9, info.crc, info.size_bytes - 3) == stream[-3:]
    assert read(9, info.crc, info.size_bytes) == read(9, info.crc, 1 << 61) == b""


def test_a_damaged_dump_serves_nobody_but_does_no_harm(scene):
    sender = scene.senders[A]
    info = sender.write(9, state(2))
    path = sender.store.dump_path(sender.header())
    os.truncate(path, CHUNK_BYTES)
    assert sender.source.read(9, info.crc, CHUNK_BYTES) is None
    sender.source.close()
    path.unlink()
    assert sender.source.read(9, info.crc, 0) is None


# -- any schedule


class Weather:
    """Links that lose, receivers that restart, senders with newer snapshots; then it clears up."""

    def __init__(self, scene: Scene, rng: random.Random) -> None:
        self.scene, self.rng = scene, rng
        self.links: dict[NodeId, deque[Callable[[], list[Request]]]] = {A: deque(), B: deque()}
        self.dumps: dict[tuple[int, int], bytes] = {}
        self.index = 10
        self.adopted: list[bytes] = []

    def send(self, asks: list[Request]) -> None:
        for ask in asks:
            self.links[ask.peer].append(lambda ask=ask: self.scene.answer(ask))

    def snapshot(self) -> None:
        self.index += 1
        dump = self.rng.randbytes(self.rng.randrange(8 * CHUNK_BYTES))
        peers = [A, B] if self.rng.random() < 0.3 else [self.rng.choice([A, B])]
        for peer in peers:
            info = self.scene.senders[peer].write(self.index, dump)
            self.dumps[info.index, info.crc] = dump

    def step(self, *, storm: bool) -> None:
        scene, rng = self.scene, self.rng
        peer = rng.choice([A, B])
        link = self.links[peer]
        dice = rng.random()
        if storm and dice < 0.05 and link:
            link.popleft()
        elif storm and dice < 0.07:
            link.clear()
            scene.fetch.link_lost(peer)
        elif storm and dice < 0.085:
            scene.restart()
            for each in self.links.values():
                each.clear()
        elif storm and dice < 0.1:
            self.snapshot()
        elif storm and dice < 0.11 and len(link) > 1:
            link.rotate(1)
        elif dice < 0.3:
            header = scene.senders[peer].store.latest()
            if header is not None:
                link.append(lambda: scene.fetch.offered(peer, header.info(), scene.time()))
        elif dice < 0.4:
            scene.time.now_s += rng.uniform(0, 20 if storm and rng.random() < 0.1 else 1)
            self.send(scene.fetch.tick(scene.time()))
        elif link:
            self.send(link.popleft()())
        if scene.fetch.complete is not None and rng.random() < 0.3:
            self.install()

    def install(self) -> None:
        running = self.scene.fetch.running
        latest = self.scene.store.latest()
        if latest is not None and running.index < latest.index:
            self.scene.fetch.abandon()
            return
        dump = self.scene.install()
        assert dump == self.dumps[running.index, running.crc]
        self.adopted.append(dump)


def test_whatever_the_links_do_the_same_bytes_arrive_in_the_end(scene, seed):
    weather = Weather(scene, random.Random(seed))
    weather.snapshot()
    for _ in range(600):
        weather.step(storm=True)
    adopted = len(weather.adopted)
    for _ in range(3000):
        weather.step(storm=False)
        if len(weather.adopted) > adopted:
            return
    raise AssertionError("nothing arrived in fair weather")
