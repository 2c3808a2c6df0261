"""Requests on their way to the leader, and answers on their way back, over hosts in between.

Part of the engine. A host that doesn't vote has a link to the one that feeds it, not to the leader, so requests climb
the tree of feeds; each host on the way remembers, as a switch does, over which link an asking engine was heard.
"""

from __future__ import annotations

from collections import OrderedDict

from raftstate.consensus.engine import NodeId

ROUTES_KEPT = 20_000
HOPS_MAX = 16


class Routes:
    """Which link leads back to an engine, told apart by its boot id."""

    def __init__(self) -> None:
        self._links: OrderedDict[bytes, NodeId] = OrderedDict()

    def heard(self, origin: bytes, peer: NodeId) -> None:
        """A request of `origin` came over the link with `peer`."""
        self._links[origin] = peer
        self._links.move_to_end(origin)
        if len(self._links) > ROUTES_KEPT:
            self._links.popitem(last=False)

    def back(self, origin: bytes) -> NodeId | None:
        """Return the link that leads back to `origin`."""
        return self._links.get(origin)
