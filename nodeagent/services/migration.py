"""The source's side of a live migration: ask the target to get ready, move the guest, find out where it is.

Used by the migration workflow. libvirt and QEMU talk through unix sockets that the agents join over the mesh
(docs/decisions: migration through the mesh), so no port of theirs is open on any host.
"""

from __future__ import annotations

import asyncio
import logging

from core.errors import ConflictError, NotFoundError, TemporaryError
from core.member_file import bracketed
from core.mesh.dialer import MeshDialer
from core.model import VM, Host
from nodeagent.compute.hypervisor import MigrationOrder
from nodeagent.compute.tunnel import MigrationTunnel, TunnelKind
from nodeagent.node import Node
from nodeagent.services.incoming import AboutIncoming, IncomingState, PrepareIncoming

log = logging.getLogger(__name__)

TUNNEL_CHANNEL = "kvorum-tunnel/1"
PREPARE_TIMEOUT_S = 30.0
MOVE_TIMEOUT_S = 1800.0
END_TIMEOUT_S = 20.0
POLL_S = 0.2


class MigrationService:
    """Moves guests away from this host."""

    def __init__(self, node: Node, dialer: MeshDialer, *, trust_shared_storage: bool) -> None:
        self._node = node
        self._dialer = dialer
        self._trust = trust_shared_storage

    async def prepare(self, vm: VM, target: Host) -> None:
        """Have the target ready; the reservation is committed already.

        Raises:
            PlatformError: the target says what is missing, or does not answer.
        """
        body = PrepareIncoming(vm_id=vm.id, generation=vm.generation, index=vm.revision)
        await self._node.mesh.call(
            target, "/mesh/incoming/prepare", body, IncomingState, timeout_s=PREPARE_TIMEOUT_S
        )

    async def release(self, vm_id: str, target: Host) -> None:
        """Have the target clean up."""
        await self._node.mesh.call(
            target, "/mesh/incoming/release", AboutIncoming(vm_id=vm_id), IncomingState
        )

    async def move(self, vm: VM, target: Host) -> None:
        """Move the guest. When this returns it runs at the target and QEMU has ended here.

        Raises:
            PlatformError: it did not move and goes on here, or its place must be looked for.
        """
        if not await self.runs_here(vm.id):
            if await self.runs_there(vm.id, target):
                return
            raise ConflictError(f"VM {vm.name!r} runs neither here nor on {target.name}")
        peer_address = f"{bracketed(target.address)}:{target.mesh_port}"

        async def open_stream(
            kind: TunnelKind, vm_id: str
        ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            del kind, vm_id  # the tunnel writes them itself
            return await self._dialer.open(peer_address, target.id, TUNNEL_CHANNEL)

        try:
            async with MigrationTunnel(vm.id, open_stream) as tunnel:
                order = MigrationOrder(
                    target_uri=tunnel.target_uri,
                    migrate_uri=tunnel.migrate_uri,
                    timeout_s=MOVE_TIMEOUT_S,
                    shared_is_safe=self._trust,
                )
                await self._node.hypervisor.migrate(vm.id, order)
        except NotFoundError:
            raise ConflictError(f"VM {vm.name!r} stopped while it was being moved") from None
        except TemporaryError:
            # The outcome is unknown to libvirt's caller, not to the two hosts.
            if await self.runs_here(vm.id) or not await self.runs_there(vm.id, target):
                raise
        log.info("a guest was moved", extra={"vm": vm.id, "host": target.id})

    async def abort(self, vm_id: str) -> None:
        """Ask a move under way to end without moving; nothing happens when there is none."""
        await self._node.hypervisor.abort_migration(vm_id)

    async def end(self, vm_id: str) -> None:
        """Have the hypervisor end a move, also one that an agent of before began; returns when none is under way. The guest goes on here.

        Raises:
            TemporaryError: it doesn't end.
        """
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                while await self._node.hypervisor.abort_migration(vm_id):
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise TemporaryError("libvirt's job of the move does not end") from None

    async def runs_here(self, vm_id: str) -> bool:
        """Tell whether the guest is on this host."""
        return await self._node.hypervisor.get(vm_id) is not None

    async def runs_there(self, vm_id: str, target: Host) -> bool:
        """Tell whether the guest runs on the target.

        Raises:
            UnavailableError: the target does not answer, so nobody knows.
        """
        state = await self._node.mesh.call(
            target, "/mesh/incoming/state", AboutIncoming(vm_id=vm_id), IncomingState
        )
        return state.running

    async def settle(self, vm: VM, target: Host) -> bool:
        """After a failed move, tell whether the guest ended up at the target.

        Raises:
            PlatformError: its place can't be found out now.
        """
        return not await self.runs_here(vm.id) and await self.runs_there(vm.id, target)
