"""Transactions: all or nothing, once, and what stands in the way is named."""

import sqlite3
from pathlib import Path

import msgspec
import pytest

from core.errors import FatalError
from raftstate.state import machine as machine_module
from raftstate.state.machine import REMEMBER_MS, Machine
from raftstate.txn import Applied, Put, Rejected, Txn, decode_outcome, encode_txn
from tests.whole_states import dump_of, load

NOW_MS = 1_700_000_000_000


def put(id_: str, *claims: str, body: bytes = b"b", kind: str = "vm") -> Put:
    return Put(kind=kind, id=id_, name=f"name-{id_}", body=body, claims=claims)


class Log:
    """A machine and the index of its last entry; every transaction gets a request id of its own."""

    def __init__(self, path: Path | str = ":memory:") -> None:
        self.machine = Machine(path)
        self.index = 0

    def txn(self, *puts: Put, request_id: str = "", stamp_ms: int = NOW_MS, **fields) -> bytes:
        request_id = request_id or f"auto-{self.index}-{id(puts)}"
        return encode_txn(Txn(request_id=request_id, stamp_ms=stamp_ms, puts=puts, **fields))

    def entry(self, *payloads: bytes) -> list[Applied | Rejected]:
        self.index += 1
        return [decode_outcome(o) for o in self.machine.apply(self.index, payloads)]

    def do(self, *puts: Put, **fields) -> Applied | Rejected:
        (outcome,) = self.entry(self.txn(*puts, **fields))
        return outcome


@pytest.fixture
def log() -> Log:
    return Log()


def test_a_put_is_read_back_with_the_index_as_its_revision(log):
    log.do(put("a"))
    assert log.do(put("b", body=b"hello")) == Applied(index=2)
    assert log.machine.get("vm", "b") == (b"hello", 2)
    assert log.machine.get("vm", "nobody") is None
    assert log.machine.ids_by_name("vm", "name-b") == ["b"]
    assert log.machine.ids_by_name("disk", "name-b") == []


def test_a_guard_holds_only_at_the_very_revision(log):
    log.do(put("a"))
    log.do(put("a", body=b"new"))
    for stale in (0, 1, 3):
        assert log.do(put("a", body=b"bad"), guards={"vm/a": stale}) == Rejected(
            subject="vm/a", reason="guard"
        )
    assert log.machine.get("vm", "a") == (b"new", 2)
    assert isinstance(log.do(put("a"), guards={"vm/a": 2}), Applied)


def test_a_guard_of_zero_means_absent(log):
    assert isinstance(log.do(put("a"), guards={"vm/a": 0}), Applied)
    assert log.do(put("a"), guards={"vm/a": 0}).reason == "guard"
    log.do(deletes=("vm/a",))
    assert isinstance(log.do(put("a"), guards={"vm/a": 0}), Applied)


def test_a_guard_on_something_else_protects_the_whole_transaction(log):
    log.do(put("lease"))
    assert log.do(put("a"), put("b"), deletes=("vm/lease",), guards={"vm/lease": 9}).reason == (
        "guard"
    )
    assert log.machine.get("vm", "a") is None
    assert log.machine.get("vm", "lease") is not None


def test_a_claim_held_by_another_rejects_everything_and_names_the_holder(log):
    log.do(put("a", "vm.name/web"))
    digest = log.machine.digest()
    outcome = log.do(put("x"), put("b", "vm.name/web"), request_id="r")
    assert outcome == Rejected(subject="vm.name/web", reason="claim", holder="vm/a")
    assert log.machine.get("vm", "x") is None
    assert log.machine.get("vm", "b") is None
    assert log.machine.digest() != digest, "the refusal itself is remembered"


def test_a_resource_may_keep_its_own_claim(log):
    log.do(put("a", "vm.name/web"))
    assert isinstance(log.do(put("a", "vm.name/web", body=b"2")), Applied)
    assert log.machine.claim_holder("vm.name/web") == "vm/a"


def test_a_claim_is_free_after_its_holder_is_deleted_or_lets_it_go(log):
    log.do(put("a", "vm.name/web", "mac/1"))
    log.do(put("a", "vm.name/other"))
    assert isinstance(log.do(put("b", "vm.name/web", "mac/1")), Applied)
    log.do(deletes=("vm/b",))
    assert log.machine.claim_holder("vm.name/web") == ""
    assert isinstance(log.do(put("c", "vm.name/web")), Applied)


def test_one_transaction_can_hand_a_claim_over(log):
    log.do(put("a", "vm.name/web"))
    assert isinstance(log.do(put("b", "vm.name/web"), deletes=("vm/a",)), Applied)
    assert log.machine.claim_holder("vm.name/web") == "vm/b"


def test_one_transaction_can_swap_two_claims(log):
    log.do(put("a", "ip/1"), put("b", "ip/2"))
    assert isinstance(log.do(put("a", "ip/2"), put("b", "ip/1")), Applied)
    assert (log.machine.claim_holder("ip/1"), log.machine.claim_holder("ip/2")) == ("vm/b", "vm/a")
    assert log.do(put("c", "ip/2")).holder == "vm/a"


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_two_puts_of_one_transaction_cannot_share_a_claim(log, order):
    assert log.do(*(put(id_, "ip/1") for id_ in order)).reason == "claim"
    log.do(put("a", "ip/1"))
    assert log.do(*(put(id_, "ip/1") for id_ in order)).reason == "claim"
    assert log.do(put("b", "ip/1"), put("c", "ip/1"), deletes=("vm/a",)).reason == "claim"
    assert log.machine.claim_holder("ip/1") == "vm/a"


def test_later_transactions_of_an_entry_see_the_earlier_ones(log):
    first, second = (
        log.txn(put("a", "ip/1"), request_id="1"),
        log.txn(put("b", "ip/1"), request_id="2"),
    )
    outcomes = log.entry(first, second)
    assert [type(o) for o in outcomes] == [Applied, Rejected]


def test_a_repeated_request_gets_its_first_outcome_and_changes_nothing(log):
    assert log.do(put("a", body=b"1"), request_id="r") == Applied(index=1)
    assert log.do(put("a", body=b"2"), request_id="r") == Applied(index=1)
    assert log.machine.get("vm", "a") == (b"1", 1)


def test_a_repeated_refusal_stays_a_refusal_though_it_would_be_possible_now(log):
    log.do(put("a", "ip/1"))
    refusal = log.do(put("b", "ip/1"), request_id="r")
    log.do(deletes=("vm/a",))
    assert log.do(put("b", "ip/1"), request_id="r") == refusal
    assert log.machine.get("vm", "b") is None


def test_a_repeat_in_the_same_entry_is_applied_once(log):
    payload = log.txn(put("a"), request_id="r")
    assert log.entry(payload, payload) == [Applied(index=1), Applied(index=1)]


def test_a_repeat_is_known_after_a_snapshot_too(log):
    log.do(put("a"), request_id="r")
    other = Log()
    load(other.machine, dump_of(log.machine))
    other.index = 5
    assert other.do(put("a", body=b"again"), request_id="r") == Applied(index=1)
    assert other.machine.get("vm", "a") == (b"b", 1)


def test_a_repeat_is_known_after_a_restart(tmp_path):
    log = Log(tmp_path / "state.db")
    log.do(put("a"), request_id="r")
    log.machine.close()
    again = Log(tmp_path / "state.db")
    again.index = again.machine.applied()
    assert again.index == 1
    assert again.do(put("a", body=b"again"), request_id="r") == Applied(index=1)


def test_requests_are_forgotten_ten_minutes_of_stamps_later_and_not_before(log):
    log.do(put("a", body=b"1"), request_id="r", stamp_ms=NOW_MS)
    log.do(put("x"), stamp_ms=NOW_MS + REMEMBER_MS)
    assert log.do(put("a", body=b"2"), request_id="r", stamp_ms=NOW_MS) == Applied(index=1)
    log.do(put("x"), stamp_ms=NOW_MS + REMEMBER_MS + 1)
    assert log.machine.remembered("r") is None
    assert log.do(put("a", body=b"3"), request_id="r", stamp_ms=NOW_MS) == Applied(index=5)


def test_a_proposer_whose_clock_is_behind_is_remembered_too(log):
    log.do(put("x"), stamp_ms=NOW_MS)
    log.do(put("a", body=b"1"), request_id="r", stamp_ms=NOW_MS - 10 * REMEMBER_MS)
    assert log.do(put("a", body=b"2"), request_id="r") == Applied(index=2)


def test_after_a_quiet_time_old_requests_are_forgotten_some_at_a_time(log):
    log.entry(*(log.txn(request_id=f"r{n:03}") for n in range(300)))
    left = []
    for n in range(4):
        log.do(put("x"), request_id=f"late-{n}", stamp_ms=NOW_MS + REMEMBER_MS + 1)
        left.append(sum(log.machine.remembered(f"r{n:03}") is not None for n in range(300)))
    assert left == [300 - 104, 300 - 208, 0, 0]
    assert log.machine.recompute_digest() == log.machine.digest()


def test_requests_are_forgotten_by_the_last_stamp_of_an_entry(log):
    late = NOW_MS + 2 * REMEMBER_MS
    log.entry(
        log.txn(request_id="a"), log.txn(request_id="b", stamp_ms=late), log.txn(request_id="c")
    )
    assert log.machine.remembered("a") is not None
    log.entry(log.txn(request_id="d"), log.txn(request_id="e", stamp_ms=late))
    assert [n for n in "abcde" if log.machine.remembered(n)] == ["b", "e"]


def test_no_more_requests_are_remembered_than_the_limit(log, monkeypatch):
    monkeypatch.setattr(machine_module, "REMEMBER_COUNT", 5)
    for number in range(9):
        log.do(put("a"), request_id=f"r{number}", stamp_ms=NOW_MS + number)
    assert [n for n in range(9) if log.machine.remembered(f"r{n}")] == [4, 5, 6, 7, 8]
    other = Machine(":memory:")
    load(other, dump_of(log.machine))
    log.machine.apply(10, [log.txn(put("b"), request_id="s", stamp_ms=NOW_MS + 10)])
    other.apply(10, [log.txn(put("b"), request_id="s", stamp_ms=NOW_MS + 10)])
    assert log.machine.remembered("r4") is None
    assert other.digest() == log.machine.digest(), "the count survives a snapshot"


TXN = {"type": "txn.v1", "request_id": "r", "stamp_ms": 1}


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"type": "txn.v9"}),
        msgspec.msgpack.encode(TXN | {"puts": 7}),
        msgspec.msgpack.encode(TXN | {"stamp_ms": -1}),
        msgspec.msgpack.encode(TXN | {"stamp_ms": 1 << 63}),
        msgspec.msgpack.encode(TXN | {"request_id": "marker"}).replace(b"marker", b"\xff\xfe----"),
        encode_txn(Txn(request_id="r", stamp_ms=1))[:-1],
        msgspec.msgpack.encode(TXN | {"of a newer version": 1}),
        msgspec.msgpack.encode(TXN | {"z": 1})[:-1] + b"\x91" * 100_000 + b"\x00",
        msgspec.msgpack.encode(TXN | {"puts": [["vm", "a", "a", b"", [], 1]]}),
    ],
)
def test_an_unreadable_entry_is_refused_and_the_next_one_works(log, payload):
    assert log.entry(payload) == [Rejected(subject="", reason="unreadable")]
    assert log.machine.applied() == 1
    assert log.do(put("a")) == Applied(index=2)


def test_an_unreadable_transaction_does_not_spoil_its_neighbours(log):
    outcomes = log.entry(log.txn(put("a"), request_id="1"), b"\xc1", log.txn(put("b")))
    assert [getattr(o, "reason", "applied") for o in outcomes] == [
        "applied",
        "unreadable",
        "applied",
    ]


def test_a_kind_with_a_slash_is_refused_because_keys_would_be_ambiguous(log):
    log.do(put("b/c", kind="a"))
    outcome = log.do(put("c", kind="a/b"), put("x"), guards={"a/b/c": 1})
    assert outcome == Rejected(subject="a/b", reason="unreadable")
    assert log.machine.get("vm", "x") is None
    assert log.machine.get("a", "b/c") is not None


def test_a_key_without_a_slash_names_nothing(log):
    assert isinstance(log.do(put("", kind="vm"), guards={"vm": 0}, deletes=("vm",)), Applied)
    assert isinstance(log.do(guards={"vm/": 1}), Applied)


def test_the_last_of_two_puts_of_one_resource_counts_with_its_claims(log):
    log.do(put("a", "ip/1"))
    log.do(put("a", "ip/1", "ip/2", body=b"1"), put("a", "ip/3", body=b"2"))
    assert log.machine.get("vm", "a") == (b"2", 2)
    holders = [log.machine.claim_holder(f"ip/{n}") for n in (1, 2, 3)]
    assert holders == ["", "", "vm/a"]
    assert log.machine.recompute_digest() == log.machine.digest()


def test_an_entry_of_many_transactions_does_what_as_many_entries_do(log):
    apart = Log()
    payloads = [
        log.txn(put(f"{n % 70}", f"ip/{n % 50}"), request_id=f"r{n}", deletes=(f"vm/{n % 33}",))
        for n in range(300)
    ]
    packed = log.entry(*payloads)
    assert [type(o) for o in packed] == [type(apart.entry(p)[0]) for p in payloads]
    for kind in ("vm",):
        assert log.machine.all_ids(kind) == apart.machine.all_ids(kind)
    assert log.machine.recompute_digest() == log.machine.digest()


def test_a_guard_of_any_size_is_only_compared(log):
    assert log.do(put("a"), guards={"vm/a": (1 << 64) - 1}).reason == "guard"


def test_names_and_ids_with_odd_characters_are_kept_apart(log):
    odd = ["a/b", "a", "'; DROP TABLE resource; --", "ü", "a\x00b", "%"]
    log.do(*(put(id_, f"name/{id_}") for id_ in odd))
    assert sorted(body for body in (log.machine.claim_holder(f"name/{i}") for i in odd)) == sorted(
        f"vm/{i}" for i in odd
    )
    log.do(deletes=("vm/a/b",))
    assert log.machine.get("vm", "a") is not None
    assert log.machine.get("vm", "a/b") is None


def test_a_dump_carries_everything_over(log):
    log.do(put("a", "ip/1"), put("b"))
    log.do(put("c", "ip/1"), request_id="refused")
    other = Log()
    other.do(put("old", "ip/1"))
    load(other.machine, dump_of(log.machine))
    assert other.machine.digest() == log.machine.digest()
    assert other.machine.applied() == 2
    assert other.machine.get("vm", "old") is None
    assert other.machine.claim_holder("ip/1") == "vm/a"


def test_a_snapshot_loaded_into_a_file_is_there_after_a_restart(log, tmp_path):
    log.do(put("a", "ip/1"))
    machine = Machine(tmp_path / "state.db")
    load(machine, dump_of(log.machine))
    machine.close()
    again = Machine(tmp_path / "state.db")
    assert (again.digest(), again.applied()) == (log.machine.digest(), 1)


def _foreign() -> bytes:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE song (title)")
    return database.serialize()


def _without_an_index(dump: bytes) -> bytes:
    """Return a dump that every query can still read, whose pages don't add up any more."""
    database = sqlite3.connect(":memory:")
    database.deserialize(dump[:18] + b"\x01\x01" + dump[20:])
    database.execute("PRAGMA writable_schema = ON")
    database.execute("DELETE FROM sqlite_master WHERE name = 'resource_name'")
    database.commit()
    return database.serialize()


def _damaged(how: str) -> bytes:
    log = Log()
    for number in range(200):
        log.do(put(f"id-{number}", f"claim/{number}", body=bytes(300)))
    whole = dump_of(log.machine)
    return {
        "empty": b"",
        "no database": b"SQLite format 3 or so" * 20,
        "header only": whole[:100],
        "cut": whole[: len(whole) // 2],
        "a page short": whole[:-4096],
        "zeroed pages": whole[:8192] + bytes(16384) + whole[24576:],
        "another program's": _foreign(),
        "lost pages": _without_an_index(whole),
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        "empty",
        "no database",
        "header only",
        "cut",
        "a page short",
        "zeroed pages",
        "another program's",
        "lost pages",
    ],
)
def test_a_damaged_snapshot_is_refused_and_changes_nothing(log, how):
    log.do(put("a", "ip/1"))
    digest = log.machine.digest()
    told = []
    log.machine.on_applied(lambda index, keys: told.append(keys))
    with pytest.raises(FatalError, match="snapshot"):
        load(log.machine, _damaged(how))
    assert log.machine.digest() == digest
    assert told == []
    assert log.do(put("b")) == Applied(index=2)


def test_a_full_disk_is_fatal_and_leaves_the_state_of_the_entry_before(tmp_path):
    log = Log(tmp_path / "state.db")
    log.do(put("a"))
    digest = log.machine.digest()
    # As large as it is now and no larger: SQLite says "database or disk is full", as on a full file system.
    log.machine._db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(FatalError, match="full"):
        log.do(put("b"), put("c", body=bytes(2_000_000)))
    assert log.machine.applied() == 1
    assert log.machine.get("vm", "b") is None
    log.machine.close()
    assert Machine(tmp_path / "state.db").digest() == digest


def test_listeners_hear_each_entry_once_with_the_keys_that_changed(log):
    told = []
    log.machine.on_applied(lambda index, keys: told.append((index, keys)))
    log.do(put("a", "ip/1"), put("d", kind="disk"))
    log.do(put("b", "ip/1"))
    log.entry(log.txn(deletes=("vm/a",)), log.txn(put("c"), request_id="c"))
    load(log.machine, dump_of(log.machine))
    assert told == [
        (1, {"vm/a", "disk/d"}),
        (2, frozenset()),
        (3, {"vm/a", "vm/c"}),
        (3, {"*"}),
    ]


def test_a_change_tells_apart_what_is_there_and_what_is_gone(log):
    told = []
    log.machine.on_change(told.append)
    log.do(put("a"), put("b"))
    log.entry(
        log.txn(put("came-and-went"), request_id="1"),
        log.txn(put("c"), request_id="2", deletes=("vm/came-and-went", "vm/a", "vm/never")),
        log.txn(put("b"), request_id="3", deletes=("vm/b",)),
    )
    assert (told[1].puts, told[1].deletes) == ({"vm/b", "vm/c"}, {"vm/a"})


def test_a_listener_that_fails_stops_neither_the_log_nor_the_other_listeners(log):
    told = []

    def fails(index, keys) -> None:
        raise ZeroDivisionError

    log.machine.on_applied(fails)
    log.machine.on_applied(lambda index, keys: told.append(index))
    assert log.do(put("a")) == Applied(index=1)
    load(log.machine, dump_of(log.machine))
    assert told == [1, 1]


def test_reading_on_never_ends_inside_a_revision(log):
    log.do(put("a"))
    log.entry(*(log.txn(put(f"b{n}"), request_id=f"b{n}") for n in range(4)))
    log.do(put("c"))
    seen, after = [], 0
    while batch := log.machine.scan_since("vm", after, 2):
        seen += [revision for _, revision in batch]
        after = batch[-1][1]
    assert seen == [1, 2, 2, 2, 2, 3]
    assert [r for _, r in log.machine.scan_since("vm", 0, 1)] == [1]
    assert len(log.machine.scan_since("vm", 0, 100)) == 6
