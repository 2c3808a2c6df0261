"""Rows 22, 23: management boards that lie, or die with their host."""

from __future__ import annotations

import time

from tools.ha_matrix.ground import Ground
from tools.ha_matrix.rows.network import check_kill
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

    That a board tells the truth is what fencing by boards rests on, so two writers are possible until the host's own
    guard ends its lease: this row shows whether there were, and for how long.
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
    check_kill(ground, kill_s)
    both_s = max(0.0, kill_s - again_s)
    seen = "the observer saw both" if ground.observer.double_writers else "never both at a time"
    return Seen(
        f"its guard killed the first guest after {kill_s:.1f} s, the VM runs elsewhere after {again_s:.1f} s: both ran for "
        f"{both_s:.1f} s, {seen}. What a board says is trusted (docs/ha.md)",
        again_s,
        {"both_ran_s": both_s},
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
        "what a board says is trusted, so two may write, but not for longer than the lease of the cut host",
        21.0,
        BOARDS,
        lies,
        spoils=True,
        trusted=True,
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
