"""How resources look to a caller: their fields, the names behind their ids, and never a secret.

Used by every handler that shows a resource. Reads only this agent's own copy.
"""

from __future__ import annotations

from typing import Any

import msgspec

from core.model import (
    VM,
    AccessToken,
    Cluster,
    DataCenter,
    DataStorage,
    Disk,
    DistributedSwitch,
    Event,
    Host,
    Image,
    ImageStorage,
    JoinToken,
    Nic,
    PortGroup,
    Resource,
    SecurityGroup,
    Task,
)
from raftstate.store import Store

COLLECTIONS: dict[str, type[Resource]] = {
    "data-centers": DataCenter,
    "clusters": Cluster,
    "hosts": Host,
    "data-storages": DataStorage,
    "image-storages": ImageStorage,
    "images": Image,
    "disks": Disk,
    "distributed-switches": DistributedSwitch,
    "port-groups": PortGroup,
    "nics": Nic,
    "security-groups": SecurityGroup,
    "vms": VM,
    "tasks": Task,
    "events": Event,
    "join-tokens": JoinToken,
    "access-tokens": AccessToken,
}

SECRET_FIELDS = frozenset({"secret_sha256"})

REFERENCES: dict[str, type[Resource]] = {
    "host_id": Host,
    "migrating_to_host_id": Host,
    "runner_host_id": Host,
    "used_by_host_id": Host,
    "cluster_id": Cluster,
    "data_center_id": DataCenter,
    "data_storage_id": DataStorage,
    "image_storage_id": ImageStorage,
    "image_id": Image,
    "port_group_id": PortGroup,
    "switch_id": DistributedSwitch,
    "vm_id": VM,
}

Shown = dict[str, Any]


def show(store: Store, resource: Resource) -> Shown:
    """Return a resource as JSON-able fields, with `<thing>_name` beside each `<thing>_id`."""
    shown: Shown = msgspec.to_builtins(resource)
    shown.pop("type", None)
    for field in SECRET_FIELDS & shown.keys():
        del shown[field]
    for field, type_ in REFERENCES.items():
        if field in shown:
            target = store.get(type_, shown[field]) if shown[field] else None
            shown[field.removesuffix("_id") + "_name"] = target.name if target else ""
    match resource:
        case VM():
            shown |= _vm_extras(store, resource)
        case Nic():
            shown["security_group_names"] = _names(store, resource.security_group_ids)
        case SecurityGroup():
            for rule in shown["rules"]:
                rule["remote_group_name"] = "".join(_names(store, (rule["remote_group_id"],)))
        case Image():
            shown["host_names"] = [h.name for i in resource.host_ids if (h := store.get(Host, i))]
    return shown


def _names(store: Store, ids: tuple[str, ...]) -> list[str]:
    return [group.name for id_ in ids if (group := store.get(SecurityGroup, id_))]


def _vm_extras(store: Store, vm: VM) -> Shown:
    nics = sorted((n for n in store.all(Nic) if n.vm_id == vm.id), key=lambda n: n.index)
    disks = sorted((d for d in store.all(Disk) if d.vm_id == vm.id), key=lambda d: d.index)
    return {
        "ips": [nic.ip for nic in nics],
        "nics": [{"name": n.name, "mac": n.mac, "ip": n.ip} for n in nics],
        "disks": [{"name": d.name, "size_bytes": d.size_bytes} for d in disks],
    }
