"""Ping in memory, for tests: what answers is what a test says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from core.errors import TemporaryError


@dataclass(slots=True)
class MemoryPinger:
    """`netfabric.ping.Pinger`. `answering`: the addresses that answer. `fault`: why this host can't ping at all."""

    answering: set[str] = field(default_factory=set)
    fault: str = ""

    async def ping(self, addresses: Iterable[str], *, timeout_s: float) -> frozenset[str]:
        """See `netfabric.ping.Pinger.ping`."""
        del timeout_s
        if self.fault:
            raise TemporaryError(self.fault)
        return frozenset(addresses) & self.answering
