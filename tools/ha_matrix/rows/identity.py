"""Rows 33, 34: a host whose log is damaged, and a host that exists twice."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from tools.ha_matrix.ground import Ground
from tools.ha_matrix.rows.network import QUIET_S
from tools.ha_matrix.shapes import FOUR
from tools.ha_matrix.verdict import THREE, Missed, Row, Seen

STATE = "/var/lib/kvorum"
DAMAGE_OFFSET_BYTES = 400
TOLD = ("two-boots", "two boots", "former-boot", "is it a copy")
DAMAGE = b"\xff" * 64


async def damaged_log(ground: Ground) -> Seen:
    """Row 33: bytes in the middle of a host's log are wrong when it boots."""
    host = ground.others(await ground.leader())[0]
    guest = await ground.create("row33", host=ground.others(host)[0])
    before = {it for it in ground.qemus() if it[0] != host}
    directory = ground.lab.layout.host_state(host) / "var-lib-kvorum" / "raft" / "wal"
    await ground.lab.power_off(host)
    segment = min(path for path in directory.iterdir() if path.is_file())
    _damage(segment)
    since_s = time.monotonic()
    await ground.lab.power_on(host, wait=False)

    async def refuses() -> bool:
        log = ground.lab.log_text(host, "agent")
        return "damaged" in log or "recover rejoin" in log

    await ground.until(
        f"the agent of {host} says that its log is damaged", refuses, deadline_s=60.0
    )
    other = ground.others(host)[0]

    async def works() -> bool:
        return await _acknowledges(ground, other)

    await ground.until("the others acknowledge a write", works, deadline_s=30.0, every_s=0.3)
    await ground.hold_still(
        QUIET_S, "no guest of the others is touched", lambda: before <= ground.qemus()
    )
    members = {it["name"]: it for it in (await ground.shown("/v1/members", host=other))["items"]}
    if members[host]["leader"]:
        raise Missed(f"{host} leads with a damaged log")
    if members[host]["health"] == "ok":
        raise Missed(f"{host} takes part with a damaged log")
    if ground.homes(guest) != [guest.host]:
        raise Missed(f"the guest of {guest.host} runs on {ground.homes(guest)}")
    return Seen(
        f"64 bytes of {segment.name} overwritten: the agent of {host} refuses to start, after "
        f"{time.monotonic() - since_s - QUIET_S:.0f} s the others went on; no guest of theirs touched"
    )


def _damage(segment: Path) -> None:
    with segment.open("r+b") as file:
        file.seek(DAMAGE_OFFSET_BYTES)
        file.write(DAMAGE)


async def _acknowledges(ground: Ground, host: str) -> bool:
    name = f"row-{time.monotonic_ns()}"
    content = f'{{"name": "{name}"}}'.encode()
    reply = await ground.ask(host, "/v1/security-groups", method="POST", content=content)
    return reply is not None and reply.status == 201


async def twice(ground: Ground) -> Seen:
    """Row 34: a machine is a copy of a host, disk and all, with an address of its own."""
    original, copy = ground.hosts[2], ground.hosts[3]
    guest = await ground.writing("row34", host=original)
    before = ground.qemus()
    earlier = {it["code"] for it in (await ground.shown("/v1/events?limit=200"))["items"]}
    await ground.lab.power_off(copy)
    for part in ("var-lib-kvorum", "etc-kvorum"):
        source = ground.lab.layout.host_state(original) / part
        target = ground.lab.layout.host_state(copy) / part
        for old in target.iterdir():
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        shutil.copytree(source, target, dirs_exist_ok=True)
    await ground.lab.power_on(copy, wait=False)
    await ground.hold_still(2 * QUIET_S, "no guest is touched", lambda: before <= ground.qemus())
    started = [host for host, _, _ in ground.qemus() - before]
    if started:
        raise Missed(f"guests were started on {started}")
    if ground.homes(guest) != [original]:
        raise Missed(f"the guest of {original} runs on {ground.homes(guest)}")
    await ground.check_writes(guest)
    told = sorted(
        {
            f"{host} {service}"
            for host in ground.hosts
            for service in ("agent", "guard")
            if any(word in ground.lab.log_text(host, service) for word in TOLD)
        }
    )
    events = await ground.shown("/v1/events?limit=200")
    alarms = sorted(
        {
            it["code"]
            for it in events["items"]
            if it["severity"] == "alarm" and it["code"] not in earlier and it["code"] != "host-lost"
        }
    )
    last = "; ".join(
        f"{service}: {lines[-1]}"
        for service in ("agent", "guard")
        if (lines := ground.lab.log_text(copy, service).splitlines())
    )
    if not told and not alarms:
        raise Missed(
            f"the copy ran no guest, but no alarm and no log names the copy; last there: {last}"
        )
    return Seen(
        f"the copy of {original} got no lease and ran no guest for {2 * QUIET_S:g} s; told in the logs of: "
        f"{', '.join(told) or 'none'}; alarms: {', '.join(alarms) or 'none'}; last there: {last}"
    )


ROWS = (
    Row(
        33,
        "a host's log is damaged on its disk",
        "it refuses to take part, the others go on",
        None,
        THREE,
        damaged_log,
        spoils=True,
    ),
    Row(
        34,
        "a host exists twice (a copy of its disk)",
        "the copy gets no lease, runs nothing, and somebody is told",
        None,
        FOUR,
        twice,
        spoils=True,
    ),
)
