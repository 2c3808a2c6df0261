"""Row 24: a host's wall clock jumps by an hour. Needs libfaketime; the clocks are those of its agent and its guard."""

from __future__ import annotations

from tools.ha_matrix.ground import Ground
from tools.ha_matrix.rows.network import QUIET_S
from tools.ha_matrix.services import CLOCK_FILE, FAKETIME
from tools.ha_matrix.shapes import CLOCK
from tools.ha_matrix.verdict import Missed, Row, Seen

WHY_NOT = (
    "libfaketime is not installed (apt-get install libfaketime); namespaces share the wall clock"
)


async def steps(ground: Ground) -> Seen:
    """Row 24: the clocks of leader and another host jump an hour forward, then back, then to an hour ago."""
    leader = await ground.leader()
    chosen = (leader, ground.others(leader)[0])
    for host in ground.hosts:
        await ground.create(f"row24-{host}", host=host)
    before = ground.qemus()
    for offset in ("+3600", "+0", "-3600", "+0"):
        for host in chosen:
            ground.lab.inside(host, CLOCK_FILE).write_text(f"{offset}\n")
        await ground.hold_still(
            QUIET_S / 2, f"no guest is touched at {offset} s", lambda: before == ground.qemus()
        )
    if await ground.leader() != leader:
        raise Missed(f"{leader} lost the lead")
    await ground.healthy()
    return Seen(
        f"agents and guards of {' and '.join(chosen)}: +1 h, back, -1 h, back: {len(before)} guests untouched, same leader"
    )


ROWS = (
    Row(
        24,
        "the wall clocks of two hosts jump by ±1 h",
        "nothing happens",
        None,
        CLOCK,
        steps if FAKETIME else None,
        why_not=WHY_NOT,
    ),
)
