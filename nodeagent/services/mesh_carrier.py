"""Brings the bus's calls to other agents: POST /mesh/bus, answered by `nodeagent.mesh_rpc`."""

from __future__ import annotations

from core.bus import BusAnswer, BusCall
from core.errors import NotFoundError, PlatformError, UnavailableError
from core.model import Host
from nodeagent.node import Node

BUS_PATH = "/mesh/bus"


class MeshCarrier:
    """The `Carrier` of the bus."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def deliver(self, host_id: str, call: BusCall, *, timeout_s: float) -> BusAnswer:
        """Return the other agent's answer; see `core.bus.Carrier`."""
        host = self._node.store.get(Host, host_id)
        if host is None:
            raise NotFoundError(f"host {host_id} is no member any more")
        try:
            return await self._node.mesh.call(host, BUS_PATH, call, BusAnswer, timeout_s=timeout_s)
        except UnavailableError:
            raise
        except PlatformError as error:
            # What a service says comes inside an answer: this is the agent itself, older or of another generation.
            raise NotFoundError(f"host {host.name} takes no calls: {error.message}") from None
