"""Beginning and ending the maintenance of a host, and how far it is.

Called by the API. What is asked is one commit; `nodeagent.services.evacuation` does the rest, whoever leads.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from core.errors import ConflictError
from core.model import VM, Cluster, Host, Task, TaskState, Unmovable
from ha.evacuation import Judged, Standing, in_order, in_the_way, is_ready
from nodeagent.node import Node
from nodeagent.services.admission import Ages, pinned_vms, room_view
from nodeagent.services.event_log import EventLog

NAMED_MAX = 10


class UnmovableError(ConflictError):
    """VMs can't leave the host alive; the message names them and says why."""

    code = "unmovable-vms"


@dataclass(frozen=True, slots=True)
class Staying:
    """A VM that is still on the host. `task` works on it; `why` it isn't away yet, empty when nothing is wrong."""

    vm: VM
    standing: Standing
    why: str
    task: Task | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the maintenance of a host is. `left`: VMs that still have to go or come; `away`: those that are elsewhere for it."""

    host: Host
    left: int
    away: int
    staying: tuple[Staying, ...]


async def enter(node: Node, ages: Ages, host: Host, unmovable: Unmovable) -> None:
    """Let a host get no new VMs, and have those on it moved away. Repeatable; changes what becomes of VMs that can't be.

    Raises:
        UnmovableError: some can't, and nothing was said about them; nothing is changed.
        UnavailableError: no quorum.
    """
    cluster = node.store.need(Cluster, host.cluster_id)
    if unmovable is Unmovable.REFUSE:
        stuck = in_the_way(room_view(node.store, ages, cluster), host)
        if stuck:
            raise UnmovableError(_named(host, stuck))
    entered = replace(
        host,
        maintenance=True,
        maintenance_unmovable=unmovable,
        maintenance_ready=host.maintenance_ready and unmovable is host.maintenance_unmovable,
        maintenance_back=True,
    )
    if entered == host:
        return
    message = f"host {host.name} goes into maintenance: its VMs are moved away"
    event = EventLog(node).make("host-maintenance-begun", host, message)
    await node.store.apply(puts=(entered, event))


async def leave(node: Node, host: Host, *, move_back: bool) -> None:
    """End a maintenance, also one that isn't complete yet. Repeatable.

    Raises:
        UnavailableError: no quorum.
    """
    if not host.maintenance:
        return
    left = replace(
        host,
        maintenance=False,
        maintenance_unmovable=Unmovable.REFUSE,
        maintenance_ready=False,
        maintenance_back=move_back,
    )
    message = f"the maintenance of host {host.name} is over" + (
        ": its VMs come back" if move_back else ": its VMs stay where they are"
    )
    event = EventLog(node).make("host-maintenance-ended", host, message)
    await node.store.apply(puts=(left, event))


def progress(node: Node, host: Host) -> Progress:
    """Return how far the maintenance of a host is, or the return of its VMs."""
    store = node.store
    on_it = in_order(store.with_value(VM, "host_id", host.id), pinned_vms(store))
    away = [vm for vm in store.with_value(VM, "home_host_id", host.id) if vm.host_id != host.id]
    if not host.maintenance:
        return Progress(host, len(away), len(away), ())
    staying = tuple(_staying(node, one) for one in on_it)
    left = sum(not is_ready(host, (one,), arriving=False) for one in on_it)
    return Progress(host, left, len(away), staying)


def _staying(node: Node, one: Judged) -> Staying:
    holder = node.store.claim_holder(f"task.subject/vm/{one.vm.id}")
    task = node.store.get(Task, holder.removeprefix("task/")) if holder else None
    why = one.why
    if task is None and one.standing is not Standing.RESTS:
        why = why or _last_failure(node, one.vm)
    return Staying(one.vm, one.standing, why, task)


def _last_failure(node: Node, vm: VM) -> str:
    tasks = node.store.with_value(Task, "subject", f"vm/{vm.id}")
    last = max(tasks, key=lambda task: task.revision, default=None)
    return last.error if last is not None and last.state is TaskState.FAILED else ""


def _named(host: Host, stuck: list[Judged]) -> str:
    named = "; ".join(f"{one.vm.name}: {one.why}" for one in stuck[:NAMED_MAX])
    more = f"; and {len(stuck) - NAMED_MAX} more" if len(stuck) > NAMED_MAX else ""
    return (
        f"host {host.name} can't be emptied ({named}{more}): move or stop them yourself, or say with --unmovable "
        "stop that they are shut down and started again afterwards, or with --unmovable keep that they stay"
    )
