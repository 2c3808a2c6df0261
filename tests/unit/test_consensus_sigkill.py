"""SIGKILL of a real process at random moments: compaction, snapshot and log writing included."""

import random
import signal
import subprocess
import sys
from pathlib import Path

from raftstate.machine import Machine

ROUNDS = 4


def acknowledged_until_killed(directory: Path, first: int, count: int) -> list[str]:
    """Run the child, kill it after `count` acknowledgements, and return all it has printed."""
    command = [sys.executable, "-m", "tests.consensus_child", str(directory), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(count)]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
    return [line.strip() for line in lines if line.endswith("\n")]


def test_what_was_acknowledged_survives_being_killed_again_and_again(tmp_path):
    rng = random.Random(7)
    written: list[str] = []
    for _ in range(ROUNDS):
        written += acknowledged_until_killed(tmp_path, 1 + len(written) * 2, rng.randint(5, 150))
    assert len(written) > 5 * ROUNDS
    machine = Machine(tmp_path / "state.db")
    missing = [name for name in written if machine.get("thing", name) is None]
    machine.close()
    assert missing == []


def test_a_lost_database_is_rebuilt_from_snapshot_and_log(tmp_path):
    written = acknowledged_until_killed(tmp_path, 1, 120)
    for path in tmp_path.glob("state.db*"):
        path.unlink()
    written += acknowledged_until_killed(tmp_path, 1000, 1)
    machine = Machine(tmp_path / "state.db")
    missing = [name for name in written if machine.get("thing", name) is None]
    machine.close()
    assert missing == []
