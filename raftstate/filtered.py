"""Only what concerns one host: the part of the state that a thin member keeps, and how it changes.

Used by the feed to members that don't hold the whole state. A resource concerns a host if it is the host's own
record or lease, names it in `host_id` or another `*_host_id`, hangs by its `vm_id` on a VM that concerns it, or is
of a kind that is small and cluster-wide. So whether a disk concerns a host can change without the disk: with its VM.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from core.model import (
    KINDS,
    VM,
    ApiCertificate,
    Cluster,
    DataCenter,
    DataStorage,
    DistributedSwitch,
    Host,
    Image,
    ImageStorage,
    Lease,
    Mesh,
    PortGroup,
    SecretsKey,
    SecurityGroup,
    kind_of,
)
from raftstate.state.machine import Machine
from raftstate.watch import EVERYTHING, WatchHub

EVERYWHERE = frozenset(
    kind_of(type_)
    for type_ in (
        Mesh,
        ApiCertificate,
        SecretsKey,
        Cluster,
        DataCenter,
        DistributedSwitch,
        PortGroup,
        SecurityGroup,
        DataStorage,
        ImageStorage,
        Image,
    )
)
OWN = frozenset({kind_of(Host), kind_of(Lease)})
VM_KIND = kind_of(VM)
ALL_HOSTS = frozenset({EVERYTHING})


@dataclass(frozen=True, slots=True)
class Item:
    """One resource as it is stored."""

    kind: str
    id: str
    body: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Delta:
    """How one host's part changed up to `index`. `whole`: `puts` are all of it, and whatever isn't among them is gone.

    `gone` may name keys that the host never had.
    """

    index: int
    whole: bool
    puts: tuple[Item, ...]
    gone: frozenset[str]


class Concerns:
    """Knows which hosts a resource concerns; one for all subscriptions, so that each change is looked at once."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        columns = {kind: machine.table(kind).searchable for kind in KINDS}
        self._host_fields = {
            kind: tuple(n for n in names if n == "host_id" or n.endswith("_host_id"))
            for kind, names in columns.items()
        }
        self._on_vms = tuple(kind for kind, names in columns.items() if "vm_id" in names)
        self._known: dict[str, frozenset[str]] = {}
        self._known_at = -1

    def hosts(self, key: str) -> frozenset[str]:
        """Return the ids of the hosts that a resource concerns, `{"*"}` for all of them; none if it doesn't exist."""
        if self._known_at != self._machine.applied():
            self._known_at = self._machine.applied()
            self._known.clear()
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._look(key)
        return found

    def _look(self, key: str) -> frozenset[str]:
        kind, _, id_ = key.partition("/")
        if kind not in KINDS:
            return frozenset()
        on_vm = kind in self._on_vms
        fields = ("id", *self._host_fields[kind], *(("vm_id",) if on_vm else ()))
        values = self._machine.texts(kind, id_, fields)
        if values is None:
            return frozenset()
        if kind in EVERYWHERE:
            return ALL_HOSTS
        named = values[1 : 1 + len(self._host_fields[kind])]
        hosts = {host for host in named if host}
        if kind in OWN:
            hosts.add(id_)
        if on_vm:
            hosts |= self.hosts(f"{VM_KIND}/{values[-1]}")
        return frozenset(hosts)

    def hanging_on(self, vm_id: str) -> Iterator[str]:
        """Yield the keys of what belongs to a VM by its `vm_id`."""
        for kind in self._on_vms:
            yield from (f"{kind}/{id_}" for id_ in self._machine.ids_where(kind, "vm_id", vm_id))

    def keys_of(self, host_id: str) -> set[str]:
        """Return the keys of everything that concerns a host."""
        keys = {f"{kind}/{id_}" for kind in EVERYWHERE for id_ in self._machine.all_ids(kind)}
        keys |= {key for kind in OWN if host_id in self.hosts(key := f"{kind}/{host_id}")}
        for kind, fields in self._host_fields.items():
            for field in fields:
                keys |= {f"{kind}/{id_}" for id_ in self._machine.ids_where(kind, field, host_id)}
        for vm_id in _vm_ids(keys):
            keys.update(self.hanging_on(vm_id))
        return keys


class HostFeed:
    """What one thin member is told, from an index on. It belongs to one connection of that member."""

    def __init__(self, machine: Machine, hub: WatchHub, concerns: Concerns, host_id: str) -> None:
        self._machine = machine
        self._hub = hub
        self._concerns = concerns
        self._host_id = host_id
        self._held: set[str] | None = None  # unknown after a resume: what the member got elsewhere
        self._watch = hub.watch(None)

    def close(self) -> None:
        """Stop being told of changes."""
        self._hub.unwatch(self._watch)

    async def next(self, index: int) -> Delta:
        """Wait for a change after `index` that concerns the host, and return all of them.

        At first the answer comes at once, though nothing may have changed.
        """
        while True:
            await self._watch.next()
            first = self._held is None
            delta = self.since(index)
            if first or delta.whole or delta.puts or delta.gone:
                return delta
            index = delta.index

    def since(self, index: int) -> Delta:
        """Return what changed for the host after an index; the whole, if that is no longer known."""
        changes = self._hub.since(index)
        if changes is None:
            self._held = self._concerns.keys_of(self._host_id)
            return Delta(self._hub.index, True, self._items(self._held), frozenset())
        touched = set(changes.puts | changes.deletes)
        for vm_id in _vm_ids(touched):  # it may have come to the host or left it, with all it has
            touched.update(self._concerns.hanging_on(vm_id))
        mine = {key for key in touched if self._is_mine(key)}
        gone = touched - mine
        if self._held is None:
            self._held = self._concerns.keys_of(self._host_id)
        else:
            new = mine - self._held
            gone &= self._held
            self._held -= gone
            self._held |= mine
            mine = new | (mine & changes.puts)
        return Delta(changes.index, False, self._items(mine), frozenset(gone))

    def _is_mine(self, key: str) -> bool:
        hosts = self._concerns.hosts(key)
        return hosts is ALL_HOSTS or self._host_id in hosts

    def _items(self, keys: Iterable[str]) -> tuple[Item, ...]:
        items = []
        for key in sorted(keys):
            kind, _, id_ = key.partition("/")
            found = self._machine.get(kind, id_)
            assert found is not None, "a resource that concerns a host exists"
            items.append(Item(kind, id_, *found))
        return tuple(items)


def _vm_ids(keys: Iterable[str]) -> list[str]:
    return [key.partition("/")[2] for key in keys if key.startswith(f"{VM_KIND}/")]
