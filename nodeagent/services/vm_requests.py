"""The bodies of VM requests, as the API decodes them.

Bounds are checked by what is declared here and in `vm_service`; unknown fields are refused, so that a typing error is not ignored.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from core.attributes import attribute
from core.model.compute import START_AFTER_MAX, VM, VMPriority
from core.model.network import NIC_GROUPS_MAX
from core.model.storage import DISK_BYTES_MAX

STOP_TIMEOUT_S_MAX = 3600
JOINED_RULES_MAX = 20


class CreateVM(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/vms`. Empty references mean the default; `disk_size_bytes` 0 means the image's size."""

    OF: ClassVar[type[msgspec.Struct]] = VM

    name: Annotated[str, attribute("Its name: 1 to 63 of a-z, 0-9, `-` and `.`.")]
    image: Annotated[str, attribute("Name or id of the image that its disk is made of.")]
    cpus: int = 1
    memory_mib: int = 1024
    disk_size_bytes: Annotated[
        int,
        attribute(
            "Size of its disk, a multiple of 512; 0: that of the image.",
            least=0,
            most=DISK_BYTES_MAX,
        ),
    ] = 0
    data_storage: Annotated[
        str,
        attribute(
            "Name or id of where its disk lies; empty: the only shared one, else the local one."
        ),
    ] = ""
    port_group: Annotated[str, attribute("Name or id of the network of its NIC.")] = "default"
    security_groups: Annotated[
        tuple[str, ...],
        attribute("Names or ids of the firewalls of its NIC.", count_max=NIC_GROUPS_MAX),
    ] = ("default",)
    cluster: Annotated[
        str,
        attribute("Name or id of its cluster; empty: that of `host`, else the first."),
    ] = ""
    host: Annotated[
        str, attribute("Name or id of the host that it starts on; empty: the one with most room.")
    ] = ""
    placement_rules: Annotated[
        tuple[str, ...],
        attribute(
            "Names or ids of placement rules of its cluster that it is put into; needs the right to change them.",
            count_max=JOINED_RULES_MAX,
        ),
    ] = ()
    ha: bool = True
    priority: VMPriority = VMPriority.MEDIUM
    start_after: Annotated[
        tuple[str, ...],
        attribute(
            "Names or ids of VMs that it waits for when many are started.",
            count_max=START_AFTER_MAX,
        ),
    ] = ()
    start_delay_s: int = 0
    hostname: Annotated[
        str, attribute("Host name of the guest; empty: its name.", length_max=253)
    ] = ""
    ssh_keys: Annotated[
        tuple[str, ...], attribute("Public keys that may log in, one each.", count_max=100)
    ] = ()
    user_data: Annotated[str, attribute("A whole #cloud-config text, of 64 KiB at most.")] = ""
    start: Annotated[bool, attribute("Whether to start it at once.")] = True
    description: str = ""


class StopVM(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/vms/{vm}/actions/stop`. `force` cuts the power; else the guest has `timeout_s` to shut down."""

    force: Annotated[bool, attribute("Cut the power instead of asking the guest.")] = False
    timeout_s: Annotated[
        int,
        attribute("How long the guest may take to shut down.", least=1, most=STOP_TIMEOUT_S_MAX),
    ] = 90


class MigrateVM(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/vms/{vm}/actions/migrate`. An empty `host` lets the cluster choose."""

    host: Annotated[
        str, attribute("Name or id of where it shall go; empty: the host with most room.")
    ] = ""


MANY_MAX = 200
Names = Annotated[tuple[str, ...], attribute("Names or ids of the VMs.", count_max=MANY_MAX)]
Conditions = Annotated[
    tuple[str, ...],
    attribute("Conditions as lists take them, instead of `vms`; all must hold.", count_max=20),
]


class DeleteVMs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/vms/actions/delete`. There are no conditions here: what they match may change before a repetition."""

    vms: Names


class SomeVMs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/vms/actions/{start,reboot}`. Either `vms` or `q`."""

    vms: Names = ()
    q: Conditions = ()


class StopVMs(SomeVMs, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/vms/actions/stop`; see `StopVM`."""

    force: Annotated[bool, attribute("Cut the power instead of asking the guests.")] = False
    timeout_s: Annotated[
        int,
        attribute("How long each guest may take to shut down.", least=1, most=STOP_TIMEOUT_S_MAX),
    ] = 90


class MigrateVMs(SomeVMs, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/vms/actions/migrate`; see `MigrateVM`."""

    host: Annotated[
        str, attribute("Name or id of where they shall go; empty: where most room is, each.")
    ] = ""


class ChangeVM(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PATCH /v1/vms/{vm}` (merge patch): absent fields stay."""

    OF: ClassVar[type[msgspec.Struct]] = VM

    description: str | msgspec.UnsetType = msgspec.UNSET
    ha: bool | msgspec.UnsetType = msgspec.UNSET
    priority: VMPriority | msgspec.UnsetType = msgspec.UNSET
    start_after: Annotated[
        tuple[str, ...] | msgspec.UnsetType,
        attribute(
            "Names or ids of VMs that it waits for when many are started.",
            count_max=START_AFTER_MAX,
        ),
    ] = msgspec.UNSET
    start_delay_s: int | msgspec.UnsetType = msgspec.UNSET
