"""What a member's services share: one struct, made once by `nodeagent.lifecycle` when the host is a member.

Services take it by constructor. It holds no behaviour of its own.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from core.clock import Clock
from core.mesh.client import MeshClient
from core.model import Host
from core.paths import Paths
from core.service_faults import ServiceFaults
from core.work_queue import WorkQueues
from ha.guard_client import GuardClient
from ha.serf.membership import Membership
from nodeagent.compute.hypervisor import Hypervisor
from raftstate.consensus.engine import ConsensusEngine
from raftstate.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """This host as a member of its cluster. `driver_fault`: which driver of its settings can't be used, so nothing starts here."""

    host_id: str
    host_name: str
    paths: Paths
    clock: Clock
    rng: random.Random
    store: Store
    engine: ConsensusEngine
    mesh: MeshClient
    guard: GuardClient
    hypervisor: Hypervisor
    membership: Membership
    queues: WorkQueues
    faults: ServiceFaults = field(default_factory=ServiceFaults)
    hypervisor_name: str = "libvirt"
    driver_fault: str = ""

    def host(self) -> Host:
        """Return this host's record as it stands in the store."""
        return self.store.need(Host, self.host_id)
