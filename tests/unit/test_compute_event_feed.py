"""Readers of events never hold back the source, and know when they missed something."""

from __future__ import annotations

from nodeagent.compute.event_feed import RESYNC, EventFeed
from nodeagent.compute.hypervisor import DomainEvent, EventKind


def event(number: int) -> DomainEvent:
    return DomainEvent(vm_id=f"vm{number}", kind=EventKind.STARTED)


async def test_a_new_reader_first_resyncs_and_then_gets_every_event() -> None:
    feed = EventFeed()
    feed.publish(event(0))
    async with feed.events() as events:
        feed.publish(event(1))
        assert [await anext(events), await anext(events)] == [RESYNC, event(1)]


async def test_a_slow_reader_gets_one_resync_for_all_it_missed() -> None:
    feed = EventFeed(backlog_max=3)
    async with feed.events() as slow, feed.events() as fast:
        assert await anext(fast) == RESYNC
        for number in range(1, 4):
            feed.publish(event(number))
            assert await anext(fast) == event(number)
        feed.publish(event(4))
        assert [await anext(slow), await anext(slow)] == [RESYNC, event(4)]
        assert await anext(fast) == event(4)


async def test_a_reader_that_left_costs_nothing() -> None:
    feed = EventFeed(backlog_max=1)
    async with feed.events():
        pass
    for number in range(10):
        feed.publish(event(number))
    assert feed._queues == []
