"""What keeps two placements from taking the last room of a host together: the log refuses the second.

A host is chosen by this agent's copy of the state. Each transaction that lets a VM take room on a host also stores that host's
`HostRoom`, at the revision that was seen with the choice. Whoever chose without knowing of it is refused, and chooses anew. That
costs one small record in the transaction, and asks no more of the log than guards, which all versions know.

Called by whatever makes VMs take room: creating, starting, migrating, failover, and hosts that give their VMs away.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from core.errors import ConflictError
from core.model import VM, Cluster, Host, HostRoom, Mesh
from ha.placement import (
    PlacementError,
    PlacementRequest,
    PlacementView,
    choose_host,
    overcommits_of,
)
from ha.profile import profile_in
from nodeagent.joining.founding import MESH_ID
from raftstate.store import ROOM_TAKEN, Store

T = TypeVar("T")

TRIES = 32
PAUSE_S_MAX = 0.2
STEP_TRIES = 8


def room_on(store: Store, host_id: str) -> HostRoom:
    """Return what a transaction has to store that takes room on a host; call it before anything is waited for after the choice."""
    return store.get(HostRoom, host_id) or HostRoom(id=host_id, name=host_id)


def still_room(store: Store, vm: VM, host: Host, *, beside: Iterable[VM] = ()) -> HostRoom:
    """See that a host that was chosen for a VM a while ago still has room for it; return what to store, so that it has.

    Looks at the VMs of that host only, and at those that come to it `beside`, in the same transaction. The age of its lease
    isn't judged again.

    Raises:
        PlacementError: it hasn't any more, or takes no VMs.
    """
    there = {
        one.id: one
        for field in ("host_id", "migrating_to_host_id")
        for one in store.with_value(VM, field, host.id)
    }
    there |= {one.id: one for one in beside}
    request = PlacementRequest(
        cpus=vm.cpus, memory_mib=vm.memory_mib, vm_id=vm.id, cluster_id=vm.cluster_id
    )
    view = PlacementView(
        hosts=(host,),
        vms=tuple(there.values()),
        lease_ages_s={host.id: 0.0},
        cpu_overcommits=overcommits_of(store.all(Cluster)),
        fresh_s=profile_in(store.get(Mesh, MESH_ID)).lease_s / 2,
    )
    try:
        choose_host(request, view)
    except PlacementError as error:
        why = error.message.removeprefix("no host can take the VM: ")
        raise PlacementError(f"VM {vm.name!r} can't be taken any more: {why}") from None
    return room_on(store, host.id)


async def tried_again(place: Callable[[], Awaitable[T]], *, tries: int = STEP_TRIES) -> T:
    """Place a VM by `place`, which judges anew each time, as long as others take room on the same host in the same moment.

    Raises:
        ConflictError: they did `tries` times in a row.
        PlatformError: what `place` raises.
    """
    for _ in range(tries - 1):
        try:
            return await place()
        except ConflictError as error:
            if error.code != ROOM_TAKEN:
                raise
    return await place()


class Turns:
    """Lets requests of this agent that lost a race for room choose again one after the other, so that they don't race with each other."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._turn = asyncio.Lock()

    async def placed(self, place: Callable[[int], Awaitable[T]]) -> T:
        """Place a VM by `place(attempt)`, which chooses a host anew each time.

        Raises:
            ConflictError: others took the room `TRIES` times in a row.
            PlatformError: what `place` raises.
        """
        try:
            return await place(0)
        except ConflictError as error:
            if error.code != ROOM_TAKEN:
                raise
        async with self._turn:
            for attempt in range(1, TRIES - 1):
                try:
                    return await place(attempt)
                except ConflictError as error:
                    if error.code != ROOM_TAKEN:
                        raise
                pause_s = min(PAUSE_S_MAX, 0.01 * 2 ** min(attempt, 8))
                await asyncio.sleep(self._rng.uniform(0, pause_s))
            return await place(TRIES - 1)
