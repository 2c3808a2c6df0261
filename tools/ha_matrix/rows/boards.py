"""Rows 22, 23: management boards that lie, or die with their host."""

from __future__ import annotations

import time

from tools.ha_matrix.ground import Ground
from tools.ha_matrix.shapes import BOARDS
from tools.ha_matrix.verdict import Missed, Row, Seen

FENCED_BOUND_S = 10.0


async def _relied_on(ground: Ground) -> None:
    """Wait until every board is relied on: each is asked once a minute, and a host that was off has to be seen on."""

    async def relied_on() -> bool:
        shown = await ground.shown("/v1/bmcs")
        return shown is not None and all(it["state"] == "ok" for it in shown["items"])

    await ground.until("every board is relied on", relied_on, deadline_s=90.0, every_s=1.0)


async def lies(ground: Ground) -> Seen:
    """Row 22: a board that was right until now says "off" of a host that was only cut off.

    That a board tells the truth is what fencing by boards rests on, so two writers are expected until the host's own
    guard ends its lease: this row shows that the observer sees them, and how long it lasts.
    """
    host = ground.hosts[2]
    guest = await ground.writing("row22", host=host)
    await _relied_on(ground)
    await ground.lab.bmc(host, "lying")
    since_s = time.monotonic()
    await ground.lab.cut(host)
    again_s = await ground.runs_again_s(guest, since_s, hosts=ground.others(host), deadline_s=60.0)
    kill_s = await ground.gone_s(guest, since_s, deadline_s=30.0)
    await ground.lab.bmc(host, "honest")
    limit_s = ground.profile.lease_s + 0.2
    if kill_s > limit_s:
        raise Missed(f"the first guest lived for {kill_s:.1f} s, longer than its lease")
    both_s = kill_s - again_s
    return Seen(
        f"the board's word was taken after {again_s:.1f} s, the guard killed the first guest after {kill_s:.1f} s: both ran for "
        f"{max(0.0, both_s):.1f} s, and the observer saw it. Trust assumption of docs/ha.md",
        figures={"both_ran_s": max(0.0, both_s)},
    )


async def honest(ground: Ground) -> Seen:
    """Row 23, for comparison: the board works, and the host is cut off."""
    host = ground.hosts[2]
    guest = await ground.writing("row23-honest", host=host)
    await _relied_on(ground)
    since_s = time.monotonic()
    await ground.lab.cut(host)
    again_s = await ground.runs_again_s(guest, since_s, hosts=ground.others(host), deadline_s=60.0)
    state = await ground.lab.status(host)
    if state.power != "off":
        raise Missed(f"{host} is still on: {state.why}")
    await ground.writes_from(guest, *ground.others(host))
    await ground.check_writes(guest)
    return Seen(f"switched off by its board; the VM runs elsewhere after {again_s:.1f} s", again_s)


async def dies(ground: Ground) -> Seen:
    """Row 23: the board loses its power with the host, and never answers."""
    host = ground.hosts[1]
    guest = await ground.writing("row23-dead", host=host)
    await _relied_on(ground)
    since_s = time.monotonic()
    await ground.lab.bmc(host, "dead")
    await ground.lab.power_off(host)
    again_s = await ground.runs_again_s(guest, since_s, hosts=ground.others(host), deadline_s=60.0)
    await ground.lab.bmc(host, "honest")
    await ground.writes_from(guest, *ground.others(host))
    await ground.check_writes(guest)
    return Seen(
        f"nothing waits for the board: the VM runs elsewhere after {again_s:.1f} s", again_s
    )


ROWS = (
    Row(
        22,
        'a BMC says "off" of a host that lives',
        "two writers until the host's lease ends: a documented trust assumption, and the observer has to see them",
        None,
        BOARDS,
        lies,
        spoils=True,
        double_writer=True,
    ),
    Row(
        23,
        "the BMC dies with its host",
        "time takes over, nothing hangs",
        21.0,
        BOARDS,
        dies,
        variant="dead",
        spoils=True,
    ),
    Row(
        23,
        "a VM's host is cut off, its BMC works",
        "it is switched off by its BMC, and its VM runs elsewhere long before T_safe",
        FENCED_BOUND_S,
        BOARDS,
        honest,
        variant="works",
    ),
)
