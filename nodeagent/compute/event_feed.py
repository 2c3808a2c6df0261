"""Hand events to any number of readers without ever growing or blocking.

Both hypervisors publish here. A reader that falls behind loses its backlog and gets one `RESYNC` instead, after
which it lists the domains: a full picture beats a long history.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from nodeagent.compute.hypervisor import DomainEvent, EventKind

BACKLOG_MAX = 256
RESYNC = DomainEvent(vm_id="", kind=EventKind.RESYNC)


class EventFeed:
    """One source, many readers; used on the event loop's thread only."""

    def __init__(self, backlog_max: int = BACKLOG_MAX) -> None:
        self._backlog_max = backlog_max
        self._queues: list[asyncio.Queue[DomainEvent]] = []

    def publish(self, event: DomainEvent) -> None:
        """Give an event to all present readers."""
        for queue in self._queues:
            if queue.full():
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(RESYNC)
            else:
                queue.put_nowait(event)

    @contextmanager
    def _subscribed(self) -> Iterator[asyncio.Queue[DomainEvent]]:
        queue: asyncio.Queue[DomainEvent] = asyncio.Queue(maxsize=self._backlog_max)
        queue.put_nowait(RESYNC)
        self._queues.append(queue)
        try:
            yield queue
        finally:
            self._queues.remove(queue)

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[DomainEvent]]:
        """Subscribe for the length of the context; the iterator never ends by itself."""
        with self._subscribed() as queue:
            yield _drain(queue)


async def _drain(queue: asyncio.Queue[DomainEvent]) -> AsyncIterator[DomainEvent]:
    while True:
        yield await queue.get()
