"""Rows 3, 16, 17, 18, 25, 26, 27: processes of a host, or all of it, or a guest, die or hang."""

from __future__ import annotations

import os
import signal
import time

from core.errors import ConflictError
from tools.ha_matrix.ground import Ground, Guest
from tools.ha_matrix.rows.network import QUIET_S
from tools.ha_matrix.verdict import THREE, Missed, Row, Seen

RESTART_BOUND_S = 7.0
HANG_S = 15.0
RESET_SLACK_S = 1.0


async def is_reset_s(ground: Ground, host: str, since_s: float, deadline_s: float) -> float:
    """Wait until the watchdog took a host's power; return the seconds since a moment."""

    async def off() -> bool:
        return (await ground.lab.status(host)).power == "off"

    await ground.until(f"the watchdog resets {host}", off, deadline_s=deadline_s)
    reset_s = time.monotonic() - since_s
    why = (await ground.lab.status(host)).why
    if not why.startswith("watchdog"):
        raise Missed(f"{host} went off, but not by its watchdog: {why}")
    return reset_s


async def _reset_and_moved(ground: Ground, guest: Guest, since_s: float, limit_s: float) -> Seen:
    reset_s = await is_reset_s(ground, guest.host, since_s, limit_s + 15.0)
    others = ground.others(guest.host)
    again_s = await ground.runs_again_s(guest, since_s, hosts=others, deadline_s=60.0)
    await ground.writes_from(guest, *others)
    await ground.lab.heal()
    await ground.lab.power_on(guest.host)
    await ground.healthy()
    if len(ground.homes(guest)) != 1 or guest.host in ground.homes(guest):
        raise Missed(f"after the return of {guest.host} it runs on {ground.homes(guest)}")
    await ground.check_writes(guest)
    if reset_s > limit_s + RESET_SLACK_S:
        raise Missed(f"the watchdog reset the host after {reset_s:.1f} s, not {limit_s:g} s")
    return Seen(
        f"reset by its watchdog after {reset_s:.1f} s, its VM runs elsewhere after {again_s:.1f} s",
        again_s,
        {"reset_s": reset_s, "runs_again_s": again_s},
    )


async def frozen_guard(ground: Ground) -> Seen:
    """Row 3: a host is cut off, and its guard hangs, so nobody there kills guests."""
    host = ground.hosts[1]
    guest = await ground.writing("row3", host=host)
    since_s = time.monotonic()
    ground.lab.kill(host, "guard", signal.SIGSTOP)
    await ground.lab.cut(host)
    limit_s = ground.profile.lease_s + ground.profile.watchdog_s
    return await _reset_and_moved(ground, guest, since_s, limit_s)


async def killed_guard(ground: Ground) -> Seen:
    """Row 17: a host's guard is killed."""
    host = ground.hosts[1]
    guest = await ground.writing("row17", host=host)
    since_s = time.monotonic()
    ground.lab.kill(host, "guard")
    return await _reset_and_moved(ground, guest, since_s, ground.profile.watchdog_s)


async def frozen_host(ground: Ground) -> Seen:
    """Row 25: every process of a host stands still, its watchdog counts."""
    host = ground.hosts[2]
    guest = await ground.writing("row25", host=host)
    since_s = time.monotonic()
    await ground.lab.freeze(host)
    return await _reset_and_moved(ground, guest, since_s, ground.profile.watchdog_s)


async def killed_agents(ground: Ground) -> Seen:
    """Row 16: the agents of all hosts are killed at once; they start again by themselves."""
    guests = [await ground.create(f"row16-{host}", host=host) for host in ground.workers]
    before = ground.qemus()
    for host in ground.hosts:
        ground.lab.kill(host, "agent")
    await ground.hold_still(QUIET_S, "no guest is touched", lambda: before == ground.qemus())
    await _adopted(ground, guests)
    return _untouched(ground, before, "all agents killed at once")


async def upgraded_agents(ground: Ground) -> Seen:
    """Row 16: the agents of all hosts are stopped as for an upgrade, one after the other."""
    guests = [await ground.create(f"row16-up-{host}", host=host) for host in ground.workers]
    before = ground.qemus()
    for host in ground.hosts:
        old = ground.lab.service_pid(host, "agent")
        ground.lab.kill(host, "agent", signal.SIGTERM)

        async def is_new(host: str = host, old: int | None = old) -> bool:
            return ground.lab.service_pid(host, "agent") not in (None, old)

        await ground.until(f"the agent of {host} starts anew", is_new, deadline_s=30.0)
        await ground.healthy()
    await _adopted(ground, guests)
    return _untouched(ground, before, "each agent stopped and started, one after the other")


def _untouched(ground: Ground, before: frozenset[tuple[str, int, str]], what: str) -> Seen:
    touched = len(before ^ ground.qemus())
    if touched:
        raise Missed(f"{what}: {touched} guests were killed or started")
    return Seen(
        f"{what}: {len(before)} guests untouched, all adopted",
        figures={"guests_touched": 0.0},
    )


async def _adopted(ground: Ground, guests: list[Guest]) -> None:
    """Wait until the cluster is well again and every VM is shown as running where it runs."""
    await ground.healthy()
    for guest in guests:

        async def runs(guest: Guest = guest) -> bool:
            vm = await ground.shown(f"/v1/vms/{guest.name}")
            return vm is not None and (vm["phase"], vm["host_name"]) == ("running", guest.host)

        await ground.until(f"{guest.name} is shown as running", runs, deadline_s=30.0)


async def killed_libvirtd(ground: Ground) -> Seen:
    """Row 18: a host's libvirtd is killed."""
    host = ground.hosts[0]
    guest = await ground.create("row18-killed", host=host)
    before = ground.qemus()
    ground.lab.kill(host, "libvirtd")
    await ground.hold_still(HANG_S, "no guest is touched", lambda: before == ground.qemus())
    await _adopted(ground, [guest])
    return _untouched(ground, before, "libvirtd killed")


async def hanging_libvirtd(ground: Ground) -> Seen:
    """Row 18: a host's libvirtd hangs: the host has to be shown as not well, its guests go on."""
    host = ground.hosts[0]
    guest = await ground.create("row18-hangs", host=host)
    before = ground.qemus()
    ground.lab.kill(host, "libvirtd", signal.SIGSTOP)
    try:
        since_s = time.monotonic()

        async def told() -> bool:
            health = await ground.shown("/v1/health", host=ground.hosts[1])
            return health is not None and any(
                it["host_name"] == host and it["severity"] != "notice" for it in health["findings"]
            )

        await ground.until(f"{host} is shown as not well", told, deadline_s=60.0)
        told_s = time.monotonic() - since_s
        await ground.hold_still(QUIET_S, "no guest is touched", lambda: before == ground.qemus())
    finally:
        try:
            ground.lab.kill(host, "libvirtd", signal.SIGCONT)
        except ConflictError:  # the agent may have had it started anew
            pass
    await _adopted(ground, [guest])
    return _untouched(
        ground, before, f"libvirtd hung for {QUIET_S:g} s (told {told_s:.1f} s after it began)"
    )


async def killed_qemu(ground: Ground) -> Seen:
    """Row 26: the QEMU of a VM that is to run dies."""
    guest = await ground.writing("row26", host=ground.hosts[1])
    (qemu,) = ground.qemus_of(guest)
    since_s = time.monotonic()
    os.kill(qemu.pid, signal.SIGKILL)
    return await _restarted(ground, guest, since_s)


async def power_button(ground: Ground) -> Seen:
    """Row 27: the guest powers itself off; nobody asked the API for it."""
    guest = await ground.writing("row27", host=ground.hosts[1])
    names = (await ground.lab.text(guest.host, "virsh", "list", "--name")).split()
    (domain,) = (name for name in names if guest.id in name)
    began_s = time.monotonic()
    await ground.lab.run(guest.host, "virsh", "shutdown", domain, "--mode", "acpi")
    gone_s = await ground.gone_s(guest, began_s, deadline_s=30.0)
    return await _restarted(ground, guest, began_s + gone_s)


async def _restarted(ground: Ground, guest: Guest, since_s: float) -> Seen:
    """Wait until another QEMU than the first runs the guest."""

    async def second() -> bool:
        return len(ground.runs(guest)) > 1

    await ground.until(f"{guest.name} is started again", second, deadline_s=60.0, every_s=0.05)
    again_s = time.monotonic() - since_s
    home = ground.runs(guest)[-1]
    await ground.writes_from(guest, home)
    await ground.check_writes(guest)
    if home != guest.host:
        raise Missed(f"it was started on {home}, not first on {guest.host}")
    return Seen(f"runs again on the same host after {again_s:.1f} s", again_s)


ROWS = (
    Row(
        3,
        "a VM's host is cut off, and its guard hangs",
        "the watchdog resets the host within 18 s; not before, the VM runs elsewhere",
        21.0,
        THREE,
        frozen_guard,
    ),
    Row(
        16,
        "SIGKILL of all agents",
        "no guest is touched, all are adopted",
        None,
        THREE,
        killed_agents,
    ),
    Row(
        16,
        "all agents are stopped and started, one after the other",
        "no guest is touched, all are adopted",
        None,
        THREE,
        upgraded_agents,
        variant="upgrade",
    ),
    Row(
        17,
        "SIGKILL of a guard",
        "the watchdog resets the host, its VMs run elsewhere",
        21.0,
        THREE,
        killed_guard,
    ),
    Row(
        18,
        "SIGKILL of libvirtd",
        "no guest is touched",
        None,
        THREE,
        killed_libvirtd,
        variant="killed",
    ),
    Row(
        18,
        "libvirtd hangs",
        "no guest is touched; the host is shown as not well, until libvirtd goes on",
        None,
        THREE,
        hanging_libvirtd,
        variant="hangs",
    ),
    Row(
        25,
        "a host is frozen, its watchdog counts on",
        "it is reset, its VMs run elsewhere",
        21.0,
        THREE,
        frozen_host,
    ),
    Row(
        26,
        "SIGKILL of a QEMU",
        "the VM is started again, on its host first",
        RESTART_BOUND_S,
        THREE,
        killed_qemu,
    ),
    Row(
        27,
        "a guest powers itself off",
        "the VM is started again",
        RESTART_BOUND_S,
        THREE,
        power_button,
    ),
)
