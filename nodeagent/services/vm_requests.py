"""The bodies of VM requests, as the API decodes them.

Bounds are checked here or in `vm_service`; unknown fields are refused, so that a typing error is not ignored.
"""

from __future__ import annotations

import msgspec


class CreateVM(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/vms`. Empty references mean the default; `disk_size_bytes` 0 means the image's size."""

    name: str
    image: str
    cpus: int = 1
    memory_mib: int = 1024
    disk_size_bytes: int = 0
    data_storage: str = ""
    port_group: str = "default"
    security_groups: tuple[str, ...] = ("default",)
    host: str = ""
    ha: bool = True
    hostname: str = ""
    ssh_keys: tuple[str, ...] = ()
    user_data: str = ""
    start: bool = True
    description: str = ""


class StopVM(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/vms/{vm}/actions/stop`. `force` cuts the power; else the guest has `timeout_s` to shut down."""

    force: bool = False
    timeout_s: int = 90


class MigrateVM(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/vms/{vm}/actions/migrate`. An empty `host` lets the cluster choose."""

    host: str = ""


class DeleteVMs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/vms/actions/delete`: names or ids. There are no conditions here: what they match may change before a repetition."""

    vms: tuple[str, ...]


class SomeVMs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/vms/actions/{start,reboot}`: names or ids, or conditions as lists take them; not both."""

    vms: tuple[str, ...] = ()
    q: tuple[str, ...] = ()


class StopVMs(SomeVMs, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/vms/actions/stop`; see `StopVM`."""

    force: bool = False
    timeout_s: int = 90


class MigrateVMs(SomeVMs, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/vms/actions/migrate`; see `MigrateVM`."""

    host: str = ""


class ChangeVM(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PATCH /v1/vms/{vm}` (merge patch): absent fields stay."""

    description: str | msgspec.UnsetType = msgspec.UNSET
    ha: bool | msgspec.UnsetType = msgspec.UNSET
