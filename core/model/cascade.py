"""What a deletion takes along, what it only detaches, and what stands in its way: worked out from the relations.

Pure. Used by `nodeagent.services.cascade` for deletions and their previews. A resource type takes part by declaring its
relations (`Resource.RELATIONS`) and what becomes of it when the other end goes (`OnDelete`); nothing here names a type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from core.model.relations import Link
from core.model.resource import OnDelete, Relation, Resource, key_of, kind_of

References = Callable[[str], Iterable[tuple[Resource, Relation]]]


@dataclass(frozen=True, slots=True)
class Touched:
    """A resource that the deletion meets, and the relation by which it does: to `target`, one that would go."""

    resource: Resource
    relation: Relation
    target: Resource


@dataclass(frozen=True, slots=True)
class DeletePlan:
    """All that one deletion means. `along` goes too, `detached` is as it will be afterwards, `refused` forbids it."""

    target: Resource
    along: tuple[Touched, ...]
    detached: tuple[Touched, ...]
    refused: tuple[Touched, ...]

    @property
    def gone(self) -> tuple[Resource, ...]:
        """Everything that is deleted, the target first."""
        return (self.target, *(touched.resource for touched in self.along))

    @property
    def changed(self) -> tuple[Resource, ...]:
        """Everything that loses a relation and stays."""
        return tuple(touched.resource for touched in self.detached)


def plan_delete(
    target: Resource,
    all_of: Callable[[str], Iterable[Resource]],
    links: Mapping[str, Mapping[str, Link]],
    references: References = lambda _: (),
) -> DeletePlan:
    """Return what it means to delete a resource. `all_of` gives the resources of a kind, `links` all relations.

    `references` gives what else points to a `kind/id`, and by what relation: resources of kinds that `links` doesn't have.
    """
    gone = {key_of(target): target}
    along: list[Touched] = []
    others: list[Touched] = []
    frontier = {key_of(target): target}
    while frontier:
        reached: dict[str, Resource] = {}
        for touched in _pointing_to(frontier, all_of, links, references):
            key = key_of(touched.resource)
            if touched.relation.on_delete is not OnDelete.ALONG:
                others.append(touched)
            elif key not in gone:
                gone[key] = reached[key] = touched.resource
                along.append(touched)
        frontier = reached
    staying = [touched for touched in others if key_of(touched.resource) not in gone]
    return DeletePlan(
        target=target,
        along=tuple(along),
        detached=_detached(t for t in staying if t.relation.on_delete is OnDelete.DETACH),
        refused=_each_once(t for t in staying if t.relation.on_delete is OnDelete.REFUSE),
    )


def ids_in(resource: Resource, field: str) -> tuple[str, ...]:
    """Return the ids that a relation's field holds, the empty one left out."""
    head, _, rest = field.partition(".")
    value = getattr(resource, head)
    if rest:
        ids = tuple(getattr(item, rest) for item in value)
    else:
        ids = (value,) if isinstance(value, str) else tuple(value)
    return tuple(id_ for id_ in ids if id_)


def _pointing_to(
    targets: Mapping[str, Resource],
    all_of: Callable[[str], Iterable[Resource]],
    links: Mapping[str, Mapping[str, Link]],
    references: References,
) -> Iterable[Touched]:
    """Yield whatever has one of the targets at the other end of a relation that matters."""
    for kind in sorted({kind_of(target) for target in targets.values()}):
        for link in links.get(kind, {}).values():
            if not link.reverse or link.relation.on_delete is OnDelete.KEEP:
                continue
            for resource in all_of(link.target):
                for id_ in dict.fromkeys(ids_in(resource, link.relation.field)):
                    found = targets.get(f"{kind}/{id_}")
                    if found is not None and key_of(resource) != key_of(found):
                        yield Touched(resource, link.relation, found)
    for key, target in targets.items():
        for resource, relation in references(key):
            if key_of(resource) != key:
                yield Touched(resource, relation, target)


def _each_once(touched: Iterable[Touched]) -> tuple[Touched, ...]:
    return tuple({key_of(one.resource): one for one in touched}.values())


def _detached(touched: Iterable[Touched]) -> tuple[Touched, ...]:
    """Return each resource once, without the ids of all that goes."""
    changed: dict[str, Touched] = {}
    for one in touched:
        key = key_of(one.resource)
        before = changed[key].resource if key in changed else one.resource
        value = getattr(before, one.relation.field)
        without = "" if isinstance(value, str) else tuple(v for v in value if v != one.target.id)
        changed[key] = Touched(
            replace(before, **{one.relation.field: without}), one.relation, one.target
        )
    return tuple(changed.values())
