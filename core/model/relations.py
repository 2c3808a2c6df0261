"""Which resources belong together: every relation of the model, seen from both of its ends.

Each resource type declares its own in `RELATIONS`; the API shows names behind ids by them, and queries walk along them.
A relation is written down once, at the end that holds the id; the other end follows from it here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from core.model.resource import Relation, Resource, kind_of


@dataclass(frozen=True, slots=True)
class Link:
    """A relation as one of its ends sees it: from `source` one gets by `name` to `target`, one or many of them.

    `reverse`: the ids are kept at the target's end, in its attribute `relation.field`.
    """

    name: str
    source: str
    target: str
    relation: Relation
    reverse: bool

    @property
    def many(self) -> bool:
        """Whether there may be more than one at the other end."""
        return self.reverse or self.relation.many


def links_of(types: Iterable[type[Resource]]) -> dict[str, Mapping[str, Link]]:
    """Return, for every kind, its relations by name, those that others declared too."""
    types = tuple(types)
    links: dict[str, dict[str, Link]] = {kind_of(type_): {} for type_ in types}
    for type_ in types:
        kind = kind_of(type_)
        for relation in type_.RELATIONS:
            assert relation.target in links, f"{kind}.{relation.field}: no kind {relation.target}"
            ends = (
                Link(relation.name, kind, relation.target, relation, reverse=False),
                Link(relation.reverse, relation.target, kind, relation, reverse=True),
            )
            for link in ends:
                assert link.name not in links[link.source], f"{link.source}.{link.name} is twice"
                links[link.source][link.name] = link
    return dict(links)
