"""Puts right what a drill broke: waits until all is as before, helps with the power, and says what is left to do by hand."""

from __future__ import annotations

import asyncio
import logging

from core.errors import PlatformError
from core.model import NOT_SEEN, Bmc, DrillKind, DrillPromise, Host, HostState, Lease
from ha.drills.promises import TIMED
from nodeagent.drills.observation import LOOK_S, Observation
from nodeagent.node import Node
from nodeagent.services.bmcs import Bmcs
from nodeagent.services.health import LeaseAges

log = logging.getLogger(__name__)

UNDO_HOST_S, UNDO_AGENT_S = 180.0, 60.0
BOARD_AGAIN_S = 5.0
FENCING_MAY_TAKE_S = 30.0
CUT_SLACK_S = 10.0


class PuttingRight:
    """Brings a drill's target back."""

    def __init__(self, node: Node, leases: LeaseAges, bmcs: Bmcs) -> None:
        self._node, self._store = node, node.store
        self._leases = leases
        self._bmcs = bmcs

    async def until_as_before(self, seen: Observation) -> str:
        """Wait until all is as before, and help; return what is left to do by hand, if anything."""
        kind = seen.drill.kind
        if kind in (DrillKind.AGENT_KILL, DrillKind.LEADER_LOSS):
            limit_s, by_hand = (
                UNDO_AGENT_S,
                "start its agent: systemctl start kvorum-agent on {host}",
            )
        else:
            limit_s, by_hand = UNDO_HOST_S, "switch {host} on, see kvorum health"
        began_s, asked_s = self._node.clock.monotonic_s(), float("-inf")
        while not self._is_as_before(seen, self._node.clock.monotonic_s() - began_s):
            now_s = self._node.clock.monotonic_s()
            if now_s - began_s >= limit_s + self._cut_left_s(seen):
                return self._by_hand(seen, by_hand)
            if now_s - asked_s >= BOARD_AGAIN_S and self._may_switch_on(seen, now_s - began_s):
                asked_s = now_s
                await self._power_on(seen)
            await asyncio.sleep(LOOK_S)
            seen.look()
        return ""

    def _by_hand(self, seen: Observation, words: str) -> str:
        host = seen.drill.host_label
        if self._store.get(Bmc, seen.drill.host_id) is not None and "switch" in words:
            return f"kvorum bmc power-on {host}"
        return words.format(host=host)

    def _cut_left_s(self, seen: Observation) -> float:
        """Return how long a cut may still last: it ends by itself, and nobody can reach the host to end it sooner."""
        if seen.drill.kind not in TIMED:
            return 0.0
        return max(0.0, seen.drill.duration_s + CUT_SLACK_S - seen.after_ms() / 1000)

    def _is_as_before(self, seen: Observation, undoing_s: float) -> bool:
        host = self._store.get(Host, seen.drill.host_id)
        if host is None:
            return True  # removed from the cluster meanwhile
        if not seen.answers:
            return False
        if seen.drill.kind in (DrillKind.AGENT_KILL, DrillKind.LEADER_LOSS):
            return True
        if seen.watching.cut_may_last(seen.after_ms()):
            return False
        if seen.storage_usable is False:
            return False
        fresh = self._leases.age_s(host.id) < seen.watching.profile.suspect_s / 2
        if host.state is not HostState.MEMBER or not fresh:
            return False
        lease = self._store.get(Lease, host.id)
        same_boot = lease is not None and lease.boot_id == seen.watching.boot_before
        takes_boot = seen.drill.kind in (DrillKind.POWER_OFF, DrillKind.GUARD_KILL)
        if takes_boot and same_boot and undoing_s < seen.watching.profile.safe_s:
            return False  # its last renewal may be just that: nobody has missed it yet
        waiting = (one for one in seen.watching.vms if one.promise is DrillPromise.WAITS)
        return all(one.running_ms != NOT_SEEN or one.stopped_by_user for one in waiting)

    def _may_switch_on(self, seen: Observation, undoing_s: float) -> bool:
        """Tell whether its board may be asked to switch it on: not while the cluster takes its power for certain."""
        if seen.drill.kind in (DrillKind.AGENT_KILL, DrillKind.LEADER_LOSS, DrillKind.STORAGE_LOSS):
            return False
        host = self._store.get(Host, seen.drill.host_id)
        if host is None or self._store.get(Bmc, host.id) is None:
            return False
        return host.state is not HostState.FENCING or undoing_s >= FENCING_MAY_TAKE_S

    async def _power_on(self, seen: Observation) -> None:
        host = self._store.get(Host, seen.drill.host_id)
        if host is None or self._bmcs.is_certainly_on(host):
            return
        try:
            board = self._bmcs.board(self._bmcs.of(host))
            if not await self._bmcs.driver.is_on(board):
                await self._bmcs.driver.turn_on(board)
                after_ms = seen.after_ms()
                seen.watching.note(
                    after_ms, "power-on", f"the BMC of {host.name} is told to switch it on"
                )
        except PlatformError as error:
            log.warning("a drill can't switch a host on", extra={"error": error.message})
