"""Rows 19, 20, 21: storage fails or hangs under guests, on one host or on all (`tools.lab.glass`)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tools.ha_matrix.ground import Ground, Guest
from tools.ha_matrix.rows.network import QUIET_S
from tools.ha_matrix.rows.processes import is_reset_s
from tools.ha_matrix.verdict import THREE, Missed, Row, Seen

LOST_BOUND_S = 32.0
LONG_S = 45.0


@asynccontextmanager
async def _glass(ground: Ground, *hosts: str) -> AsyncIterator[None]:
    """Put glass between hosts and the shared storage; they are booted anew after that, since it goes with a boot only."""
    for host in hosts:
        await ground.lab.glaze(host)
    try:
        yield
    finally:
        for host in hosts:
            ground.lab.shade(host, "clear")
        still_on = [host for host in hosts if ground.lab.first_pid(host) is not None]
        await ground.lab.power_off(*still_on)


async def _is_paused(ground: Ground, guest: Guest) -> None:
    async def paused() -> bool:
        vm = await ground.shown(f"/v1/vms/{guest.name}")
        return vm is not None and vm["phase"] == "paused"

    await ground.until(f"{guest.name} is shown as paused", paused, deadline_s=30.0)


async def lost_on_one(ground: Ground) -> Seen:
    """Row 19: a VM's host alone loses the storage."""
    host = ground.hosts[1]
    async with _glass(ground, host):
        guest = await ground.writing("row19", host=host)
        since_s = time.monotonic()
        ground.lab.shade(host, "dark")
        await _is_paused(ground, guest)
        paused_s = time.monotonic() - since_s
        others = ground.others(host)
        again_s = await ground.runs_again_s(guest, since_s, hosts=others, deadline_s=90.0)
        if host in ground.homes(guest):
            raise Missed(f"it still runs on {host} when it runs elsewhere")
        await ground.writes_from(guest, *others)
    await ground.check_writes(guest)
    return Seen(
        f"shown as paused after {paused_s:.1f} s, runs elsewhere after {again_s:.1f} s",
        again_s,
        {"paused_s": paused_s, "runs_again_s": again_s},
    )


async def lost_everywhere(ground: Ground) -> Seen:
    """Row 20: all hosts lose the storage, and have it again."""
    async with _glass(ground, *ground.workers):
        guests = [await ground.writing(f"row20-{host}", host=host) for host in ground.workers]
        before = ground.qemus()
        for host in ground.workers:
            ground.lab.shade(host, "dark")
        for guest in guests:
            await _is_paused(ground, guest)
        await ground.hold_still(LONG_S, "no guest is touched", lambda: before == ground.qemus())
        for host in ground.workers:
            ground.lab.shade(host, "clear")
        since_s = time.monotonic()
        for guest in guests:
            await _writes_more(ground, guest)
        on_s = time.monotonic() - since_s
        if before != ground.qemus():
            raise Missed("a guest was killed or started when the storage was back")
    await ground.check_writes(*guests)
    return Seen(
        f"{len(guests)} guests waited for {LONG_S:g} s, all went on and wrote within {on_s:.1f} s",
        figures={"guests_touched": 0.0, "went_on_s": on_s},
    )


async def _writes_more(ground: Ground, guest: Guest) -> None:
    before = await ground.newest(guest)

    async def wrote() -> bool:
        return await ground.newest(guest) > before

    await ground.until(f"{guest.name} writes on", wrote, deadline_s=60.0, every_s=0.4)


async def unkillable(ground: Ground) -> Seen:
    """Row 21: a host is cut off, and its QEMU waits in the kernel for a storage that doesn't answer: SIGKILL does nothing."""
    host = ground.hosts[1]
    profile = ground.profile
    async with _glass(ground, host):
        guest = await ground.writing("row21", host=host)
        ground.lab.shade(host, "stuck")
        await ground.hold_still(
            QUIET_S / 2, "a guest that hangs is left alone", lambda: host in ground.homes(guest)
        )
        since_s = time.monotonic()
        await ground.lab.cut(host)
        limit_s = profile.lease_s + profile.watchdog_s
        reset_s = await is_reset_s(ground, host, since_s, limit_s + 15.0)
        others = ground.others(host)
        again_s = await ground.runs_again_s(guest, since_s, hosts=others, deadline_s=60.0)
        await ground.writes_from(guest, *others)
    await ground.check_writes(guest)
    if reset_s > limit_s + 1.0:
        raise Missed(f"the watchdog reset the host after {reset_s:.1f} s, not {limit_s:g} s")
    return Seen(
        f"reset by its watchdog after {reset_s:.1f} s, its VM runs elsewhere after {again_s:.1f} s",
        again_s,
        {"reset_s": reset_s, "runs_again_s": again_s},
    )


ROWS = (
    Row(
        19,
        "storage is lost on a VM's host only",
        "the VM is paused, then killed and started elsewhere",
        LOST_BOUND_S,
        THREE,
        lost_on_one,
    ),
    Row(
        20,
        "storage is lost everywhere",
        "nothing is started; guests go on when it is back",
        None,
        THREE,
        lost_everywhere,
    ),
    Row(
        21,
        "a QEMU survives SIGKILL (D state) at self-fencing",
        "the watchdog resets the host within 18 s, its VMs run elsewhere",
        21.0,
        THREE,
        unkillable,
    ),
)
