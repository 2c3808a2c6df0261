"""Row 24: a host's wall clock jumps by an hour. Namespaces share the machine's; those of agents and guards can be set."""

from __future__ import annotations

from collections.abc import Collection

from tools.ha_matrix import wall_clock
from tools.ha_matrix.ground import Ground
from tools.ha_matrix.rows.network import QUIET_S
from tools.ha_matrix.services import CLOCK_FILE
from tools.ha_matrix.shapes import CLOCK
from tools.ha_matrix.verdict import Missed, Row, Seen

HOUR_S = 3600
NEAR_S = 60.0
"""A jump was seen if the clocks are this near to where they were sent."""
FOLLOWING = ("agent", "guard")


async def steps(ground: Ground) -> Seen:
    """Row 24: the clocks of leader and another host jump an hour forward, then back, then to an hour ago, and back."""
    leader = await ground.leader()
    *chosen, steady = (leader, *ground.others(leader))
    for host in ground.hosts:
        await ground.create(f"row24-{host}", host=host)
    before = ground.qemus()
    following = _following(ground, chosen)
    if await ground.leader() != leader:
        raise Missed(f"{leader} lost the lead before any clock had jumped")
    try:
        for offset_s in (HOUR_S, 0, -HOUR_S, 0):
            _send(ground, chosen, offset_s)
            await _seen_from(ground, steady, chosen, offset_s)
            await ground.hold_still(
                QUIET_S / 2,
                f"no guest is touched at {offset_s} s",
                lambda: before == ground.qemus(),
            )
            if await ground.leader() != leader:
                raise Missed(f"{leader} lost the lead at {offset_s} s")
    finally:
        _send(ground, chosen, 0)
    if _following(ground, chosen) != following:
        raise Missed("an agent or a guard is another process than before")
    await ground.healthy()
    return Seen(
        f"agents and guards of {' and '.join(chosen)}: +1 h, back, -1 h, back, each seen by {steady}: "
        f"{len(before)} guests untouched, same leader"
    )


def _send(ground: Ground, hosts: Collection[str], offset_s: int) -> None:
    for host in hosts:
        wall_clock.set_offset(ground.lab.inside(host, CLOCK_FILE), offset_s)


def _following(ground: Ground, hosts: Collection[str]) -> list[int]:
    """Return the processes that have a clock that can be set.

    Raises:
        Missed: one that is meant to doesn't.
    """
    pids: list[int] = []
    for host in hosts:
        for service in FOLLOWING:
            pid = ground.lab.service_pid(host, service)
            if pid is None or not wall_clock.follows(pid, CLOCK_FILE):
                raise Missed(f"the {service} of {host} doesn't follow the clock that is set")
            pids.append(pid)
    return pids


async def _seen_from(ground: Ground, steady: str, hosts: Collection[str], offset_s: int) -> None:
    """Wait until the agent of a host whose clock wasn't touched says how far those of the others are ahead of its own."""

    async def jumped() -> bool:
        health = await ground.shown("/v1/health", host=steady)
        told = {it["name"]: it["clock_offset_ms"] for it in (health or {"hosts": ()})["hosts"]}
        return all(
            told.get(host) is not None and abs(told[host] / 1000 - offset_s) < NEAR_S
            for host in hosts
        )

    what = f"{steady} sees the clocks of {' and '.join(hosts)} {offset_s} s ahead"
    await ground.until(what, jumped, deadline_s=30.0, every_s=0.5)


ROWS = (
    Row(24, "the wall clocks of two hosts jump by ±1 h", "nothing happens", None, CLOCK, steps),
)
