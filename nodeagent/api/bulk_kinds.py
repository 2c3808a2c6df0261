"""One verb on many of any kind but VMs: `POST /v1/<plural>/actions/<verb>`, for every verb that can be done to one.

Nothing is written down a kind: which verbs there are follows from the routes about one resource (`permissions.MANY`), and
what is done to each is that route's own handler, asked in its own name. So rights, refusals, idempotency and audits of
each are what they are when it is asked for alone; a task that it starts is in its outcome. VMs have `nodeagent.api.bulk`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from aiohttp import web
from multidict import CIMultiDict, MultiDict

from core.errors import NotFoundError, PlatformError, UnavailableError
from core.logs import REQUEST_ID
from core.model import KINDS, Resource, Task, kind_of
from nodeagent.api import declared
from nodeagent.api.auditing import recorded_item
from nodeagent.api.bodies import many_body, names_field
from nodeagent.api.collections import type_of
from nodeagent.api.description.operations import OPERATIONS, STARTING_TASKS
from nodeagent.api.permissions import MANY, Audited, Gate, ManyVerb, Need
from nodeagent.api.problems import problem_of, unexpected
from nodeagent.api.requests import CONTENT, body_of, json_answer, node_of, shown_to
from nodeagent.api.rights import sight_of
from nodeagent.api.selecting import checked, selected
from nodeagent.api.tasks import waited
from raftstate.store import not_found

log = logging.getLogger(__name__)

AT_ONCE = 8
ONE_BY_ONE = frozenset({"host"})  # each changes who votes
NOT_PASSED_ON = ("Content-Length", "Prefer", "If-None-Match")

Single = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_routes(app: web.Application) -> None:
    """Add the routes; call it after those about single resources."""
    singles = {
        (route.method, route.resource.canonical): route.handler
        for route in app.router.routes()
        if route.resource is not None
    }
    for many in MANY:
        handler = _handler(many, singles[many.method, many.path])
        app.router.add_post(f"/v1/{many.plural}/actions/{many.verb}", handler)
    app.router.add_post("/v1/{plural}/actions/delete", delete_declared)


def _handler(many: ManyVerb, single: Single) -> Callable[[web.Request], Awaitable[web.Response]]:
    type_ = KINDS[many.need.kind]
    taken = OPERATIONS[many.method, many.path].body

    async def handler(request: web.Request) -> web.Response:
        """POST .../actions/<verb>. 200: what came of each."""
        return await _act(request, many, type_, taken, single)

    return handler


async def delete_declared(request: web.Request) -> web.Response:
    """POST /v1/<plural>/actions/delete, for what is served by its declaration alone. 200: what came of each."""
    type_ = type_of(request)
    if not declared.is_declared(type_):
        raise NotFoundError(f"{type_.PLURAL} can't be deleted by anybody")
    plural = type_.PLURAL
    many = ManyVerb(
        plural=plural,
        verb="delete",
        method="DELETE",
        path=f"/v1/{plural}/{{ref}}",
        need=Need(Gate.ROLE, kind_of(type_)),
    )
    return await _act(request, many, type_, None, declared.delete)


async def _act(
    request: web.Request,
    many: ManyVerb,
    type_: type[Resource],
    taken: type[msgspec.Struct] | None,
    single: Single,
) -> web.Response:
    body = await body_of(request, many_body(type_, many.plural, many.verb, taken))
    given: dict[str, Any] = msgspec.structs.asdict(body)
    field, word = names_field(many.plural), many.plural.replace("-", " ")
    names, conditions = given.pop(field), given.pop("q", None)
    if conditions is None:
        refs = checked(request, names, word=word)
    else:
        refs = await selected(request, type_, names, conditions, field=field, word=word)
    content = msgspec.json.encode(given)
    named = [_found(request, type_, ref) for ref in refs]
    items = {item.key: item for item in named}
    at_once = asyncio.Semaphore(1 if many.need.kind in ONE_BY_ONE else AT_ONCE)
    async with asyncio.TaskGroup() as group:
        for item in items.values():
            work = _one(request, many, item, single, content, at_once)
            group.create_task(work, name=f"one-of-many-{item.ref[:60]}")
    errors = [item.error for item in items.values()]
    if errors and all(isinstance(error, UnavailableError) for error in errors):
        raise next(error for error in errors if error is not None)
    shown = [_shown(request, item.ref, items[item.key]) for item in named]
    return json_answer({"items": shown, "index": node_of(request).store.index})


@dataclass(slots=True)
class _Item:
    """One of the things asked for, by `ref`, and what came of it."""

    ref: str
    resource: Resource | None = None
    status: int = 0
    task: Task | None = None
    error: PlatformError | None = None

    @property
    def key(self) -> str:
        """What is the same for all names of one resource."""
        return self.resource.id if self.resource is not None else f"?{self.ref}"


def _found(request: web.Request, type_: type[Resource], ref: str) -> _Item:
    """Return what a name means, if the caller may see it."""
    try:
        resource = node_of(request).store.find(type_, ref)
        if not sight_of(request).sees(resource):
            raise not_found(type_, ref)
        return _Item(ref, resource)
    except PlatformError as error:
        return _Item(ref, error=error)


async def _one(
    request: web.Request,
    many: ManyVerb,
    item: _Item,
    single: Single,
    content: bytes,
    at_once: asyncio.Semaphore,
) -> None:
    """Have it done to one as if that had been asked for alone, record it, and keep what came of it; never raises."""

    async def work() -> int:
        if item.resource is None:
            assert item.error is not None, "what was not found says so"
            raise item.error
        alone = cast(web.Request, _Alone(request, many, item.resource.id, content))
        answer = await single(alone)
        if (many.method, many.path) in STARTING_TASKS:
            item.task = _task_in(request, answer)
        return answer.status

    try:
        async with at_once:
            within = many.need.audited is Audited.WITHIN
            item.status = await recorded_item(request, item.ref, item.resource, work, within=within)
        if item.task is not None:
            item.task = await waited(request, item.task)
    except PlatformError as error:
        item.error = error
    except Exception:
        log.exception("one of many failed unexpectedly", extra={"request_id": REQUEST_ID.get()})
        item.error = unexpected(REQUEST_ID.get())


class _StartedTask(msgspec.Struct, frozen=True):
    """What an answer says of a task, as far as it is needed here."""

    id: str


class _Started(msgspec.Struct, frozen=True):
    """What an answer says that has started a task."""

    task: _StartedTask | None = None


class _Alone:
    """The request that would have asked for one of them: as the one it is part of, but for its path, headers and body.

    It has what handlers about one resource look at; what it lacks is taken from the whole request.
    """

    def __init__(self, request: web.Request, many: ManyVerb, id_: str, content: bytes) -> None:
        before, variable, after = _around(many.path)
        self._request = request
        self._own: dict[object, object] = {CONTENT: content}
        self.method = many.method
        self.path = f"{before}{id_}{after}"
        self.match_info: Mapping[str, str] = {variable: id_}
        if "{ref}" in many.path:
            self.match_info = {"plural": many.plural, variable: id_}
        self.headers = CIMultiDict(request.headers)
        for name in NOT_PASSED_ON:
            self.headers.popall(name, None)
        self.query: MultiDict[str] = MultiDict()

    def __getattr__(self, name: str) -> Any:  # as the whole request has it
        return getattr(self._request, name)

    def __contains__(self, key: object) -> bool:
        return key in self._own or key in self._request

    def __getitem__(self, key: Any) -> Any:
        return self._own[key] if key in self._own else self._request[key]

    def __setitem__(self, key: object, value: object) -> None:
        self._own[key] = value

    def __iter__(self) -> Iterator[Any]:
        return iter((*self._own, *(key for key in self._request if key not in self._own)))

    def get(self, key: Any, default: Any = None) -> Any:
        """Return a value kept with the request."""
        return self._own.get(key, self._request.get(key, default))


def _around(path: str) -> Sequence[str]:
    """Return what is before the one variable of a path, the variable's name, and what is after it."""
    before, _, rest = path.partition("{")
    variable, _, after = rest.partition("}")
    return before, variable, after


def _task_in(request: web.Request, answer: web.StreamResponse) -> Task | None:
    """Return the task that the answer for one says it has started."""
    assert isinstance(answer, web.Response) and isinstance(answer.body, bytes), "it is JSON"
    started = msgspec.json.decode(answer.body, type=_Started).task
    return node_of(request).store.get(Task, started.id) if started is not None else None


def _shown(request: web.Request, ref: str, item: _Item) -> dict[str, Any]:
    resource, problem = item.resource, None
    if item.error is not None:
        problem = problem_of(item.error, REQUEST_ID.get())
    return {
        "ref": ref,
        "id": resource.id if resource is not None else "",
        "name": resource.name if resource is not None else "",
        "status": problem.status if problem is not None else item.status,
        "task": shown_to(request, item.task) if item.task is not None else None,
        "problem": problem,
    }
