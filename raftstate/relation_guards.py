"""The relations of what a transaction stores, held to their declarations: no id that leads nowhere, none too many or too few.

Called by `raftstate.store` for every transaction, so it holds for all that users and services write. A look at this agent's
copy alone would race with a deletion elsewhere. So each target that a resource comes to point to is guarded, at the revision
seen, which it keeps only while it exists; and it is guarded that no deletion of it has begun (`core.model.Deletion`), whose
plan was made without the newcomer. What a resource pointed to before isn't looked at again: a copy that has such an id, from
whenever, must still be able to change. Memories (`KEEP`) may name what is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from core.errors import ConflictError, InvalidError
from core.model import KINDS, Deletion, OnDelete, Relation, Resource, ids_in, key_of, kind_of
from core.model.additions import BUILT_IN

RevisionOf = Callable[[str, str], int]
"""Returns the revision of a resource by kind and id, 0 when there is none."""

REFERENCE = "points-to"


@dataclass(frozen=True, slots=True)
class Reference:
    """That a resource of a plug-in's kind is related to another one, as its claims say on every host."""

    kind: str
    id: str
    relation: Relation


def relation_guards(
    puts: Iterable[Resource],
    deletes: Iterable[Resource],
    *,
    stored: Callable[[Resource], Resource | None],
    revision_of: RevisionOf,
    target_of: Callable[[str, str], Resource | None] = lambda _, __: None,
) -> dict[str, int]:
    """Return what else a transaction must guard, so that each relation that it makes has its target.

    `stored` gives a resource as it is now, None for a new one; `target_of` one by kind and id, None if it can't be read.

    Raises:
        InvalidError: a relation that must be there isn't, or has more targets than it may have.
        ConflictError: a target doesn't exist, or goes in this same transaction.
    """
    puts, gone = tuple(puts), {key_of(resource) for resource in deletes}
    made = {key_of(resource) for resource in puts}
    guards: dict[str, int] = {}
    for resource in puts:
        kept = [r for r in resource.RELATIONS if r.on_delete is not OnDelete.KEEP]
        if not kept:
            continue
        _check_numbers(resource, kept)
        before = stored(resource)
        known = {key for key, _ in _targets(before, kept)} if before is not None else set()
        for key, relation in _targets(resource, kept):
            if key in known or (key in made and key not in gone):
                continue
            kind, _, id_ = key.partition("/")
            revision = 0 if key in gone else revision_of(kind, id_)
            if not revision:
                raise ConflictError(
                    _leads_nowhere(resource, relation, id_, revision_of), code="conflict-relation"
                )
            if kind_of(resource) not in BUILT_IN:
                _refuse_leaving(resource, relation, target_of(kind, id_))
            guards[key] = revision
            fence = f"{kind_of(Deletion)}/{Deletion.id_of(key)}"
            if fence not in gone:
                guards[fence] = 0
    return guards


def unique_claims(resource: Resource) -> tuple[str, ...]:
    """Return the claims by which a target is related to one such resource only."""
    return tuple(
        f"{kind_of(resource)}.{relation.name}/{id_}"
        for relation in resource.RELATIONS
        if relation.unique
        for id_ in dict.fromkeys(ids_in(resource, relation.field))
    )


def reference_claims(resource: Resource) -> tuple[str, ...]:
    """Return the claims that say what a resource of a plug-in's kind is related to: hosts without the plug-in go by them.

    They name the resource itself, so that two never ask for the same one.
    """
    kind = kind_of(resource)
    if kind in BUILT_IN:
        return ()
    return tuple(
        "/".join((REFERENCE, r.target, id_, str(r.on_delete), kind, resource.id, r.name))
        for r in resource.RELATIONS
        if r.on_delete is not OnDelete.KEEP
        for id_ in dict.fromkeys(ids_in(resource, r.field))
    )


def references_prefix(key: str) -> str:
    """Return how the claims begin that point to `kind/id`."""
    return f"{REFERENCE}/{key}/"


def read_reference(claim: str) -> Reference | None:
    """Return what such a claim says, None if this version can't read it."""
    parts = claim.split("/")
    if len(parts) != 7 or parts[0] != REFERENCE or parts[3] not in set(OnDelete):
        return None
    _, target, _, on_delete, kind, id_, name = parts
    relation = Relation(
        "", target=target, name=name, reverse="", many=True, on_delete=OnDelete(on_delete)
    )
    return Reference(kind, id_, relation)


def _refuse_leaving(resource: Resource, relation: Relation, target: Resource | None) -> None:
    if target is not None and target.is_leaving():
        raise ConflictError(
            f"{_spoken(resource)} can't have {relation.name} {target.name!r}: that is coming or going right now",
            code="conflict-relation",
        )


def _targets(resource: Resource, relations: Iterable[Relation]) -> Iterator[tuple[str, Relation]]:
    for relation in relations:
        for id_ in ids_in(resource, relation.field):
            yield f"{relation.target}/{id_}", relation


def _check_numbers(resource: Resource, relations: Iterable[Relation]) -> None:
    for relation in relations:
        number = len(ids_in(resource, relation.field))
        if relation.required and not number:
            raise InvalidError(
                f"{_spoken(resource)} needs a {relation.target.replace('-', ' ')}: say which ({relation.name})"
            )
        if relation.maximum is not None and number > relation.maximum:
            raise InvalidError(
                f"{_spoken(resource)} may have {relation.maximum} {relation.name} at most, not {number}"
            )


def _leads_nowhere(
    resource: Resource, relation: Relation, id_: str, revision_of: RevisionOf
) -> str:
    wanted = relation.target.replace("-", " ")
    others = [kind for kind in KINDS if kind != relation.target and revision_of(kind, id_)]
    why = f"that is a {others[0].replace('-', ' ')}" if others else "it is gone or never was"
    return f"{_spoken(resource)} can't have {relation.name} {id_[:60]!r}: there is no such {wanted}, {why}"


def _spoken(resource: Resource) -> str:
    kind = kind_of(resource)
    return f"{'VM' if kind == 'vm' else kind.replace('-', ' ')} {resource.name!r}"
