"""A host that exists twice is told of, a reboot is not."""

from __future__ import annotations

import asyncio

import pytest

from core.errors import ConflictError
from core.model import Event, Lease, Severity
from ha.lease import LeaseJudge, Renewal
from ha.twins import GAP_S_MAX, REFUSED_S_MIN, TELL_AGAIN_S, Twins
from nodeagent.services.lease_relay import LeaseRelay
from tests.one_member import HOST_ID, OTHER_ID, LoopClock, founded, in_virtual_time, running


def asked(twins: Twins, *, every_s: float, for_s: float, start_s: float = 0.0) -> list[float]:
    """Refuse a boot again and again; return when that was to be told."""
    times = [start_s + n * every_s for n in range(int(for_s / every_s) + 1)]
    return [now_s for now_s in times if twins.refused("h1", "copy", now_s)]


def test_who_is_refused_for_long_is_told_of_once_in_a_while() -> None:
    assert asked(Twins(), every_s=1.0, for_s=300.0) == [REFUSED_S_MIN]
    assert len(asked(Twins(), every_s=1.0, for_s=TELL_AGAIN_S + 60)) == 2


def test_a_reboot_and_now_and_then_a_refusal_are_not() -> None:
    assert asked(Twins(), every_s=0.5, for_s=4.0) == []
    assert asked(Twins(), every_s=GAP_S_MAX + 1, for_s=300.0) == []
    twins = Twins()
    assert not any(twins.refused("h1", f"boot-{now_s}", float(now_s)) for now_s in range(60))


def test_the_leader_raises_the_alarm_and_the_copy_gets_no_lease() -> None:
    async def main() -> None:
        member = await founded(clock=LoopClock())
        await member.add_host(OTHER_ID, "h2", "192.0.2.2")
        judge = LeaseJudge(member.clock)
        member.machine.on_applied(
            lambda index, keys: [judge.applied(lease) for lease in member.store.all(Lease)]
        )
        relay = LeaseRelay(member.node_of(HOST_ID, "h1"), judge)
        async with running(relay.run):
            for seq in range(1, 16):
                await relay.renew(Renewal(host_id=OTHER_ID, boot_id="real", seq=seq))
                with pytest.raises(ConflictError):
                    await relay.renew(Renewal(host_id=OTHER_ID, boot_id="copy", seq=seq))
                await asyncio.sleep(1)
        (told,) = [event for event in member.store.since(Event, 0) if event.code == "host-twice"]
        assert told.severity is Severity.ALARM
        assert "host h2 exists twice" in told.message

    in_virtual_time(main)
