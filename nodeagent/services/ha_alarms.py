"""What the leader tells once about the whole cluster: that missing hosts are waited for, and that very many are lost.

Called by `nodeagent.services.ha_controller` in each round. What it tells changes nothing of what is decided.
"""

from __future__ import annotations

from collections.abc import Iterable

from core.model import Mesh, Severity
from ha.cold_start import SETTLE_S, many_are_lost, waited_for
from ha.manager import HAView
from nodeagent.joining.founding import MESH_ID
from nodeagent.node import Node
from nodeagent.services.event_log import EventLog

NAMES_MAX = 10


class HaAlarms:
    """Remembers what it told, so that each is told when it begins."""

    def __init__(self, node: Node, events: EventLog) -> None:
        self._node, self._events = node, events
        self._told: set[str] = set()

    def forget(self) -> None:
        """Begin anew: this node leads no more."""
        self._told.clear()

    async def look(self, view: HAView, now_s: float) -> None:
        """Tell what is true now and was not when it was asked last."""
        ages_s = {id_: now_s - stamp_s for id_, stamp_s in view.stamps_s.items()}
        lost = [id_ for id_ in view.hosts if ages_s.get(id_, 0.0) >= view.profile.suspect_s]
        missing = waited_for(view.hosts.values(), view.booted_s, now_s).intersection(lost)
        await self._once(
            "cold-start",
            bool(missing),
            f"all power was lost and is back, but not for {_names(view, missing)}: their VMs start elsewhere if they are "
            f"not back within {SETTLE_S:g} s of the first host",
            Severity.WARNING,
        )
        await self._once(
            "many-hosts-lost",
            many_are_lost(view.hosts, ages_s, view.profile, view.leases),
            f"{len(lost)} of {len(view.hosts)} hosts were lost within a minute ({_names(view, lost)}): is it the network, "
            "or the power of a room? Their VMs start elsewhere by priority, as far as there is room",
            Severity.ALARM,
        )

    async def _once(self, code: str, true: bool, message: str, severity: Severity) -> None:
        if not true:
            self._told.discard(code)
        elif code not in self._told:
            self._told.add(code)
            mesh = self._node.store.need(Mesh, MESH_ID)
            await self._events.record(code, mesh, message, severity=severity)


def _names(view: HAView, ids: Iterable[str]) -> str:
    names = sorted(view.hosts[id_].name for id_ in ids)
    more = len(names) - NAMES_MAX
    return ", ".join(names[:NAMES_MAX]) + (f" and {more} more" if more > 0 else "")
