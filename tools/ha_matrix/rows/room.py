"""Rows 30, 31, 32: very many VMs on the host that dies, too little room for them elsewhere, and a rule that forbids the rest."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from core.command import run
from ha.placement import CPU_OVERCOMMIT
from tools.ha_matrix import sightings
from tools.ha_matrix.ground import SHARED, Ground, Guest
from tools.ha_matrix.numbers import percentile
from tools.ha_matrix.verdict import THREE, Missed, Row, Seen

COUNT = int(os.environ.get("VMS", "0")) or min(100, CPU_OVERCOMMIT * (os.cpu_count() or 1))
"""Placement puts no more virtual CPUs on a host; hosts of the lab have the machine's cores each."""
PROMISED = 100
AT_ONCE = 4
MEMORY_MIB = 64
EMPTY = "empty"
DEADLINE_S = 180.0
RULE = "row32-apart"


async def _upload_empty(ground: Ground) -> None:
    """Upload an image without an operating system: its guests look for one, and then wait."""
    if await ground.shown(f"/v1/images/{EMPTY}") is not None:
        return
    with TemporaryDirectory(prefix="kvorum-matrix-") as directory:
        file = Path(directory) / "empty.qcow2"
        argv = ["qemu-img", "create", "-q", "-f", "qcow2", str(file), "16M"]
        await run(argv, timeout_s=30.0)
        await ground.types("image", "upload", EMPTY, "--file", str(file))


async def _many(ground: Ground, host: str, count: int) -> list[Guest]:
    """Create VMs through the API, a few at a time; all run on return."""
    names = [f"row30-{number:03}" for number in range(count)]
    host_id = (await ground.shown(f"/v1/hosts/{host}"))["id"]
    ground.made.extend(names)
    gate = asyncio.Semaphore(AT_ONCE)

    async def create(name: str) -> None:
        body = {
            "name": name,
            "image": EMPTY,
            "memory_mib": MEMORY_MIB,
            "data_storage": SHARED,
            "host": host_id,
        }
        async with gate:
            reply = await ground.ask(
                host, "/v1/vms", method="POST", content=json.dumps(body).encode(), timeout_s=60.0
            )
            if reply is None or reply.status != 202:
                raise Missed(f"{name} can't be created: {reply}")

            async def runs() -> bool:
                vm = await ground.shown(f"/v1/vms/{name}", host=host)
                return vm is not None and vm["phase"] == "running"

            await ground.until(f"{name} runs", runs, deadline_s=120.0, every_s=0.3)

    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(create(name), name=name)
    vms = {it["id"]: it["name"] for it in await _all(ground, host, "vms")}
    return [
        Guest(
            vms[disk["vm_id"]],
            disk["vm_id"],
            ground.lab.shared / "disks" / f"{disk['id']}.qcow2",
            host,
        )
        for disk in await _all(ground, host, "disks")
        if vms.get(disk["vm_id"]) in names
    ]


async def _all(ground: Ground, host: str, plural: str) -> list[dict[str, str]]:
    shown = await ground.shown(f"/v1/{plural}?limit=1000", host=host)
    found: list[dict[str, str]] = shown["items"]
    return found


async def very_many(ground: Ground) -> Seen:
    """Row 30: the host of very many VMs loses power. QEMUs are real; their guests have no operating system."""
    lost = ground.hosts[1]
    await _upload_empty(ground)
    guests = await _many(ground, lost, COUNT)
    since_s = time.monotonic()
    await ground.lab.power_off(lost)
    others = ground.others(lost)
    times: dict[str, float] = {}

    async def all_run() -> bool:
        seen = list(ground.observer.sightings)
        for guest in guests:
            at_s = sightings.ran_at_s(seen, guest.disk.name, since_s, hosts=others)
            if at_s is not None:
                times[guest.name] = at_s - since_s
        return len(times) == len(guests)

    try:
        await ground.until("all run elsewhere", all_run, deadline_s=DEADLINE_S, every_s=0.5)
    except Missed:
        raise Missed(
            f"after {DEADLINE_S:g} s {len(times)} of {len(guests)} VMs run elsewhere"
        ) from None
    p95_s, last_s = percentile(list(times.values()), 0.95), max(times.values())
    return Seen(
        f"{len(guests)} QEMUs without an operating system: the first after {min(times.values()):.1f} s, p95 {p95_s:.1f} s, "
        f"the last after {last_s:.1f} s, on two hosts that share 2 cores",
        p95_s,
        {
            # The promise is about a hundred; with fewer, it is not this number that was measured.
            "p95_s" if len(guests) >= PROMISED else "p95_of_fewer_s": p95_s,
            "first_s": min(times.values()),
            "last_s": last_s,
            "vms": float(len(guests)),
        },
    )


async def too_little_room(ground: Ground) -> Seen:
    """Row 31: the other hosts have room for one of two VMs. Guests are promised memory that they don't use."""
    lost, *others = ground.hosts
    await _upload_empty(ground)
    total_mib = (await ground.shown(f"/v1/hosts/{lost}"))["memory_mib"]
    half_mib = int(total_mib * 0.4)
    # Both of the lost host's VMs are as large as what is left on one other host; the second has nothing left.
    full = f"{int(total_mib * 0.8)}MiB"
    memory = f"{half_mib}MiB"
    await ground.create("row31-full", host=others[1], image=EMPTY, memory=full)
    await ground.create("row31-half", host=others[0], image=EMPTY, memory=memory)
    low = await ground.create(
        "row31-a-low", "--priority", "low", host=lost, image=EMPTY, memory=memory
    )
    high = await ground.create(
        "row31-b-high", "--priority", "high", host=lost, image=EMPTY, memory=memory
    )
    since_s = time.monotonic()
    await ground.lab.power_off(lost)
    again_s = await ground.runs_again_s(high, since_s, hosts=others, deadline_s=60.0)

    async def blocked() -> bool:
        vm = await ground.shown(f"/v1/vms/{low.name}", host=others[0])
        return vm is not None and bool(vm["blocked_reason"])

    await ground.until("the VM of low priority says why it waits", blocked, deadline_s=30.0)
    reason = (await ground.shown(f"/v1/vms/{low.name}", host=others[0]))["blocked_reason"]
    if ground.homes(low):
        raise Missed(f"the VM of low priority runs on {ground.homes(low)}")
    await ground.lab.power_on(lost)
    await ground.runs_again_s(low, time.monotonic(), hosts=ground.hosts, deadline_s=60.0)
    return Seen(
        f"high priority runs after {again_s:.1f} s, low is blocked ({reason}) and runs once the host is back",
        again_s,
    )


async def no_legal_host(ground: Ground) -> Seen:
    """Row 32: VMs that a mandatory rule keeps apart are on all hosts; one of these dies."""
    lost, *others = ground.hosts
    await _upload_empty(ground)
    guests = [
        await ground.create(f"row32-{host}", host=host, image=EMPTY, memory=f"{MEMORY_MIB}MiB")
        for host in ground.hosts
    ]
    victim = guests[0]
    vms = [word for guest in guests for word in ("--vm", guest.name)]
    await ground.types("rule", "create", RULE, "--policy", "vm-anti-affinity", *vms)
    try:
        await ground.lab.power_off(lost)

        async def blocked() -> bool:
            vm = await ground.shown(f"/v1/vms/{victim.name}", host=others[0])
            return vm is not None and bool(vm["blocked_reason"])

        await ground.until("the VM says why it waits", blocked, deadline_s=60.0)
        reason = (await ground.shown(f"/v1/vms/{victim.name}", host=others[0]))["blocked_reason"]
        if f"rule {RULE!r} keeps it apart from" not in reason:
            raise Missed(f"the reason doesn't name the rule: {reason}")
        path = f"/v1/events?q=code=vm-blocked&q=subject=vm/{victim.id}"
        events = (await ground.shown(path, host=others[0]))["items"]
        if [event["severity"] for event in events] != ["alarm"]:
            raise Missed(f"there is not one alarm: {events}")

        await ground.hold_still(10.0, "it stays blocked", lambda: not ground.homes(victim))
        since_s = time.monotonic()
        await ground.lab.power_on(lost)
        again_s = await ground.runs_again_s(victim, since_s, hosts=ground.hosts, deadline_s=120.0)
        homes = sorted(home for guest in guests for home in ground.homes(guest))
        if homes != sorted(ground.hosts):
            raise Missed(f"afterwards they run on {homes}, not one on each host")
    finally:
        await ground.types("rule", "delete", RULE, "--yes", host=others[0])
    return Seen(
        f"blocked with an alarm ({reason}); runs {again_s:.1f} s after the power is back, one VM on each host"
    )


ROWS = (
    Row(
        30,
        f"a host with {COUNT} VMs loses power",
        "limits are kept, 95 of 100 run again within 30 s",
        30.0,
        THREE,
        very_many,
        spoils=True,
    ),
    Row(
        31,
        "too little room elsewhere",
        "high priority runs; the rest is blocked with a reason, and runs when there is room",
        21.0,
        THREE,
        too_little_room,
    ),
    Row(
        32,
        "mandatory rule without a legal host",
        "the VM is blocked and starts by itself when a host returns",
        None,
        THREE,
        no_legal_host,
    ),
)
