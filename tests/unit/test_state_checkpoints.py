"""SQLite's write-ahead log stays small under steady writing, without holding the writer up."""

from pathlib import Path

import pytest

from raftstate.state import machine as machine_module
from raftstate.state import readers
from raftstate.state.machine import Machine
from raftstate.txn import Put, Txn, encode_txn

MIB = 1 << 20


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "LOG_BYTES", MIB)
    monkeypatch.setattr(readers, "LOG_BYTES_HIGH", 3 * MIB)
    monkeypatch.setattr(machine_module, "WAL_KEPT_BYTES", MIB // 2)
    machine = Machine(tmp_path / "state.db")
    yield machine
    machine.close()


def write(machine: Machine, mib: int) -> None:
    for number in range(mib * 10):
        index = machine.applied() + 1
        put = Put(kind="vm", id=f"v{number % 7}", name="v", body=bytes([index % 251]) * 100_000)
        machine.apply(index, [encode_txn(Txn(request_id=f"r{index}", stamp_ms=1, puts=(put,)))])


def pass_is_over(machine: Machine) -> None:
    """Wait for the checkpoint under way, which a busy disk may hold up for as long as one likes to write."""
    under_way = machine._checkpoints._pass
    if under_way is not None:
        under_way.result(timeout=60)


def log_size(tmp_path: Path) -> int:
    return (tmp_path / "state.db-wal").stat().st_size


def test_the_log_does_not_grow_for_ever(machine, tmp_path):
    largest = 0
    for _ in range(40):
        write(machine, 1)
        pass_is_over(machine)
        largest = max(largest, log_size(tmp_path))
    assert largest < 12 * MIB
    assert (tmp_path / "state.db").stat().st_size >= 700_000, "it was moved into the database"


def test_the_log_shrinks_again_after_a_reader_that_needed_it_is_gone(machine, tmp_path):
    write(machine, 1)
    frozen = machine.freeze()
    write(machine, 12)
    assert log_size(tmp_path) > 9 * MIB
    frozen.close()
    for _ in range(6):
        pass_is_over(machine)
        write(machine, 1)
    assert log_size(tmp_path) < 8 * MIB


def test_after_a_restart_everything_is_there(machine, tmp_path):
    write(machine, 8)
    digest = machine.digest()
    machine.close()
    again = Machine(tmp_path / "state.db")
    assert again.recompute_digest() == again.digest() == digest
    again.close()
