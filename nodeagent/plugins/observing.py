"""Observers: plug-ins that are told of every event of the cluster's event log, in order, beside the agent's work.

Each has a thread of its own and its own place in the log, so a slow one holds nobody up and nothing piles up in memory: the
log itself is the queue, and what it no longer keeps is missed. Live only: it begins with what happens after the agent has
started. A failing observer goes on with the next event; one that doesn't come back in time is called no more, as its thread
can't be ended.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint
from typing import Protocol, cast

from core.errors import FatalError, PlatformError
from core.model import Event, Severity
from core.supervise import keep_running
from nodeagent.compute.call_threads import CallThreads
from nodeagent.node import Node
from nodeagent.plugins.contained import contained
from nodeagent.plugins.loading import Group, instance_of
from nodeagent.services.event_log import EventLog

OBSERVERS_GROUP = "kvorum.observers"
CALL_S_MAX = 10.0
BATCH = 100
REPORT_AGAIN_S = 600.0

Told = Callable[[str, str, str], None]
"""Called with a group, a name and what is wrong with it now; an empty text: nothing any more."""


class Observer(Protocol):
    """A plug-in's listener; made without arguments when the agent starts."""

    def observe(self, event: Event) -> None:
        """Take an event in. Runs on a thread of its own and may do I/O, for 10 seconds at most."""
        ...


class Observers:
    """The observers that were loaded."""

    def __init__(self) -> None:
        self._observers: dict[str, Observer] = {}

    def group(self) -> Group:
        """Return how plug-ins add to them."""
        return Group(OBSERVERS_GROUP, "observer", _load, self._accept)

    def all(self) -> Mapping[str, Observer]:
        """Return them by their names."""
        return self._observers

    def _accept(self, name: str, loaded: object) -> None:
        self._observers[name] = cast(Observer, loaded)


def _load(plugin: EntryPoint) -> object:
    made = instance_of(plugin, "an observer", ("observe",))
    if inspect.iscoroutinefunction(cast(Observer, made).observe):
        raise FatalError(
            f"{plugin.value}: observe must be a plain function, it has a thread of its own"
        )
    return made


class Observing:
    """The service that tells the observers."""

    def __init__(
        self,
        node: Node,
        events: EventLog,
        observers: Mapping[str, Observer],
        told: Told,
        *,
        call_s_max: float = CALL_S_MAX,
    ) -> None:
        self._node = node
        self._events = events
        self._observers = observers
        self._told = told
        self._call_s_max = call_s_max

    async def run(self) -> None:
        """Tell them until cancelled."""
        seen = self._node.store.index
        async with asyncio.TaskGroup() as group:
            for name, observer in self._observers.items():
                place = _Place(name, observer, seen)
                group.create_task(
                    keep_running(f"observer-{name}", partial(self._tell, place)),
                    name=f"observer-{name}",
                )
            await asyncio.Event().wait()

    async def _tell(self, place: _Place) -> None:
        store = self._node.store
        watch = store.watch(Event)
        threads = CallThreads(1, f"observer-{place.name}")
        try:
            while not place.stopped:
                batch = store.since(Event, place.seen, BATCH)
                for event in batch:
                    if not await self._call(place, threads, event):
                        break
                if batch:
                    place.seen = batch[-1].revision
                else:
                    await watch.next()
            await asyncio.Event().wait()  # called no more; who ended here would be started again
        finally:
            store.unwatch(watch)
            threads.shutdown()

    async def _call(self, place: _Place, threads: CallThreads, event: Event) -> bool:
        """Tell an observer of one event; False when it can't be called any more."""
        loop, observe = asyncio.get_running_loop(), place.observer.observe
        try:
            async with asyncio.timeout(self._call_s_max):
                await loop.run_in_executor(
                    threads, contained, f"observer {place.name}", observe, event
                )
        except TimeoutError:
            place.stopped = True
            await self._failed(
                place,
                f"observer {place.name} took longer than {self._call_s_max:g} s over an event: it is called no more "
                "until the agent is started again",
            )
        except PlatformError as error:
            await self._failed(place, error.message)
        else:
            if place.failing:
                self._told(OBSERVERS_GROUP, place.name, "")
            place.failing = False
        return not place.stopped

    async def _failed(self, place: _Place, why: str) -> None:
        """Report the first failure of a row: to the observer itself as well, whose failing over that isn't reported."""
        now_s = asyncio.get_running_loop().time()
        self._told(OBSERVERS_GROUP, place.name, why)
        quiet = place.failing or now_s < place.quiet_until_s
        place.failing = True
        if not quiet or place.stopped:
            place.quiet_until_s = now_s + REPORT_AGAIN_S
            await self._events.record(
                "plugin-failed", self._node.host(), why, severity=Severity.WARNING
            )


@dataclass(slots=True)
class _Place:
    """How far an observer has been told, and how it takes it."""

    name: str
    observer: Observer
    seen: int
    failing: bool = False
    stopped: bool = False
    quiet_until_s: float = float("-inf")
