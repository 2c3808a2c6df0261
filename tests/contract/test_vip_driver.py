"""What the service of the VIP relies on, the same for the in-memory driver and for a kernel."""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from core.clock import SystemClock
from core.errors import PermanentError, TemporaryError
from ha.vip import KERNEL_LATE_S, lifetime_s
from netfabric.memory_vip import MemoryVip, MemoryVipNetwork
from netfabric.vip import LinuxVip, VipDriver

VIP, NEAR, OTHER_NEAR = "192.0.2.100", "192.0.2.1", "192.0.2.2"
CLONE_NEWNET = 0x40000000


@dataclass
class Pair:
    """Two hosts of one network; `has` looks into a host's kernel."""

    one: VipDriver
    other: VipDriver
    has: Callable[[VipDriver], Awaitable[bool]]
    take_for_good: Callable[[VipDriver], Awaitable[None]]


def _own_network() -> int:
    """Give this thread a network namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    return threading.get_native_id()


def _ip(*words: str) -> str:
    """Run `ip` in the network of the calling thread, which it inherits."""
    done = subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture(params=["memory", "linux"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    clock = SystemClock()
    if request.param == "memory":
        network = MemoryVipNetwork("192.0.2.0/24")
        drivers = [MemoryVip(network, f"02:00:00:00:00:0{n}", clock, lifetime_s) for n in (1, 2)]

        async def has(driver: VipDriver) -> bool:
            assert isinstance(driver, MemoryVip)
            return driver.has(VIP)

        async def take_for_good(driver: VipDriver) -> None:
            assert isinstance(driver, MemoryVip)
            network.foreign[VIP] = driver.mac

        yield Pair(drivers[0], drivers[1], has, take_for_good)
        return
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    loop = asyncio.get_running_loop()
    threads = [ThreadPoolExecutor(max_workers=1) for _ in range(2)]
    try:
        ids = [await loop.run_in_executor(thread, _own_network) for thread in threads]

        async def inside(number: int, *words: str) -> str:
            return await loop.run_in_executor(threads[number], _ip, *words)

        await inside(0, "link", "add", "one", "type", "veth", "peer", "name", "other")
        await inside(0, "link", "set", "other", "netns", str(ids[1]))
        for number, (name, near) in enumerate((("one", NEAR), ("other", OTHER_NEAR))):
            await inside(number, "addr", "add", f"{near}/24", "dev", name)
            await inside(number, "link", "set", name, "up")
        linux = [LinuxVip(clock, lifetime_s, thread=thread) for thread in threads]

        async def has_(driver: VipDriver) -> bool:
            return f" {VIP}/32 " in await inside(linux.index(driver), "-o", "addr", "show")

        async def take(driver: VipDriver) -> None:
            number = linux.index(driver)
            await inside(number, "addr", "add", f"{VIP}/24", "dev", ("one", "other")[number])

        yield Pair(linux[0], linux[1], has_, take)
    finally:
        for thread in threads:
            thread.shutdown()  # the namespaces end with their threads


def until(seconds: float) -> float:
    return SystemClock().monotonic_s() + seconds


async def test_the_kernel_takes_it_away_in_time_if_nobody_does(pair: Pair) -> None:
    end_s = until(2.5)
    assert await pair.one.hold(VIP, near=NEAR, until_s=end_s)
    assert await pair.has(pair.one)
    while await pair.has(pair.one):
        assert SystemClock().monotonic_s() < end_s + KERNEL_LATE_S
        await asyncio.sleep(0.02)


async def test_it_stays_while_it_is_extended(pair: Pair) -> None:
    for _ in range(8):
        assert await pair.one.hold(VIP, near=NEAR, until_s=until(2.5))
        await asyncio.sleep(0.4)
        assert await pair.has(pair.one)


async def test_with_too_little_time_left_it_is_not_taken(pair: Pair) -> None:
    assert not await pair.one.hold(VIP, near=NEAR, until_s=until(0.9))
    assert not await pair.has(pair.one)


async def test_a_machine_that_has_it_is_found_and_none_where_there_is_none(pair: Pair) -> None:
    assert await pair.one.probe(VIP, near=NEAR) == ""
    await pair.other.hold(VIP, near=OTHER_NEAR, until_s=until(2.5))
    mac = await pair.one.probe(VIP, near=NEAR)
    assert len(mac) == 17
    assert await pair.other.probe(VIP, near=OTHER_NEAR) == "", "itself is no other machine"


async def test_it_is_announced_without_an_error(pair: Pair) -> None:
    await pair.one.hold(VIP, near=NEAR, until_s=until(2.5))
    await pair.one.announce(VIP, near=NEAR)


async def test_it_is_released_at_once_and_again_without_an_error(pair: Pair) -> None:
    await pair.one.hold(VIP, near=NEAR, until_s=until(2.5))
    assert await pair.one.release(VIP)
    assert not await pair.has(pair.one)
    assert not await pair.one.release(VIP)


async def test_an_address_for_good_is_found_and_left_alone(pair: Pair) -> None:
    await pair.take_for_good(pair.one)
    assert await pair.one.probe(VIP, near=NEAR)
    assert await pair.other.probe(VIP, near=OTHER_NEAR)
    assert not await pair.one.release(VIP)
    assert await pair.other.probe(VIP, near=OTHER_NEAR)


async def test_the_network_is_that_of_the_hosts_own_address(pair: Pair) -> None:
    assert await pair.one.network(NEAR) == "192.0.2.0/24"
    with pytest.raises(TemporaryError):
        await pair.one.network("198.51.100.1")


async def test_a_vip_of_another_network_is_neither_looked_for_nor_held(pair: Pair) -> None:
    with pytest.raises(PermanentError, match="is not in"):
        await pair.one.probe("198.51.100.9", near=NEAR)
    with pytest.raises(PermanentError, match="is not in"):
        await pair.one.hold("198.51.100.9", near=NEAR, until_s=until(2.5))
