"""What users ask of VMs: each request becomes one transaction that states the wish and opens a task.

Called by `nodeagent.api.vms` on any agent. The host in charge does the work (`nodeagent.workflows`). Nothing is
changed by a refused request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from msgspec import UnsetType
from msgspec.structs import replace

from core.attributes import check_bounds
from core.errors import ConflictError, InvalidError, UnavailableError
from core.model import (
    VM,
    CloudInit,
    Cluster,
    DataStorage,
    DataStorageKind,
    Disk,
    Host,
    HostRoom,
    Image,
    ImageState,
    Nic,
    PlacementRule,
    PortGroup,
    PowerState,
    Resource,
    SecurityGroup,
    Task,
    VMPhase,
    check_name,
)
from core.workflow_definition import Definition
from ha.placement import RuledOutError
from netfabric.names import make_mac
from netfabric.port_group import free_ip
from nodeagent.node import Node
from nodeagent.services.admission import takes_room
from nodeagent.services.cascade import fences_absent, plan_of, refuse_if_used
from nodeagent.services.host_room import Turns, room_on
from nodeagent.services.placement_rules import bounds_in, joined_by, rule_guards
from nodeagent.services.places import cluster_of
from nodeagent.services.reach import needed_for
from nodeagent.services.start_after import start_after_ids
from nodeagent.services.vm_parts import disks_of
from nodeagent.services.vm_requests import ChangeVM, CreateVM, MigrateVM, StopVM
from nodeagent.services.vm_tasks import NO_ARGUMENTS, IdSource, new_task
from raftstate.state.query import Condition, Op
from raftstate.store import ROOM_TAKEN, code_of, describe_rejection
from raftstate.txn import Applied, Rejected
from storage.seed import check_cloud_init

CREATE_TRIES = 8
CHANGEABLE = tuple(ChangeVM.__struct_fields__)
ADDRESSES_MAX = 1 << 24


class Placer(Protocol):
    """Chooses hosts (`nodeagent.services.placing`)."""

    def choose(
        self,
        vm: VM,
        disks: tuple[Disk, ...],
        *,
        only: str = "",
        never: str = "",
        joined: tuple[PlacementRule, ...] = (),
    ) -> str:
        """Return a host id, or raise ConflictError that says why each host will not do."""
        ...


Admit = Callable[[VM, tuple[Disk, ...], tuple[PlacementRule, ...]], str]
"""Judges the room that a VM, as it shall be, leaves after the loss of hosts (`nodeagent.services.admission`)."""


def admit_all(vm: VM, disks: tuple[Disk, ...], joined: tuple[PlacementRule, ...]) -> str:
    """Let every VM start, without a warning."""
    del vm, disks, joined
    return ""


Judge = Callable[[PlacementRule], None]
"""Raises when a rule isn't the caller's to change."""


def anybodys(rule: PlacementRule) -> None:
    """Let every rule be changed."""
    del rule


@dataclass(frozen=True, slots=True)
class Opened:
    """A VM and the task that works on it; no task when there was nothing to do."""

    vm: VM
    task: Task | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """All of a new VM, and the rules that it joins. `uses`: what must still be as it was when the plan was made, and nobody else may have taken from `room`."""

    vm: VM
    room: HostRoom
    disk: Disk
    nic: Nic
    task: Task
    rules: tuple[PlacementRule, ...]
    uses: tuple[Resource, ...]


class VmService:
    """One method a request."""

    def __init__(self, node: Node, placer: Placer, admit: Admit = admit_all) -> None:
        self._node = node
        self._store = node.store
        self._placer = placer
        self._admit = admit
        self._turns = Turns(node.rng)

    async def create(self, body: CreateVM, ids: IdSource, judge: Judge = anybodys) -> Opened:
        """Record VM, disk, NIC and task in one transaction, and the VM in the rules that are named; `judge` judges these.

        Raises:
            InvalidError, NotFoundError, ConflictError: refused, nothing changed; `AdmissionError` for lack of spare room.
            UnavailableError: no quorum; repeat with the same idempotency key.
        """
        if (before := self._store.get(VM, ids.id_for("vm"))) is not None:
            return Opened(before, self._store.get(Task, ids.id_for("task")))
        return await self._turns.placed(lambda turn: self._create(body, ids, turn, judge))

    async def _create(self, body: CreateVM, ids: IdSource, turn: int, judge: Judge) -> Opened:
        lost_to = ""
        for attempt in range(CREATE_TRIES):
            plan = await self._plan(body, ids, turn + attempt, judge)
            beside, guards = ids.beside(plan.task)
            again = turn * CREATE_TRIES + attempt
            txn = self._store.change(
                puts=(plan.vm, plan.disk, plan.nic, plan.task, plan.room, *plan.rules, *beside),
                guards=(*plan.uses, *guards),
                request_id=f"{ids.request_id}#{again}" if again else ids.request_id,
            )
            match await self._store.commit(txn):
                case Applied():
                    vm = self._store.need(VM, plan.vm.id)
                    return Opened(vm, self._store.get(Task, plan.task.id))
                case Rejected(subject=subject, reason="claim") if subject.startswith("vm.name/"):
                    raise ConflictError(f"VM name {body.name!r} is already taken: choose another")
                case Rejected() as rejected if code_of(rejected) == ROOM_TAKEN:
                    raise ConflictError(describe_rejection(rejected), code=ROOM_TAKEN)
                case Rejected(subject=subject):
                    lost_to = subject  # an address, or something it uses has changed: plan anew
        raise ConflictError(
            f"{lost_to} was changed or taken by someone else meanwhile, {CREATE_TRIES} times: try again"
        )

    async def start(self, vm: VM, ids: IdSource) -> Opened:
        """Want it running. Moves a stopped VM on shared storage away from a host that can't run it."""
        if vm.power is PowerState.RUNNING and vm.phase is VMPhase.RUNNING:
            return Opened(vm, None)
        self._refuse_if_going(vm)
        return await self._turns.placed(lambda turn: self._start(vm, ids, turn, judged=True))

    async def start_again(self, vm: VM, ids: IdSource) -> Opened:
        """Want a VM running that was stopped for a maintenance: it ran before, so its room isn't judged."""
        return await self._turns.placed(lambda turn: self._start(vm, ids, turn, judged=False))

    async def _start(self, vm: VM, ids: IdSource, turn: int, *, judged: bool) -> Opened:
        wanted = replace(
            vm,
            power=PowerState.RUNNING,
            blocked_reason="",
            home_host_id="" if vm.starts_after_maintenance else vm.home_host_id,
            starts_after_maintenance=False,
        )
        room: HostRoom | None = None
        if vm.phase is VMPhase.STOPPED:
            wanted = replace(wanted, host_id=self._host_for_start(vm))
            room = room_on(self._store, wanted.host_id)
        moves = () if wanted.host_id == vm.host_id else (wanted.host_id,)
        warning = self._admitted(vm, wanted, self.disks_of(vm)) if judged else ""
        return await self._open(
            "start-vm",
            wanted,
            ids,
            new_hosts=moves,
            room=room,
            turn=turn,
            warning=warning,
        )

    async def stop(self, vm: VM, body: StopVM, ids: IdSource) -> Opened:
        """Want it stopped; committed first, so that a crash in the middle does not bring it up again."""
        check_bounds(body)
        if vm.power is PowerState.STOPPED and vm.phase is VMPhase.STOPPED:
            if vm.starts_after_maintenance:  # it is to stay stopped now
                stays = replace(vm, starts_after_maintenance=False, home_host_id="")
                await self._store.apply(puts=(stays,), request_id=ids.request_id)
                vm = self._store.need(VM, vm.id)
            return Opened(vm, None)
        self._refuse_if_going(vm)
        return await self._open(
            "stop-vm",
            replace(vm, power=PowerState.STOPPED),
            ids,
            force="yes" if body.force else "",
            timeout_s=str(body.timeout_s),
        )

    async def reboot(self, vm: VM, ids: IdSource) -> Opened:
        """Ask the guest to restart."""
        self._need_running(vm, "reboot")
        return await self._open("reboot-vm", vm, ids)

    async def migrate(self, vm: VM, body: MigrateVM, ids: IdSource) -> Opened:
        """Move a running VM to another host without stopping it. It forgets where it was before a maintenance.

        Raises:
            ConflictError: not running, local disks, or no host fits; the message says which.
        """
        return await self._move(replace(vm, home_host_id=""), body.host, ids)

    async def evacuate(self, vm: VM, ids: IdSource) -> Opened:
        """Move a running VM away from its host, which is in maintenance; raises like `migrate`. It remembers where it is at home."""
        return await self._move(replace(vm, home_host_id=vm.home_host_id or vm.host_id), "", ids)

    async def bring_home(self, vm: VM, ids: IdSource) -> Opened:
        """Move a running VM back where it was before a maintenance; raises like `migrate`."""
        return await self._move(vm, vm.home_host_id, ids)

    async def _move(self, vm: VM, to: str, ids: IdSource) -> Opened:
        self._need_running(vm, "migrate")
        disks = self.disks_of(vm)
        local = [d.name for d in disks if d.host_id]
        if local:
            raise ConflictError(
                f"VM {vm.name!r} can't move: its disk {local[0]} is on local storage; "
                "only VMs on shared storage migrate"
            )
        target = self._placer.choose(vm, disks, only=to, never=vm.host_id)
        return await self._open("migrate-vm", vm, ids, new_hosts=(target,), target_host_id=target)

    async def delete(self, vm: VM, ids: IdSource) -> Opened:
        """Stop it by force and remove it with its disks and NICs."""
        holder = self._store.claim_holder(f"task.subject/vm/{vm.id}")
        if vm.phase is VMPhase.DELETING and holder:
            return Opened(vm, self._store.get(Task, holder.removeprefix("task/")))
        refuse_if_used(plan_of(self._store, vm))
        gone = replace(vm, power=PowerState.STOPPED, phase=VMPhase.DELETING)
        return await self._open("delete-vm", gone, ids)

    async def run(
        self, vm: VM, workflow: Definition, arguments: Mapping[str, str], ids: IdSource
    ) -> Opened:
        """Open a task of a workflow that people may run on a VM. One that begins by stopping it has the wish committed too.

        Raises:
            ConflictError: the VM is on its way out, or isn't wanted running, so that undoing would start it.
        """
        if (before := self._store.get(Task, ids.id_for("task"))) is not None:
            return Opened(vm, before)  # a repeated request, which the wish it made must not refuse
        self._refuse_if_going(vm)
        if workflow.steps[0] == "stop-guest":
            if vm.power is not PowerState.RUNNING:
                raise ConflictError(
                    f"workflow {workflow.name!r} begins by stopping VM {vm.name!r}, which isn't wanted running: start it first"
                )
            vm = replace(vm, power=PowerState.STOPPED)
        return await self._open(workflow.name, vm, ids, given=arguments)

    async def change(self, vm: VM, body: ChangeVM, ids: IdSource) -> VM:
        """Change what can change at any time."""
        fields = {
            name: value
            for name in CHANGEABLE
            if not isinstance(value := getattr(body, name), UnsetType)
        }
        if not fields:
            raise InvalidError(f"nothing to change: {', '.join(CHANGEABLE)} can be given")
        check_bounds(body)
        if "start_after" in fields:
            named = fields.pop("start_after")
            fields["start_after_ids"] = start_after_ids(self._store, vm.id, named)
        changed = replace(vm, **fields)
        self._admitted(vm, changed, self.disks_of(vm))
        await self._store.apply(puts=(changed,), request_id=ids.request_id)
        return self._store.need(VM, vm.id)

    def disks_of(self, vm: VM) -> tuple[Disk, ...]:
        """Return a VM's disks in their order."""
        return disks_of(self._store, vm.id)

    # -- parts

    async def _plan(self, body: CreateVM, ids: IdSource, attempt: int, judge: Judge) -> _Plan:
        """Return what a new VM would be, made with what is in the store now; raises like `create`."""
        image = self._checked(body)
        now_ms = self._node.clock.wall_ms()
        port_group = self._store.find(PortGroup, body.port_group)
        groups = self._groups(body.security_groups)
        vm = VM(
            id=ids.id_for("vm"),
            name=body.name,
            cluster_id=self._cluster_id(body),
            host_id="",
            cpus=body.cpus,
            memory_mib=body.memory_mib,
            power=PowerState.RUNNING if body.start else PowerState.STOPPED,
            ha=body.ha,
            priority=body.priority,
            start_after_ids=start_after_ids(self._store, "", body.start_after),
            start_delay_s=body.start_delay_s,
            cloud_init=CloudInit(
                hostname=body.hostname or body.name,
                ssh_keys=body.ssh_keys,
                user_data=body.user_data,
            ),
            description=body.description,
            created_ms=now_ms,
        )
        storage = self._storage(body.data_storage, vm.cluster_id)
        disk = Disk(
            id=ids.id_for("disk"),
            name=f"{body.name}.0",
            vm_id=vm.id,
            data_storage_id=storage.id,
            size_bytes=body.disk_size_bytes or image.virtual_size_bytes,
            image_id=image.id,
            image_sha256=image.sha256,
            created_ms=now_ms,
        )
        rules = joined_by(self._store, vm, self._rules(body.placement_rules, judge))
        host_id = self._placer.choose(vm, (disk,), only=body.host, joined=rules)
        room = room_on(self._store, host_id)
        vm = replace(vm, host_id=host_id)
        if storage.kind is DataStorageKind.LOCAL:
            disk = replace(disk, host_id=host_id)
        host = self._store.need(Host, host_id)
        members_of = (self._store.need(SecurityGroup, id_) for id_ in groups)
        places = needed_for(self._store, vm.cluster_id, image, storage, port_group)
        made_from = rule_guards(self._store, vm, rules)
        uses = (image, storage, port_group, host, *members_of, *places, *made_from)
        return _Plan(
            vm=vm,
            room=room,
            disk=disk,
            nic=await self._nic(vm, port_group, groups, ids, attempt),
            task=new_task(
                self._node,
                "create-vm",
                vm,
                ids,
                warning=self._admitted(None, vm, (disk,), rules),
            ),
            rules=rules,
            uses=uses,
        )

    def _checked(self, body: CreateVM) -> Image:
        check_name(body.name, "VM")
        if self._store.claim_holder(f"vm.name/{body.name}"):
            raise ConflictError(f"VM name {body.name!r} is already taken: choose another")
        check_bounds(body)
        image = self._store.find(Image, body.image)
        if image.state is not ImageState.READY:
            raise ConflictError(
                f"image {image.name!r} is not ready yet: wait for its upload to end"
            )
        if body.disk_size_bytes and body.disk_size_bytes < image.virtual_size_bytes:
            raise InvalidError(
                f"disk size {body.disk_size_bytes} is smaller than the image's "
                f"{image.virtual_size_bytes} bytes: leave it out or give more"
            )
        if body.disk_size_bytes % 512:
            raise InvalidError("disk size must be a multiple of 512 bytes")
        check_cloud_init(
            CloudInit(
                hostname=body.hostname or body.name,
                ssh_keys=body.ssh_keys,
                user_data=body.user_data,
            )
        )
        return image

    def _cluster_id(self, body: CreateVM) -> str:
        """Return the cluster that is named; else that of the host that is named, else the first."""
        if body.host and not body.cluster:
            return self._store.find(Host, body.host).cluster_id
        return cluster_of(self._store, body.cluster).id

    def _storage(self, ref: str, cluster_id: str) -> DataStorage:
        """Return the named storage; else, of those in the cluster's data center, the only shared one, so that VMs survive
        a host; else the local one.
        """
        if ref:
            return self._store.find(DataStorage, ref)
        center_id = self._store.need(Cluster, cluster_id).data_center_id
        storages = [s for s in self._store.all(DataStorage) if s.data_center_id == center_id]
        shared = [s for s in storages if s.kind is DataStorageKind.SHARED]
        if len(shared) == 1:
            return shared[0]
        local = [s for s in storages if s.kind is DataStorageKind.LOCAL]
        if shared or not local:
            raise InvalidError(
                "say which data storage to use: --data-storage NAME ('kvorum data-storage list')"
            )
        return local[0]

    def _groups(self, refs: tuple[str, ...]) -> tuple[str, ...]:
        """Return the ids of security groups, each once."""
        return tuple(dict.fromkeys(self._store.find(SecurityGroup, ref).id for ref in refs))

    def _rules(self, refs: tuple[str, ...], judge: Judge) -> tuple[PlacementRule, ...]:
        """Return placement rules, each once; raises what `judge` does."""
        found = {rule.id: rule for rule in (self._store.find(PlacementRule, ref) for ref in refs)}
        for rule in found.values():
            judge(rule)
        return tuple(found.values())

    async def _nic(
        self,
        vm: VM,
        port_group: PortGroup,
        groups: tuple[str, ...],
        ids: IdSource,
        attempt: int,
    ) -> Nic:
        """Return a NIC with a free address: the next one, or any if others were quicker to take that one."""
        same_group = Condition("port_group_id", Op.EQ, port_group.id)
        in_use = await self._store.count(Nic, where=(same_group,))
        skip = in_use if attempt == 0 else self._node.rng.randrange(ADDRESSES_MAX)
        prefix = f"nic.ip/{port_group.id}/"
        return Nic(
            id=ids.id_for("nic"),
            name=f"{vm.name}.0",
            vm_id=vm.id,
            port_group_id=port_group.id,
            mac=make_mac(self._node.rng),
            ip=free_ip(port_group, lambda ip: bool(self._store.claim_holder(prefix + ip)), skip),
            security_group_ids=groups,
            created_ms=vm.created_ms,
        )

    def _host_for_start(self, vm: VM) -> str:
        disks = self.disks_of(vm)
        bounds = bounds_in(self._store, vm)
        if any(d.host_id for d in disks):
            if bounds is not None and (why := bounds.why_not(vm.host_id)):
                raise RuledOutError(f"VM {vm.name!r} can't start where its disks are: {why}")
            return vm.host_id
        try:
            here = self._placer.choose(vm, disks, only=vm.host_id)
        except ConflictError:
            return self._placer.choose(vm, disks)
        return self._placer.choose(vm, disks) if bounds and bounds.penalty(here) else here

    def _refuse_if_going(self, vm: VM) -> None:
        if vm.phase is VMPhase.DELETING:
            raise ConflictError(f"VM {vm.name!r} is being deleted")

    def _need_running(self, vm: VM, verb: str) -> None:
        if vm.phase is not VMPhase.RUNNING:
            raise ConflictError(f"can't {verb} VM {vm.name!r}: it is {vm.phase}, not running")

    async def _open(
        self,
        workflow: str,
        vm: VM,
        ids: IdSource,
        *,
        new_hosts: tuple[str, ...] = (),
        room: HostRoom | None = None,
        turn: int = 0,
        warning: str = "",
        given: Mapping[str, str] = NO_ARGUMENTS,
        **arguments: str,
    ) -> Opened:
        """Record wish and task; none of `new_hosts` may be in the middle of leaving. `room`: a host was chosen just now, in this `turn`."""
        if (before := self._store.get(Task, ids.id_for("task"))) is not None:
            return Opened(self._store.get(VM, vm.id) or vm, before)
        task = new_task(self._node, workflow, vm, ids, {**given, **arguments}, warning=warning)
        hosts = [h for id_ in new_hosts if (h := self._store.get(Host, id_)) is not None]
        rules = rule_guards(self._store, vm) if room is not None else ()
        beside, guards = ids.beside(task)
        await self._store.apply(
            puts=(vm, task, *((room,) if room is not None else ()), *beside),
            guards=(*hosts, *fences_absent(*hosts), *rules, *guards),
            request_id=f"{ids.request_id}#turn-{turn}" if turn else ids.request_id,
        )
        opened = self._store.get(Task, task.id)
        if opened is None:
            raise UnavailableError("the task was opened but is gone again: look at the VM")
        return Opened(self._store.get(VM, vm.id) or vm, opened)

    def _admitted(
        self,
        before: VM | None,
        after: VM,
        disks: tuple[Disk, ...],
        joined: tuple[PlacementRule, ...] = (),
    ) -> str:
        """Return a warning if a VM leaves too little room; raises when that is forbidden."""
        return self._admit(after, disks, joined) if takes_room(before, after) else ""
