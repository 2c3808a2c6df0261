"""Virtual machines and what is asked of them.

Written by the VM service and the host that runs the VM; read by every controller.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec

from core.attributes import CLUSTER, OWNER, attribute
from core.model.resource import DESCRIPTION_LENGTH_MAX, OnDelete, Relation, Tagged

CPUS_MAX = 255
START_AFTER_MAX = 16
START_DELAY_S_MAX = 3600
MEMORY_MIB_MIN, MEMORY_MIB_MAX = 64, 16 << 20


class PowerState(StrEnum):
    """What the user wants of a VM."""

    RUNNING = "running"
    STOPPED = "stopped"


class VMPriority(StrEnum):
    """Which VMs come first when many are to be started, after a host or all power was lost, or room is short."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class VMPhase(StrEnum):
    """What is true of a VM as last reported by the host in charge."""

    CREATING = "creating"
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    MIGRATING = "migrating"
    PAUSED = "paused"
    BLOCKED = "blocked"
    DELETING = "deleting"


class CloudInit(msgspec.Struct, frozen=True, kw_only=True):
    """What a guest's cloud-init gets through a NoCloud seed. `user_data` is a whole #cloud-config text."""

    hostname: Annotated[str, attribute("Host name of the guest.", length_max=253)] = ""
    ssh_keys: Annotated[
        tuple[str, ...], attribute("Public keys that may log in, one each.", count_max=100)
    ] = ()
    user_data: Annotated[
        str, attribute("A whole #cloud-config text, of 64 KiB at most.", length_max=65_536)
    ] = ""


class VM(Tagged, tag="vm.v1", frozen=True, kw_only=True):
    """A virtual machine.

    Users write `power`, sizes and cloud-init. `host_id` with `generation` says who may run it: the generation
    grows with every start, and ownership changes only in a transaction that guards a proof that the former
    host stopped. `boot_id` is the boot of the host in which it was started last. `migrating_to_host_id` is set
    during a live migration. `blocked_reason` is empty or says why it cannot run now. `priority` and `start_after_ids`
    order the starts that nobody asked for one by one (`ha.start_order`).
    """

    PLURAL: ClassVar[str] = "vms"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation("cluster_id", target="cluster", name="cluster", reverse="vms", required=True),
        Relation("host_id", target="host", name="host", reverse="vms"),
        Relation(
            "migrating_to_host_id", target="host", name="migrating_to_host", reverse="incoming_vms"
        ),
        Relation(
            "home_host_id",
            target="host",
            name="home_host",
            reverse="away_vms",
            on_delete=OnDelete.DETACH,
        ),
        Relation(
            "start_after_ids",
            target="vm",
            name="start_after",
            reverse="starting_later",
            many=True,
            on_delete=OnDelete.DETACH,
            maximum=START_AFTER_MAX,
        ),
    )
    NOT_RELATIONS: ClassVar[frozenset[str]] = frozenset({"boot_id"})
    UNSEARCHED: ClassVar[frozenset[str]] = frozenset({"cloud_init.user_data"})

    cluster_id: Annotated[str, attribute("The cluster on whose hosts it runs.")]
    host_id: Annotated[str, attribute("The host that may run it.", by=CLUSTER)]
    cpus: Annotated[int, attribute("Virtual CPUs.", least=1, most=CPUS_MAX)]
    memory_mib: Annotated[
        int, attribute("Memory that the guest sees.", least=MEMORY_MIB_MIN, most=MEMORY_MIB_MAX)
    ]
    power: Annotated[PowerState, attribute("What is wanted: running or stopped.")] = (
        PowerState.RUNNING
    )
    phase: Annotated[
        VMPhase, attribute("What is true of it, as last reported by its host.", by=OWNER)
    ] = VMPhase.CREATING
    generation: Annotated[
        int,
        attribute(
            "Grows with every start; says together with the host who may run it.",
            by=CLUSTER,
            least=0,
        ),
    ] = 0
    boot_id: Annotated[
        str, attribute("Boot of the host in which it was started last.", by=OWNER)
    ] = ""
    migrating_to_host_id: Annotated[
        str, attribute("Where it moves to right now; empty: nowhere.", by=CLUSTER)
    ] = ""
    home_host_id: Annotated[
        str,
        attribute(
            "Where it goes back to when the maintenance of that host ends; empty: it stays where it is.",
            by=CLUSTER,
        ),
    ] = ""
    starts_after_maintenance: Annotated[
        bool,
        attribute("Whether it was stopped for a maintenance, and is started after it.", by=CLUSTER),
    ] = False
    blocked_reason: Annotated[
        str, attribute("Why it can't run now; empty: nothing forbids it.", by=CLUSTER)
    ] = ""
    ha: Annotated[bool, attribute("Whether it is started elsewhere when its host is lost.")] = True
    priority: Annotated[
        VMPriority,
        attribute("Which VMs come first when many are to be started, or room is short."),
    ] = VMPriority.MEDIUM
    start_after_ids: Annotated[
        tuple[str, ...],
        attribute(
            "VMs that it waits for when many are started; a minute at most, or until they are blocked.",
            count_max=START_AFTER_MAX,
        ),
    ] = ()
    start_delay_s: Annotated[
        int,
        attribute(
            "How many seconds after the last of these VMs it is started.",
            least=0,
            most=START_DELAY_S_MAX,
        ),
    ] = 0
    cloud_init: Annotated[
        CloudInit, attribute("What the guest is set up with at its first start.")
    ] = CloudInit()
    description: Annotated[
        str, attribute("A note for people.", length_max=DESCRIPTION_LENGTH_MAX)
    ] = ""

    def is_leaving(self) -> bool:
        return self.phase is VMPhase.DELETING
