"""A process to be killed: one voter with the real state machine, which prints each write once it is acknowledged.

`python -m tests.consensus_child DIRECTORY FIRST_NUMBER`; started by `tests/unit/test_consensus_sigkill.py`.
"""

import asyncio
import random
import sys
from pathlib import Path

from raftstate.consensus.elections import Timing
from raftstate.consensus.engine import NodeId, Peer
from raftstate.consensus.journal import Compaction
from raftstate.consensus.links import LinkUser
from raftstate.consensus.messages import Message
from raftstate.consensus.pysyncobj_engine import PySyncObjEngine
from raftstate.consensus.raft_node import Settings
from raftstate.state.machine import Machine
from raftstate.txn import Applied, Put, Txn, decode_outcome, encode_txn

ME = Peer(NodeId("only"), "127.0.0.1:7444")


class NoLinks:
    """A lone voter has nobody to talk to."""

    def attach(self, user: LinkUser) -> None:
        """Nobody will ever call."""

    async def run(self) -> None:
        await asyncio.Event().wait()

    def send(self, peer: NodeId, message: Message) -> bool:
        return False

    def hang_up(self) -> None:
        raise AssertionError("nothing here makes a host fall silent")

    def send_frame(self, peer: NodeId, frame: bytes) -> bool:
        return False

    def live(self) -> frozenset[NodeId]:
        return frozenset()

    def generation(self, peer: NodeId) -> int:
        return 0


def write(number: int) -> bytes:
    name = f"n{number}"
    put = Put(kind="thing", id=name, name=name, body=b"x" * 200, claims=(f"thing/{name}",))
    return encode_txn(Txn(request_id=name, stamp_ms=number, puts=(put,)))


async def main(directory: Path, number: int) -> None:
    machine = Machine(directory / "state.db")
    engine = PySyncObjEngine(
        me=ME,
        directory=directory / "raft",
        machine=machine,
        links=NoLinks(),
        bootstrap=(ME,),
        rng=random.Random(),
        settings=Settings(
            Timing(heartbeat_s=0.05), Compaction(entries=40, pause_s=0.05, keep_entries=3)
        ),
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(engine.run(), name="engine")
        while True:
            outcome = decode_outcome(await engine.propose(write(number), timeout_s=10))
            assert isinstance(outcome, Applied), outcome
            print(f"n{number}", flush=True)
            number += 1


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
