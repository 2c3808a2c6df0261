"""The replicated log, as far as failover cares: whatever is committed is committed once, in one order, under its guards.

How that comes about is what `tests/sim` plays; here it is taken for granted. `Records` is a state: that of the log's end,
or what one host has applied of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from core.model import VM, Host, Lease, Mesh

Record = VM | Host | Lease | Mesh
MESH = Mesh(id="mesh", name="mesh", ca_pem="", sealed_ca_key=b"", sealed_gossip_key=b"")


@dataclass
class Records:
    """VMs, hosts and leases by id and the mesh, as of the log's `index`-th entry."""

    index: int = 0
    mesh: Mesh = MESH
    vms: dict[str, VM] = field(default_factory=dict)
    hosts: dict[str, Host] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)

    def put(self, record: Record) -> None:
        match record:
            case Mesh():
                self.mesh = record
            case Lease():
                self.leases[record.id] = record
            case VM():
                self.vms[record.id] = record
            case Host():
                self.hosts[record.id] = record

    def revision(self, record: Record) -> int:
        """Return the revision at which this state has the record; 0: not at all."""
        where: dict[str, VM] | dict[str, Host] | dict[str, Lease]
        match record:
            case Mesh():
                return self.mesh.revision
            case Lease():
                where = self.leases
            case VM():
                where = self.vms
            case Host():
                where = self.hosts
        found = where.get(record.id)
        return 0 if found is None else found.revision


class Log:
    """Entry n is what was put at index n; the one at 0 is the beginning."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.state = Records()
        self.entries: list[tuple[Record, ...]] = [()]
        self.append(tuple(records))

    def append(self, puts: tuple[Record, ...]) -> int:
        """Put without asking."""
        index = len(self.entries)
        written = tuple(msgspec.structs.replace(record, revision=index) for record in puts)
        self.entries.append(written)
        self.state.index = index
        for record in written:
            self.state.put(record)
        return index

    def commit(self, puts: tuple[Record, ...], guards: tuple[Record, ...]) -> int | None:
        """Put if all that is put and guarded still has its revision; returns the index, None when rejected."""
        for record in (*puts, *guards):
            if self.state.revision(record) != record.revision:
                return None
        return self.append(puts)
