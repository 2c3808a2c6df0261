"""Rows 1, 5, 10, 13, 14, 15: hosts lose their power, one, most or all of them."""

from __future__ import annotations

import time

from tools.ha_matrix.ground import Ground, Guest
from tools.ha_matrix.probe import WriteProbe
from tools.ha_matrix.shapes import MOONSHOT, WITNESS
from tools.ha_matrix.verdict import THREE, Missed, Row, Seen
from tools.ha_matrix.vip_probe import VipProbe
from tools.lab.api import API_SOCKET

KILL_SLACK_S = 0.2
COLD_DEADLINE_S = 120.0
SETTLE_BOUND_S = 90.0


async def one_host(ground: Ground) -> Seen:
    """Row 1: a VM's host loses power."""
    lost = ground.hosts[0]
    guest = await ground.writing("row1", host=lost)
    since_s = time.monotonic()
    await ground.lab.power_off(lost)
    again_s = await ground.runs_again_s(guest, since_s, hosts=ground.others(lost), deadline_s=60.0)
    home = await ground.writes_from(guest, *ground.others(lost))
    writes_s = time.monotonic() - since_s
    await _returns(ground, guest, lost)
    return Seen(
        f"runs on {home} after {again_s:.1f} s, its guest writes after {writes_s:.1f} s",
        again_s,
        {"runs_again_s": again_s, "writes_again_s": writes_s},
    )


async def _returns(ground: Ground, guest: Guest, lost: str) -> None:
    """Give the lost host its power back: the VM has to stay where it is."""
    await ground.lab.power_on(lost)
    await ground.healthy()
    if lost in ground.homes(guest) or len(ground.homes(guest)) != 1:
        raise Missed(f"after the return of {lost} it runs on {ground.homes(guest)}")
    await ground.check_writes(guest)


async def the_leader(ground: Ground) -> Seen:
    """Row 5: the leader loses power, while the other hosts are asked to write all the time."""
    lost = await ground.leader()
    stays, *_ = ground.others(lost)
    moved = await ground.writing("row5", host=lost)
    other = await ground.create("row5-other", host=stays)
    before = {it for it in ground.qemus() if it[0] != lost}
    async with WriteProbe(ground, ground.others(lost)) as probe, VipProbe(ground) as vip:
        since_s = time.monotonic()
        await ground.lab.power_off(lost)
        lost_s = time.monotonic()
        again_s = await ground.runs_again_s(
            moved, since_s, hosts=ground.others(lost), deadline_s=60.0
        )
        api_s = await probe.again_s(since_s)
        vip_s = await vip.again_s(since_s, lost_s)
    gap_s = probe.gap_s(since_s)
    if not before <= ground.qemus():
        raise Missed("a guest of another host was touched")
    if ground.homes(other) != [stays]:
        raise Missed(f"the VM of {stays} runs on {ground.homes(other)}")
    await ground.writes_from(moved, *ground.others(lost))
    await _returns(ground, moved, lost)
    return Seen(
        f"{lost} led; its VM runs after {again_s:.1f} s; writes are acknowledged again after {api_s:.2f} s, "
        f"the longest gap was {gap_s:.2f} s ({probe.acknowledged} writes acknowledged, {probe.refused} not); the VIP answers again after {vip_s:.2f} s; no other guest touched",
        again_s,
        {
            "runs_again_s": again_s,
            "api_again_s": api_s,
            "api_gap_s": gap_s,
            "vip_again_s": vip_s,
        },
    )


async def two_and_a_witness(ground: Ground) -> Seen:
    """Row 10: of two hosts with a witness one dies."""
    lost = ground.workers[1]
    guest = await ground.writing("row10", host=lost)
    since_s = time.monotonic()
    await ground.lab.power_off(lost)
    again_s = await ground.runs_again_s(guest, since_s, hosts=ground.others(lost), deadline_s=60.0)
    await ground.writes_from(guest, *ground.others(lost))
    await _returns(ground, guest, lost)
    return Seen(f"runs on the other host after {again_s:.1f} s", again_s)


async def all_hosts(ground: Ground) -> Seen:
    """Row 13: all power is lost at once, and comes back."""
    h1, h2, _ = ground.hosts
    low = await ground.writing("row13-low", "--priority", "low", host=h1)
    high = await ground.writing("row13-high", "--priority", "high", host=h2)
    await ground.lab.power_off(*ground.hosts)
    since_s = time.monotonic()
    await ground.lab.power_on(*ground.hosts, wait=False)
    second_s = await _second_agent_s(ground) - since_s
    times = {
        guest.name: await ground.runs_again_s(
            guest, since_s, hosts=ground.hosts, deadline_s=COLD_DEADLINE_S
        )
        - second_s
        for guest in (high, low)
    }
    await ground.writes_from(high, *ground.hosts)
    await ground.healthy()
    for guest in (high, low):
        if len(ground.homes(guest)) != 1:
            raise Missed(f"{guest.name} runs on {ground.homes(guest)}")
    await ground.check_writes(high, low)
    if times[low.name] < times[high.name]:
        raise Missed(f"the VM of low priority ran first: {times}")
    first_s = min(times.values())
    return Seen(
        f"second agent up {second_s:.1f} s after the power, high priority runs {times[high.name]:.1f} s and low "
        f"{times[low.name]:.1f} s after that",
        first_s,
        {"first_vm_s": first_s},
    )


async def _second_agent_s(ground: Ground, count: int = 2) -> float:
    """Return the moment at which so many agents listen."""

    async def listen() -> bool:
        up = [
            host
            for host in ground.hosts
            if ground.lab.first_pid(host) is not None
            and ground.lab.inside(host, API_SOCKET).is_socket()
        ]
        return len(up) >= count

    await ground.until(f"{count} agents are up", listen, deadline_s=60.0)
    return time.monotonic()


async def all_hosts_one_for_good(ground: Ground) -> Seen:
    """Row 14: all power is lost, and one host of three doesn't come back."""
    lost = ground.hosts[2]
    orphan = await ground.writing("row14-orphan", host=lost)
    other = await ground.writing("row14-other", host=ground.hosts[0])
    await ground.lab.power_off(*ground.hosts)
    since_s = time.monotonic()
    await ground.lab.power_on(*ground.others(lost), wait=False)
    second_s = await _second_agent_s(ground) - since_s
    last_s = max(
        [
            await ground.runs_again_s(
                guest, since_s, hosts=ground.others(lost), deadline_s=COLD_DEADLINE_S
            )
            for guest in (other, orphan)
        ]
    )
    await ground.writes_from(orphan, *ground.others(lost))
    await _returns(ground, orphan, lost)
    await ground.check_writes(other)
    return Seen(
        f"second agent up {second_s:.1f} s after the power; the VM of {lost} runs {last_s - second_s:.1f} s after that",
        last_s - second_s,
    )


async def the_majority(ground: Ground) -> Seen:
    """Row 15: two of three hosts lose power: the third stops its guests; all run again once when power is back."""
    survivor, *lost = ground.hosts
    guests = [await ground.writing(f"row15-{host}", host=host) for host in (survivor, lost[0])]
    since_s = time.monotonic()
    await ground.lab.power_off(*lost)
    kill_s = await ground.gone_s(guests[0], since_s, deadline_s=30.0)
    limit_s = ground.profile.lease_s + KILL_SLACK_S
    await ground.hold_still(
        ground.profile.safe_s + 5.0 - (time.monotonic() - since_s),
        "without a majority nothing is started",
        lambda: not ground.qemus(),
    )
    await ground.lab.power_on(*lost)
    await ground.healthy()
    for guest in guests:
        await ground.writes_from(guest, *ground.hosts, deadline_s=90.0)

        async def runs_once(guest: Guest = guest) -> bool:
            return len(ground.homes(guest)) == 1

        await ground.until(f"{guest.name} runs", runs_once, deadline_s=60.0)
        if len(ground.runs(guest)) != 2:
            raise Missed(f"{guest.name} was started more than once: {ground.runs(guest)}")
    await ground.check_writes(*guests)
    if kill_s > limit_s:
        raise Missed(f"the survivor's guest was killed after {kill_s:.2f} s, not {limit_s:g} s")
    return Seen(
        f"the survivor's guest was killed after {kill_s:.1f} s, and nothing started without a majority; "
        "with it each VM was started once",
        kill_s,
    )


ROWS = (
    Row(1, "power loss of a VM's host", "it runs elsewhere; never twice", 21.0, THREE, one_host),
    Row(
        1,
        "power loss of a VM's host",
        "it runs elsewhere; never twice",
        13.5,
        MOONSHOT,
        one_host,
        variant="moonshot profile",
    ),
    Row(
        5,
        "power loss of the leader",
        "a new leader, its VMs run elsewhere, no other guest is affected",
        21.0,
        THREE,
        the_leader,
    ),
    Row(
        10,
        "two hosts and a witness: one host dies",
        "its VM runs on the other host",
        21.0,
        WITNESS,
        two_and_a_witness,
    ),
    Row(
        13,
        "all power lost, all hosts come back",
        "quorum, then what ran before, by priority; the first VM 40 s after the second agent",
        40.0,
        THREE,
        all_hosts,
    ),
    Row(
        14,
        "all power lost, one of three hosts never comes back",
        "two form a quorum; the lost host's VMs run there, 90 s after the second agent",
        SETTLE_BOUND_S,
        THREE,
        all_hosts_one_for_good,
    ),
    Row(
        15,
        "two of three hosts lose power",
        "the third kills its guests when its lease ends; with a majority all run again, once",
        12.2,
        THREE,
        the_majority,
    ),
)
