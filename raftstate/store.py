"""The store as the rest of the agent sees it: typed reads, transactions, and being told of changes.

Reads come from this node's own copy; those by id or name never wait, queries run on a thread of their own. Writes go through the consensus engine and return when
this node has applied them, so an agent reads its own writes. Everything above `raftstate` uses only this.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Protocol, TypeVar

import msgspec

from core.clock import Clock, new_ordered_id
from core.errors import ConflictError, NotFoundError
from core.model import KINDS, Deletion, HostRoom, Resource, key_of, kind_of
from core.model.additions import stand_in
from raftstate.relation_guards import (
    Reference,
    read_reference,
    reference_claims,
    references_prefix,
    relation_guards,
    unique_claims,
)
from raftstate.rider import RIDER
from raftstate.state.dump import Frozen
from raftstate.state.machine import Machine
from raftstate.state.query import Condition, Position, count_sql, select_sql
from raftstate.txn import Applied, Outcome, Put, Rejected, Txn, decode_outcome, encode_txn
from raftstate.watch import Watch, WatchHub

R = TypeVar("R", bound=Resource)
T = TypeVar("T")

COMMIT_TIMEOUT_S = 5.0
ROOM_TAKEN = "conflict-room"
QUERY_TIMEOUT_S = 10.0


class Proposer(Protocol):
    """The part of a consensus engine that the store needs."""

    async def propose(self, payload: bytes, *, timeout_s: float) -> bytes: ...

    async def read_barrier(self, *, timeout_s: float) -> int: ...


class Store:
    """Typed access to the replicated state of one agent."""

    def __init__(
        self, machine: Machine, proposer: Proposer, *, clock: Clock, rng: random.Random
    ) -> None:
        self._machine = machine
        self._proposer = proposer
        self._clock = clock
        self._rng = rng
        self._hub = WatchHub(machine.applied())
        machine.on_change(self._hub.record)

    # -- reads

    @property
    def index(self) -> int:
        """The index of the last log entry applied here."""
        return self._hub.index

    def get(self, type_: type[R], id_: str) -> R | None:
        """Return the resource with that id, or None."""
        kind, read = _reader(type_)
        row = self._machine.get(kind, id_)
        return read(*row) if row else None

    def need(self, type_: type[R], id_: str) -> R:
        """Return the resource with that id.

        Raises:
            NotFoundError: there is none.
        """
        found = self.get(type_, id_)
        if found is None:
            raise NotFoundError(f"{_spoken(type_)} {id_!r} does not exist")
        return found

    def find(self, type_: type[R], ref: str) -> R:
        """Return the resource with that id or name.

        Raises:
            NotFoundError: there is none.
            ConflictError: several have that name.
        """
        if (by_id := self.get(type_, ref)) is not None:
            return by_id
        ids = self._machine.ids_by_name(kind_of(type_), ref)
        if not ids:
            raise not_found(type_, ref)
        if len(ids) > 1:
            raise ConflictError(f"{_spoken(type_)} name {ref!r} is not unique: use the id")
        return self.need(type_, ids[0])

    def with_value(self, type_: type[R], field: str, value: str) -> list[R]:
        """Return the resources of a type that have that text in one attribute; never waits, so it should be indexed."""
        ids = self._machine.ids_where(kind_of(type_), field, value)
        return [found for id_ in ids if (found := self.get(type_, id_)) is not None]

    def all(self, type_: type[R]) -> list[R]:
        """Return all resources of a type, ordered by name."""
        kind, read = _reader(type_)
        return [read(*row) for row in self._machine.scan(kind)]

    def since(self, type_: type[R], revision: int, limit: int = 1000) -> list[R]:
        """Return about `limit` resources of a type with a higher revision, oldest first, each revision whole."""
        kind, read = _reader(type_)
        return [read(*row) for row in self._machine.scan_since(kind, revision, limit)]

    async def select(
        self,
        type_: type[R],
        *,
        where: Sequence[Condition] = (),
        order_by: str = "name",
        descending: bool = False,
        limit: int = 1000,
        after: Position | None = None,
        timeout_s: float = QUERY_TIMEOUT_S,
    ) -> list[R]:
        """Return the resources that meet all conditions, up to `limit`, in the order of an attribute and then of ids.

        Runs beside the event loop and sees at least what was applied when it was called. To go on, give
        `position_of` the last one as `after`.

        Raises:
            InvalidError: an attribute that isn't a scalar of the type, a value that doesn't fit, a limit beyond
                10,000, or the time was over.
        """
        kind, read = _reader(type_)
        sql = select_sql(
            self._machine.table(kind),
            where,
            order_by=order_by,
            descending=descending,
            limit=limit,
            after=after,
        )

        def query(db: sqlite3.Connection) -> list[R]:
            return [read(*row) for row in db.execute(*sql).fetchall()]

        return await self._machine.query(query, self._time_over(timeout_s))

    async def count(
        self,
        type_: type[Resource],
        *,
        where: Sequence[Condition] = (),
        timeout_s: float = QUERY_TIMEOUT_S,
    ) -> int:
        """Return how many resources meet all conditions.

        Raises:
            InvalidError: as for `select`.
        """
        sql = count_sql(self._machine.table(kind_of(type_)), where)

        def query(db: sqlite3.Connection) -> int:
            (number,) = db.execute(*sql).fetchone()
            assert isinstance(number, int), "count(*) is a number"
            return number

        return await self._machine.query(query, self._time_over(timeout_s))

    async def ask(
        self, query: Callable[[sqlite3.Connection], T], *, timeout_s: float = QUERY_TIMEOUT_S
    ) -> T:
        """Run a query beside the event loop; see `raftstate.searching`.

        Raises:
            InvalidError: the time was over.
        """
        return await self._machine.query(query, self._time_over(timeout_s))

    def _time_over(self, timeout_s: float) -> Callable[[], bool]:
        end_s = self._clock.monotonic_s() + timeout_s
        return lambda: self._clock.monotonic_s() > end_s

    def claim_holder(self, claim: str) -> str:
        """Return the `kind/id` that holds a claim, or an empty string."""
        return self._machine.claim_holder(claim)

    def references_to(self, key: str) -> list[tuple[Resource, Reference]]:
        """Return what resources of plug-ins' kinds point to `kind/id`, each as a stand-in; known on every host alike."""
        found = []
        for claim in self._machine.claims_beginning(references_prefix(key)):
            reference = read_reference(claim)
            row = (
                self._machine.name_and_revision(reference.kind, reference.id) if reference else None
            )
            if reference is not None and row is not None:
                found.append((stand_in(reference.kind, reference.id, *row), reference))
        return found

    def outcome_of(self, request_id: str) -> Outcome | None:
        """Return how a request of the last minutes came out, None when it isn't known here."""
        return self._machine.remembered(request_id)

    def digest(self) -> str:
        """Return a hash of the whole replicated state."""
        return self._machine.digest().hex()

    def freeze(self) -> Frozen:
        """Hold on to the present state for a copy of it; close it soon."""
        return self._machine.freeze()

    # -- writes

    def change(
        self,
        *,
        puts: Iterable[Resource] = (),
        deletes: Iterable[Resource] = (),
        guards: Iterable[Resource] = (),
        request_id: str | None = None,
    ) -> Txn:
        """Return a transaction in which everything named is guarded by the revision it was read at (0: absent).

        What the puts come to be related to is guarded too (`raftstate.relation_guards`).

        Raises:
            InvalidError, ConflictError: a relation isn't as it is declared, or leads nowhere.
        """
        puts, deletes = tuple(puts), tuple(deletes)
        related = self._related(puts, deletes)
        now_ms = self._clock.wall_ms()
        return Txn(
            request_id=request_id or new_ordered_id(self._rng, now_ms),
            stamp_ms=now_ms,
            guards=related | {key_of(r): r.revision for r in (*guards, *deletes, *puts)},
            puts=tuple(_put(resource) for resource in puts),
            deletes=tuple(key_of(resource) for resource in deletes),
        )

    def _related(self, puts: tuple[Resource, ...], deletes: tuple[Resource, ...]) -> dict[str, int]:
        return relation_guards(
            puts,
            deletes,
            stored=self._as_stored,
            revision_of=self._revision_of,
            target_of=lambda kind, id_: self.get(KINDS[kind], id_),
        )

    def _as_stored(self, resource: Resource) -> Resource | None:
        return self.get(type(resource), resource.id) if resource.revision else None

    def _revision_of(self, kind: str, id_: str) -> int:
        row = self._machine.get(kind, id_)
        return row[1] if row else 0

    async def commit(self, txn: Txn, *, timeout_s: float = COMMIT_TIMEOUT_S) -> Outcome:
        """Commit a transaction, with what rides along (`raftstate.rider`); returns once this node has applied it.

        Raises:
            UnavailableError: no quorum in time; the outcome is unknown, retry with the same transaction.
        """
        rider = RIDER.get()
        along = rider.get_on() if rider is not None else None
        if rider is None or along is None:
            return await self._propose(txn, timeout_s)
        try:
            both = msgspec.structs.replace(txn, puts=(*txn.puts, _put(along)))
            return await self._propose(both, timeout_s)
        finally:
            rider.get_off(stored=self._machine.get(kind_of(along), along.id) is not None)

    async def _propose(self, txn: Txn, timeout_s: float) -> Outcome:
        return decode_outcome(await self._proposer.propose(encode_txn(txn), timeout_s=timeout_s))

    async def apply(
        self,
        *,
        puts: Iterable[Resource] = (),
        deletes: Iterable[Resource] = (),
        guards: Iterable[Resource] = (),
        request_id: str | None = None,
        timeout_s: float = COMMIT_TIMEOUT_S,
    ) -> int:
        """Commit and return the log index.

        Raises:
            InvalidError, ConflictError: a relation isn't as it is declared, or leads nowhere.
            ConflictError: a guard or claim rejected it; the message names what stood in the way.
            UnavailableError: no quorum in time, outcome unknown.
        """
        txn = self.change(puts=puts, deletes=deletes, guards=guards, request_id=request_id)
        match await self.commit(txn, timeout_s=timeout_s):
            case Applied(index=index):
                return index
            case Rejected() as rejected:
                raise ConflictError(describe_rejection(rejected), code=code_of(rejected))

    async def barrier(self, *, timeout_s: float = COMMIT_TIMEOUT_S) -> int:
        """Return once everything committed before this call can be read here."""
        return await self._proposer.read_barrier(timeout_s=timeout_s)

    # -- being told

    @property
    def machine(self) -> Machine:
        """The tables, for what looks at all kinds of resources alike."""
        return self._machine

    @property
    def hub(self) -> WatchHub:
        """What tells of changes, also of those since a log index."""
        return self._hub

    def watch(self, *types: type[Resource]) -> Watch:
        """Return a watch on these types; pass it to `unwatch` when done."""
        return self._hub.watch(frozenset(kind_of(type_) for type_ in types))

    def unwatch(self, watch: Watch) -> None:
        """Stop telling a watch."""
        self._hub.unwatch(watch)


def not_found(type_: type[Resource], ref: str) -> NotFoundError:
    """Return what is said of a resource that isn't there."""
    return NotFoundError(f"{_spoken(type_)} {ref[:80]!r} does not exist")


def code_of(rejected: Rejected) -> str:
    """Return the error code of a refused transaction."""
    is_room = rejected.subject.startswith(f"{kind_of(HostRoom)}/")
    return ROOM_TAKEN if is_room else f"conflict-{rejected.reason}"


def describe_rejection(rejected: Rejected) -> str:
    """Return one line for a user about why a transaction was refused."""
    if rejected.reason == "claim":
        what, _, value = rejected.subject.partition("/")
        kind, _, field = what.partition(".")
        if field == "subject":
            return f"{value} is busy with another task: wait for it or cancel it"
        if field in ("name", "address", "vni", "ip", "mac"):
            return f"{kind} {field} {value!r} is already taken: choose another"
        return f"another {kind} has that {field} already, and there can be one only"
    if code_of(rejected) == ROOM_TAKEN:
        return "room on the host that was chosen was taken by others in the same moment: try again"
    if rejected.reason == "guard":
        if rejected.subject.startswith(f"{kind_of(Deletion)}/"):
            being = rejected.subject.partition("/")[2].replace(".", " ", 1)
            return f"{being} is being deleted: choose another, or look again in a minute"
        return f"{rejected.subject} was changed by someone else meanwhile: look again and retry"
    return "the request could not be read by this version"


def _put(resource: Resource) -> Put:
    body = msgspec.msgpack.encode(msgspec.structs.replace(resource, revision=0))
    return Put(
        kind=kind_of(resource),
        id=resource.id,
        name=resource.name,
        body=body,
        claims=(*resource.claims(), *unique_claims(resource), *reference_claims(resource)),
    )


@cache
def _reader(type_: type[R]) -> tuple[str, Callable[[bytes, int], R]]:
    """Return the kind of a type, and what makes a resource of a stored body and its revision."""
    decode, replace = msgspec.msgpack.Decoder(type_).decode, msgspec.structs.replace
    return kind_of(type_), lambda body, revision: replace(decode(body), revision=revision)


def _spoken(type_: type[Resource]) -> str:
    kind = kind_of(type_)
    assert kind in KINDS, "a stored type is listed in core.model"
    return kind.replace("-", " ") if kind != "vm" else "VM"
