"""Asking the local guard, from the agent.

Used by the compute controllers (grant before a start, check before a resume, revoke after a stop) and by the host's
status. The protocol is documented in `ha.guard.control`.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec

from core.errors import ConflictError, UnavailableError

T = TypeVar("T")


class GuardGrant(msgspec.Struct, frozen=True, kw_only=True):
    """The right of a VM, in one generation, to run on this host."""

    generation: int
    lease_bound: bool


class GuardWatchdog(msgspec.Struct, frozen=True, kw_only=True):
    """`kind` is none, socket or device."""

    kind: str
    armed: bool


class GuardStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the guard knows. `phase` is idle, held or ended; `host_id` is empty while it is not configured.

    `boot_id` names this boot of the host: the agent takes it from here. `running` are ids of VMs whose QEMU runs,
    granted or not. `disarmed`: the end of its lease kills nothing now. Times are seconds, `last_kill_boottime_s` of CLOCK_BOOTTIME.
    """

    host_id: str
    boot_id: str
    phase: str
    lease_valid: bool
    remaining_s: float
    first_index: int
    renewed_index: int
    seq: int
    watchdog: GuardWatchdog
    grants: dict[str, GuardGrant]
    running: tuple[str, ...]
    kills: int
    last_kill_boottime_s: float | None
    stopping: bool
    lease_s: float = 0.0
    watchdog_s: float = 0.0
    disarmed: bool = False


class _Done(msgspec.Struct, frozen=True):
    pass


class _Answer(msgspec.Struct, frozen=True):
    ok: bool
    code: str = ""
    error: str = ""


class GuardClient:
    """One request a connection. Every call takes at most `timeout_s` seconds.

    Raises (all calls):
        UnavailableError: no answer in time; for `grant` and `check` that means no.
        ConflictError: the guard refuses; `code` is guard-no-lease, guard-lease-old, guard-behind, guard-stale,
            guard-not-granted or guard-stopping.
    """

    def __init__(self, path: str = "/run/kvorum/guard.sock", *, timeout_s: float = 2.0) -> None:
        self._path = path
        self._timeout_s = timeout_s

    async def status(self) -> GuardStatus:
        """Return what the guard knows."""
        return await self._ask({"op": "status"}, GuardStatus)

    async def grant(
        self, vm_id: str, *, generation: int, lease_bound: bool, applied_index: int
    ) -> None:
        """Allow a VM to run here, before it is started. Idempotent.

        Call it with what the store says *now*: read the VM (still this host's, still this generation) and the store's
        applied index in one go, with no await before this call. `applied_index` is worth nothing with a VM that was read
        earlier: it may have been taken away and the lease be a new one. `lease_bound` is True when another host could take
        the VM over, so that it must die with the lease.
        """
        request: dict[str, object] = {"op": "grant", "vm_id": vm_id, "generation": generation}
        await self._ask(
            request | {"lease_bound": lease_bound, "applied_index": applied_index}, _Done
        )

    async def revoke(self, vm_id: str) -> None:
        """Take the right back, after the guest is gone. Idempotent."""
        await self._ask({"op": "revoke", "vm_id": vm_id}, _Done)

    async def check(self, vm_id: str, *, generation: int | None = None) -> GuardGrant:
        """Return the grant under which the VM may start or resume right now."""
        request: dict[str, object] = {"op": "check", "vm_id": vm_id}
        if generation is not None:
            request["generation"] = generation
        return await self._ask(request, GuardGrant)

    async def _ask(self, request: dict[str, object], type_: type[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout_s):
                reader, writer = await asyncio.open_unix_connection(self._path, limit=16 << 20)
                try:
                    writer.write(msgspec.json.encode(request) + b"\n")
                    line = await reader.readline()
                finally:
                    writer.close()
            answer = msgspec.json.decode(line, type=_Answer)
            if answer.ok:
                return msgspec.json.decode(line, type=type_)
        except (OSError, ValueError, TimeoutError) as error:
            raise UnavailableError(
                f"the guard does not answer ({str(error) or 'timeout'}): is kvorum-guard running on this host?"
            ) from None
        raise ConflictError(f"the guard refuses: {answer.error}", code=f"guard-{answer.code}")
