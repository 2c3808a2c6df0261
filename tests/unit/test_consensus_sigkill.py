"""SIGKILL of a real process at random moments, and at every step it asks of the disk."""

import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from raftstate.state.machine import Machine

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


STEPS = {"pwrite", "fdatasync", "fsync", "posix_fallocate", "replace", "unlink"}
COMMIT = {"before-commit", "after-commit"}


def killed_at_steps(module: str, stride: int) -> list[str]:
    """Run a module that kills at every `stride`th step; return the names of the steps, up to the one never reached."""
    memory = (
        "/dev/shm" if Path("/dev/shm").is_dir() else None
    )  # SIGKILL takes nothing that was written
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        command = [sys.executable, "-m", module, directory, "1", str(stride)]
        found = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    lines = [line for line in found.stdout.splitlines() if line[:1].isdigit()]
    *tried, end = (line.split(maxsplit=1)[1].strip() for line in lines)
    assert end == "not reached"
    return tried


@pytest.mark.timeout(300)
def test_killed_at_any_step_it_keeps_its_word_and_applies_nothing_twice(request):
    """See `tests.consensus_steps`. By default at a fourth of the steps; `pytest --every-step` tries all."""
    stride = 1 if request.config.getoption("every_step") else 4
    tried = killed_at_steps("tests.consensus_steps", stride)
    assert set(tried) >= STEPS | COMMIT
    assert len(tried) > 120 // stride


@pytest.mark.timeout(300)
def test_killed_at_any_step_of_an_installation_it_ends_with_the_whole_snapshot():
    """See `tests.consensus_install_steps`."""
    tried = killed_at_steps("tests.consensus_install_steps", 1)
    assert set(tried) >= {"pwrite", "write", "fdatasync", "fsync", "replace", "unlink"}
    assert len(tried) > 25
