"""The HTTPS listener of the management address (VIP), open on every host while one is set.

Run by `nodeagent.lifecycle`. It listens before the host has the address and after it has lost it, so that whoever holds
the VIP answers from the first moment.
"""

from __future__ import annotations

import asyncio
import logging
import ssl

from core.model import Mesh
from nodeagent.api.serving import Front
from nodeagent.joining.founding import MESH_ID
from raftstate.store import Store

log = logging.getLogger(__name__)

RETRY_S = 5.0


class VipDoor:
    """Follows the setting."""

    def __init__(
        self, front: Front, store: Store, port: int, context: ssl.SSLContext | None
    ) -> None:
        self._front, self._store, self._port, self._context = front, store, port, context

    async def run(self) -> None:
        """Listen on the VIP until cancelled, whatever it is and may become."""
        watch = self._store.watch(Mesh)
        try:
            while True:
                vip = self._vip()
                async with asyncio.TaskGroup() as group:
                    door = group.create_task(self._serve(vip), name="vip-door")
                    while self._vip() == vip:
                        await watch.next()
                    door.cancel()
        finally:
            self._store.unwatch(watch)

    def _vip(self) -> str:
        mesh = self._store.get(Mesh, MESH_ID)
        return mesh.vip if mesh is not None else ""

    async def _serve(self, vip: str) -> None:
        while vip:
            try:
                door = self._front.open(vip, self._port, self._context, moving=True)
            except OSError as error:
                log.warning("can't listen on the VIP", extra={"vip": vip, "error": str(error)})
                await asyncio.sleep(RETRY_S)
            else:
                await door.run()
