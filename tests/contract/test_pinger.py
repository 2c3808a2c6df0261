"""What is relied on of a ping, the same in memory and with the kernel's sockets, unprivileged and raw."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys

import pytest

from core.errors import TemporaryError
from netfabric.memory_ping import MemoryPinger
from netfabric.ping import IcmpPinger, Pinger

HERE, ALSO_HERE, NOWHERE = "127.0.0.1", "127.0.0.9", "192.0.2.1"

SCRIPT = """
import json, random, subprocess, sys, time
from pathlib import Path

import uvloop  # as the agent has it

from netfabric.ping import IcmpPinger

def ping(*addresses):
    begun_s = time.monotonic()
    found = uvloop.run(IcmpPinger(random.Random(1)).ping(addresses, timeout_s=0.5))
    return sorted(found), time.monotonic() - begun_s

ipv4 = Path("/proc/sys/net/ipv4")
(ipv4 / "ping_group_range").write_text(sys.argv[1])
found = {"without_any_route": ping("127.0.0.1")}
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
found["up"] = ping("127.0.0.1", "127.0.0.9", "192.0.2.1", "::1")
(ipv4 / "icmp_echo_ignore_all").write_text("1")
found["silent"] = ping("127.0.0.1", "127.0.0.9")
print(json.dumps(found))
"""


@pytest.fixture(params=["memory", "kernel"])
async def pinger(request: pytest.FixtureRequest) -> Pinger:
    if request.param == "memory":
        return MemoryPinger({HERE, ALSO_HERE})
    made = IcmpPinger(random.Random(1))
    try:
        await made.ping([HERE], timeout_s=1.0)
    except TemporaryError as error:
        pytest.skip(error.message)
    return made


async def test_it_says_who_answers(pinger: Pinger) -> None:
    assert await pinger.ping([HERE, ALSO_HERE, HERE], timeout_s=5.0) == {HERE, ALSO_HERE}
    assert await pinger.ping([], timeout_s=5.0) == frozenset()


async def test_many_at_once_do_not_take_each_others_answers(pinger: Pinger) -> None:
    rounds = [pinger.ping([HERE, ALSO_HERE], timeout_s=5.0) for _ in range(20)]
    assert await asyncio.gather(*rounds) == [{HERE, ALSO_HERE}] * 20


@pytest.mark.parametrize("group_range", ["0 0", "1 0"], ids=["unprivileged", "raw"])
def test_in_a_network_of_its_own(group_range: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", SCRIPT, group_range],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = json.loads(done.stdout)
    assert found["without_any_route"][0] == []
    assert found["up"][0] == [HERE, ALSO_HERE, "::1"]
    assert found["silent"][0] == []
    assert 0.4 <= found["silent"][1] < 5.0, "silence costs the timeout, once for all"
