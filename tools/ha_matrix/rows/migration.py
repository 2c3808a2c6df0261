"""Rows 28, 29: source or target of a live migration lose power in the middle of it, and come back or don't."""

from __future__ import annotations

import time

from tools.ha_matrix import sightings
from tools.ha_matrix.ground import Ground, Guest
from tools.ha_matrix.verdict import THREE, Missed, Row, Seen
from tools.lab import processes


async def _midway(ground: Ground, guest: Guest, target: str) -> None:
    """Start a migration and wait until the target's QEMU takes in the guest's memory."""
    await ground.types("vm", "migrate", guest.name, "--host", target, "--no-wait")

    async def incoming() -> bool:
        return any(
            "-incoming" in processes.command_line(qemu.pid)
            and guest.id in " ".join(processes.command_line(qemu.pid))
            for qemu in ground.lab.qemus(target)
        )

    await ground.until("the migration is under way", incoming, deadline_s=30.0, every_s=0.02)


async def source(ground: Ground) -> Seen:
    """Row 28: the source dies."""
    guest = await ground.writing("row28", host=ground.hosts[1])
    target = ground.hosts[2]
    await _midway(ground, guest, target)
    since_s = time.monotonic()
    await ground.lab.power_off(guest.host)
    left = ground.homes(guest)
    others = ground.others(guest.host)
    await ground.writes_from(guest, *others, deadline_s=90.0)
    at_s = sightings.last_began_s(list(ground.observer.sightings), guest.disk.name)
    again_s = max(0.0, at_s - since_s)
    await ground.lab.power_on(guest.host)
    await ground.healthy()
    if len(ground.homes(guest)) != 1:
        raise Missed(f"it runs on {ground.homes(guest)}")
    await ground.check_writes(guest)
    where = f"its QEMU on {', '.join(left)} was left" if left else "no QEMU was left"
    return Seen(f"{where}; the one that runs now did after {again_s:.1f} s", again_s)


async def target_dies(ground: Ground) -> Seen:
    """Row 29: the target dies."""
    guest = await ground.writing("row29", host=ground.hosts[1])
    target = ground.hosts[2]
    (before,) = ground.qemus_of(guest)
    await _midway(ground, guest, target)
    await ground.lab.power_off(target)
    await ground.hold_still(
        ground.profile.safe_s + 5.0,
        "the source's guest goes on",
        lambda: [it.pid for it in ground.qemus_of(guest)] == [before.pid],
    )
    await ground.writes_from(guest, guest.host)
    await ground.check_writes(guest)
    vm = await ground.shown(f"/v1/vms/{guest.name}")
    meanwhile = vm["phase"]
    await ground.lab.power_on(target)
    await ground.healthy()

    async def shown_as_running() -> bool:
        vm = await ground.shown(f"/v1/vms/{guest.name}")
        return vm is not None and (vm["phase"], vm["host_name"]) == ("running", guest.host)

    await ground.until(
        f"{guest.name} is shown as running on {guest.host}", shown_as_running, deadline_s=60.0
    )
    if [it.pid for it in ground.qemus_of(guest)] != [before.pid]:
        raise Missed("the guest was touched when the target came back")
    return Seen(
        f"the guest went on at the source; shown as {meanwhile} while the target was off, as running "
        "soon after its return"
    )


async def target_never_back(ground: Ground) -> Seen:
    """Row 29, and the target stays away: the VM is shown as running again while it is off, and can be stopped."""
    guest = await ground.writing("row29n", host=ground.hosts[1])
    target = ground.hosts[2]
    (before,) = ground.qemus_of(guest)
    await _midway(ground, guest, target)
    since_s = time.monotonic()
    await ground.lab.power_off(target)

    async def shown_as_running() -> bool:
        vm = await ground.shown(f"/v1/vms/{guest.name}")
        return vm is not None and (vm["phase"], vm["host_name"]) == ("running", guest.host)

    await ground.until(
        f"{guest.name} is shown as running on {guest.host}",
        shown_as_running,
        deadline_s=90.0,
        every_s=0.2,
    )
    again_s = time.monotonic() - since_s
    if [it.pid for it in ground.qemus_of(guest)] != [before.pid]:
        raise Missed("the guest was touched")
    await ground.writes_from(guest, guest.host)
    await ground.check_writes(guest)
    await ground.types("vm", "stop", guest.name, "--force")
    await ground.types("vm", "start", guest.name)
    await ground.lab.power_on(target)
    await ground.healthy()
    if len(ground.homes(guest)) != 1:
        raise Missed(f"it runs on {ground.homes(guest)} after the target's return")
    return Seen(
        f"the guest went on at the source; shown as running again after {again_s:.1f} s, stopped and started while the target was off",
        again_s,
    )


ROWS = (
    Row(
        28,
        "the source of a live migration loses power",
        "it goes on at one host at most, and runs within the bound",
        21.0,
        THREE,
        source,
    ),
    Row(
        29,
        "the target of a live migration loses power",
        "the guest goes on at the source",
        None,
        THREE,
        target_dies,
    ),
    Row(
        29,
        "the target of a live migration loses power and never comes back",
        "the guest goes on at the source, and is shown as running within the bound",
        24.0,
        THREE,
        target_never_back,
        variant="never back",
    ),
)
