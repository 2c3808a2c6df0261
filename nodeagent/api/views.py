"""How resources look to a caller: their fields, the names behind their ids, and never a secret.

Used by every handler that shows a resource; lists (`nodeagent.api.lists`) make the same of whole pages at a time. Reads
only this agent's own copy. What is secret and what an id points to is said by the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from core.model import KINDS, VM, Disk, Nic, Relation, Resource, Task, kind_of
from nodeagent.api.task_story import task_story
from raftstate.state.query_sight import EVERYTHING, Sight
from raftstate.store import Store

Shown = dict[str, Any]


def show(store: Store, resource: Resource, sight: Sight = EVERYTHING) -> Shown:
    """Return a resource as JSON-able fields, with `<thing>_name` beside each `<thing>_id` that leads to what is seen."""
    shown = own_fields(resource)
    for relation in resource.RELATIONS:
        ids = ids_behind(shown, relation)
        names = {id_: _name_seen(store, KINDS[relation.target], id_, sight) for id_ in set(ids)}
        add_names(shown, relation, [names[id_] for id_ in ids])
    if isinstance(resource, VM):
        shown |= _vm_extras(store, resource)
    return shown


def _name_seen(store: Store, type_: type[Resource], id_: str, sight: Sight) -> str | None:
    found = store.get(type_, id_) if id_ else None
    return found.name if found is not None and sight.sees(found) else None


def belongings(type_: type[Resource]) -> tuple[str, ...]:
    """Return the relations whose other ends are shown together with a resource."""
    return ("nics", "disks") if type_ is VM else ()


def own_fields(resource: Resource) -> Shown:
    """Return what a resource itself holds and may be shown, as JSON-able fields."""
    shown: Shown = msgspec.to_builtins(resource)
    shown.pop("type", None)
    for field in resource.SECRET:
        shown.pop(field, None)
    if isinstance(resource, Task):
        del shown["plan"]
        shown |= task_story(resource)
    return shown


def add_names(shown: Shown, relation: Relation, names: Sequence[str | None]) -> None:
    """Put the names behind the ids of a relation, None where there is nothing, beside these."""
    holder, _, field = relation.field.rpartition(".")
    if holder:
        for element, name in zip(shown[holder], names, strict=True):
            element[name_field(field)] = name or ""
    elif relation.many:
        shown[name_field(field)] = [name for name in names if name is not None]
    else:
        shown[name_field(field)] = (names[0] if names else None) or ""


def name_field(id_field: str) -> str:
    """Return what the name behind an id is shown as: `host_name` for `host_id`, `host_names` for `host_ids`."""
    if id_field.endswith("_ids"):
        return id_field.removesuffix("_ids") + "_names"
    return id_field.removesuffix("_id") + "_name"


def ids_behind(shown: Shown, relation: Relation) -> list[str]:
    """Return the ids of a relation as they are shown, in their order; an empty one stands for nothing."""
    holder, _, field = relation.field.rpartition(".")
    if holder:
        return [element[field] for element in shown[holder]]
    return list(shown[field]) if relation.many else [shown[field]]


def _vm_extras(store: Store, vm: VM) -> Shown:
    nic_ids = store.machine.ids_where(kind_of(Nic), "vm_id", vm.id)
    disk_ids = store.machine.ids_where(kind_of(Disk), "vm_id", vm.id)
    nics = sorted((store.need(Nic, i) for i in nic_ids), key=lambda n: (n.index, n.name))
    disks = sorted((store.need(Disk, i) for i in disk_ids), key=lambda d: (d.index, d.name))
    return {
        "ips": [nic.ip for nic in nics],
        "nics": [{"name": n.name, "mac": n.mac, "ip": n.ip} for n in nics],
        "disks": [{"name": d.name, "size_bytes": d.size_bytes} for d in disks],
    }
