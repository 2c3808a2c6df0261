"""Copies of the state while it changes, and putting one in the place of another, whatever interrupts it."""

import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from core.errors import FatalError
from raftstate.state.machine import Machine
from raftstate.txn import Put, Txn, encode_txn
from tests.swap_child import apply_more


def fill(machine: Machine, name: str, count: int = 20, body: bytes = bytes(3000)) -> None:
    for number in range(count):
        id_ = f"{name}-{number}"
        put = Put(kind="vm", id=id_, name=id_, body=body, claims=(f"vm.name/{id_}",))
        txn = Txn(request_id=f"{id_}-{machine.applied()}", stamp_ms=1, puts=(put,))
        machine.apply(machine.applied() + 1, [encode_txn(txn)])


def written(machine: Machine, path: Path) -> Path:
    frozen = machine.freeze()
    frozen.write(path)
    frozen.close()
    return path


@pytest.fixture(params=["memory", "file"])
def place(request, tmp_path) -> Path | str:
    return ":memory:" if request.param == "memory" else tmp_path / "state.db"


def test_what_is_frozen_stays_as_it_was_while_more_is_applied(place, tmp_path):
    machine = Machine(place)
    fill(machine, "old")
    frozen, digest = machine.freeze(), machine.digest()
    fill(machine, "new")
    assert (frozen.applied, frozen.digest) == (20, digest)
    frozen.write(tmp_path / "dump")
    frozen.close()
    other = Machine(":memory:")
    other.stage(tmp_path / "dump")()
    assert (other.applied(), other.digest(), other.recompute_digest()) == (20, digest, digest)
    assert other.get("vm", "new-1") is None
    machine.close()


def test_a_copy_is_written_in_a_thread_while_entries_are_applied(tmp_path):
    machine = Machine(tmp_path / "state.db")
    fill(machine, "old", 200)
    frozen, digest = machine.freeze(), machine.digest()
    thread = threading.Thread(target=frozen.write, args=(tmp_path / "dump",))
    thread.start()
    fill(machine, "new", 200)
    thread.join()
    frozen.close()
    machine.close()
    other = Machine(":memory:")
    other.stage(tmp_path / "dump")()
    assert other.recompute_digest() == digest


def test_a_dump_is_one_file_without_a_log(tmp_path):
    machine = Machine(tmp_path / "state.db")
    fill(machine, "a")
    dump = written(machine, tmp_path / "dump")
    machine.close()
    read = sqlite3.connect(dump)
    assert read.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert read.execute('SELECT count(*) FROM "kind vm"').fetchone() == (20,)
    read.close()


def test_a_copy_that_cannot_be_written_says_so_and_leaves_nothing(tmp_path):
    machine = Machine(":memory:")
    frozen = machine.freeze()
    with pytest.raises(OSError, match="copy the state"):
        frozen.write(tmp_path / "no-such-directory" / "dump")
    assert list(tmp_path.iterdir()) == []


def test_nothing_changes_before_the_swap_and_all_of_it_with_it(place, tmp_path):
    source = Machine(":memory:")
    fill(source, "new")
    dump = written(source, tmp_path / "dump")
    machine = Machine(place)
    fill(machine, "old", 3)
    told = []
    machine.on_applied(lambda index, keys: told.append((index, keys)))
    before = machine.digest()
    swap = machine.stage(dump)
    fill(machine, "late", 1)
    assert (machine.digest() != before, machine.get("vm", "old-1") is not None) == (True, True)
    swap()
    assert (machine.applied(), machine.digest()) == (20, source.digest())
    assert told[-1] == (20, {"*"})
    assert machine.get("vm", "late-0") is None
    fill(machine, "after")
    assert machine.recompute_digest() == machine.digest()
    machine.close()


def test_a_new_state_in_a_file_is_there_after_a_restart_and_the_dump_too(tmp_path):
    source = Machine(":memory:")
    fill(source, "new")
    dump = written(source, tmp_path / "dump")
    machine = Machine(tmp_path / "state.db")
    fill(machine, "old")
    machine.stage(dump)()
    machine.close()
    again = Machine(tmp_path / "state.db")
    assert again.recompute_digest() == source.digest()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "dump",
        "state.db",
        "state.db-shm",
        "state.db-wal",
    ]
    again.close()


def test_what_was_frozen_before_a_swap_is_still_the_former_state(tmp_path):
    source = Machine(":memory:")
    fill(source, "new")
    dump = written(source, tmp_path / "dump")
    machine = Machine(tmp_path / "state.db")
    fill(machine, "old")
    frozen, digest = machine.freeze(), machine.digest()
    machine.stage(dump)()
    fill(machine, "after")
    frozen.write(tmp_path / "former")
    frozen.close()
    assert machine.recompute_digest() == machine.digest(), (
        "closing it took nothing from the new one"
    )
    machine.close()
    again, former = Machine(tmp_path / "state.db"), Machine(":memory:")
    assert again.get("vm", "after-0") is not None
    former.stage(tmp_path / "former")()
    assert former.recompute_digest() == digest
    again.close()


def test_a_dump_that_no_place_is_left_for_changes_nothing(tmp_path):
    dump = written(Machine(":memory:"), tmp_path / "dump")
    machine = Machine(tmp_path / "state.db")
    fill(machine, "old")
    (tmp_path / "state.db.staged-1").symlink_to("/dev/full")
    with pytest.raises(FatalError, match="No space left"):
        machine.stage(dump)
    assert machine.get("vm", "old-1") is not None
    machine.close()


def test_a_dump_of_another_layout_is_refused(tmp_path):
    dump = written(Machine(":memory:"), tmp_path / "dump")
    edited = sqlite3.connect(dump)
    edited.execute("PRAGMA user_version = 99")
    edited.close()
    with pytest.raises(FatalError, match="layout 99"):
        Machine(tmp_path / "state.db").stage(dump)


def test_a_kill_at_any_step_of_a_swap_leaves_one_whole_state(tmp_path):
    source = Machine(":memory:")
    fill(source, "new", 40)
    dump = written(source, tmp_path / "dump")
    old = tmp_path / "old" / "state.db"
    old.parent.mkdir()
    machine = Machine(old)
    fill(machine, "old", 60)
    machine.close()
    shutil.copytree(old.parent, tmp_path / "whole")
    whole = Machine(tmp_path / "whole" / "state.db")
    apply_more(whole)
    digests, new_seen = {whole.digest(): "old", source.digest(): "new"}, []
    whole.close()
    for step in range(60):
        directory = tmp_path / f"killed-{step}"
        shutil.copytree(old.parent, directory)
        command = [
            sys.executable,
            "-m",
            "tests.swap_child",
            directory / "state.db",
            dump,
            str(step),
        ]
        child = subprocess.run(command, capture_output=True, check=False, timeout=20)
        assert child.returncode == -signal.SIGKILL, child.stderr.decode()
        again = Machine(directory / "state.db")
        assert again.recompute_digest() == again.digest()
        new_seen.append(digests[again.digest()] == "new")
        fill(again, "after", 1)
        again.close()
        assert [path.name for path in directory.iterdir()] == ["state.db"], "nothing is left over"
        if child.stdout:
            break
    else:
        pytest.fail("the swap never ended")
    assert new_seen == sorted(new_seen), "once it is in place it stays"
    assert new_seen.count(False) >= 3
    assert new_seen.count(True) >= 5


def test_a_damaged_database_is_refused_in_words(tmp_path):
    (tmp_path / "state.db").write_bytes(b"SQLite format 3\x00" + bytes(5000))
    with pytest.raises(FatalError, match="start again"):
        Machine(tmp_path / "state.db")
