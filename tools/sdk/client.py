"""The client of the HTTP API in JSON objects: lists, changes, waits for tasks, uploads, follows events.

Used by the `kvorum` command, which prints whatever an agent answers, and by `tools.sdk.kvorum`, which gives programs typed
models instead. Construct it with endpoints and a token or an access key, use it as `async with Client(...) as client`. Every
method may raise the errors of `core.errors`: UnavailableError when no agent answers or there is no quorum, others when the
request is refused.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import quote, unquote

import msgspec

from core.clock import Clock, SystemClock
from core.errors import InvalidError, NotFoundError, PlatformError, UnavailableError
from tools.sdk.addresses import AddressFile
from tools.sdk.bodies import (
    AccessKeyBody,
    AccessTokenBody,
    Body,
    CheckDrillBody,
    EmptyBody,
    InitBody,
    JoinBody,
    JoinTokenBody,
    LeaveBody,
    LoginBody,
    RuleBody,
    RulePatch,
    SnapshotBody,
    TagsBody,
    VMBody,
)
from tools.sdk.endpoints import Endpoint
from tools.sdk.files import OnBytes, pieces_of, sha256_of, size_of
from tools.sdk.items import Item, JsonValue, Page, item_of
from tools.sdk.problems import Problem, error_from
from tools.sdk.sse import Decoder
from tools.sdk.started import Started
from tools.sdk.tasks import TaskView, task_of
from tools.sdk.transport import DEADLINE_S, Access, Reply, Request, Transport, pieces_in

JOIN_TIMEOUT_S = 120.0
TASK_WAIT_S = 20
TASK_POLL_S_MIN = 0.3
TASK_LATE_S = 10.0
UPLOAD_BYTES_PER_S_MIN = 256 * 1024
UPLOAD_CONVERSION_S_MAX = 900.0

PAGE_MAX = 10_000
MANY_MAX = 200
MANY_TIMEOUT_S = 120.0
STREAM_SILENCE_S = 40.0  # agents say every 15 s that they are still there
FOLLOW_TRIES_FIRST = 3
FOLLOW_TRIES = 12

OnProgress = Callable[[TaskView], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one of many, called `ref` in the request: an error, or a task, or nothing to do."""

    ref: str
    item: Item
    task: TaskView | None
    error: PlatformError | None


def path_of(*parts: str) -> str:
    """Return `/v1/...` with each part quoted.

    Raises:
        InvalidError: a part is empty or means a directory.
    """
    for part in parts:
        if not part or part in {".", ".."}:
            raise InvalidError(f"{part!r} is not a name")
    return "/".join(("/v1", *(quote(part, safe="") for part in parts)))


def _silent(error: PlatformError) -> None:
    """Say nothing of retries."""


class Client:
    """A connection to a cluster through any of its agents.

    `patience_s`: how long a lost agent or quorum is waited for; a client that never had an answer gives
    up after `first_patience_s`. `deadline_s` bounds each request with all its tries. `access_key`: id and secret, with which
    each try is signed. `anonymous`: no token is needed, as for logging in. `on_retry` hears of every error that is tried
    again. With `learning` the cluster tells, once a minute of use, where all its agents are, so that the loss of those in
    `endpoints` doesn't matter; `remember` keeps that. An agent that says nothing on a stream of events for
    `stream_silence_s` is taken for lost.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        token: str = "",
        access_key: tuple[str, str] = ("", ""),
        anonymous: bool = False,
        ca_file: str = "",
        rng: random.Random,
        clock: Clock | None = None,
        patience_s: float = 15.0,
        first_patience_s: float = 2.0,
        on_retry: Callable[[PlatformError], None] = _silent,
        deadline_s: float = DEADLINE_S,
        learning: bool = False,
        remember: AddressFile | None = None,
        stream_silence_s: float = STREAM_SILENCE_S,
    ) -> None:
        self._stream_silence_s = stream_silence_s
        self._transport = Transport(
            endpoints,
            Access(token=token, access_key=access_key, ca_file=ca_file, anonymous=anonymous),
            clock=clock or SystemClock(),
            rng=rng,
            patience_s=patience_s,
            first_patience_s=first_patience_s,
            on_retry=on_retry,
            deadline_s=deadline_s,
            learning=learning,
            remember=remember,
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._transport.__aexit__(kind, error, trace)

    @property
    def endpoint(self) -> Endpoint:
        """The agent that is asked next."""
        return self._transport.endpoint

    @property
    def transport(self) -> Transport:
        """What sends requests; for the typed client, which is made of this one."""
        return self._transport

    # -- this host

    async def local_status(self) -> Item:
        """Return whether this host's agent is `unconfigured`, a `member`, or `removed` by its cluster."""
        return await self._item(Request("GET", path_of("local", "status")))

    async def init(self, body: InitBody) -> Item:
        """Make a cluster of this host."""
        path = path_of("local", "init")
        return await self._item(Request("POST", path, body=_json(body), timeout_s=JOIN_TIMEOUT_S))

    async def join(self, body: JoinBody) -> Item:
        """Make this host a member; takes half a minute, rarely more."""
        path = path_of("local", "join")
        return await self._item(Request("POST", path, body=_json(body), timeout_s=JOIN_TIMEOUT_S))

    async def leave(self, body: LeaveBody) -> Item:
        """Take this host out of its cluster; takes up to a minute."""
        path = path_of("local", "leave")
        return await self._item(Request("POST", path, body=_json(body), timeout_s=JOIN_TIMEOUT_S))

    # -- anything

    async def status(self) -> Item:
        """Return the cluster in short: leader, quorum, members, VMs, alarms."""
        return await self._item(Request("GET", path_of("status")))

    async def health(self) -> Item:
        """Return whether the cluster can take a failure now: verdict, findings, and each host; needs no quorum."""
        return await self._item(Request("GET", path_of("health")))

    async def list(
        self,
        plural: str,
        *,
        query: Iterable[str] = (),
        sort: str = "",
        limit: int = 0,
        fields: Iterable[str] = (),
        cursor: str = "",
    ) -> Page[Item]:
        """Return a page of resources of a kind, e.g. `vms`; each query is `attribute=value` or another condition.

        docs/query.md has all of it. `fields` chooses what is shown. To go on, give `next` of a page as `cursor` with the
        same query and sort.
        """
        pairs = [("q", text) for text in query]
        options = {"sort": sort, "fields": ",".join(fields), "cursor": cursor}
        pairs += [(name, value) for name, value in options.items() if value]
        if limit:
            pairs.append(("limit", str(limit)))
        answer = await self._item(Request("GET", path_of(plural), query=tuple(pairs)))
        return Page(answer.items("items"), answer.integer("index"), answer.text("next"))

    async def find(
        self,
        plural: str,
        *,
        query: Iterable[str] = (),
        sort: str = "",
        fields: Iterable[str] = (),
        page_size: int = 0,
    ) -> AsyncGenerator[Item, None]:
        """Yield all resources that match, page by page; one that stays as it is meanwhile comes exactly once."""
        query, fields, cursor = tuple(query), tuple(fields), ""
        while True:
            page = await self.list(
                plural, query=query, sort=sort, limit=page_size, fields=fields, cursor=cursor
            )
            for item in page.items:
                yield item
            if not page.next or page.next == cursor:
                return
            cursor = page.next

    async def list_all(
        self,
        plural: str,
        *,
        query: Iterable[str] = (),
        sort: str = "",
        limit: int = 0,
        fields: Iterable[str] = (),
    ) -> Page[Item]:
        """Return all resources that match, or the first `limit`, as one page; its index is that of the first part."""
        query, fields, found = tuple(query), tuple(fields), list[Item]()
        page = await self.list(
            plural, query=query, sort=sort, limit=min(limit, PAGE_MAX), fields=fields
        )
        index = page.index
        found += page.items
        while page.next and (not limit or len(found) < limit):
            left = min(limit - len(found), PAGE_MAX) if limit else 0
            page = await self.list(
                plural, query=query, sort=sort, limit=left, fields=fields, cursor=page.next
            )
            found += page.items
        return Page(tuple(found), index, page.next)

    async def count(self, plural: str, *, query: Iterable[str] = ()) -> int:
        """Return how many resources match."""
        pairs = (("count", "1"), *(("q", text) for text in query))
        answer = await self._item(Request("GET", path_of(plural), query=pairs))
        return _with("count", answer).integer("count")

    async def explain(self, plural: str, *, query: Iterable[str] = (), sort: str = "") -> Item:
        """Return how a query would be run: `plan`, a list of `step` and `reads_rows`, and the sum of the latter."""
        pairs = [("explain", "1"), *(("q", text) for text in query)]
        pairs += [("sort", sort)] if sort else []
        return _with("plan", await self._item(Request("GET", path_of(plural), query=tuple(pairs))))

    async def get(self, plural: str, name: str) -> Item:
        """Return one resource by name or id."""
        return await self._item(Request("GET", path_of(plural, name)))

    async def power_of(self, host: str) -> Item:
        """Ask a host's management board whether the host has power: `on`."""
        return await self._item(Request("GET", path_of("bmcs", host, "power")))

    async def check_drill(self, body: CheckDrillBody) -> Item:
        """Return what a drill would be and what stands in its way; nothing is done."""
        path = path_of("drills", "actions", "check")
        return await self._item(Request("POST", path, body=_json(body)))

    async def drill_report(self, drill: str) -> Item:
        """Return the report of a drill: `text`, `markdown`, and parts."""
        return await self._item(Request("GET", path_of("drills", drill, "report")))

    async def create(self, plural: str, body: Body) -> Item:
        """Create what is ready at once (not VMs and images)."""
        return await self._item(Request("POST", path_of(plural), body=_json(body)))

    async def update(self, plural: str, name: str, body: Body) -> Item:
        """Change the fields that the body sets."""
        return await self._item(Request("PATCH", path_of(plural, name), body=_json(body)))

    async def create_declared(self, plural: str, attributes: Mapping[str, JsonValue]) -> Item:
        """Create a resource of any kind, also a plug-in's, by the attributes that its description names."""
        body = msgspec.json.encode(dict(attributes))
        return await self._item(Request("POST", path_of(plural), body=body))

    async def update_declared(
        self, plural: str, name: str, attributes: Mapping[str, JsonValue]
    ) -> Item:
        """Change these attributes of a resource of any kind."""
        body = msgspec.json.encode(dict(attributes))
        return await self._item(Request("PATCH", path_of(plural, name), body=body))

    async def delete(self, plural: str, name: str, *, callback_url: str = "") -> Started[Item]:
        """Delete by name or id; long work comes back as a task, of whose end `callback_url` is told."""
        headers = _callback(callback_url)
        request = Request("DELETE", path_of(plural, name), headers=headers)
        return _started(await self._transport.send(request))

    async def act(
        self,
        plural: str,
        name: str,
        verb: str,
        body: Body | None = None,
        *,
        callback_url: str = "",
    ) -> Started[Item]:
        """Do `POST /v1/<plural>/<name>/actions/<verb>`; `callback_url` is told of the end of the task, if one begins."""
        path, headers = path_of(plural, name, "actions", verb), _callback(callback_url)
        request = Request("POST", path, headers=headers, body=_json(body or EmptyBody()))
        return _started(await self._transport.send(request))

    async def act_on_many(
        self,
        plural: str,
        names: Sequence[str],
        verb: str,
        body: Body | None = None,
        *,
        callback_url: str = "",
    ) -> tuple[Outcome, ...]:
        """Do a verb to many, by names or ids, and return what came of each, in their order; some at a time if there are very many.

        To choose them by conditions, list them first: then it is known what a repetition is about.
        """
        path, headers = path_of(plural, "actions", verb), _callback(callback_url)
        outcomes: list[Outcome] = []
        for first in range(0, len(names), MANY_MAX):
            options = msgspec.to_builtins(body or EmptyBody())
            some = {**options, plural.replace("-", "_"): list(names[first : first + MANY_MAX])}
            request = Request(
                "POST",
                path,
                headers=headers,
                body=msgspec.json.encode(some),
                timeout_s=MANY_TIMEOUT_S,
            )
            outcomes += map(_outcome, (await self._item(request)).items("items"))
        return tuple(outcomes)

    async def plan_delete(self, plural: str, name: str) -> Item:
        """Return what a deletion would take along and what stands in its way; nothing is deleted.

        Raises:
            InvalidError: deletions of that kind have no preview.
        """
        request = Request("DELETE", path_of(plural, name), query=(("dry_run", "1"),))
        return await self._item(request)

    async def tags(self, plural: str, name: str) -> tuple[str, ...]:
        """Return the tags of a resource."""
        return (await self._item(Request("GET", path_of(plural, name, "tags")))).texts("tags")

    async def change_tags(
        self, plural: str, name: str, *, add: Iterable[str] = (), remove: Iterable[str] = ()
    ) -> tuple[str, ...]:
        """Add and remove tags; what is there already, or isn't, is no error. Returns the tags it has then."""
        body = _json(TagsBody(add=tuple(add), remove=tuple(remove)))
        request = Request("PATCH", path_of(plural, name, "tags"), body=body)
        return (await self._item(request)).texts("tags")

    async def description(self) -> Item:
        """Return the OpenAPI description of the agent that answers, types of its plug-ins included."""
        return await self._item(Request("GET", path_of("openapi.json")))

    async def request(self, method: str, path: str, body: bytes = b"") -> Reply:
        """Send anything: `path` is quoted by the caller and may hold a query."""
        path, _, query = path.partition("?")
        pairs = tuple(
            (unquote(name), unquote(value))
            for name, _, value in (pair.partition("=") for pair in query.split("&") if pair)
        )
        return await self._transport.send(Request(method, path, query=pairs, body=body))

    @asynccontextmanager
    async def backup(self, *, of_this_host: bool) -> AsyncIterator[AsyncIterator[bytes]]:
        """Give the pieces of a backup of the state, as `raftstate.rescue.backup_file` writes it, for the block."""
        query = (("of", "host"),) if of_this_host else ()
        request = Request("GET", path_of("state", "backup"), query=query)
        async with self._transport.open_stream(request) as reader:
            yield pieces_in(reader)

    # -- particular resources

    async def create_vm(self, body: VMBody, *, callback_url: str = "") -> Started[Item]:
        """Create a VM and, unless told otherwise, start it; `callback_url` is told of the end."""
        headers = _callback(callback_url)
        request = Request("POST", path_of("vms"), headers=headers, body=_json(body))
        return _started(await self._transport.send(request), key="vm")

    async def take_snapshot(self, body: SnapshotBody, *, callback_url: str = "") -> Started[Item]:
        """Take a snapshot of a stopped VM; `callback_url` is told of the end."""
        headers = _callback(callback_url)
        request = Request("POST", path_of("snapshots"), headers=headers, body=_json(body))
        return _started(await self._transport.send(request), key="snapshot")

    async def callback_key(self) -> str:
        """Return the public key, `whpk_` and base64, with which receivers check what they are sent."""
        return (await self._item(Request("GET", path_of("callback-key")))).text("public_key")

    async def create_join_tokens(self, body: JoinTokenBody) -> Item:
        """Return `tokens` and `expires_ms`; the agent keeps only hashes of the tokens."""
        return await self._item(Request("POST", path_of("join-tokens"), body=_json(body)))

    async def create_access_token(self, body: AccessTokenBody) -> Item:
        """Return `token` and `id`; the token is never shown again."""
        return await self._item(Request("POST", path_of("access-tokens"), body=_json(body)))

    async def create_access_key(self, body: AccessKeyBody) -> Item:
        """Return `id` and `secret`; the secret is never shown again."""
        return await self._item(Request("POST", path_of("access-keys"), body=_json(body)))

    async def log_in(self, body: LoginBody) -> Item:
        """Return a session's `token` and `expires_ms`."""
        return await self._item(Request("POST", path_of("login"), body=_json(body)))

    async def log_out(self) -> None:
        """End the session whose token this client has."""
        await self._transport.send(Request("POST", path_of("logout")))

    async def who_am_i(self) -> Item:
        """Return who the credentials are and what they allow."""
        return await self._item(Request("GET", path_of("whoami")))

    async def add_rule(self, group: str, body: RuleBody) -> Item:
        """Add a rule to a security group."""
        path = path_of("security-groups", group, "rules")
        return await self._item(Request("POST", path, body=_json(body)))

    async def update_rule(self, group: str, rule_id: str, body: RulePatch) -> Item:
        """Enable or disable a rule."""
        path = path_of("security-groups", group, "rules", rule_id)
        return await self._item(Request("PATCH", path, body=_json(body)))

    async def remove_rule(self, group: str, rule_id: str) -> None:
        """Remove a rule that is not a default one."""
        path = path_of("security-groups", group, "rules", rule_id)
        await self._transport.send(Request("DELETE", path))

    async def upload_image(
        self,
        name: str,
        file: Path,
        *,
        source_format: str = "",
        on_hash: OnBytes,
        on_bytes: OnBytes,
    ) -> Item:
        """Upload an image file; read twice, first for its hash, which the agent verifies.

        A broken connection starts the upload over, with the same Idempotency-Key.
        """
        size_bytes = size_of(file)
        sha256 = await sha256_of(file, on_hash)
        query = [("name", name), ("sha256", sha256)]
        if source_format:
            query.append(("format", source_format))
        with file.open("rb") as opened:
            request = Request(
                "POST",
                path_of("images"),
                query=tuple(query),
                stream=lambda: pieces_of(opened, size_bytes, on_bytes),
                size_bytes=size_bytes,
                sha256=sha256,
                timeout_s=UPLOAD_CONVERSION_S_MAX + size_bytes / UPLOAD_BYTES_PER_S_MIN,
            )
            return await self._item(request)

    # -- tasks

    async def get_task(self, task_id: str, *, wait_s: int = 0, seen: int = 0) -> TaskView:
        """Return a task; with `wait_s` when it ended or changed, or after that time.

        `seen` is the revision that is known already: a change since then is told at once.
        """
        headers = {"Prefer": f"wait={wait_s}"} if wait_s else {}
        if wait_s and seen:
            headers["If-None-Match"] = f'"{seen}"'
        request = Request(
            "GET", path_of("tasks", task_id), headers=headers, timeout_s=30.0 + wait_s
        )
        return task_of(await self._item(request))

    async def retry_task(self, task_id: str) -> TaskView:
        """Have what failed in a task, and waits for its next try, be tried at once."""
        path = path_of("tasks", task_id, "actions", "retry")
        return task_of(await self._item(Request("POST", path, body=_json(EmptyBody()))))

    async def cancel_task(self, task_id: str) -> None:
        """Ask that a task stop where it is safe to."""
        await self._transport.send(Request("DELETE", path_of("tasks", task_id)))

    async def wait_task(
        self, task_id: str, on_progress: OnProgress | None = None, *, known: bool = False
    ) -> TaskView:
        """Return a task when it has ended, well or not; bound it with `asyncio.timeout`.

        `on_progress` hears of the task as it stands first, and of every change.
        """
        last: TaskView | None = None
        async for last in self.watch_task(task_id, known=known):
            if on_progress is not None:
                on_progress(last)
        assert last is not None, "a task has at least one state"
        return last

    async def watch_task(
        self, task_id: str, *, known: bool = False, timeout_s: float | None = None
    ) -> AsyncGenerator[TaskView, None]:
        """Yield a task as it stands first, after every change, and as it has ended; nothing for an empty id.

        When the agent dies, the next one is asked for the same task; it may hear of the task a moment later, which is
        waited for when the task is `known` to exist.

        Raises:
            TimeoutError: it takes longer than `timeout_s`; the work goes on.
        """
        loop = asyncio.get_running_loop()
        ends_s = None if timeout_s is None else loop.time() + timeout_s
        seen: TaskView | None = None
        missing_s: float | None = None
        while task_id:
            asked_s = loop.time()
            try:
                async with asyncio.timeout_at(ends_s):
                    task = await self._next_state(task_id, seen)
                    if (
                        task == seen
                    ):  # an agent that doesn't hold the answer back must not be hammered
                        await asyncio.sleep(max(0.0, asked_s + TASK_POLL_S_MIN - loop.time()))
            except NotFoundError:
                missing_s = asked_s if missing_s is None else missing_s
                if not (known or seen) or loop.time() - missing_s > TASK_LATE_S:
                    raise
                await asyncio.sleep(TASK_POLL_S_MIN)
                continue
            missing_s = None
            if task != seen:
                yield task
            if task.ended:
                return
            seen = task

    async def _next_state(self, task_id: str, seen: TaskView | None) -> TaskView:
        """Return a task, after a wait if it is as it was; what an agent that lags behind says is passed over."""
        if seen is None:
            return await self.get_task(task_id)
        task = await self.get_task(task_id, wait_s=TASK_WAIT_S, seen=seen.revision)
        return task if task.revision >= seen.revision else seen

    # -- events

    async def follow_events(self, after: str = "") -> AsyncGenerator[Item, None]:
        """Yield events as they happen, without end and without loss over a change of agent.

        `after` is the index to resume after; empty means from now on.
        """
        decoder = Decoder(after)
        failures, tries = 0, FOLLOW_TRIES_FIRST
        while True:
            headers = {"Accept": "text/event-stream"}
            if decoder.last_id:
                headers["Last-Event-ID"] = decoder.last_id
            request = Request("GET", path_of("events"), headers=headers)
            try:
                async with self._transport.open_stream(request) as reader:
                    while True:
                        async with asyncio.timeout(self._stream_silence_s):
                            piece = await reader.readany()
                        if not piece:
                            break
                        failures, tries = 0, FOLLOW_TRIES
                        await self._transport.learn_if_due()
                        for message in decoder.feed(piece):
                            yield item_of(_decoded(message.data.encode()))
            except UnavailableError:
                failures += 1
                if failures >= tries * len(self._transport.endpoints):
                    raise
            decoder = Decoder(decoder.last_id)
            await asyncio.sleep(min(2.0, 0.1 * 2 ** min(failures, 10)))

    async def _item(self, request: Request) -> Item:
        reply = await self._transport.send(request)
        return item_of(_decoded(reply.body))


def _with(field: str, answer: Item) -> Item:
    """Return an answer that has a field; agents of older versions pass over what they don't know."""
    if field not in answer.raw:
        raise InvalidError(f"the agent that answered knows no {field}: upgrade its host")
    return answer


def _callback(url: str) -> dict[str, str]:
    return {"Callback-URL": url} if url else {}


def _json(body: Body) -> bytes:
    return msgspec.json.encode(body)


def _decoded(body: bytes) -> JsonValue:
    if not body.strip():
        return None
    try:
        value: JsonValue = msgspec.json.decode(body)
    except msgspec.DecodeError:
        raise UnavailableError(
            "the answer is not JSON: is KVORUM_ADDRESS the address of a Kvorum agent?"
        ) from None
    return value


def _outcome(item: Item) -> Outcome:
    task, status = item.item("task"), item.integer("status")
    error = None
    if status >= 400:
        problem = item.item("problem")
        texts = {name: problem.text(name) for name in ("detail", "title", "code", "request_id")}
        error = error_from(status, Problem(**texts))
    return Outcome(item.text("ref"), item, task_of(task) if task.raw else None, error)


def _started(reply: Reply, key: str = "") -> Started[Item]:
    answer = item_of(_decoded(reply.body))
    task = answer.item("task") if "task" in answer.raw else answer
    item = answer.item(key) if key else answer
    if reply.status != 202:
        return Started(item, None)
    if not task.text("id"):
        task = Item({**task.raw, "id": reply.headers.get("Location", "").rsplit("/", 1)[-1]})
    return Started(item, task_of(task))
