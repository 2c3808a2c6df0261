"""SIGKILL at every step: a voter that kills itself at its n-th step of I/O, is started again, and must have kept its word.

`python -m tests.consensus_steps DIRECTORY FIRST STRIDE`; run by `tests/unit/test_consensus_sigkill.py`. For each n a fresh
process (forked, so that nothing is imported again) runs the real engine and state machine over appends, new segments,
snapshots and trimming. Steps are what the log and the snapshot ask of the disk, and the moments around a commit of the
state; a write is killed half-way. Prints a line for each n, and exits with 1 if a promise was broken.
"""

import asyncio
import os
import random
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from raftstate.consensus.elections import Timing
from raftstate.consensus.journal import Compaction
from raftstate.consensus.pysyncobj_engine import PySyncObjEngine
from raftstate.consensus.raft_node import Settings
from raftstate.consensus.recovery import wal_path
from raftstate.consensus.wal import Wal
from raftstate.state.machine import Machine
from raftstate.txn import Applied, Txn, decode_outcome
from tests.consensus_child import ME, NoLinks, write
from tests.sim.power import MODULES

WRITES = 30
WRITES_AFTER = 3
FIRST_AFTER = 1000
COUNTED = ("fdatasync", "fsync", "makedirs", "posix_fallocate", "replace", "unlink")
QUICK = Timing(
    heartbeat_s=0.02, silence_s=(0.02, 0.03), retry_s=(0.02, 0.03), patience_s=0.01, quorum_s=5.0
)


class CountingOs:
    """The real `os`, until a process has done `last` steps: then nothing, ever."""

    def __init__(self, last: int, killed: Path) -> None:
        self._left, self._killed = last, killed

    def step(self, name: str, half: Callable[[], object] = lambda: None) -> None:
        self._left -= 1
        if self._left == 0:
            half()
            self._killed.write_text(name)
            os.kill(os.getpid(), signal.SIGKILL)

    def pwrite(self, file: int, data: Any, position: int) -> int:
        self.step("pwrite", lambda: os.pwrite(file, bytes(data)[: len(data) // 2], position))
        return os.pwrite(file, data, position)

    def write(self, file: int, data: Any) -> int:
        self.step("write", lambda: os.write(file, bytes(data)[: len(data) // 2]))
        return os.write(file, data)

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        if name not in COUNTED:
            return found

        def counted(*args: Any, **options: Any) -> Any:
            self.step(name)
            return found(*args, **options)

        return counted


class WatchedMachine(Machine):
    """The state machine, with steps around each commit; what it has applied is noted down."""

    def __init__(self, path: Path, steps: CountingOs) -> None:
        super().__init__(path)
        self._steps, self._noted = steps, path.with_name("applied")

    def apply(self, index: int, payloads: Sequence[bytes]) -> list[bytes]:
        self._steps.step("before-commit")
        results = super().apply(index, payloads)
        for payload in payloads:
            note(self._noted, f"{request_id(payload)} {index}")
        self._steps.step("after-commit")
        return results


def request_id(payload: bytes) -> str:
    return msgspec.msgpack.decode(payload, type=Txn).request_id


def note(path: Path, line: str) -> None:
    """Append a line in one go, so that it is there even if the next step is the last."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, f"{line}\n".encode())
    os.close(file)


def notes(path: Path) -> list[tuple[str, int]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [(name, int(index)) for name, index in (line.split() for line in lines)]


async def at_once(work: Callable[[], Any]) -> Any:
    """Do on the loop what the product does in a thread, so that the n-th step is the same each time."""
    return work()


async def live(directory: Path, steps: CountingOs, first: int, count: int) -> None:
    """Run the engine for some writes, noting each once it is acknowledged."""
    machine = WatchedMachine(directory / "state.db", steps)
    engine = PySyncObjEngine(
        me=ME,
        directory=directory / "raft",
        machine=machine,
        links=NoLinks(),
        bootstrap=(ME,),
        rng=random.Random(),  # a boot id must be new each time
        settings=Settings(
            QUICK,
            Compaction(entries=8, pause_s=0.0, keep_entries=2),
            wal=Wal(wal_path(directory / "raft"), segment_bytes=2048),
            blocking=at_once,
        ),
    )
    async with asyncio.TaskGroup() as group:
        running = group.create_task(engine.run(), name="engine")
        for number in range(first, first + count):
            outcome = decode_outcome(await engine.propose(write(number), timeout_s=10))
            assert isinstance(outcome, Applied), outcome
            note(directory / "acknowledged", f"n{number} {outcome.index}")
        running.cancel()
    machine.close()


def in_a_process(directory: Path, last: int, first: int, count: int) -> int:
    """Return the wait status of a process that lives for `count` writes or `last` steps."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            steps = CountingOs(last, directory / "killed")
            for module in MODULES:
                module.os = steps  # type: ignore[attr-defined]
            asyncio.run(live(directory, steps, first, count))
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitpid(child, 0)[1]


def broken_promises(directory: Path) -> list[str]:
    """Compare the state with what was acknowledged."""
    machine = Machine(directory / "state.db")
    acknowledged, applied = notes(directory / "acknowledged"), notes(directory / "applied")
    found = []
    for name, index in acknowledged:
        held = machine.get("thing", name)
        if held is None:
            found.append(f"{name} is lost")
        elif held[1] != index:
            found.append(f"{name} was acknowledged at {index}, and is there as of {held[1]}")
    machine.close()
    for what, column in (("write", 0), ("entry", 1)):
        seen = [line[column] for line in applied]
        found += [f"{what} {one} was applied twice" for one in set(seen) if seen.count(one) > 1]
    return found


def try_step(directory: Path, last: int) -> tuple[str, list[str]]:
    """Kill at a step and start again; return where it was, empty if that many aren't needed, and what is wrong."""
    directory.mkdir()
    status = in_a_process(directory, last, 1, WRITES)
    if not os.WIFSIGNALED(status):
        return "", [] if status == 0 else ["it failed by itself"]
    assert os.WTERMSIG(status) == signal.SIGKILL
    where = (directory / "killed").read_text()
    if in_a_process(directory, 0, FIRST_AFTER, WRITES_AFTER) != 0:
        return where, ["it doesn't start again"]
    return where, broken_promises(directory)


def main(directory: Path, first: int, stride: int) -> int:
    step, failed = first, 0
    while True:
        where, wrong = try_step(directory / str(step), step)
        print(step, where or "not reached", *wrong, flush=True)
        failed += bool(wrong)
        if not where:
            return 1 if failed else 0
        step += stride


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
