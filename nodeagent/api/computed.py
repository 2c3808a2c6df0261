"""Filters, order and limit for lists of what is worked out at the moment and not stored, such as members.

Stored resources have the full query (`nodeagent.api.lists`); here the same is done with the shown attributes alone.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from aiohttp import web

from core.errors import InvalidError
from nodeagent.api.lists import fields_of, flag_of, limit_of
from nodeagent.api.views import Shown
from raftstate.state.query import Op
from raftstate.state.query_paths import TAG
from raftstate.state.query_text import split, split_list
from raftstate.state.query_values import value_of


def answer_of(items: list[Shown], request: web.Request) -> Shown:
    """Return what a list of these items answers but its index.

    Raises:
        InvalidError: a filter that is no condition, an unknown attribute, a limit out of bounds, or something that only
            lists of stored resources can do.
    """
    if request.query.get("cursor") or flag_of(request, "explain"):
        raise InvalidError(
            "this list is worked out as a whole: it has no cursors and no explanation"
        )
    fields = fields_of(request)
    for field in fields:
        _known(field, items)
    chosen = _select(items, request)
    if flag_of(request, "count"):
        return {"items": [], "count": len(chosen)}
    chosen = chosen[: limit_of(request)]
    return {"items": [{f: item.get(f) for f in fields} for item in chosen] if fields else chosen}


def _select(items: list[Shown], request: web.Request) -> list[Shown]:
    """Return the items that the request's filters leave, in its order."""
    for condition in request.query.getall("q", []):
        attribute, op, text = split(condition)
        if attribute == TAG and any("tags" in item for item in items):
            attribute = "tags"
        _known(attribute, items)
        items = [item for item in items if _meets(attribute, item.get(attribute), op, text)]
    sort = request.query.get("sort", "")
    if sort:
        attribute = sort.removeprefix("-")
        _known(attribute, items)
        items = sorted(
            items, key=lambda item: _sortable(item.get(attribute)), reverse=sort[0] == "-"
        )
    return items


def _known(attribute: str, items: list[Shown]) -> None:
    if items and not any(attribute in item for item in items):
        raise InvalidError(f"there is no attribute {attribute[:60]!r}")


def _meets(
    attribute: str,
    value: Any,  # whatever is shown
    op: Op,
    text: str,
) -> bool:
    if op in (Op.IS_NULL, Op.NOT_NULL):
        return (value in (None, "", [], ())) == (op is Op.IS_NULL)
    if isinstance(value, list | tuple):  # it is met when one of its values meets it
        return any(_meets(attribute, one, op, text) for one in value)
    if value is None:
        return False
    if op is Op.MATCH:
        return fnmatchcase(str(value), text.replace("[", "[[]"))
    if op in (Op.IN, Op.NOT_IN):
        several = [value_of(attribute, type(value), one) for one in split_list(text)]
        return (value in several) == (op is Op.IN)
    other: Any = value_of(attribute, type(value), text)
    match op:
        case Op.EQ:
            return bool(value == other)
        case Op.NE:
            return bool(value != other)
        case Op.GT | Op.GE:
            return bool(value > other or (op is Op.GE and value == other))
        case _:
            return bool(value < other or (op is Op.LE and value == other))


def _sortable(value: object) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return (0, float(value), "")
    return (1, 0.0, str(value))
