"""The model's relations: every id is explained, both ends have their own names, and nothing secret is forgotten."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from core.attributes import structs_in
from core.model import (
    COLLECTIONS,
    KINDS,
    LINKS,
    RESOURCE_TYPES,
    Cluster,
    Host,
    Relation,
    Resource,
    kind_of,
    links_of,
)


def fields_of(type_: Any, prefix: str = "") -> Iterator[str]:
    """Yield all attributes of a struct, those of structs within as `holder.attribute`."""
    for field in msgspec.structs.fields(type_):
        yield prefix + field.name
        for inner in structs_in(field.type):
            yield from fields_of(inner, f"{prefix}{field.name}.")


@pytest.mark.parametrize("type_", RESOURCE_TYPES, ids=kind_of)
def test_every_attribute_that_looks_like_an_id_says_what_it_points_to(type_):
    looks_like = {f for f in fields_of(type_) if re.search(r"_ids?$", f)}
    related = [relation.field for relation in type_.RELATIONS]
    assert sorted({*related, *type_.NOT_RELATIONS}) == sorted(looks_like)
    assert len(related) == len(set(related))
    assert not type_.NOT_RELATIONS & set(related)


@pytest.mark.parametrize("type_", RESOURCE_TYPES, ids=kind_of)
def test_a_list_of_ids_points_to_many_and_a_single_id_to_one(type_):
    for relation in type_.RELATIONS:
        assert relation.target in KINDS
        assert relation.many == (relation.field.endswith("_ids") or "." in relation.field)


@pytest.mark.parametrize("type_", RESOURCE_TYPES, ids=kind_of)
def test_relations_and_attributes_have_names_of_their_own(type_):
    links = LINKS[kind_of(type_)]
    fields = {f.name for f in msgspec.structs.fields(type_)}
    assert not links.keys() & fields
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in links)


def test_a_relation_is_seen_from_both_ends():
    assert LINKS["vm"]["host"].target == "host"
    assert not LINKS["vm"]["host"].many
    assert LINKS["host"]["vms"].target == "vm"
    assert LINKS["host"]["vms"].many
    assert LINKS["image"]["hosts"].relation == LINKS["host"]["images"].relation


def test_two_relations_of_one_name_are_refused():
    class Twin(Resource, tag="twin.v1", frozen=True, kw_only=True):
        RELATIONS = (
            Relation("a_id", target="cluster", name="a", reverse="twins"),
            Relation("b_id", target="cluster", name="b", reverse="twins"),
        )
        a_id: str = ""
        b_id: str = ""

    with pytest.raises(AssertionError, match="twice"):
        links_of((*RESOURCE_TYPES, Twin))
    with pytest.raises(AssertionError, match="no kind data-center"):
        links_of((Cluster, Host))


def test_collections_have_names_for_paths():
    assert len(COLLECTIONS) == len([type_ for type_ in RESOURCE_TYPES if type_.PLURAL])
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*s", plural) for plural in COLLECTIONS)


@pytest.mark.parametrize("type_", RESOURCE_TYPES, ids=kind_of)
def test_what_looks_secret_is_declared_secret(type_):
    fields = msgspec.structs.fields(type_)
    suspicious = {f.name for f in fields if re.search("secret|sealed|password|private", f.name)}
    assert suspicious <= type_.SECRET
    assert {f.name for f in fields} >= type_.SECRET
    assert set(fields_of(type_)) >= type_.UNSEARCHED
