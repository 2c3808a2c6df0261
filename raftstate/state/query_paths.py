"""Paths from a resource to an attribute, also of others: `host.cluster.name`, `disks.size_bytes`, `rules.port_first`.

Used by the full query (`raftstate.state.query_sql`). A path is looked up in the model's relations and the tables' columns
word for word, so only names that these declare become SQL; secrets are as unknown as what doesn't exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from core.errors import InvalidError
from core.model import KINDS, LINKS, Link, Tagged
from raftstate.state.nested import Form, Nested, PlainType
from raftstate.state.schema import Table

HOPS_MAX = 5
PATH_MAX = 200
TAG = "tag"  # as people ask: `tag = web` is one of the `tags`

Tables = Callable[[str], Table]


@dataclass(frozen=True, slots=True)
class Leaf:
    """The attribute at a path's end, in a column. Of a nested one `inner` is what is meant in it; empty: all of it."""

    column: str
    type: PlainType
    optional: bool = False
    form: Form | None = None
    inner: str = ""
    inner_many: bool = False

    @property
    def whole(self) -> bool:
        """Whether it is a struct, or a list or map of several things, that has no value to compare."""
        return self.form not in (None, Form.TEXTS) and not self.inner

    @property
    def many(self) -> bool:
        """Whether one resource may have several values of it."""
        lists = self.form is Form.STRUCTS and bool(self.inner)
        return self.form is Form.TEXTS or lists or self.inner_many


@dataclass(frozen=True, slots=True)
class Path:
    """Where an attribute is, seen from `kind`. `named`: the path ends at a relation, whose name is meant."""

    text: str
    kind: str
    links: tuple[Link, ...]
    leaf: Leaf
    named: bool = False

    @property
    def single(self) -> bool:
        """Whether there is at most one value at its end."""
        return not self.leaf.many and not any(link.many for link in self.links)


def resolve(tables: Tables, kind: str, text: str) -> Path:
    """Return the path that a text means.

    Raises:
        InvalidError: it names something that doesn't exist or that nobody may see, or goes through too many relations.
    """
    if len(text) > PATH_MAX:
        raise InvalidError(f"an attribute of more than {PATH_MAX} characters: {text[:40]!r}...")
    links: list[Link] = []
    here, parts = kind, text.split(".")
    while parts:
        link = LINKS[here].get(parts[0]) or _by_name_field(here, parts)
        if link is None:
            return Path(text, kind, tuple(links), _leaf(tables(here), parts))
        if len(links) == HOPS_MAX:
            raise InvalidError(f"{text!r} goes through more than {HOPS_MAX} relations")
        links.append(link)
        here, parts = link.target, parts[1:]
    return Path(text, kind, tuple(links), Leaf("name", str), named=True)


def attributes_of(table: Table) -> list[str]:
    """Return the attributes of a kind that queries may name."""
    names = {*table.searchable, *(nested.name for nested in table.nested)}
    return sorted(names - KINDS[table.kind].SECRET)


def _by_name_field(kind: str, parts: list[str]) -> Link | None:
    """Return the relation of `<thing>_name(s)`, which resources are shown with beside their ids."""
    if len(parts) > 1:
        return None
    for link in LINKS[kind].values():
        field = link.relation.field
        if not link.reverse and parts[0] in (
            f"{field.removesuffix('_id')}_name",
            f"{field.removesuffix('_ids')}_names",
        ):
            return link
    return None


def _leaf(table: Table, parts: list[str]) -> Leaf:
    name, rest = parts[0], ".".join(parts[1:])
    if name == TAG and issubclass(KINDS[table.kind], Tagged):
        name = "tags"
    if name in attributes_of(table):
        if column := table.searchable.get(name):
            if not rest:
                return Leaf(name, column.type, column.optional)
            raise InvalidError(
                f"{name} of {table.kind} is one value: there is no {rest[:60]!r} in it"
            )
        nested = next(nested for nested in table.nested if nested.name == name)
        return _inside(nested, rest)
    raise InvalidError(
        f"{table.kind} has no attribute {name[:60]!r}: there are {', '.join(attributes_of(table))}"
        f"{_relations(LINKS[table.kind])}"
    )


def _inside(nested: Nested, rest: str) -> Leaf:
    if not rest:
        return Leaf(nested.name, nested.type, True, nested.form)
    if nested.form is Form.MAP:
        return Leaf(nested.name, nested.type, True, nested.form, rest)
    if rest not in nested.fields:
        known = f": there are {', '.join(nested.fields)}" if nested.fields else ""
        raise InvalidError(f"{nested.name} has no attribute {rest[:60]!r} to ask for{known}")
    inner = nested.fields[rest]
    return Leaf(nested.name, inner.type, True, nested.form, rest, inner.many)


def _relations(names: Iterable[str]) -> str:
    known = ", ".join(sorted(names))
    return f", and through relations {known}" if known else ""
