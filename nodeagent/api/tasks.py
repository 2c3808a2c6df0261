"""Tasks: wait for one (`Prefer: wait=SECONDS`, RFC 7240 section 4.3), ask one to cancel, to try again at once, or to be given up.

A task lives in the replicated state, so it can be asked for at any agent, also after its runner died.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec.structs import replace

from core.attributes import attribute
from core.errors import ConflictError, InvalidError
from core.model import LogLine, Task, TaskState
from nodeagent.api.access import check_again
from nodeagent.api.requests import (
    body_of,
    etag_of,
    found_of,
    ids_of,
    json_answer,
    node_of,
    services_of,
    shown_to,
    target_of,
)
from nodeagent.services.giving_up import check
from nodeagent.services.task_journal import ENDED, with_line

WAIT_S_MAX = 60.0
TRIES = 5


class GiveUpTask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`confirm` repeats the name of what the task works on: what it has begun is left as it is."""

    reason: Annotated[
        str,
        attribute(
            "Why; it is kept with the task.",
            length_max=200,
            pattern=r"^[^\x00-\x1f]*\S[^\x00-\x1f]*$",
        ),
    ]
    confirm: Annotated[str, attribute("The name of what the task works on, once more.")]


def add_routes(app: web.Application) -> None:
    """Add the routes of tasks."""
    app.router.add_get("/v1/tasks/{task}", show_task)
    app.router.add_delete("/v1/tasks/{task}", cancel_task)
    app.router.add_post("/v1/tasks/{task}/actions/retry", retry_task)
    app.router.add_post("/v1/tasks/{task}/actions/give-up", give_up_task)


async def show_task(request: web.Request) -> web.Response:
    """GET /v1/tasks/{task}. With `Prefer: wait=N`, answers when it ends or changes, N seconds at most.

    With `If-None-Match` a change since that revision counts too, so that none between two calls is missed.
    """
    task = await waited(request, found_of(request, Task, "task"))
    check_again(request)
    return json_answer(shown_to(request, task), headers={"ETag": etag_of(task)})


async def cancel_task(request: web.Request) -> web.Response:
    """DELETE /v1/tasks/{task}. 202: asked to stop at its next safe point. 409: it has ended."""
    return await _asked(request, lambda task: replace(task, cancel_requested=True), "cancel-asked")


async def retry_task(request: web.Request) -> web.Response:
    """POST /v1/tasks/{task}/actions/retry. 202: what failed and waits is tried again at once. 409: the task has ended."""
    return await _asked(
        request, lambda task: replace(task, retries_asked=task.retries_asked + 1), "retry-asked"
    )


async def give_up_task(request: web.Request) -> web.Response:
    """POST /v1/tasks/{task}/actions/give-up. 202: its host ends it as it is. 409: not stuck, or not safe to."""
    body = await body_of(request, GiveUpTask)
    steps = services_of(request).plugins.registry.steps

    def leaves_behind(name: str) -> bool | None:
        make = steps.get(name)
        return hasattr(make, "left_behind") if isinstance(make, type) else None

    def ask(task: Task) -> Task:
        if body.confirm != (named := task.subject_name or task.subject):
            raise InvalidError(f"confirm must be the name of what the task works on, {named!r}")
        check(task, leaves_behind)
        return replace(task, give_up_reason=body.reason, give_up_after=len(task.journal))

    return await _asked(request, ask, "give-up-asked")


async def _asked(request: web.Request, ask: Callable[[Task], Task], what: str) -> web.Response:
    """Write a wish into the task and its log, where its runner sees it; one that is there already isn't written again."""
    node, ids = node_of(request), ids_of(request)
    task = target_of(request, Task, "task")
    for attempt in range(TRIES):
        if task.state in ENDED:
            raise ConflictError(f"the task has {_ended(task.state)} already")
        asked = ask(task)
        if asked == task:
            break
        line = LogLine(after=0, at_ms=node.clock.wall_ms(), what=what)
        try:
            await node.store.apply(
                puts=(with_line(asked, line),), request_id=ids.again(attempt).request_id
            )
        except ConflictError as error:
            # Its runner wrote a line at the same moment: that is nothing to bother the caller with.
            if error.code != "conflict-guard" or attempt == TRIES - 1:
                raise
            task = target_of(request, Task, "task")
        else:
            break
    return json_answer(shown_to(request, node.store.need(Task, task.id)), status=202)


def _ended(state: TaskState) -> str:
    return f"been {state}" if state is TaskState.CANCELLED else str(state)


async def waited(request: web.Request, task: Task) -> Task:
    """Return the task at once, or as the request prefers: when it has changed or ended."""
    wait_s = preferred_wait_s(request)
    store = node_of(request).store
    if wait_s <= 0 or task.state in ENDED:
        return task
    watch = store.watch(Task)
    revision = _known_revision(request) or task.revision
    try:
        async with asyncio.timeout(wait_s):
            while task.revision == revision and task.state not in ENDED:
                await watch.next()
                task = store.get(Task, task.id) or task
    except TimeoutError:
        pass
    finally:
        store.unwatch(watch)
    return store.get(Task, task.id) or task


def _known_revision(request: web.Request) -> int:
    """Return the revision that the caller has seen (`If-None-Match`), 0 without one."""
    found = re.fullmatch(r'"(\d{1,18})"', request.headers.get("If-None-Match", "").strip())
    return int(found[1]) if found else 0


def preferred_wait_s(request: web.Request) -> float:
    """Return the seconds of `Prefer: wait=N`, 0 without it, at most 60."""
    found = re.search(r"\bwait=(\d{1,6})", request.headers.get("Prefer", ""))
    return min(float(found[1]), WAIT_S_MAX) if found else 0.0
