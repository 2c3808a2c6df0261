"""A host that falls silent has others raise the alarm, once for each reason."""

import asyncio
import contextlib

from core.model import Event, Host, Severity
from nodeagent.services import fault_reporter
from nodeagent.services.fault_reporter import FaultReporter, record_fault
from tests.many_hosts import ManyHosts, id_of


async def silent_for(many: ManyHosts, rounds: int) -> list[str]:
    """Let the reporter look some times; return whom it asked meanwhile."""
    reporter = FaultReporter(many.node)
    many.mesh_client.asked.clear()
    for reason in rounds:
        many.engine.fault_text = reason
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(fault_reporter.ROUND_S / 2):
                await reporter.run()
    return many.mesh_client.asked


async def test_a_reason_is_told_once_and_a_new_one_again():
    many = ManyHosts(seed=3)
    await many.found()
    await many.join(2, 3)
    many.link(3)
    asked = await silent_for(many, ["", "the disk is full", "the disk is full", "", "it differs"])
    assert asked == ["h3/mesh/fault", "h3/mesh/fault"]


async def test_who_does_not_answer_is_passed_over_and_asked_again_later():
    many = ManyHosts(seed=3)
    await many.found()
    await many.join(2, 3)
    many.link(2)
    many.die(2)
    many.die(3)
    asked = await silent_for(many, ["it differs", "it differs"])
    assert sorted(asked) == ["h2/mesh/fault"] * 2 + ["h3/mesh/fault"] * 2


async def test_the_alarm_says_which_host_and_what_to_do():
    many = ManyHosts(seed=3)
    await many.found()
    await many.join(2)
    host = many.store.need(Host, id_of(2))
    await record_fault(many.node, host, "its state differs: run 'kvorum recover rejoin' there")
    event = next(e for e in many.store.all(Event) if e.code == "host-silent")
    assert event.severity is Severity.ALARM
    assert "h2" in event.message and "kvorum recover rejoin" in event.message
