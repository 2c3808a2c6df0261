"""The measurements: idle processes of a cluster, one VM, commits. Each takes a standing cluster in the lab.

The idle one comes first in a run: nothing has happened yet that would still be going on.
"""

from __future__ import annotations

import asyncio
import time

import aiohttp

from core.errors import NotFoundError, UnavailableError
from tools.bench.report import ProcessCost
from tools.bench.usage import Usage, cpu_percent, read_usage
from tools.demo.operator import Operator
from tools.lab.lab import Lab

SERVICES = ("agent", "guard", "serf")
WRITERS = 16
REQUEST_TIMEOUT_S = 30.0
API_SOCKET = "/run/kvorum/api.sock"
SHARED = "shared1"


async def idle_costs(lab: Lab, *, settle_s: float, window_s: float) -> tuple[ProcessCost, ...]:
    """Return what each agent, guard and serf costs over a window in which nobody asks them anything.

    Raises:
        NotFoundError: one of them does not run, or ended meanwhile.
    """
    await asyncio.sleep(settle_s)
    pids = {(host, service): _pid(lab, host, service) for host in lab.hosts for service in SERVICES}
    before = {key: read_usage(pid) for key, pid in pids.items()}
    began_s = time.monotonic()
    await asyncio.sleep(window_s)
    after = {key: read_usage(pid) for key, pid in pids.items()}
    seconds = time.monotonic() - began_s
    return tuple(_cost(key, before[key], after[key], seconds) for key in pids)


def _pid(lab: Lab, host: str, service: str) -> int:
    pid = lab.service_pid(host, service)
    if pid is None:
        raise NotFoundError(f"{service} does not run on {host}: see kvorum-lab logs {host}")
    return pid


def _cost(key: tuple[str, str], before: Usage, after: Usage, seconds: float) -> ProcessCost:
    host, service = key
    return ProcessCost(
        host=host,
        service=service,
        rss_mib=round(after.rss_mib, 1),
        pss_mib=round(after.pss_mib, 1),
        cpu_percent=round(cpu_percent(before, after, seconds), 2),
        threads=after.threads,
    )


async def vm_seconds(lab: Lab, tiny_image: str) -> tuple[float, float]:
    """Return the seconds of `kvorum vm create` and of `kvorum vm delete` of a tiny VM on shared storage.

    The image is on the data storage already, as for every VM of an image but the first.
    """
    operator, host = Operator(lab), lab.hosts[0]
    await operator.types(
        host, "data-storage", "create", SHARED, "--kind", "shared", "--path", "/srv/shared"
    )
    await operator.types(host, "image", "upload", "tiny", "--file", tiny_image)
    create = ("--image", "tiny", "--memory", "128MiB", "--data-storage", SHARED)
    await operator.types(host, "vm", "create", "first", *create, "--no-start")
    began_s = time.monotonic()
    await operator.types(host, "vm", "create", "measured", *create)
    created_s = time.monotonic()
    await operator.types(host, "vm", "delete", "measured", "--yes")
    deleted_s = time.monotonic()
    await operator.types(host, "vm", "delete", "first", "--yes")
    return created_s - began_s, deleted_s - created_s


async def commits_per_second(lab: Lab, host: str, *, seconds: float) -> float:
    """Return how many small changes a second one agent gets committed, with WRITERS waiting at a time.

    A change is an access token made or revoked, so nothing is left of them.

    Raises:
        UnavailableError: a change was not accepted.
    """
    connector = aiohttp.UnixConnector(str(lab.inside(host, API_SOCKET)), limit=WRITERS)
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    done = [0]
    async with aiohttp.ClientSession("http://kvorum", connector=connector, timeout=timeout) as http:
        began_s = time.monotonic()

        async def write(number: int) -> None:
            turn = 0
            while time.monotonic() - began_s < seconds:
                turn += 1
                body = {"name": f"bench-{number}-{turn}", "ttl_s": 600}
                made = await _committed(http.post("/v1/access-tokens", json=body))
                await _committed(http.delete(f"/v1/access-tokens/{made['id']}"))
                done[0] += 2

        async with asyncio.TaskGroup() as group:
            for number in range(WRITERS):
                group.create_task(write(number), name=f"writer-{number}")
        return done[0] / (time.monotonic() - began_s)


async def _committed(asking: aiohttp.client._RequestContextManager) -> dict[str, str]:
    async with asking as response:
        if response.status >= 300:
            raise UnavailableError(f"a change was not accepted: {await response.text()}")
        answer: dict[str, str] = await response.json() if response.status != 204 else {}
        return answer
