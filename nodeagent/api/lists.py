"""Lists of stored resources: `?q=…&sort=…&limit=…&cursor=…&fields=…&count=1&explain=1`, for every collection alike.

Called by `nodeagent.api.collections` and `nodeagent.api.events`. A request becomes one search of the agent's own copy; what
comes back looks as `nodeagent.api.views` shows single resources. docs/query.md explains all of it to users.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
from aiohttp import web

from core.errors import InvalidError
from core.model import VM, Audit, Event, Resource, kind_of
from nodeagent.api.cursors import decode_cursor, encode_cursor
from nodeagent.api.list_items import Extra, ItemCache, whole_items
from nodeagent.api.requests import json_answer, node_of
from nodeagent.api.views import own_fields
from raftstate.searching import Match, NamesOf, count_matches, explain, search
from raftstate.state.nested import Form
from raftstate.state.query import LIMIT_MAX
from raftstate.state.query_paths import Tables, resolve
from raftstate.state.query_picks import Pick, PickPath, PickRows, read_pick
from raftstate.state.query_sql import Order, Search
from raftstate.state.query_text import parse_where
from raftstate.store import Store

LIMIT_DEFAULT = 1000
FIELDS_MAX = 50
DEFAULT_ORDER: dict[type[Resource], str] = {Event: "revision", Audit: "-created_ms"}
_FLAGS = {"1": True, "0": False}

ITEMS: web.AppKey[ItemCache] = web.AppKey("list-items", ItemCache)

# What resources are shown with beside their own attributes and the names behind their ids.
EXTRAS: dict[type[Resource], dict[str, Extra]] = {
    VM: {
        "ips": (PickRows("vm", "nics", ("ip",), "index"), lambda rows: [row["ip"] for row in rows]),
        "nics": (PickRows("vm", "nics", ("name", "mac", "ip"), "index"), lambda rows: rows),
        "disks": (PickRows("vm", "disks", ("name", "size_bytes"), "index"), lambda rows: rows),
    }
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How matches become what is shown: what is picked in SQL, and what is made of it."""

    picks: tuple[Pick, ...]
    bodies: bool
    make: Callable[[Sequence[Match], NamesOf], list[msgspec.Raw]]


async def list_of(request: web.Request, type_: type[Resource]) -> web.Response:
    """GET /v1/<plural>. 200: `items`, the `index` they are as of, and `next` when there are more. 400: see the message."""
    store = node_of(request).store
    asked, plan = read_request(request, type_, store.machine.table)
    if flag_of(request, "explain"):
        return await _explained(store, asked, only_count=flag_of(request, "count"))
    if flag_of(request, "count"):
        number, index = await count_matches(store, asked.kind, asked.where)
        return json_answer({"items": [], "count": number, "index": index})
    found = await search(store, asked, plan.make)
    answer: dict[str, object] = {"items": found.items, "index": found.index}
    if found.next is not None:
        answer["next"] = encode_cursor(_question(request, type_), found.next)
    return json_answer(answer)


def read_request(
    request: web.Request, type_: type[Resource], tables: Tables
) -> tuple[Search, Plan]:
    """Return what a request asks, and how to show it.

    Raises:
        InvalidError: it makes no sense; the message says where.
    """
    kind, query = kind_of(type_), request.query
    plan = _plan(type_, tables, fields_of(request), request.app[ITEMS])
    sort = query.get("sort", "") or (DEFAULT_ORDER.get(type_, "name"))
    cursor = query.get("cursor", "")
    search_ = Search(
        kind=kind,
        where=tuple(parse_where(tables, kind, text) for text in query.getall("q", [])),
        order=Order(resolve(tables, kind, sort.removeprefix("-")), sort.startswith("-")),
        limit=limit_of(request),
        after=decode_cursor(_question(request, type_), cursor) if cursor else None,
        picks=plan.picks,
        bodies=plan.bodies,
    )
    return search_, plan


def limit_of(request: web.Request) -> int:
    """Return how many items are wanted at most.

    Raises:
        InvalidError: not 1 to 10,000.
    """
    text = request.query.get("limit", str(LIMIT_DEFAULT))
    if (
        not (text.isascii() and text.isdecimal())
        or len(text) > 9
        or not 1 <= int(text) <= LIMIT_MAX
    ):
        raise InvalidError(f"limit must be 1 to {LIMIT_MAX}")
    return int(text)


async def _explained(store: Store, asked: Search, *, only_count: bool) -> web.Response:
    steps = await explain(store, asked, only_count=only_count)
    plan = [{"step": step.detail, "reads_rows": step.reads_rows} for step in steps]
    cost = sum(step.reads_rows for step in steps)
    return json_answer({"items": [], "plan": plan, "reads_rows": cost, "index": store.index})


def _question(request: web.Request, type_: type[Resource]) -> tuple[str, ...]:
    """Return what makes a query another one, so that its cursors don't fit; pages may differ in size and fields."""
    query = request.query
    return type_.PLURAL, query.get("sort", ""), *sorted(query.getall("q", []))


def flag_of(request: web.Request, name: str) -> bool:
    """Return whether a parameter is set to 1.

    Raises:
        InvalidError: it is neither 1 nor 0.
    """
    text = request.query.get(name, "0")
    if text not in _FLAGS:
        raise InvalidError(f"{name} must be 1 or 0")
    return _FLAGS[text]


def fields_of(request: web.Request) -> tuple[str, ...]:
    """Return the attributes that are to be shown; none: all.

    Raises:
        InvalidError: they aren't attributes with commas between, or too many.
    """
    text = request.query.get("fields", "")
    names = tuple(dict.fromkeys(name.strip() for name in text.split(","))) if text else ()
    if "" in names:
        raise InvalidError("fields are attributes with commas between them, e.g. name,host.name")
    if len(names) > FIELDS_MAX:
        raise InvalidError(f"at most {FIELDS_MAX} fields can be asked for")
    return names


def _plan(type_: type[Resource], tables: Tables, fields: Sequence[str], cache: ItemCache) -> Plan:
    if fields:
        return _some(type_, tables, fields)
    extras = EXTRAS.get(type_, {})
    picks = tuple(pick for pick, _ in extras.values())
    return Plan(picks, True, whole_items(type_, extras, cache))


def _some(type_: type[Resource], tables: Tables, fields: Sequence[str]) -> Plan:
    decode = msgspec.msgpack.Decoder(type_).decode
    of_body = {field for field in fields if _is_nested(type_, tables, field)}
    extras = {field: _field(type_, tables, field) for field in fields if field not in of_body}
    picks = tuple(pick for pick, _ in extras.values())

    def make(match: Match) -> msgspec.Raw:
        values = zip(extras.items(), match.picks, strict=True)
        shown = {field: form(read_pick(pick, raw)) for (field, (pick, form)), raw in values}
        if of_body:
            assert match.body is not None, "the search asks for bodies"
            whole = own_fields(msgspec.structs.replace(decode(match.body), revision=match.revision))
            shown |= {field: whole[field] for field in of_body}
        return msgspec.Raw(msgspec.json.encode({field: shown[field] for field in fields}))

    return Plan(picks, bool(of_body), lambda matches, _: [make(match) for match in matches])


def _is_nested(type_: type[Resource], tables: Tables, field: str) -> bool:
    """Whether a field is a list, struct or map of the resource's own: those are shown whole, from its body."""
    return any(nested.name == field for nested in tables(kind_of(type_)).nested)


def _field(type_: type[Resource], tables: Tables, field: str) -> Extra:
    if extra := EXTRAS.get(type_, {}).get(field):
        return extra
    path = resolve(tables, kind_of(type_), field)
    if path.leaf.form is Form.STRUCT and path.leaf.whole:
        raise InvalidError(
            f"{field} consists of several attributes: name one, as in {field}.attribute"
        )
    if path.named and path.single:
        return PickPath(path), lambda name: name or ""
    return PickPath(path), lambda value: value
