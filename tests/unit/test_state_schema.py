"""Tables made from types: what becomes a column, and what happens to the rows when the types change."""

import sqlite3
from enum import StrEnum
from typing import ClassVar

import msgspec
import pytest

from core.errors import FatalError
from core.model import KINDS, RESOURCE_TYPES, VM, Mesh, Resource
from raftstate.state.machine import Machine
from raftstate.state.schema import table_of
from raftstate.txn import Applied, Put, Txn, decode_outcome, encode_txn


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Old(Resource, tag="thing.v1", frozen=True, kw_only=True):
    """A kind as an older version knows it."""

    host_id: str
    size: int = 3


class Part(msgspec.Struct, frozen=True):
    x: int = 0


class New(Resource, tag="thing.v1", frozen=True, kw_only=True):
    """The same kind, two versions later."""

    INDEXED: ClassVar[tuple[str, ...]] = ("colour",)

    host_id: str
    colour: Colour = Colour.BLUE
    ratio: float = 0.5
    fast: bool = True
    owner: str | None = None
    parts: tuple[Part, ...] = ()
    labels: dict[str, str] = {}


def put(
    machine: Machine, resource: Resource, kind: str = "thing", body: bytes | None = None
) -> None:
    index = machine.applied() + 1
    one = Put(
        kind=kind,
        id=resource.id,
        name=resource.name,
        body=msgspec.msgpack.encode(resource) if body is None else body,
        claims=resource.claims(),
    )
    txn = Txn(request_id=f"r{index}", stamp_ms=1, puts=(one,))
    (outcome,) = machine.apply(index, [encode_txn(txn)])
    assert decode_outcome(outcome) == Applied(index=index), "whatever the body is"


def columns(machine: Machine, id_: str) -> dict[str, object]:
    table = machine.table("thing")
    names = [column.name for column in (*table.columns, *table.nested)]
    fields = ", ".join(f'"{name}"' for name in names)
    query = f"SELECT {fields} FROM {table.name} WHERE id = ?"  # noqa: S608 - the schema's
    row = machine._db.execute(query, (id_,)).fetchone()
    return dict(zip(names, row, strict=True))


def indexed(machine: Machine, kind: str) -> set[str]:
    rows = machine._db.execute(
        "SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    )
    name = machine.table(kind).name
    return {sql.rsplit('"', 2)[1] for (sql,) in rows if f" ON {name} " in sql}


def test_every_attribute_is_a_column_and_lists_structs_and_maps_are_json():
    names = [column.name for column in table_of(New).columns]
    assert names == ["created_ms", "host_id", "colour", "ratio", "fast", "owner"]
    assert [nested.name for nested in table_of(New).nested] == ["parts", "labels"]
    machine = Machine(":memory:", types=(New,))
    put(machine, New(id="a", name="n", created_ms=7, host_id="h", fast=False, owner="me"))
    assert columns(machine, "a") == {
        "created_ms": 7,
        "host_id": "h",
        "colour": "blue",
        "ratio": 0.5,
        "fast": 0,
        "owner": "me",
        "parts": "[]",
        "labels": "{}",
    }
    put(machine, New(id="a", name="n", host_id="h", parts=(Part(1), Part(2)), labels={"x": "ü'"}))
    assert columns(machine, "a")["parts"] == '[{"x":1},{"x":2}]'
    assert columns(machine, "a")["labels"] == '{"x":"ü\'"}'


def test_what_is_secret_or_too_long_is_kept_in_no_column_of_json():
    vm_table, mesh_table = table_of(VM), table_of(Mesh)
    nested = {one.name: one for one in vm_table.nested}
    assert nested.keys() == {"tags", "start_after_ids", "cloud_init"}
    assert set(nested["cloud_init"].fields) == {"hostname", "ssh_keys"}
    assert {one.name for one in mesh_table.nested} == {
        "ha_profiles_before",
        "arbitration_addresses",
    }
    assert not {column.name for column in mesh_table.columns} & Mesh.SECRET


def test_a_nested_attribute_that_cannot_be_read_costs_no_other_column():
    machine = Machine(":memory:", types=(New,))
    body = msgspec.msgpack.encode({"type": "thing.v1", "host_id": "h", "parts": ["of the future"]})
    put(machine, New(id="a", name="n", host_id="h"), body=body)
    assert columns(machine, "a")["host_id"] == "h"
    assert columns(machine, "a")["parts"] is None


def test_names_revisions_ids_of_others_and_what_the_model_says_are_indexed():
    assert indexed(Machine(":memory:", types=(New,)), "thing") == {
        "name",
        "revision",
        "host_id",
        "colour",
    }
    machine = Machine(":memory:")
    for type_ in RESOURCE_TYPES:
        table = table_of(type_)
        ids = {column.name for column in table.columns if column.name.endswith("_id")}
        wanted = {"name", "revision", *type_.INDEXED, *(ids - type_.NOT_INDEXED)}
        assert indexed(machine, table.kind) == wanted
        assert table.searchable.keys() >= set(type_.INDEXED), "only scalars can be indexed"


def test_a_point_read_and_a_read_by_host_use_an_index():
    machine = Machine(":memory:")
    for query in (machine.table("vm").get, 'SELECT id FROM "kind vm" WHERE host_id = ?'):
        plan = machine._db.execute(f"EXPLAIN QUERY PLAN {query}", ("x",)).fetchall()
        assert "USING INDEX" in str(plan), plan


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x91" * 100_000,
        msgspec.msgpack.encode({"type": "thing.v2", "host_id": "h"}),
        msgspec.msgpack.encode({"type": "thing.v1", "host_id": 7}),
        msgspec.msgpack.encode({"type": "thing.v1", "host_id": "h", "created_ms": (1 << 64) - 1}),
        msgspec.msgpack.encode({"type": "thing.v1", "deep": 1})[:-1] + b"\x91" * 100_000 + b"\x00",
    ],
)
def test_a_body_that_cannot_be_read_is_stored_all_the_same_without_columns(body):
    machines = [Machine(":memory:", types=(New,)), Machine(":memory:", types=())]
    for machine in machines:
        put(machine, New(id="a", name="n", host_id="h"), body=body)
        assert machine.get("thing", "a") == (body, 1)
        assert machine.recompute_digest() == machine.digest()
    assert set(columns(machines[0], "a").values()) == {None}
    assert machines[0].digest() == machines[1].digest()


def test_attributes_that_a_body_has_not_are_their_defaults_and_unknown_ones_are_passed_over():
    machine = Machine(":memory:", types=(New,))
    body = msgspec.msgpack.encode({"type": "thing.v1", "host_id": "h", "future": {"x": [1]}})
    put(machine, New(id="a", name="n", host_id="h"), body=body)
    assert columns(machine, "a")["colour"] == "blue"
    assert columns(machine, "a")["ratio"] == 0.5


def test_a_kind_of_a_newer_version_waits_and_gets_its_table_after_the_upgrade(tmp_path):
    machine = Machine(tmp_path / "db", types=())
    thing = New(id="a", name="n", host_id="h1", colour=Colour.RED)
    put(machine, thing)
    assert machine.get("thing", "a") == (msgspec.msgpack.encode(thing), 1)
    assert machine.ids_by_name("thing", "n") == ["a"]
    assert [revision for _, revision in machine.scan("thing")] == [1]
    assert machine.claim_holder("thing.name/n") == "thing/a"
    digest = machine.digest()
    machine.close()
    for types in ((New,), (), (Old,), (New, VM)):
        machine = Machine(tmp_path / "db", types=types)
        assert (machine.digest(), machine.recompute_digest()) == (digest, digest)
        assert machine.get("thing", "a") == (msgspec.msgpack.encode(thing), 1)
        if types:
            assert machine.ids_where("thing", "host_id", "h1") == ["a"]
        machine.close()


def test_columns_are_filled_again_when_the_model_has_changed(tmp_path):
    machine = Machine(tmp_path / "db", types=(Old,))
    for number in range(300):
        put(machine, New(id=f"{number}", name=f"n{number}", host_id=f"h{number}", owner="me"))
    assert columns(machine, "7") == {"created_ms": 0, "host_id": "h7", "size": 3}
    machine.close()
    machine = Machine(tmp_path / "db", types=(New,))
    assert columns(machine, "7")["owner"] == "me"
    assert indexed(machine, "thing") == {"name", "revision", "host_id", "colour"}
    assert len(machine.scan("thing")) == 300
    machine.close()


def test_an_unchanged_model_leaves_the_tables_alone(tmp_path):
    def made(machine: Machine) -> list[object]:
        return machine._db.execute("SELECT name, rootpage FROM sqlite_master").fetchall()

    machine = Machine(tmp_path / "db")
    before = made(machine)
    machine.close()
    machine = Machine(tmp_path / "db")
    assert made(machine) == before
    assert {kind for (kind,) in machine._db.execute("SELECT kind FROM kind")} == set(KINDS)
    machine.close()


def test_a_dump_of_another_version_is_brought_up_to_date(tmp_path):
    other = Machine(":memory:", types=(Old,))
    put(other, New(id="a", name="n", host_id="h", owner="me"))
    put(other, New(id="p", name="p", host_id="h"), kind="plug-in")
    frozen = other.freeze()
    frozen.write(tmp_path / "dump")
    for place in (":memory:", tmp_path / "db"):
        machine = Machine(place, types=(New,))
        machine.stage(tmp_path / "dump")()
        assert columns(machine, "a")["owner"] == "me"
        assert machine.get("plug-in", "p") is not None
        assert machine.recompute_digest() == other.digest()
        machine.close()


def test_a_database_of_another_layout_is_refused(tmp_path):
    strange = sqlite3.connect(tmp_path / "db")
    strange.execute("CREATE TABLE resource (kind)")
    strange.close()
    with pytest.raises(FatalError, match="layout 0"):
        Machine(tmp_path / "db")


def test_kinds_that_differ_by_odd_characters_are_kept_apart():
    machine = Machine(":memory:", types=(New,))
    kinds = ["thing", "Thing", "thing.v1", "", "claim", "resource", '"; DROP TABLE claim; --', "ü"]
    for kind in kinds:
        put(machine, Old(id=f"i{len(kind)}", name=f"{kind}!", host_id="h"), kind=kind)
    for kind in kinds:
        assert machine.ids_by_name(kind, f"{kind}!") == [f"i{len(kind)}"]
        assert len(machine.scan(kind)) == 1
    assert machine.recompute_digest() == machine.digest()


def test_an_audit_has_no_index_that_nothing_looks_up_by(tmp_path):
    """There is one for each change, and each index of random values is one more page to write on every host."""
    machine = Machine(tmp_path / "state.db")
    rows = machine._db.execute("SELECT name FROM sqlite_master WHERE type = 'index'").fetchall()
    found = {name.removeprefix("audit by ") for (name,) in rows if name.startswith("audit by ")}
    assert found == {"name", "revision", "operator", "address", "subject", "created_ms"}
    machine.close()
