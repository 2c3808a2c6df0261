"""Arbitration addresses: the VIP leaves a leader that doesn't reach what others do, and stays when nobody does."""

from __future__ import annotations

import pytest

from tests.integration.conftest import poll
from tools.demo.operator import Operator
from tools.lab.lab import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

LAST = "250"
VETO_S = 25.0
"""Eleven seconds are meant until the veto; the rest is this machine's."""
MOVED_S = 20.0


async def test_the_vip_goes_to_a_host_that_reaches_the_address(lab: Lab) -> None:
    operator = Operator(lab)
    first, *others = lab.hosts
    await operator.types(first, "init")
    for token, host in zip(
        (await operator.types(first, "token", "create", "--count", str(len(others)))).split(),
        others,
        strict=True,
    ):
        await operator.types(host, "join", token)
    network = lab.address(first).rpartition(".")[0]
    vip = f"{network}.{LAST}"
    shown = await lab.text("wire", "ip", "-o", "-4", "addr", "show")
    router = next(
        word.partition("/")[0] for word in shown.split() if word.startswith(f"{network}.")
    )
    await operator.types(first, "vip", "set", vip)
    await operator.types(first, "arbitration", "set", router)

    async def holders() -> list[str]:
        found = [
            host
            for host in lab.hosts
            if f" {vip}/32 " in await lab.text(host, "ip", "-o", "addr", "show")
        ]
        assert len(found) <= 1
        return found

    async def told(host: str, *states: str) -> bool:
        rows = await operator.asks(host, "host", "list")
        return all(row["arbitration"] in states for row in rows)

    (holder,) = await poll(holders, 20.0)
    await poll(lambda: told(first, "reached"), 20.0, every_s=0.5)

    await lab.run(holder, "ip", "route", "add", "blackhole", f"{router}/32")
    lost = holder

    async def has_left() -> bool:
        return lost not in await holders()

    await poll(has_left, VETO_S)
    (holder,) = await poll(holders, MOVED_S)
    assert holder != lost
    found = await operator.asks(holder, "arbitration", "show")
    assert {it["host_name"]: it["state"] for it in found["hosts"]} == {
        host: "lost" if host == lost else "reached" for host in lab.hosts
    }

    for host in lab.hosts:
        if host != lost:
            await lab.run(host, "ip", "route", "add", "blackhole", f"{router}/32")

    async def is_dead() -> bool:
        """Tell whether it was said; meanwhile the VIP stays where it is."""
        assert await holders() == [holder]
        events = await operator.asks(holder, "event", "list")
        return "arbitration-dead" in [event["code"] for event in events]

    await poll(is_dead, VETO_S, every_s=0.3)
