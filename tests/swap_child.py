"""A process to be killed while it puts a new state in the place of its own: before its Nth step that touches files.

`python -m tests.swap_child DATABASE DUMP STEP`; started by `tests/unit/test_state_dump.py`. Prints `done` if it
comes to the end.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raftstate.state.machine import Machine
from raftstate.txn import Put, Txn, encode_txn


def apply_more(machine: Machine) -> None:
    """Apply some entries, which are in the write-ahead log of SQLite only when the swap begins."""
    for number in range(30):
        put = Put(kind="vm", id=f"more-{number}", name="more", body=bytes(3000))
        txn = Txn(request_id=f"more-{number}", stamp_ms=2, puts=(put,))
        machine.apply(machine.applied() + 1, [encode_txn(txn)])


def dying_before(step: int) -> None:
    """Make the step of that number the one that is never done."""
    left = step

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)

        return call

    for owner, name in ((Path, "rename"), (Path, "unlink"), (os, "fsync"), (os, "sendfile")):
        setattr(owner, name, counted(getattr(owner, name)))


def main(database: Path, dump: Path, step: int) -> None:
    machine = Machine(database)
    apply_more(machine)
    frozen = (
        machine.freeze()
    )  # keeps SQLite from removing the write-ahead log when the machine closes its database
    dying_before(step)
    machine.stage(dump)()
    frozen.close()
    print("done", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
