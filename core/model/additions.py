"""Resource types that plug-ins bring: added to the kinds of this process, when they keep to what every host must rely on.

Called once by the composition root, before the state is opened. A host without the plug-in stores the same resources without
knowing their kind (`raftstate.state.schema`), and still has to delete them along with what they belong to. So whatever the
state or a deletion depends on is written with each resource (`raftstate.relation_guards.reference_claims`), and what only
a plug-in's code could tell (claims of its own, sealed secrets, detaching) isn't allowed.
"""

from __future__ import annotations

import re
from functools import cache
from typing import get_args, get_origin

import msgspec

from core.attributes import attributes_of, bare
from core.errors import FatalError
from core.model import (
    COLLECTIONS,
    KINDS,
    LINKS,
    RESOURCE_TYPES,
    OnDelete,
    Resource,
    kind_of,
    links_of,
)

WORD = re.compile(r"[a-z]+(-[a-z]+)*")
FIELD = re.compile(r"[a-z]+(_[a-z0-9]+)*")
BASE = frozenset({"id", "name", "revision", "created_ms"})
BUILT_IN = frozenset(KINDS)
TARGETS = frozenset(
    {
        "data-center",
        "cluster",
        "host",
        "vm",
        "disk",
        "nic",
        "image",
        "image-storage",
        "data-storage",
    }
    | {"distributed-switch", "port-group", "security-group"}
)
"""Kinds that are deleted by what their relations say; others go by rules of their own."""
TAKEN = frozenset(
    {"certificates", "join", "local", "login", "logout", "members", "secrets", "state", "status"}
    | {"whoami"}
)


def added_types() -> tuple[type[Resource], ...]:
    """Return the types that were added."""
    return tuple(type_ for kind, type_ in KINDS.items() if kind not in BUILT_IN)


def add_type(type_: type[Resource]) -> None:
    """Make a type known to everything that asks for kinds, collections and relations.

    Raises:
        FatalError: it isn't as such a type must be; the message says why. Nothing was changed.
    """
    check_type(type_)
    KINDS[kind_of(type_)] = type_
    COLLECTIONS[type_.PLURAL] = type_
    _relink()


def remove_type(type_: type[Resource]) -> None:
    """Forget a type that was added."""
    KINDS.pop(kind_of(type_), None)
    COLLECTIONS.pop(type_.PLURAL, None)
    _relink()


def check_type(type_: object) -> None:
    """Let a type pass that can be added.

    Raises:
        FatalError: it can't; the message says why.
    """
    if not (isinstance(type_, type) and issubclass(type_, Resource) and type_ is not Resource):
        raise FatalError("it is no class derived from core.model.Resource")
    config = type_.__struct_config__
    tag, _, version = str(config.tag).rpartition(".")
    if not (config.frozen and WORD.fullmatch(tag) and re.fullmatch(r"v[0-9]+", version)):
        raise FatalError("it must be frozen and have a tag such as licence.v1")
    if tag in KINDS or type_.PLURAL in COLLECTIONS or type_.PLURAL in TAKEN:
        raise FatalError(f"the kind {tag!r} or the collection {type_.PLURAL!r} is taken: rename it")
    if not WORD.fullmatch(type_.PLURAL):
        raise FatalError("PLURAL must name its collection, in a-z and '-'")
    if type_.__name__ in {known.__name__ for known in KINDS.values()}:
        raise FatalError(f"the class name {type_.__name__!r} is taken: rename it")
    if type_.claims is not Resource.claims or type_.SECRET or type_.SEALED:
        raise FatalError("claims() of its own, SECRET and SEALED are not possible in a plug-in")
    _check_attributes(type_)
    _check_relations(type_)


def _check_attributes(type_: type[Resource]) -> None:
    explained = {relation.field for relation in type_.RELATIONS} | type_.NOT_RELATIONS
    for name, one in attributes_of(type_).items():
        if not FIELD.fullmatch(name) or not one.description:
            raise FatalError(f"attribute {name!r}: say what it is, by attribute(...)")
        if re.search(r"_ids?$", name) and name not in explained:
            raise FatalError(f"attribute {name!r}: say by RELATIONS what it points to")
    for field in msgspec.structs.fields(type_):
        if field.name not in BASE and field.required and field.type is None:
            raise FatalError(f"attribute {field.name!r} has no type")


def _check_relations(type_: type[Resource]) -> None:
    fields = {field.name: bare(field.type) for field in msgspec.structs.fields(type_)}
    kind, known = kind_of(type_), {*KINDS, kind_of(type_)}
    for relation in type_.RELATIONS:
        many = get_origin(fields.get(relation.field)) is tuple
        plain = get_args(fields[relation.field])[0] if many else fields.get(relation.field)
        if plain is not str or many != relation.many:
            raise FatalError(f"relation {relation.name!r}: {relation.field!r} must hold ids")
        allowed = TARGETS | (known - BUILT_IN)
        if relation.target not in allowed:
            raise FatalError(
                f"relation {relation.name!r} can't lead to {relation.target!r}: "
                f"there are {', '.join(sorted(allowed))}"
            )
        if relation.on_delete is OnDelete.DETACH:
            raise FatalError(
                f"relation {relation.name!r}: hosts without the plug-in can't detach; refuse or go along"
            )
        if not (FIELD.fullmatch(relation.name) and FIELD.fullmatch(relation.reverse)):
            raise FatalError(f"relation {relation.name!r} needs names in a-z and '_'")
        if relation.name in fields or relation.reverse in attributes_of(
            KINDS.get(relation.target, type_)
        ):
            raise FatalError(f"relation {relation.name!r} is called like an attribute")
    try:
        links_of((*KINDS.values(), type_))
    except AssertionError as error:
        raise FatalError(f"a relation of {kind!r} has a name that is taken: {error}") from error


def _relink() -> None:
    LINKS.clear()
    LINKS.update(links_of((*RESOURCE_TYPES, *added_types())))


def stand_in(kind: str, id_: str, name: str, revision: int) -> Resource:
    """Return what stands for a resource of which this host may know no more than where it is."""
    return _stand_in_type(kind)(id=id_, name=name, revision=revision)


@cache
def _stand_in_type(kind: str) -> type[Resource]:
    made = msgspec.defstruct(
        "StandIn", [], bases=(Resource,), tag=f"{kind}.v1", frozen=True, kw_only=True
    )
    assert issubclass(made, Resource), "derived from it"
    return made
