"""What a host has instead of the hypervisor that its settings name, when that can't be used: it knows nothing and does nothing.

Chosen by `nodeagent.plugins.drivers`. A guest that runs here is then neither seen, ended nor forgotten: every question
is answered by an error, never by an empty list, so nobody takes this host for one without guests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from core.errors import TemporaryError
from nodeagent.compute.domain_spec import DomainSpec
from nodeagent.compute.event_feed import EventFeed
from nodeagent.compute.hypervisor import (
    DomainEvent,
    DomainState,
    HostFacts,
    MigrationOrder,
    MigrationProgress,
)

RETRY_AFTER_S = 30.0


class MissingHypervisor:
    """See `Hypervisor`. `why` says what is missing and what to do."""

    def __init__(self, why: str) -> None:
        self._why = why
        self._feed = EventFeed()

    async def run(self) -> None:
        """Wait until cancelled."""
        await asyncio.Event().wait()

    @property
    def guard_ends_guests(self) -> bool:
        return False

    @property
    def is_healthy(self) -> bool:
        return False

    @property
    def probes_missed(self) -> int:
        return 3

    async def wait_connected(self) -> None:
        await asyncio.Event().wait()

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[DomainEvent]]:
        return self._feed.events()

    async def host_facts(self) -> HostFacts:
        raise self._missing()

    async def list_domains(self) -> tuple[DomainState, ...]:
        raise self._missing()

    async def get(self, vm_id: str) -> DomainState | None:
        raise self._missing()

    async def define_and_start(self, spec: DomainSpec, *, paused: bool) -> DomainState:
        raise self._missing()

    async def resume(self, vm_id: str) -> None:
        raise self._missing()

    async def suspend(self, vm_id: str) -> None:
        raise self._missing()

    async def shutdown(self, vm_id: str) -> None:
        raise self._missing()

    async def reboot(self, vm_id: str) -> None:
        raise self._missing()

    async def reset(self, vm_id: str) -> None:
        raise self._missing()

    async def destroy(self, vm_id: str) -> None:
        raise self._missing()

    async def undefine(self, vm_id: str) -> None:
        raise self._missing()

    async def set_generation(self, vm_id: str, generation: int) -> None:
        raise self._missing()

    async def migrate(
        self,
        vm_id: str,
        order: MigrationOrder,
        *,
        on_progress: Callable[[MigrationProgress], None] = lambda progress: None,
    ) -> None:
        raise self._missing()

    async def abort_migration(self, vm_id: str) -> bool:
        raise self._missing()

    async def migration_progress(self, vm_id: str) -> MigrationProgress | None:
        raise self._missing()

    def _missing(self) -> TemporaryError:
        return TemporaryError(self._why, retry_after_s=RETRY_AFTER_S)
