"""Takes over the tasks of a lost host, so that none stays open for ever and no VM stays locked by one.

A pure decision (`rescue`), the leader's loop that has the proof, and what performs it: the owner of each task on the
ring, asked over the bus. It needs the same proof as failover: only a host that can no longer write may lose its work to
another; the proof is about one revision of the host's lease, which travels along and guards the change. What needs the
host's own disks waits for the host.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from core.bus import Bus, Contract
from core.errors import ConflictError, PlatformError
from core.mesh.client import Nothing
from core.model import (
    VM,
    Arming,
    Host,
    Lease,
    Mesh,
    PowerState,
    Resource,
    Task,
    TaskState,
    VMPhase,
    key_of,
)
from ha.lease import LeaseJudge
from ha.profile import profile_in
from ha.proofs import silence_of
from nodeagent.joining.founding import MESH_ID
from nodeagent.node import Node
from nodeagent.services.host_room import room_on, tried_again
from nodeagent.services.placement_rules import rule_guards
from nodeagent.services.task_journal import ENDED
from nodeagent.services.vm_service import Placer, VmService
from nodeagent.services.work_kinds import WorkKind

log = logging.getLogger(__name__)

ROUND_S = 2.0
CALL_S = 10.0
AT_ONCE = 16


class RescueTask(msgspec.Struct, frozen=True, kw_only=True):
    """Take over a task of a host that is proven unable to write since this revision of its lease."""

    task_id: str
    host_id: str
    lease_revision: int


# Twice is harmless: the second finds the task with another runner, or ended.
RESCUE = Contract("task-rescue", RescueTask, Nothing, idempotent=True, records_only=True)


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
        case "create-vm" | "delete-vm" | "take-snapshot" | "revert-snapshot" | "delete-snapshot":
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
    """The leader's loop, idle on every other node; and this agent's part of what leaders ask."""

    def __init__(
        self, node: Node, judge: LeaseJudge, vms: VmService, placer: Placer, bus: Bus
    ) -> None:
        self._node = node
        self._store = node.store
        self._judge = judge
        self._vms = vms
        self._placer = placer
        self._bus = bus
        bus.offer(RESCUE, self.take_over, kind=WorkKind.CALLS)

    async def run(self) -> None:
        """Look every two seconds until cancelled."""
        while True:
            await asyncio.sleep(ROUND_S)
            if not self._node.engine.is_leader():
                continue
            open_tasks = [task for task in self._store.all(Task) if task.state not in ENDED]
            lost = {id_: self._lost(id_) for id_ in {task.runner_host_id for task in open_tasks}}
            due = [(task, host) for task in open_tasks if (host := lost[task.runner_host_id])]
            for first in range(0, len(due), AT_ONCE):
                async with asyncio.TaskGroup() as group:
                    for task, host in due[first : first + AT_ONCE]:
                        group.create_task(self._hand_out(task, host), name=f"rescue-{task.id}")

    async def _hand_out(self, task: Task, lost: _Lost) -> None:
        """Have a task taken over by whoever owns it; one that isn't is handed out again in the next round."""
        wish = RescueTask(task_id=task.id, host_id=lost.host.id, lease_revision=lost.lease.revision)
        try:
            await self._bus.call(RESCUE, key_of(task), wish, timeout_s=CALL_S)
        except PlatformError as error:
            log.info("a lost host's task waits", extra={"task": task.id, "error": error.message})

    async def take_over(self, key: str, wish: RescueTask) -> Nothing:
        """Decide what becomes of a task, and commit it unless the host renewed its lease since it was judged.

        Raises:
            ConflictError: it did renew.
            UnavailableError: no quorum.
        """
        del key
        await self._store.barrier()
        task = self._store.get(Task, wish.task_id)
        if task is None or task.state in ENDED or task.runner_host_id != wish.host_id:
            return Nothing()
        host, lease = self._store.get(Host, wish.host_id), self._store.get(Lease, wish.host_id)
        if host is None or lease is None or lease.revision != wish.lease_revision:
            raise ConflictError(
                f"host {wish.host_id} renewed its lease or left meanwhile: not lost"
            )
        await tried_again(lambda: self._rescue(task, _Lost(host, lease)))
        return Nothing()

    def _lost(self, host_id: str) -> _Lost | None:
        host, lease = self._store.get(Host, host_id), self._store.get(Lease, host_id)
        age_s = self._judge.age_s(host_id)
        if host is None or lease is None or age_s is None:
            return None
        mesh = self._store.need(Mesh, MESH_ID)
        if mesh.ha_arming is Arming.DISARMED:
            return None
        profile = profile_in(mesh)
        return _Lost(host, lease) if silence_of(profile, host, lease, age_s) else None

    async def _rescue(self, task: Task, lost: _Lost) -> None:
        vm = self._store.get(VM, task.subject.removeprefix("vm/"))
        disks = self._vms.disks_of(vm) if vm else ()
        decision = rescue(task, vm, disks_are_shared=not any(d.host_id for d in disks))
        now_ms = self._node.clock.wall_ms()
        puts: list[Resource] = []
        rules: tuple[Resource, ...] = ()
        match decision:
            case Rescue.WAIT:
                return
            case Rescue.MOVE:
                assert vm is not None, "only a VM's task moves"
                target = self._placer.choose(vm, disks, never=lost.host.id)
                rules = rule_guards(self._store, vm)
                puts = [
                    replace(vm, host_id=target, boot_id="", blocked_reason=""),
                    replace(task, runner_host_id=target),
                    room_on(self._store, target),
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
        await self._store.apply(puts=puts, guards=(lost.lease, *rules))
        log.warning(
            "a lost host's task was taken over",
            extra={"task": task.id, "host": lost.host.id, "decision": str(decision)},
        )
