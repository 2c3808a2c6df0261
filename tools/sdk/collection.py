"""What can be asked of every collection of the API: pages, all of it, some attributes, counts, plans, single things.

Generated classes add what is particular to a kind. `Collection[Item]` serves kinds that this version has no model for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Generic, Literal, TypeVar

from core.errors import InvalidError
from tools.sdk.calls import Api, Pair, many, one, request
from tools.sdk.client import path_of
from tools.sdk.items import Item, Page

T = TypeVar("T")
S = TypeVar("S")

Consistency = Literal["local", "strong"]
PAGE_MAX = 10_000


class Collection(Generic[T]):
    """Resources of one kind.

    `q` is one condition or several, all of which must hold: `attribute=value`, `host.name~=h*` and so on (docs/query.md).
    `consistency="strong"` waits until the agent has everything that was acknowledged anywhere. `also` are parameters that this
    version of the SDK has no name for.
    """

    def __init__(self, api: Api, plural: str, item: type[T]) -> None:
        self._api = api
        self._plural = plural
        self._item = item

    async def list(
        self,
        *,
        q: str | Sequence[str] = (),
        sort: str = "",
        limit: int = 0,
        cursor: str = "",
        consistency: Consistency = "local",
        also: Mapping[str, str] | None = None,
    ) -> Page[T]:
        """Return one page: `limit` of them, 1000 when it is 0. To go on, give `next` of the page before as `cursor`."""
        return await self._page(self._item, q, sort, limit, cursor, consistency, also=also)

    async def find(
        self,
        *,
        q: str | Sequence[str] = (),
        sort: str = "",
        page_size: int = 0,
        consistency: Consistency = "local",
        also: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[T, None]:
        """Yield all that match, page by page; one that stays as it is meanwhile comes exactly once."""
        cursor = ""
        while True:
            page = await self._page(self._item, q, sort, page_size, cursor, consistency, also=also)
            for item in page.items:
                yield item
            if not page.next or page.next == cursor:
                return
            cursor = page.next

    async def list_all(
        self,
        *,
        q: str | Sequence[str] = (),
        sort: str = "",
        limit: int = 0,
        consistency: Consistency = "local",
        also: Mapping[str, str] | None = None,
    ) -> Page[T]:
        """Return all that match, or the first `limit`, as one page; its index is that of the first part."""
        return await self._pages(self._item, q, sort, limit, consistency, also=also)

    async def select(
        self,
        *fields: str,
        q: str | Sequence[str] = (),
        sort: str = "",
        limit: int = 0,
        consistency: Consistency = "local",
    ) -> Page[Item]:
        """Return these attributes of all that match, also through relations: `select("name", "host.name")`."""
        if not fields:
            raise InvalidError("name the attributes to select")
        shown = (("fields", ",".join(fields)),)
        return await self._pages(Item, q, sort, limit, consistency, more=shown)

    async def count(
        self, *, q: str | Sequence[str] = (), consistency: Consistency = "local"
    ) -> int:
        """Return how many match."""
        asked = (("count", "1"), *many("q", q), *_consistency(consistency))
        return _with("count", await self._ask(asked)).integer("count")

    async def explain(self, *, q: str | Sequence[str] = (), sort: str = "") -> Item:
        """Return how a query would be run: `plan`, a list of `step` and `reads_rows`, and the sum of the latter."""
        asked = (("explain", "1"), *many("q", q), *((("sort", sort),) if sort else ()))
        return _with("plan", await self._ask(asked))

    async def get(self, ref: str, /, *, consistency: Consistency = "local") -> T:
        """Return one by name or id.

        Raises:
            NotFoundError: there is none.
        """
        path = path_of(self._plural, ref)
        asked = request("GET", path, query=_consistency(consistency))
        return await self._api.answer(asked, self._item)

    async def _pages(
        self,
        type_: type[S],
        q: str | Sequence[str],
        sort: str,
        limit: int,
        consistency: Consistency,
        *,
        more: Sequence[Pair] = (),
        also: Mapping[str, str] | None = None,
    ) -> Page[S]:
        first = await self._page(
            type_, q, sort, min(limit, PAGE_MAX), "", consistency, more=more, also=also
        )
        found, after = first.items, first.next
        while after and (not limit or len(found) < limit):
            left = min(limit - len(found), PAGE_MAX) if limit else 0
            page = await self._page(type_, q, sort, left, after, consistency, more=more, also=also)
            found += page.items
            after = page.next if page.next != after else ""
        return Page(found, first.index, after)

    async def _page(
        self,
        type_: type[S],
        q: str | Sequence[str],
        sort: str,
        limit: int,
        cursor: str,
        consistency: Consistency,
        *,
        more: Sequence[Pair] = (),
        also: Mapping[str, str] | None = None,
    ) -> Page[S]:
        options = {"sort": sort, "cursor": cursor, **(also or {})}
        query = [*many("q", q), *more, *_consistency(consistency)]
        query += [(name, value) for name, value in options.items() if value]
        query += one("limit", limit) if limit else ()
        return await self._api.page(request("GET", path_of(self._plural), query=query), type_)

    async def _ask(self, query: Sequence[Pair]) -> Item:
        return await self._api.answer(request("GET", path_of(self._plural), query=query), Item)


def _consistency(wanted: Consistency) -> tuple[Pair, ...]:
    return () if wanted == "local" else (("consistency", wanted),)


def _with(field: str, answer: Item) -> Item:
    """Return an answer that has a field; agents of older versions pass over what they don't know."""
    if field not in answer.raw:
        raise InvalidError(f"the agent that answered knows no {field}: upgrade its host")
    return answer
