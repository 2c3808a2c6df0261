"""Takes over the tasks of a lost host, so that none stays open for ever and no VM stays locked by one.

A pure decision (`rescue`) and the leader's loop that performs it. It needs the same proof as failover: only a host that
can no longer write may lose its work to another. What needs the host's own disks waits for the host.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from enum import StrEnum

from msgspec.structs import replace

from core.errors import PlatformError
from core.model import (
    VM,
    Host,
    HostState,
    Lease,
    Mesh,
    PowerState,
    Resource,
    Task,
    TaskState,
    VMPhase,
)
from ha.lease import LeaseJudge
from ha.profile import Profile, profile_of
from nodeagent.joining.founding import MESH_ID
from nodeagent.node import Node
from nodeagent.services.task_runner import ENDED
from nodeagent.services.vm_service import Placer, VmService

log = logging.getLogger(__name__)

ROUND_S = 2.0


class Rescue(StrEnum):
    """What becomes of a task whose host is lost."""

    WAIT = "wait"
    MOVE = "move"
    END_STOPPED = "end-stopped"
    END_FAILED = "end-failed"


def rescue(task: Task, vm: VM | None, *, disks_are_shared: bool) -> Rescue:
    """Return what to do with an open task once its runner is proven to be gone."""
    if vm is None:
        return Rescue.END_FAILED
    if vm.host_id != task.runner_host_id:
        return Rescue.END_FAILED  # failover gave the VM to another host already
    match task.workflow:
        case "create-vm" | "delete-vm":
            return Rescue.MOVE if disks_are_shared else Rescue.WAIT
        case "stop-vm":
            return Rescue.END_STOPPED
        case _:
            # A VM that shall run is recovered by failover, which ends its task; others just end.
            return Rescue.WAIT if vm.ha and vm.power is PowerState.RUNNING else Rescue.END_FAILED


@dataclass(frozen=True, slots=True)
class _Lost:
    """A host that can no longer write, and the lease that a change must guard."""

    host: Host
    lease: Lease


class TaskRescue:
    """The leader's loop; idle on every other node."""

    def __init__(self, node: Node, judge: LeaseJudge, vms: VmService, placer: Placer) -> None:
        self._node = node
        self._store = node.store
        self._judge = judge
        self._vms = vms
        self._placer = placer

    async def run(self) -> None:
        """Look every two seconds until cancelled."""
        while True:
            await asyncio.sleep(ROUND_S)
            if not self._node.engine.is_leader():
                continue
            for task in self._store.all(Task):
                lost = self._lost(task.runner_host_id) if task.state not in ENDED else None
                if lost is None:
                    continue
                try:
                    await self._rescue(task, lost)
                except PlatformError as error:
                    log.info(
                        "a lost host's task waits", extra={"task": task.id, "error": error.message}
                    )

    def _lost(self, host_id: str) -> _Lost | None:
        host, lease = self._store.get(Host, host_id), self._store.get(Lease, host_id)
        age_s = self._judge.age_s(host_id)
        if host is None or lease is None or age_s is None:
            return None
        profile: Profile = profile_of(self._store.need(Mesh, MESH_ID).ha_profile)
        fenced = host.state is HostState.FENCED and age_s >= profile.ended_s
        timed_out = lease.watchdog_armed and age_s >= profile.safe_s
        return _Lost(host, lease) if fenced or timed_out else None

    async def _rescue(self, task: Task, lost: _Lost) -> None:
        vm = self._store.get(VM, task.subject.removeprefix("vm/"))
        disks = self._vms.disks_of(vm) if vm else ()
        decision = rescue(task, vm, disks_are_shared=not any(d.host_id for d in disks))
        now_ms = self._node.clock.wall_ms()
        puts: list[Resource] = []
        match decision:
            case Rescue.WAIT:
                return
            case Rescue.MOVE:
                assert vm is not None, "only a VM's task moves"
                target = self._placer.choose(vm, disks, never=lost.host.id)
                puts = [
                    replace(vm, host_id=target, boot_id="", blocked_reason=""),
                    replace(task, runner_host_id=target),
                ]
            case Rescue.END_STOPPED:
                assert vm is not None, "only a VM is stopped"
                puts = [
                    replace(vm, power=PowerState.STOPPED, phase=VMPhase.STOPPED, blocked_reason=""),
                    replace(task, state=TaskState.SUCCEEDED, progress=100, ended_ms=now_ms),
                ]
            case Rescue.END_FAILED:
                ended = replace(
                    task,
                    state=TaskState.FAILED,
                    error=f"host {lost.host.name} was lost while it worked on this",
                    error_code="host-lost",
                    ended_ms=now_ms,
                )
                puts = [ended]
        await self._store.apply(puts=puts, guards=(lost.lease,))
        log.warning(
            "a lost host's task was taken over",
            extra={"task": task.id, "host": lost.host.id, "decision": str(decision)},
        )
