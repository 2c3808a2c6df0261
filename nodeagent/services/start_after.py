"""What VMs a VM is to wait for: names become ids, and circles are refused, for in a circle nothing would be first."""

from __future__ import annotations

from collections.abc import Iterable

from core.errors import ConflictError, InvalidError
from core.model import VM
from raftstate.store import Store


def start_after_ids(store: Store, own_id: str, named: Iterable[str]) -> tuple[str, ...]:
    """Return the ids of the VMs that are named, each once; `own_id` is the VM that is to wait, empty for a new one.

    Raises:
        NotFoundError: there is no such VM.
        InvalidError: it would wait for itself.
        ConflictError: one of them waits for it, directly or through others.
    """
    awaited = {vm.id: vm for vm in (store.find(VM, ref) for ref in named)}
    if own_id in awaited:
        raise InvalidError("start_after: a VM can't wait for itself")
    seen: set[str] = set()
    reached = list(awaited.values())
    while reached:
        vm = reached.pop()
        seen.add(vm.id)
        if own_id in vm.start_after_ids:
            raise ConflictError(
                f"start_after: VM {vm.name!r} starts after this one, directly or through others: "
                "change that first"
            )
        behind = (store.get(VM, id_) for id_ in vm.start_after_ids if id_ not in seen)
        reached.extend(other for other in behind if other is not None)
    return tuple(awaited)
