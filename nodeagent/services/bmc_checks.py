"""The leader asks every management board now and then, so that a fault is known before it is needed.

A board says the truth when it says "on" of a host that renewed its lease both before and after it was asked. Nothing is
said of boards whose host is silent: that is when they are used. Only changes are recorded.
"""

from __future__ import annotations

import asyncio
import logging

from msgspec.structs import replace

from core.errors import ConflictError, PlatformError
from core.model import Bmc, BmcState, Host, Severity
from nodeagent.node import Node
from nodeagent.services.bmcs import Bmcs
from nodeagent.services.event_log import EventLog

log = logging.getLogger(__name__)

ROUND_S = 60.0
LOOK_S = 5.0
AT_ONCE = 16
OFF = "it says that its machine is off, while the host is on: does it belong to another machine?"


class BmcChecks:
    """The leader's loop; idle on every other node."""

    def __init__(self, node: Node, bmcs: Bmcs, events: EventLog) -> None:
        self._node, self._store = node, node.store
        self._bmcs = bmcs
        self._events = events
        self._asked_s: dict[str, float] = {}

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._node.engine.is_leader():
                self._asked_s.clear()
                continue
            now_s = self._node.clock.monotonic_s()
            due = [
                bmc
                for bmc in self._store.all(Bmc)
                if now_s - self._asked_s.get(bmc.id, -ROUND_S) >= ROUND_S
            ][:AT_ONCE]
            async with asyncio.TaskGroup() as group:
                for bmc in due:
                    self._asked_s[bmc.id] = now_s
                    group.create_task(self._check(bmc), name=f"bmc-check-{bmc.id}")

    async def _check(self, bmc: Bmc) -> None:
        host = self._store.get(Host, bmc.host_id)
        if host is None or not self._bmcs.is_certainly_on(host):
            return
        try:
            why = "" if await self._bmcs.driver.is_on(self._bmcs.board(bmc)) else OFF
        except PlatformError as error:
            why = error.message
        if not self._bmcs.is_certainly_on(host):
            return
        state = BmcState.FAULT if why else BmcState.OK
        if (bmc.state, bmc.why) == (state, why):
            return
        try:
            await self._record(host, replace(bmc, state=state, why=why))
        except ConflictError:
            log.info("a BMC was changed while it was asked", extra={"host": host.id})
        except PlatformError as error:
            log.warning("what a BMC said can't be recorded", extra={"error": error.message})

    async def _record(self, host: Host, bmc: Bmc) -> None:
        if bmc.state is BmcState.OK:
            code, severity = "bmc-ok", Severity.NOTICE
            message = f"the BMC of host {host.name} answers, and may switch it off when it is lost"
        else:
            code, severity = "bmc-fault", Severity.ALARM
            message = f"the BMC of host {host.name} can't be relied on: {bmc.why}"
        event = self._events.make(code, host, message, severity=severity)
        await self._store.apply(puts=(bmc, event))
