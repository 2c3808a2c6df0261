"""Ends what a removed host still has open, the moment its removal is applied: its certificate is good for years yet.

Made by `nodeagent.member`. New connections are refused by the mesh server's `admit`, requests on open ones by
`nodeagent.mesh_rpc`; here go the channels in both directions (consensus, migrations) and what HTTP has under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from core.mesh.dialer import MeshDialer
from core.mesh.server import MeshServer
from core.model import Host, kind_of
from raftstate.state.machine import Machine
from raftstate.watch import EVERYTHING

HOSTS = f"{kind_of(Host)}/"


class Revocation:
    """`admits` tells who is a member, by host id. Needs a running event loop."""

    def __init__(
        self,
        machine: Machine,
        server: MeshServer,
        dialer: MeshDialer,
        *,
        admits: Callable[[str], bool],
    ) -> None:
        self._server, self._dialer, self._admits = server, dialer, admits
        machine.on_applied(self._applied)

    def _applied(self, index: int, changed: frozenset[str]) -> None:
        """Cut after the entry, not in the middle of applying it."""
        del index
        if EVERYTHING in changed or any(key.startswith(HOSTS) for key in changed):
            asyncio.get_running_loop().call_soon(self._cut)

    def _cut(self) -> None:
        self._server.cut_strangers()
        self._dialer.cut_strangers(self._admits)
