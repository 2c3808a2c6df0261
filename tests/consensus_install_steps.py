"""SIGKILL at every step of fetching and installing a snapshot: what starts again has the old state or the new, whole.

`python -m tests.consensus_install_steps DIRECTORY FIRST STRIDE`; run by `tests/unit/test_consensus_sigkill.py`. A host
that doesn't vote, with the real engine and state machine, follows a made-up parent that has a snapshot for it, and some
entries behind it. Killed at its n-th step of I/O it is started again, and must end with just what the parent has.
"""

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

from raftstate.consensus import messages
from raftstate.consensus.engine import NodeId, Peer
from raftstate.consensus.entries import Proposal, encode_proposals
from raftstate.consensus.links import LinkUser
from raftstate.consensus.pysyncobj_engine import PySyncObjEngine
from raftstate.consensus.raft_node import Settings
from raftstate.consensus.recovery import wal_path
from raftstate.consensus.snapshot_files import SnapshotStore
from raftstate.consensus.snapshot_header import CHUNK_BYTES, new_header, stream_end
from raftstate.consensus.wal import Wal
from raftstate.state import dump
from raftstate.state.machine import Machine
from tests.consensus_child import ME, write
from tests.consensus_steps import QUICK, CountingOs, at_once
from tests.sim.power import MODULES

PARENT = Peer(NodeId("parent"), "127.0.0.2:7444")
NOOP = b"\x01"
THINGS, BEHIND = 300, 3
LAST = THINGS + 5


def entry(number: int, index: int) -> tuple[bytes, int, int]:
    return b"\x00" + encode_proposals([Proposal(b"p", number, write(number))]), index, 1


class Parent:
    """The host that is followed: its state, its snapshot, and the entries behind it."""

    def __init__(self, directory: Path) -> None:
        machine = Machine(directory / "parent.db")
        for number in range(THINGS):
            machine.apply(number + 4, [write(number)])
        header = new_header(
            (NOOP, LAST - 1, 1),
            (NOOP, LAST, 1),
            (PARENT,),
            machine_applied=machine.applied(),
            generation=1,
            level=1,
        )
        (directory / "parent").mkdir()
        store = SnapshotStore(directory / "parent")
        self.header = store.write(header, machine.freeze().write)
        self.stream = store.dump_path(self.header).read_bytes() + stream_end(self.header)
        self.entries = [entry(1000 + n, LAST + 1 + n) for n in range(BEHIND)]
        for _, index, _ in self.entries:
            machine.apply(index, [write(index - LAST - 1 + 1000)])
        self.applied, self.digest = machine.applied(), machine.digest()
        machine.close()

    def answer(self, question: messages.Message) -> messages.Message | None:
        match question:
            case messages.Follow(index) if index < self.header.index:
                info = self.header.info()
                return messages.Offer(0, 0, info.index, info.term, info.size_bytes, info.crc, True)
            case messages.Follow(index) if index < self.applied:
                behind = self.entries[index - LAST :]
                return messages.Fed(1, PARENT.id, self.applied, (index, 1), behind)
            case messages.ChunkRequest(index, crc, offset):
                data = self.stream[offset : offset + CHUNK_BYTES]
                return messages.Chunk(index, crc, offset, data)
        return None


class ParentLinks:
    """The one link of the follower."""

    def __init__(self, parent: Parent) -> None:
        self._parent = parent
        self._user: LinkUser

    def attach(self, user: LinkUser) -> None:
        self._user = user

    async def run(self) -> None:
        self._user.linked(PARENT.id)
        await asyncio.Event().wait()

    def send(self, peer: NodeId, message: messages.Message) -> bool:
        if (answer := self._parent.answer(message)) is not None:
            asyncio.get_running_loop().call_soon(self._user.received, peer, answer)
        return True

    def hang_up(self) -> None:
        raise AssertionError("nothing here makes a host fall silent")

    def send_frame(self, peer: NodeId, frame: bytes) -> bool:
        return self.send(peer, messages.decode(frame))

    def live(self) -> frozenset[NodeId]:
        return frozenset({PARENT.id})

    def generation(self, peer: NodeId) -> int:
        return 1


async def live(directory: Path, parent: Parent) -> None:
    """Follow until everything is there."""
    machine = Machine(directory / "state.db")
    engine = PySyncObjEngine(
        me=ME,
        directory=directory / "raft",
        machine=machine,
        links=ParentLinks(parent),
        bootstrap=(PARENT,),
        rng=random.Random(),
        settings=Settings(
            QUICK, wal=Wal(wal_path(directory / "raft"), segment_bytes=2048), blocking=at_once
        ),
    )
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        running = group.create_task(engine.run(), name="engine")
        while machine.applied() < parent.applied:
            await asyncio.sleep(0.005)
        running.cancel()
    right = machine.digest() == parent.digest == machine.recompute_digest()
    machine.close()
    if not right:
        raise AssertionError("the state isn't the parent's")


def in_a_process(directory: Path, last: int, parent: Parent) -> int:
    """Return the wait status of a process that follows until it has everything, or has done `last` steps."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            steps = CountingOs(last, directory / "killed")
            for module in (*MODULES, dump):
                module.os = steps  # type: ignore[attr-defined]
            asyncio.run(live(directory, parent))
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitpid(child, 0)[1]


def main(directory: Path, first: int, stride: int) -> int:
    parent = Parent(directory)
    step, failed = first, 0
    while True:
        place = directory / str(step)
        place.mkdir()
        status, wrong, where = in_a_process(place, step, parent), "", ""
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            where = (place / "killed").read_text()
            if in_a_process(place, 0, parent) != 0:
                wrong = "it doesn't get there any more"
        elif status != 0:
            wrong = "it failed by itself"
        print(step, where or "not reached", wrong, flush=True)
        failed += bool(wrong)
        if not where:
            return 1 if failed else 0
        step += stride


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
