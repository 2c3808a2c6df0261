"""How generated methods make their requests and read their answers.

Called by `tools.sdk.generated.operations` and `tools.sdk.collection` only. An answer of another type than this version
expects is an error that names the attribute, never a wrong value.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, overload

import msgspec
from msgspec import UNSET, UnsetType

from core.errors import InvalidError, UnavailableError
from tools.sdk.files import OnBytes, pieces_of, sha256_of, silent, size_of
from tools.sdk.items import Item, Page, item_of
from tools.sdk.model import OpenEnum
from tools.sdk.problems import ServerError
from tools.sdk.started import Started
from tools.sdk.tasks import TaskView, task_of
from tools.sdk.transport import TRY_TIMEOUT_S, Reply, Request, Transport, pieces_in

T = TypeVar("T")
S = TypeVar("S")
E = TypeVar("E", bound=OpenEnum)

UPLOAD_BYTES_PER_S_MIN = 256 * 1024
UPLOAD_WORK_S_MAX = 900.0

Pair = tuple[str, str]


class _Listing(msgspec.Struct, frozen=True, kw_only=True):
    items: tuple[msgspec.Raw, ...] = ()
    index: int = 0
    next: str = ""


class Api:
    """Sends requests and reads their answers as what the caller says they are."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    async def answer(self, request: Request, type_: type[T]) -> T:
        """Return the answer as a type."""
        return decoded((await self.transport.send(request)).body, type_)

    async def anything(self, request: Request) -> Any:
        """Return the answer as plain JSON values, None when it is empty."""
        body = (await self.transport.send(request)).body
        return decoded(body, Any) if body.strip() else None

    async def either(self, request: Request, types: Mapping[int, Any]) -> Any:
        """Return the answer as the type that its status means."""
        reply = await self.transport.send(request)
        type_ = types.get(reply.status, Any)
        return decoded(reply.body, type_) if type_ is not None and reply.body.strip() else None

    async def nothing(self, request: Request) -> None:
        """Have it done; there is nothing to return."""
        await self.transport.send(request)

    async def page(self, request: Request, item: type[T]) -> Page[T]:
        """Return a list. `Item` is an item of any kind."""
        found = await self.answer(request, _Listing)
        items = tuple(decoded(bytes(raw), item) for raw in found.items)
        return Page(items, found.index, found.next)

    async def started(self, request: Request, item: type[T], key: str) -> Started[T]:
        """Return what the work is about, which is the answer's `key`, and its task."""
        reply = await self.transport.send(request)
        parts = decoded(reply.body, dict[str, msgspec.Raw])
        if key not in parts:
            raise _unexpected(f"{key!r} is missing")
        return Started(decoded(bytes(parts[key]), item), _task_in(parts, reply))

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[bytes]]:
        """Give the pieces of an answer that is a file, for the block."""
        async with self.transport.open_stream(request) as reader:
            yield pieces_in(reader)


def _task_in(parts: Mapping[str, msgspec.Raw], reply: Reply) -> TaskView | None:
    raw = Item()
    if "task" in parts and bytes(parts["task"]) != b"null":
        raw = decoded(bytes(parts["task"]), Item)
    if reply.status != 202:
        return None
    if not raw.text("id"):
        raw = Item({**raw.raw, "id": reply.headers.get("Location", "").rsplit("/", 1)[-1]})
    return task_of(raw)


def decoded(body: bytes, type_: type[T]) -> T:
    """Return JSON as a type; `Item` is any object.

    Raises:
        ServerError: it is of another shape than this version of the SDK expects.
        UnavailableError: it is not JSON.
    """
    try:
        if type_ is Item:
            item: Any = item_of(msgspec.json.decode(body))
            return item  # type: ignore[no-any-return]  # T is Item here
        return msgspec.json.decode(body, type=type_)
    except msgspec.ValidationError as error:
        raise _unexpected(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UnavailableError(
            "the answer is not JSON: is that the address of a Kvorum agent?"
        ) from None


def _unexpected(what: str) -> ServerError:
    return ServerError(
        f"the answer isn't as this version of the SDK expects ({what}): install the SDK of the agents' version",
        code="unexpected-answer",
    )


def request(
    method: str,
    path: str,
    *,
    body: object = None,
    query: Iterable[Pair] = (),
    headers: Mapping[str, str] | None = None,
    timeout_s: float = TRY_TIMEOUT_S,
) -> Request:
    """Return a request; headers that are empty are left out."""
    given = {name: value for name, value in (headers or {}).items() if value}
    return Request(
        method,
        path,
        query=tuple(query),
        body=b"" if body is None else msgspec.json.encode(body),
        idempotency_key=given.pop("Idempotency-Key", ""),
        headers=given,
        timeout_s=timeout_s,
    )


@asynccontextmanager
async def uploading(
    asked: Request, file: Path, sha256: str | UnsetType | None, on_bytes: OnBytes
) -> AsyncIterator[Request]:
    """Give the request with a file as its body, for the block.

    With `sha256` UNSET the file is read once more before, for its hash, which the agent verifies; None is for
    operations that take none. A broken connection starts the upload over, with the same Idempotency-Key.
    """
    file = Path(file)
    size_bytes = size_of(file)
    query, known = asked.query, sha256
    if sha256 is UNSET:
        known = await sha256_of(file, silent)
        query = (*query, ("sha256", known))
    with file.open("rb") as opened:
        yield replace(
            asked,
            query=query,
            stream=lambda: pieces_of(opened, size_bytes, on_bytes),
            size_bytes=size_bytes,
            sha256=known if isinstance(known, str) else "",
            timeout_s=UPLOAD_WORK_S_MAX + size_bytes / UPLOAD_BYTES_PER_S_MIN,
        )


def one(name: str, value: object) -> tuple[Pair, ...]:
    """Return a parameter of the query part, or nothing when it is UNSET."""
    if value is UNSET:
        return ()
    return ((name, str(int(value)) if isinstance(value, bool) else str(value)),)


def many(name: str, values: str | Iterable[str]) -> tuple[Pair, ...]:
    """Return a parameter that may be given several times; a text is one."""
    return tuple((name, value) for value in ((values,) if isinstance(values, str) else values))


@overload
def listed(values: Sequence[S]) -> tuple[S, ...]: ...
@overload
def listed(values: Sequence[S] | UnsetType) -> tuple[S, ...] | UnsetType: ...
def listed(values: Sequence[S] | UnsetType) -> tuple[S, ...] | UnsetType:
    """Return what goes into a list of a body.

    Raises:
        InvalidError: it is one text, whose characters nobody means.
    """
    if isinstance(values, UnsetType):
        return UNSET
    if isinstance(values, str | bytes):
        raise InvalidError(f"{values!r} is one text where a list is meant: write [{values!r}]")
    return tuple(values)


@overload
def word(kind: type[E], value: str) -> E: ...
@overload
def word(kind: type[E], value: str | UnsetType) -> E | UnsetType: ...
def word(kind: type[E], value: str | UnsetType) -> E | UnsetType:
    """Return a text as the word of a set that it is."""
    return UNSET if isinstance(value, UnsetType) else kind(value)


def condition(revision: int | str) -> str:
    """Return an `If-Match` for a revision, or an ETag as it is; nothing for an empty text."""
    if isinstance(revision, int):
        return f'"{revision}"'
    return revision
