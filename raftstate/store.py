"""The store as the rest of the agent sees it: typed reads, transactions, and being told of changes.

Reads come from this node's own copy and never wait. Writes go through the consensus engine and return when
this node has applied them, so an agent reads its own writes. Everything above `raftstate` uses only this.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from typing import Protocol, TypeVar

import msgspec

from core.clock import Clock, new_id
from core.errors import ConflictError, NotFoundError
from core.model import KINDS, Resource, key_of, kind_of
from raftstate.machine import Machine
from raftstate.txn import Applied, Outcome, Put, Rejected, Txn, decode_outcome, encode_txn

R = TypeVar("R", bound=Resource)

COMMIT_TIMEOUT_S = 5.0
EVERYTHING = "*"


class Proposer(Protocol):
    """The part of a consensus engine that the store needs."""

    async def propose(self, payload: bytes, *, timeout_s: float) -> bytes: ...

    async def read_barrier(self, *, timeout_s: float) -> int: ...


class Watch:
    """Tells one consumer which keys changed; changes coalesce while it is busy, none is lost."""

    def __init__(self, kinds: frozenset[str]) -> None:
        self._kinds = kinds
        self._keys: set[str] = {EVERYTHING}
        self._wake = asyncio.Event()
        self._wake.set()

    def offer(self, keys: frozenset[str]) -> None:
        """Add the changed keys that this watch is for."""
        wanted = {k for k in keys if k == EVERYTHING or k.partition("/")[0] in self._kinds}
        if wanted:
            self._keys |= wanted
            self._wake.set()

    async def next(self) -> frozenset[str]:
        """Return the keys changed since the last call; at first, and after a snapshot, `{"*"}`."""
        await self._wake.wait()
        keys, self._keys = frozenset(self._keys), set()
        self._wake.clear()
        return keys

    async def __aiter__(self) -> AsyncIterator[frozenset[str]]:
        while True:
            yield await self.next()


class Store:
    """Typed access to the replicated state of one agent."""

    def __init__(
        self, machine: Machine, proposer: Proposer, *, clock: Clock, rng: random.Random
    ) -> None:
        self._machine = machine
        self._proposer = proposer
        self._clock = clock
        self._rng = rng
        self._watches: set[Watch] = set()
        self._index = machine.applied()
        machine.on_applied(self._applied)

    # -- reads

    @property
    def index(self) -> int:
        """The index of the last log entry applied here."""
        return self._index

    def get(self, type_: type[R], id_: str) -> R | None:
        """Return the resource with that id, or None."""
        row = self._machine.get(kind_of(type_), id_)
        return _decode(type_, *row) if row else None

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
            raise NotFoundError(f"{_spoken(type_)} {ref[:80]!r} does not exist")
        if len(ids) > 1:
            raise ConflictError(f"{_spoken(type_)} name {ref!r} is not unique: use the id")
        return self.need(type_, ids[0])

    def all(self, type_: type[R]) -> list[R]:
        """Return all resources of a type, ordered by name."""
        return [_decode(type_, *row) for row in self._machine.scan(kind_of(type_))]

    def since(self, type_: type[R], revision: int, limit: int = 1000) -> list[R]:
        """Return about `limit` resources of a type with a higher revision, oldest first, each revision whole."""
        return [
            _decode(type_, *row)
            for row in self._machine.scan_since(kind_of(type_), revision, limit)
        ]

    def claim_holder(self, claim: str) -> str:
        """Return the `kind/id` that holds a claim, or an empty string."""
        return self._machine.claim_holder(claim)

    def digest(self) -> str:
        """Return a hash of the whole replicated state."""
        return self._machine.digest()

    # -- writes

    def change(
        self,
        *,
        puts: Iterable[Resource] = (),
        deletes: Iterable[Resource] = (),
        guards: Iterable[Resource] = (),
        request_id: str | None = None,
    ) -> Txn:
        """Return a transaction in which everything named is guarded by the revision it was read at (0: absent)."""
        puts, deletes = tuple(puts), tuple(deletes)
        return Txn(
            request_id=request_id or new_id(self._rng),
            stamp_ms=self._clock.wall_ms(),
            guards={key_of(r): r.revision for r in (*guards, *deletes, *puts)},
            puts=tuple(_put(resource) for resource in puts),
            deletes=tuple(key_of(resource) for resource in deletes),
        )

    async def commit(self, txn: Txn, *, timeout_s: float = COMMIT_TIMEOUT_S) -> Outcome:
        """Commit a transaction; returns once this node has applied it.

        Raises:
            UnavailableError: no quorum in time; the outcome is unknown, retry with the same transaction.
        """
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
            ConflictError: a guard or claim rejected it; the message names what stood in the way.
            UnavailableError: no quorum in time, outcome unknown.
        """
        txn = self.change(puts=puts, deletes=deletes, guards=guards, request_id=request_id)
        match await self.commit(txn, timeout_s=timeout_s):
            case Applied(index=index):
                return index
            case Rejected() as rejected:
                raise ConflictError(
                    describe_rejection(rejected), code=f"conflict-{rejected.reason}"
                )

    async def barrier(self, *, timeout_s: float = COMMIT_TIMEOUT_S) -> int:
        """Return once everything committed before this call can be read here."""
        return await self._proposer.read_barrier(timeout_s=timeout_s)

    # -- being told

    def watch(self, *types: type[Resource]) -> Watch:
        """Return a watch on these types; pass it to `unwatch` when done."""
        watch = Watch(frozenset(kind_of(type_) for type_ in types))
        self._watches.add(watch)
        return watch

    def unwatch(self, watch: Watch) -> None:
        """Stop telling a watch."""
        self._watches.discard(watch)

    def _applied(self, index: int, changed: frozenset[str]) -> None:
        self._index = index
        for watch in self._watches:
            watch.offer(changed)


def describe_rejection(rejected: Rejected) -> str:
    """Return one line for a user about why a transaction was refused."""
    if rejected.reason == "claim":
        what, _, value = rejected.subject.partition("/")
        kind, _, field = what.partition(".")
        if field == "subject":
            return f"{value} is busy with another task: wait for it or cancel it"
        return f"{kind} {field} {value!r} is already taken"
    if rejected.reason == "guard":
        return f"{rejected.subject} was changed by someone else meanwhile: look again and retry"
    return "the request could not be read by this version"


def _put(resource: Resource) -> Put:
    body = msgspec.msgpack.encode(msgspec.structs.replace(resource, revision=0))
    return Put(
        kind=kind_of(resource),
        id=resource.id,
        name=resource.name,
        body=body,
        claims=resource.claims(),
    )


def _decode(type_: type[R], body: bytes, revision: int) -> R:
    return msgspec.structs.replace(msgspec.msgpack.decode(body, type=type_), revision=revision)


def _spoken(type_: type[Resource]) -> str:
    kind = kind_of(type_)
    assert kind in KINDS, "a stored type is listed in core.model"
    return kind.replace("-", " ") if kind != "vm" else "VM"
