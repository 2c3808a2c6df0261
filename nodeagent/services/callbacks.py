"""Calls back: when a task ends whose starter named a URL, its result is posted there, signed, until it is taken.

The wish is stored in the transaction that opens the task (`CallBack`), so it is as safe as the task. Every member looks
for ended tasks with such a wish (`Callbacks`); the one that the ring names delivers. It commits that a try begins before
it makes it: so tries are counted whoever dies, and two agents that both think it is theirs don't both call. A crash
between an answer and its record means that the receiver hears twice: the id of a delivery is always the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from core.errors import ConflictError, PlatformError, UnavailableError
from core.identity.sealing import Keys, seal, unseal
from core.identity.webhook_signing import make_signing_key, signed_headers
from core.logs import REQUEST_ID
from core.model import Callback, CallbackKey, Resource, Severity, Task
from nodeagent.api.views import show
from nodeagent.node import Node
from nodeagent.services.callback_targets import CallbackTargets, Target
from nodeagent.services.event_log import EventLog
from nodeagent.services.sealing_guard import sealing_guards
from nodeagent.services.task_journal import ENDED
from raftstate.store import Store

log = logging.getLogger(__name__)

ROUND_S = 2.0
PAUSE_S = 0.2
KEY_ID = "callback-key"
AT_ONCE = 16
PAUSES_S = (5, 30, 120, 600, 1800, 3600, 7200, 14400)
TRIES_MAX = len(PAUSES_S) + 1
BODY_BYTES_MAX = 256 << 10
GIVEN_UP = "callback-given-up"


class Owners(Protocol):
    """Who does the work on a resource (`nodeagent.services.whereabouts`)."""

    def owners(self, key: str, *, records_only: bool) -> Sequence[str]: ...


class Sender(Protocol):
    """See `nodeagent.services.callback_sender`."""

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> str: ...


class CallBack:
    """The wish of one request to be called back."""

    def __init__(self, store: Store, keys: Callable[[], Keys], target: Target) -> None:
        self._store, self._keys, self._target = store, keys, target

    def beside(self, task: Task) -> tuple[tuple[Resource, ...], tuple[Resource, ...]]:
        """Return what is to be stored together with a task, and what that transaction must guard."""
        guards = sealing_guards(self._store)
        name = Callback.SEALED["sealed_url"].format(id=task.id)
        wish = Callback(
            id=task.id,
            name=task.id,
            receiver=self._target.receiver,
            sealed_url=seal(self._keys(), name, self._target.url.encode()),
            created_ms=task.created_ms,
        )
        return (wish,), guards


class Callbacks:
    """This agent's part in it, and the key that signs."""

    def __init__(
        self,
        node: Node,
        owners: Owners,
        sender: Sender,
        *,
        targets: CallbackTargets,
        secrets_key: Callable[[], Keys],
    ) -> None:
        self._node, self._store = node, node.store
        self._owners, self._sender, self._targets = owners, sender, targets
        self._secrets_key = secrets_key
        self._events = EventLog(node)
        self._delivering: set[str] = set()

    def wish(self, url: str) -> CallBack:
        """Return the wish to be called at a URL.

        Raises:
            InvalidError, ForbiddenError: it can't be called; never repeats it.
        """
        return CallBack(self._store, self._secrets_key, self._targets.checked(url))

    async def run(self) -> None:
        """Deliver until cancelled."""
        watch = self._store.watch(Task, Callback)
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._have_key()
                    for callback in self._due()[: AT_ONCE - len(self._delivering)]:
                        self._delivering.add(callback.id)
                        group.create_task(self._deliver(callback), name=f"callback-{callback.id}")
                    try:
                        async with asyncio.timeout(ROUND_S):
                            await watch.next()
                    except TimeoutError:
                        continue
                    await asyncio.sleep(PAUSE_S)  # a task writes many lines, one after the other
        finally:
            self._store.unwatch(watch)

    # -- the key

    def public_key(self) -> str:
        """Return the public key in base64.

        Raises:
            UnavailableError: the cluster has none yet.
        """
        key = self._store.get(CallbackKey, KEY_ID)
        if key is None:
            raise UnavailableError("the key that signs callbacks isn't made yet: try again")
        return key.public_key

    async def change_key(self) -> str:
        """Put a new key in the place of the one that signs, and return its public part.

        Raises:
            ConflictError: somebody else changes it, or the secrets key, at this moment.
            UnavailableError: no quorum.
        """
        before = self._store.get(CallbackKey, KEY_ID)
        guards = sealing_guards(self._store)
        private, public = make_signing_key()
        key = CallbackKey(
            id=KEY_ID,
            name=KEY_ID,
            public_key=public,
            sealed_key=seal(self._secrets_key(), CallbackKey.SEALED["sealed_key"], private),
            created_ms=self._node.clock.wall_ms(),
            revision=before.revision if before is not None else 0,
        )
        await self._store.apply(puts=(key,), guards=guards)
        log.info("the key that signs callbacks was made", extra={"public_key": public})
        return public

    async def _have_key(self) -> None:
        if self._node.engine.is_leader() and self._store.get(CallbackKey, KEY_ID) is None:
            try:
                await self.change_key()
            except PlatformError as error:
                log.info("the key that signs callbacks waits", extra={"error": error.message})

    # -- deliveries

    def _due(self) -> list[Callback]:
        """Return what this host should deliver now, the longest due first."""
        now_ms = self._node.clock.wall_ms()
        if self._store.get(CallbackKey, KEY_ID) is None:
            return []
        due = [
            callback
            for callback in self._store.all(Callback)
            if callback.next_ms <= now_ms and callback.id not in self._delivering
        ]
        ended = [callback for callback in due if self._has_ended(callback.id)]
        mine = [callback for callback in ended if self._is_mine(callback)]
        return sorted(mine, key=lambda callback: callback.next_ms)

    def _has_ended(self, task_id: str) -> bool:
        task = self._store.get(Task, task_id)
        return task is None or task.state in ENDED

    def _is_mine(self, callback: Callback) -> bool:
        """Each further try is another host's: the one before may have no way to the receiver."""
        owners = self._owners.owners(f"task/{callback.id}", records_only=True)
        return bool(owners) and owners[callback.tries % len(owners)] == self._node.host_id

    async def _deliver(self, callback: Callback) -> None:
        try:
            task = self._store.get(Task, callback.id)
            if task is None:
                await self._store.apply(deletes=(callback,))
                return
            REQUEST_ID.set(task.request_id)
            await self._begin(callback)
            why = await self._sender.send(*self._message(callback, task))
            await self._ended(callback.id, task, why)
        except PlatformError as error:
            log.info("a callback waits", extra={"task": callback.id, "error": error.message})
            await asyncio.sleep(ROUND_S)
        finally:
            self._delivering.discard(callback.id)

    async def _begin(self, callback: Callback) -> None:
        """Commit that a try begins, or raise ConflictError because another host has begun it."""
        pause_s = PAUSES_S[min(callback.tries, len(PAUSES_S) - 1)]
        next_ms = self._node.clock.wall_ms() + pause_s * 1000
        begun = replace(callback, tries=callback.tries + 1, next_ms=next_ms)
        await self._store.apply(puts=(begun,))

    def _message(self, callback: Callback, task: Task) -> tuple[str, dict[str, str], bytes]:
        """Return URL, headers and body."""
        keys, now_ms = self._secrets_key(), self._node.clock.wall_ms()
        name = Callback.SEALED["sealed_url"].format(id=callback.id)
        url = unseal(keys, name, callback.sealed_url).decode()
        key = self._store.need(CallbackKey, KEY_ID)
        private = unseal(keys, CallbackKey.SEALED["sealed_key"], key.sealed_key)
        body = body_of(self._store, task)
        headers = signed_headers(private, callback.id, now_ms // 1000, body)
        return url, {**headers, "Content-Type": "application/json", "User-Agent": "kvorum"}, body

    async def _ended(self, id_: str, task: Task, why: str) -> None:
        """Record what came of a try; again if the record was sealed anew meanwhile."""
        if why:
            log.info("a callback was not taken", extra={"task": id_, "why": why})
        for attempt in range(3):
            callback = self._store.get(Callback, id_)
            if callback is None or (why and callback.tries < TRIES_MAX):
                return
            puts = (self._given_up(callback, task, why),) if why else ()
            try:
                await self._store.apply(puts=puts, deletes=(callback,))
            except ConflictError:
                if attempt == 2:
                    raise
            else:
                log.info("a callback has ended", extra={"task": id_, "taken": not why})
                return

    def _given_up(self, callback: Callback, task: Task, why: str) -> Resource:
        message = (
            f"{callback.receiver} was not told that the task {task.state}: it was tried {callback.tries} times, "
            f"the last time {why}. Ask for the task: 'kvorum task show {task.id}'"
        )
        return self._events.make(GIVEN_UP, task, message, severity=Severity.WARNING)


def body_of(store: Store, task: Task) -> bytes:
    """Return what a receiver gets: the task as the API shows it, without its log and steps where these are long."""
    shown: dict[str, Any] = show(store, task)
    about = {"type": f"task.{task.state}", "timestamp_ms": task.ended_ms}
    body = msgspec.json.encode({**about, "task": shown})
    if len(body) <= BODY_BYTES_MAX:
        return body
    short = {
        field: value for field, value in shown.items() if field not in {"log", "steps", "journal"}
    }
    return msgspec.json.encode({**about, "task": short})
