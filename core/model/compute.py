"""Virtual machines and what is asked of them.

Written by the VM service and the host that runs the VM; read by every controller.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

import msgspec

from core.model.resource import Relation, Tagged


class PowerState(StrEnum):
    """What the user wants of a VM."""

    RUNNING = "running"
    STOPPED = "stopped"


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

    hostname: str = ""
    ssh_keys: tuple[str, ...] = ()
    user_data: str = ""


class VM(Tagged, tag="vm.v1", frozen=True, kw_only=True):
    """A virtual machine.

    Users write `power`, sizes and cloud-init. `host_id` with `generation` says who may run it: the generation
    grows with every start, and ownership changes only in a transaction that guards a proof that the former
    host stopped. `boot_id` is the boot of the host in which it was started last. `migrating_to_host_id` is set
    during a live migration. `blocked_reason` is empty or says why it cannot run now.
    """

    PLURAL: ClassVar[str] = "vms"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation("cluster_id", target="cluster", name="cluster", reverse="vms"),
        Relation("host_id", target="host", name="host", reverse="vms"),
        Relation(
            "migrating_to_host_id", target="host", name="migrating_to_host", reverse="incoming_vms"
        ),
    )
    NOT_RELATIONS: ClassVar[frozenset[str]] = frozenset({"boot_id"})
    UNSEARCHED: ClassVar[frozenset[str]] = frozenset({"cloud_init.user_data"})

    cluster_id: str
    host_id: str
    cpus: int
    memory_mib: int
    power: PowerState = PowerState.RUNNING
    phase: VMPhase = VMPhase.CREATING
    generation: int = 0
    boot_id: str = ""
    migrating_to_host_id: str = ""
    blocked_reason: str = ""
    ha: bool = True
    cloud_init: CloudInit = CloudInit()
    description: str = ""
