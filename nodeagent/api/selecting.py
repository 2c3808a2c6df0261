"""Which resources a request for many is about: names and ids that are given, or what conditions match now.

Used by the verbs on many VMs and on many of any other kind.
"""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from core.errors import InvalidError
from core.model import Resource, kind_of
from nodeagent.api.requests import node_of
from nodeagent.api.rights import sight_of
from nodeagent.services.vm_requests import MANY_MAX
from raftstate.searching import Match, search
from raftstate.state.query_paths import resolve
from raftstate.state.query_sql import Order, Search
from raftstate.state.query_text import parse_where


async def selected(
    request: web.Request,
    type_: type[Resource],
    names: Sequence[str],
    conditions: Sequence[str],
    *,
    field: str,
    word: str,
) -> Sequence[str]:
    """Return the names or ids that are given, or the ids of what the conditions match now, in the order of names.

    Raises:
        InvalidError: both or none are given, too many, or a condition makes no sense.
    """
    if bool(names) == bool(conditions):
        raise InvalidError(f"name {word} in `{field}`, or give conditions in `q`: one of the two")
    if not conditions:
        return checked(request, names, word=word)
    store, kind = node_of(request).store, kind_of(type_)
    tables = store.machine.table
    asked = Search(
        kind=kind,
        where=tuple(parse_where(tables, kind, text) for text in conditions),
        order=Order(resolve(tables, kind, "name")),
        limit=MANY_MAX + 1,
        bodies=False,
        sight=sight_of(request),
    )

    def ids_of_all(matches: Sequence[Match], _: object) -> list[str]:
        return [match.id for match in matches]

    found = (await search(store, asked, ids_of_all)).items
    return checked(request, found, word=word) if found else []


def checked(request: web.Request, refs: Sequence[str], *, word: str) -> Sequence[str]:
    """Return the references if there are not too many, and nothing is asked of them that makes sense for one only.

    Raises:
        InvalidError: otherwise.
    """
    if not 1 <= len(refs) <= MANY_MAX:
        raise InvalidError(
            f"1 to {MANY_MAX} {word} at a time: name fewer, or narrow the conditions down"
        )
    if "If-Match" in request.headers:
        raise InvalidError("If-Match is about one resource: act on that one alone")
    if "dry_run" in request.query:
        raise InvalidError("dry_run is not possible here: nothing was done")
    return refs
