"""Finds out whether the cluster has removed this host: one that was off meanwhile meets closed doors only.

Asks other members over HTTPS, where no certificate of a host is needed, and only while this host has no way to a leader.
An answer counts when it is at least as new as this host's own copy, which still has the record. `kvorum status` and
`kvorum leave` say what was found.
"""

from __future__ import annotations

import asyncio
import logging
from enum import StrEnum

from core.errors import PlatformError
from core.member_file import bracketed
from core.model import Host
from nodeagent.joining.joiner import ask_standing
from nodeagent.node import Node

log = logging.getLogger(__name__)

ROUND_S = 5.0
ASK_TIMEOUT_S = 5.0
ASKED_MAX = 8


class Verdict(StrEnum):
    """What other members say."""

    MEMBER = "member"
    REMOVED = "removed"
    UNKNOWN = "unknown"


class Exclusion:
    """What this host knows of its own standing."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.verdict = Verdict.MEMBER

    async def run(self) -> None:
        """Look whenever this host has no way to a leader, until cancelled."""
        while True:
            await asyncio.sleep(ROUND_S)
            if self._is_cut_off():
                before, self.verdict = self.verdict, await self.look()
                if Verdict.REMOVED is self.verdict is not before:
                    log.warning("the cluster has removed this host: run 'kvorum leave --force'")
            else:
                self.verdict = Verdict.MEMBER

    async def look(self) -> Verdict:
        """Ask some of the members, at once. One that counts this host as a member outweighs the others."""
        hosts = [h for h in self._node.store.all(Host) if h.id != self._node.host_id]
        voters = {peer.id for peer in self._node.engine.voters()}
        hosts.sort(key=lambda h: h.id not in voters)
        said: list[Verdict] = []
        async with asyncio.TaskGroup() as group:
            for host in hosts[:ASKED_MAX]:
                group.create_task(self._ask(host, said), name=f"ask-standing-{host.name}")
        for verdict in (Verdict.MEMBER, Verdict.REMOVED):
            if verdict in said:
                return verdict
        return Verdict.UNKNOWN

    def _is_cut_off(self) -> bool:
        engine = self._node.engine
        if engine.is_leader():
            return False
        return engine.leader() is None or not engine.connected()

    async def _ask(self, host: Host, said: list[Verdict]) -> None:
        address = f"{bracketed(host.address)}:{host.api_port}"
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                ca_pem = self._node.paths.ca_pem.read_text()
                standing = await ask_standing(address, ca_pem, self._node.host_id)
        except (PlatformError, OSError, TimeoutError):
            return
        if standing.member:
            said.append(Verdict.MEMBER)
        elif standing.index >= self._node.store.index:
            said.append(Verdict.REMOVED)
