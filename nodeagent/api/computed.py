"""Filters, order and limit for lists of what is worked out at the moment and not stored, such as members.

Stored resources have the full query (`nodeagent.api.lists`); here attributes are compared for equality.
"""

from __future__ import annotations

from aiohttp import web

from core.errors import InvalidError
from nodeagent.api.lists import limit_of
from nodeagent.api.views import Shown


def select(items: list[Shown], request: web.Request) -> list[Shown]:
    """Return the items that the request's filters, order and limit leave.

    Raises:
        InvalidError: a filter that is not `attribute=value`, an unknown attribute, a limit out of bounds.
    """
    for condition in request.query.getall("q", []):
        attribute, equals, value = condition.partition("=")
        if not equals:
            raise InvalidError(f"filter {condition[:60]!r} is not attribute=value")
        _known(attribute, items)
        items = [item for item in items if _text(item.get(attribute)) == value]
    sort = request.query.get("sort", "")
    if sort:
        attribute = sort.removeprefix("-")
        _known(attribute, items)
        items = sorted(
            items, key=lambda item: _sortable(item.get(attribute)), reverse=sort[0] == "-"
        )
    return items[: limit_of(request)]


def _known(attribute: str, items: list[Shown]) -> None:
    if items and not any(attribute in item for item in items):
        raise InvalidError(f"there is no attribute {attribute[:60]!r}")


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _sortable(value: object) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return (0, float(value), "")
    return (1, 0.0, str(value))
