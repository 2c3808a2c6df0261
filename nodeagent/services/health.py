"""The health of the whole cluster as this agent can tell: each host is asked for its report, and the state is read.

Used by the API for `kvorum health`; `ha.health` judges what is gathered here. Nothing is written and nothing needs a quorum
or a leader: an agent that is cut off answers, too. Takes `ASK_TIMEOUT_S` at most (once more for each further `ASKED_AT_ONCE`
hosts); a host that says nothing by then is a fact like others.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Protocol

import msgspec

from core.errors import PlatformError
from core.mesh.client import Nothing
from core.model import VM, Arming, Bmc, BmcState, Disk, Host, HostState, Lease, Mesh, VMPhase
from ha.health_facts import BlockedVM, ClusterFacts, HostFacts, HostReport
from ha.profile import profile_in
from nodeagent.joining.founding import MESH_ID
from nodeagent.node import Node
from nodeagent.services.admission import short_rooms
from nodeagent.services.placement_rules import broken_rules
from nodeagent.services.self_look import HEALTH_PATH, SelfLook
from nodeagent.services.shared_look import SharedLook

ASK_TIMEOUT_S = 2.0
ASKED_AT_ONCE = 64
FACTS_KEPT_S = 1.0
BLOCKED_SHOWN = 5

ON_HOST = frozenset(
    {VMPhase.STARTING, VMPhase.RUNNING, VMPhase.STOPPING, VMPhase.MIGRATING, VMPhase.PAUSED}
)


class LeaseAges(Protocol):
    """How old leases are (`nodeagent.services.lease_relay`)."""

    def age_s(self, host_id: str) -> float: ...


class ClusterHealth:
    """Gathers the facts; `own` is this host's look at itself."""

    def __init__(self, node: Node, own: SelfLook, ages: LeaseAges) -> None:
        self._node, self.own, self._ages = node, own, ages
        self._facts = SharedLook(self._gather, kept_s=FACTS_KEPT_S)

    async def facts(self) -> ClusterFacts:
        """Return what is known of all hosts now, or was a second ago."""
        return await self._facts.get()

    async def _gather(self) -> ClusterFacts:
        turn = asyncio.Semaphore(ASKED_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            asked = {
                host.id: group.create_task(self._ask(host, turn), name=f"health-of-{host.name}")
                for host in self._node.store.all(Host)
            }
        answers = {host_id: task.result() for host_id, task in asked.items()}
        return self._joined(answers)

    async def _ask(self, host: Host, turn: asyncio.Semaphore) -> HostReport | str:
        """Return a host's report, or why there is none."""
        node = self._node
        try:
            if host.id == node.host_id:
                return await self.own.report()
            async with turn:
                return await node.mesh.call(
                    host, HEALTH_PATH, Nothing(), HostReport, timeout_s=ASK_TIMEOUT_S
                )
        except PlatformError as error:
            return error.message.removeprefix(f"host {host.name} does not answer: ")
        except msgspec.MsgspecError as error:
            return f"its answer isn't understood: {error}"

    def _joined(self, answers: dict[str, HostReport | str]) -> ClusterFacts:
        """Join the answers to the state, all of it read in one go."""
        store, engine = self._node.store, self._node.engine
        mesh = store.get(Mesh, MESH_ID)
        vms = store.all(VM)
        placed: defaultdict[str, list[VM]] = defaultdict(list)
        for vm in vms:
            placed[vm.host_id].append(vm)
        blocked = [vm for vm in vms if vm.phase is VMPhase.BLOCKED]
        names = {host.id: host.name for host in store.all(Host)}
        return ClusterFacts(
            cluster_name=mesh.name if mesh is not None else "",
            asked_id=self._node.host_id,
            index=store.index,
            leader_id=engine.leader() or "",
            voter_ids=tuple(str(peer.id) for peer in engine.voters()),
            hosts=tuple(
                self._host(host, answers[host.id], placed[host.id], mesh)
                for host in sorted(store.all(Host), key=lambda host: host.name)
                if host.id in answers
            ),
            profile=mesh.ha_profile if mesh is not None else "",
            lease_s=profile_in(mesh).lease_s,
            disarmed=f"{mesh.ha_disarmed_by} ({mesh.ha_disarm_reason})"
            if mesh is not None and mesh.ha_arming is not Arming.ARMED
            else "",
            blocked_count=len(blocked),
            blocked=tuple(
                BlockedVM(
                    name=vm.name,
                    host_name=names.get(vm.host_id, ""),
                    reason=vm.blocked_reason or "its host doesn't say why",
                )
                for vm in sorted(blocked, key=lambda vm: vm.name)[:BLOCKED_SHOWN]
            ),
            short_rooms=short_rooms(store, self._ages),
            broken_rules=broken_rules(store),
            vip=mesh.vip if mesh is not None else "",
            arbitration_addresses=mesh.arbitration_addresses if mesh is not None else (),
        )

    def _host(
        self, host: Host, answer: HostReport | str, vms: list[VM], mesh: Mesh | None
    ) -> HostFacts:
        report = answer if isinstance(answer, HostReport) else None
        age_s = self._ages.age_s(host.id)
        fresh_s = profile_in(mesh).of(self._node.store.get(Lease, host.id)).lease_s / 2
        return HostFacts(
            id=host.id,
            name=host.name,
            votes=any(peer.id == host.id for peer in self._node.engine.voters()),
            witness=host.witness,
            joining=host.joining,
            fenced=host.state is not HostState.MEMBER,
            maintenance=host.maintenance,
            maintenance_ready=host.maintenance_ready,
            lease_age_s=None if age_s == float("inf") else round(age_s, 1),
            lease_fresh=age_s < fresh_s,
            running_vms=sum(vm.phase in ON_HOST for vm in vms),
            vms_by_storage=self._vms_by_storage(report, vms),
            report=report,
            silent_why=answer if isinstance(answer, str) else "",
            bmc_fault=self._bmc_fault(host),
        )

    def _bmc_fault(self, host: Host) -> bool:
        bmc = self._node.store.get(Bmc, host.id)
        return bmc is not None and bmc.state is not BmcState.OK

    def _vms_by_storage(self, report: HostReport | None, vms: list[VM]) -> dict[str, int]:
        """Count the host's VMs with disks on each storage that it can't use."""
        bad = [it.storage_id for it in report.storages if not it.usable] if report else []
        here = {vm.id for vm in vms}
        counts = {}
        for id_ in bad:
            disks = self._node.store.with_value(Disk, "data_storage_id", id_)
            counts[id_] = len({disk.vm_id for disk in disks if disk.vm_id in here})
        return counts
