"""What whoever asks may see: of each kind all resources, none, or those that carry one of some tags.

Made by the API from the caller's rights, and put into every query at each table that it reads: the one that is listed and
those that relations lead to. So what may not be seen is as if it weren't there. Tags are bound parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from core.model import Link, Resource, Tagged, kind_of
from raftstate.state.nested import to_json
from raftstate.state.query import Sql


@dataclass(frozen=True, slots=True)
class Sight:
    """`of` returns for a kind the tags of which a resource must carry one to be seen, None for no limit."""

    of: Callable[[str], frozenset[str] | None]

    def whole(self, kinds: Iterable[str]) -> bool:
        """Tell whether everything of these kinds is seen."""
        return all(self.of(kind) is None for kind in kinds)

    def sees(self, resource: Resource) -> bool:
        """Tell whether a resource is seen."""
        tags = resource.tags if isinstance(resource, Tagged) else ()
        return self.sees_tags(kind_of(resource), tags)

    def sees_tags(self, kind: str, tags: Collection[str]) -> bool:
        """Tell whether a resource of the kind with these tags is seen."""
        wanted = self.of(kind)
        return wanted is None or not wanted.isdisjoint(tags)

    def sql(self, kind: str, alias: str) -> Sql:
        """Return what must hold for a row of a kind's table; empty when nothing must."""
        wanted = self.of(kind)
        if wanted is None:
            return Sql("", ())
        if not wanted:
            return Sql("0", ())
        tags, column = sorted(wanted), f'{alias}."tags"'
        # To look for the text first spares taking most rows apart, which is what takes the time.
        written = " OR ".join([f"instr({column}, ?)"] * len(tags))
        marks = ", ".join("?" * len(tags))
        return Sql(
            f"(({written}) AND EXISTS (SELECT 1 FROM json_each({column}) AS seen WHERE seen.value IN ({marks})))",
            (*map(to_json, tags), *tags),
        )

    def and_sql(self, kind: str, alias: str) -> Sql:
        """Return the same, to follow another condition."""
        sql = self.sql(kind, alias)
        return Sql(f" AND {sql.text}" if sql.text else "", sql.parameters)


def kinds_along(links: Iterable[Link]) -> list[str]:
    """Return the kinds that relations lead to."""
    return [link.target for link in links]


EVERYTHING = Sight(lambda kind: None)
