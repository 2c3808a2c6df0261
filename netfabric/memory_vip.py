"""The management address in memory, for tests: `MemoryVipNetwork` is what all hosts of a network share.

Held to the same contract tests as `netfabric.vip.LinuxVip`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field

from core.clock import Clock
from core.errors import PermanentError, TemporaryError
from netfabric.vip import Lifetime


@dataclass(slots=True)
class MemoryVipNetwork:
    """`foreign`: MACs of other machines by address. `announced`: who said of which address that it has it, in order."""

    network: str = "192.0.2.0/24"
    foreign: dict[str, str] = field(default_factory=dict)
    announced: list[tuple[str, str]] = field(default_factory=list)
    hosts: list[MemoryVip] = field(default_factory=list)


class MemoryVip:
    """`VipDriver` of one host, whose kernel goes on when the agent doesn't. `late_s` is how late that kernel is."""

    def __init__(
        self,
        network: MemoryVipNetwork,
        mac: str,
        clock: Clock,
        lifetime: Lifetime,
        *,
        late_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._network, self.mac = network, mac
        self._clock, self._lifetime, self._late_s = clock, lifetime, late_s
        self._ends_s: dict[str, float] = {}
        self.fault = ""
        network.hosts.append(self)

    def has(self, vip: str) -> bool:
        """Tell whether the kernel has the address now."""
        return self._clock.monotonic_s() < self._ends_s.get(vip, float("-inf"))

    async def network(self, near: str) -> str:
        """See `VipDriver.network`."""
        self._check()
        found = ipaddress.ip_network(self._network.network)
        if ipaddress.ip_address(near) not in found:
            raise TemporaryError(f"no interface of this host has its management address {near}")
        return str(found)

    async def probe(self, vip: str, *, near: str) -> str:
        """See `VipDriver.probe`."""
        self._check_near(vip, near)
        others = (host.mac for host in self._network.hosts if host is not self and host.has(vip))
        return self._network.foreign.get(vip) or next(others, "")

    async def hold(self, vip: str, *, near: str, until_s: float) -> bool:
        """See `VipDriver.hold`."""
        self._check_near(vip, near)
        now_s = self._clock.monotonic_s()
        left_s = self._lifetime(until_s, now_s)
        if left_s:
            self._ends_s[vip] = now_s + left_s + self._late_s()
        return bool(left_s)

    async def announce(self, vip: str, *, near: str) -> None:
        """See `VipDriver.announce`."""
        del near
        self._check()
        self._network.announced.append((self.mac, vip))

    async def release(self, vip: str) -> bool:
        """See `VipDriver.release`."""
        self._check()
        had = self.has(vip)
        self._ends_s.pop(vip, None)
        return had

    def _check_near(self, vip: str, near: str) -> None:
        self._check()
        network = ipaddress.ip_network(self._network.network)
        if {ipaddress.ip_address(vip) in network, ipaddress.ip_address(near) in network} != {True}:
            raise PermanentError(f"{vip} is not in {network}, the network of this host's address")

    def _check(self) -> None:
        if self.fault:
            raise TemporaryError(self.fault)
