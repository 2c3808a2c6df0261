"""Rows 2, 4, 6, 7, 8, 9, 11, 12: cables are cut, wholly, one way, in pairs or in halves."""

from __future__ import annotations

import time
from typing import Literal

from tools.ha_matrix.ground import Ground, Guest
from tools.ha_matrix.probe import WriteProbe
from tools.ha_matrix.rows.power import KILL_SLACK_S
from tools.ha_matrix.shapes import FOUR, WITNESS
from tools.ha_matrix.verdict import THREE, Missed, Row, Seen

SHORT_CUT_S = 5.0
DEAF_BOUND_S = 25.0
"""T_safe counts from the last renewal that was committed: what a deaf host sends arrives until its links are given up (4 s)."""
QUIET_S = 25.0
"""Longer than T_safe: what would be killed or started by mistake would be by then."""


def check_kill(ground: Ground, kill_s: float) -> None:
    """Hold a guest's death against the lease of its host.

    Raises:
        Missed: it lived longer.
    """
    limit_s = ground.profile.lease_s + KILL_SLACK_S
    if kill_s > limit_s:
        raise Missed(f"the guest was killed after {kill_s:.2f} s, not within {limit_s:g} s")


async def _moves(ground: Ground, guest: Guest, since_s: float) -> tuple[float, float]:
    """Wait until a guest was killed on its host and runs elsewhere; return after how many seconds each."""
    others = ground.others(guest.host)
    kill_s = await ground.gone_s(guest, since_s, deadline_s=30.0)
    again_s = await ground.runs_again_s(guest, since_s, hosts=others, deadline_s=60.0)
    await ground.writes_from(guest, *others)
    return kill_s, again_s


async def _ends_well(ground: Ground, guest: Guest) -> None:
    """Heal: the guest has to stay where it runs, and to have run nowhere else since the fault."""
    await ground.lab.heal()
    await ground.healthy()
    if len(ground.homes(guest)) != 1 or guest.host in ground.homes(guest):
        raise Missed(f"after the fault it runs on {ground.homes(guest)}")
    if len(ground.runs(guest)) != 2:
        raise Missed(f"it was started more than once: {ground.runs(guest)}")
    await ground.check_writes(guest)


async def one_host(ground: Ground) -> Seen:
    """Row 2: a VM's host is cut off."""
    cut = ground.hosts[1]
    guest = await ground.writing("row2", host=cut)
    since_s = time.monotonic()
    await ground.lab.cut(cut)
    kill_s, again_s = await _moves(ground, guest, since_s)
    await _ends_well(ground, guest)
    check_kill(ground, kill_s)
    return Seen(
        f"killed after {kill_s:.1f} s, runs elsewhere after {again_s:.1f} s",
        again_s,
        {"killed_s": kill_s, "runs_again_s": again_s},
    )


async def short(ground: Ground) -> Seen:
    """Row 4: a VM's host is cut off for five seconds."""
    cut = ground.hosts[1]
    await ground.writing("row4", host=cut)
    before = ground.qemus()
    await ground.lab.cut(cut)
    await ground.hold_still(SHORT_CUT_S, "no guest is touched", lambda: before == ground.qemus())
    await ground.lab.heal(cut)
    await ground.hold_still(QUIET_S, "no guest is touched", lambda: before == ground.qemus())
    return Seen(f"no guest killed or started in {SHORT_CUT_S + QUIET_S:g} s")


async def the_leader(ground: Ground) -> Seen:
    """Row 6: the leader is cut off, while all hosts are asked to write. Where there is a virtual IP it is asked too."""
    cut = await ground.leader()
    guest = await ground.writing("row6", host=cut)
    async with WriteProbe(ground, ground.others(cut)) as probe:
        since_s = time.monotonic()
        await ground.lab.cut(cut)
        _, again_s = await _moves(ground, guest, since_s)
        api_s = await probe.again_s(since_s)
    refused = await ground.ask(
        cut, "/v1/security-groups", method="POST", content=b'{"name": "late"}', timeout_s=15.0
    )
    if refused is not None and refused.status < 500:
        raise Missed(f"the former leader answered a write with {refused.status}")
    await _ends_well(ground, guest)
    new = await ground.leader()
    return Seen(
        f"writes are acknowledged by the others after {api_s:.2f} s, {new} leads, {cut} acknowledges none; its VM "
        f"runs elsewhere after {again_s:.1f} s; virtual IP: there is none to ask",
        api_s,
        {"api_again_s": api_s},
    )


async def _one_way(ground: Ground, direction: Literal["in", "out"]) -> Seen:
    cut = ground.others(await ground.leader())[0]
    guest = await ground.writing(f"row7-{direction}", host=cut)
    stays = ground.others(cut)[0]
    await ground.create(f"row7-{direction}-stays", host=stays)
    before = {it for it in ground.qemus() if it[0] != cut}
    since_s = time.monotonic()
    await ground.lab.one_way(cut, direction)
    kill_s, again_s = await _moves(ground, guest, since_s)
    if not before <= ground.qemus():
        raise Missed("a guest of another host was touched")
    await _ends_well(ground, guest)
    check_kill(ground, kill_s)
    return Seen(
        f"killed after {kill_s:.1f} s, runs elsewhere after {again_s:.1f} s; no other guest touched",
        again_s,
        {"killed_s": kill_s, "runs_again_s": again_s},
    )


async def deaf(ground: Ground) -> Seen:
    """Row 7: a VM's host receives nothing."""
    return await _one_way(ground, "in")


async def mute(ground: Ground) -> Seen:
    """Row 7: nothing that a VM's host sends arrives."""
    return await _one_way(ground, "out")


async def one_pair(ground: Ground) -> Seen:
    """Row 8: leader and another host can't see each other; the third sees both."""
    first = await ground.leader()
    second = ground.others(first)[0]
    for host in (first, second):
        await ground.create(f"row8-{host}", host=host)
    before = ground.qemus()
    await ground.lab.partial(first, second)
    await ground.hold_still(QUIET_S, "no guest is touched", lambda: before == ground.qemus())
    await ground.lab.heal()
    await ground.healthy()
    if ground.qemus() != before:
        raise Missed("a guest was touched after the fault was over")
    return Seen(
        f"{first} (leader) and {second} apart for {QUIET_S:g} s: no guest killed or started",
        figures={"guests_touched": 0.0},
    )


async def halves(ground: Ground) -> Seen:
    """Row 9: four hosts in two halves. Three of the four vote, so at most one half goes on."""
    votes = {it["name"]: it["votes"] for it in (await ground.shown("/v1/members"))["items"]}
    voters = [host for host in ground.hosts if votes[host]]
    replicas = [host for host in ground.hosts if not votes[host]]
    going = voters[:2]
    losing = [*voters[2:], *replicas]
    stays = await ground.create("row9-stays", host=going[0])
    guest = await ground.writing("row9-moves", host=losing[0])
    since_s = time.monotonic()
    for one in going:
        for other in losing:
            await ground.lab.partial(one, other)
    kill_s = await ground.gone_s(guest, since_s, deadline_s=30.0)
    again_s = await ground.runs_again_s(guest, since_s, hosts=going, deadline_s=60.0)
    if [host for host in ground.runs(guest)[1:] if host in losing]:
        raise Missed(f"the half without a majority started a guest: {ground.runs(guest)}")
    if ground.runs(stays)[1:]:
        raise Missed(f"the VM of the half with the majority was touched: {ground.runs(stays)}")
    await _ends_well(ground, guest)
    check_kill(ground, kill_s)
    return Seen(
        f"{len(voters)} of 4 hosts vote, so {'+'.join(going)} keep the majority: on {'+'.join(losing)} the guest is killed "
        f"after {kill_s:.1f} s and nothing starts; it runs in the other half after {again_s:.1f} s",
        again_s,
    )


async def link_of_two(ground: Ground) -> Seen:
    """Row 11: two hosts with a witness, only the link between the two is cut."""
    first, second = ground.workers
    for host in (first, second):
        await ground.create(f"row11-{host}", host=host)
    before = ground.qemus()
    await ground.lab.partial(first, second)
    await ground.hold_still(QUIET_S, "no guest is touched", lambda: before == ground.qemus())
    await ground.lab.heal()
    await ground.healthy()
    if ground.qemus() != before:
        raise Missed("a guest was touched after the fault was over")
    return Seen(
        f"with a witness that sees both (a pinged address has no part in it): {QUIET_S:g} s without the link, no "
        "guest killed or started, nobody took over"
    )


async def all_from_each_other(ground: Ground) -> Seen:
    """Row 12: every host is cut off."""
    guests = [await ground.writing(f"row12-{host}", host=host) for host in ground.hosts[:2]]
    since_s = time.monotonic()
    await ground.lab.cut(*ground.hosts)
    kills_s = [await ground.gone_s(guest, since_s, deadline_s=30.0) for guest in guests]
    await ground.hold_still(
        ground.profile.safe_s + 5.0 - (time.monotonic() - since_s),
        "nothing starts while all are cut off",
        lambda: not ground.qemus(),
    )
    await ground.lab.heal()
    healed_s = time.monotonic()
    again_s = [
        await ground.runs_again_s(guest, healed_s, hosts=ground.hosts, deadline_s=60.0)
        for guest in guests
    ]
    await ground.healthy()
    for guest in guests:
        if len(ground.runs(guest)) != 2 or len(ground.homes(guest)) != 1:
            raise Missed(
                f"{guest.name} ran on {ground.runs(guest)}, and does on {ground.homes(guest)}"
            )
    await ground.check_writes(*guests)
    check_kill(ground, max(kills_s))
    return Seen(
        f"killed after {max(kills_s):.1f} s at most; {max(again_s):.1f} s after healing all run again, each started once",
        max(again_s),
    )


ROWS = (
    Row(
        2,
        "a VM's host is cut off",
        "its guests are killed within 12.2 s, and run elsewhere",
        21.0,
        THREE,
        one_host,
    ),
    Row(4, "a VM's host is cut off for 5 s", "nothing is killed or started", None, THREE, short),
    Row(
        6,
        "the leader is cut off",
        "another leads, and takes writes within 6 s; the former leader acknowledges none",
        6.0,
        THREE,
        the_leader,
    ),
    Row(
        7,
        "a VM's host receives nothing",
        "its guests are killed within 12.2 s, and run elsewhere; others aren't touched",
        DEAF_BOUND_S,
        THREE,
        deaf,
        variant="in",
    ),
    Row(
        7,
        "what a VM's host sends is lost",
        "its guests are killed within 12.2 s, and run elsewhere; others aren't touched",
        21.0,
        THREE,
        mute,
        variant="out",
    ),
    Row(
        8,
        "leader and a host can't see each other, the third sees both",
        "no guest is touched",
        None,
        THREE,
        one_pair,
    ),
    Row(
        9,
        "four hosts fall into halves",
        "the half without a majority kills its guests when leases end, and starts nothing",
        21.0,
        FOUR,
        halves,
    ),
    Row(
        11,
        "two hosts and a witness: the link between the hosts is cut",
        "nobody takes over, no guest is touched",
        None,
        WITNESS,
        link_of_two,
    ),
    Row(
        12,
        "every host is cut off from all others",
        "all guests are killed when leases end; once healed each starts once",
        21.0,
        THREE,
        all_from_each_other,
    ),
)
