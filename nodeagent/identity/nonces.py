"""The nonces of signed requests in the replicated state, so that no agent takes a request twice, restarted or not.

A nonce is claimed by a transaction that is refused if it is there already. It is forgotten once its time is out of the
window. Before that a floor is raised, up to which no time is good any more, and every claim guards that floor: so it
doesn't matter by how much the clocks of agents differ, what was forgotten can't be claimed again.
Used by `nodeagent.identity.access_keys`; `forget` is called by housekeeping.
"""

from __future__ import annotations

from collections import Counter

from msgspec.structs import replace

from core.errors import PlatformError
from core.identity.signing import WINDOW_S
from core.model import NonceFloor, UsedNonce, kind_of
from raftstate.state.machine import Change
from raftstate.state.query import Condition, Op
from raftstate.store import Store

FLOOR_ID = "nonce-floor"
PER_KEY_MAX = 20_000
OVERALL_MAX = 100_000
FORGOTTEN_AT_ONCE = 1000
BATCHES_MAX = 50
PREFIX = f"{kind_of(UsedNonce)}/"


class TooManyRequestsError(PlatformError):
    """More signed requests in a quarter of an hour than are remembered."""

    code = "too-many-requests"
    http_status = 429


class Nonces:
    """Counts the nonces that are kept, by keys, as this agent's copy of the state changes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept = self._counted()
        store.machine.on_change(self._changed)

    def is_used(self, id_: str) -> bool:
        """Tell whether a nonce was claimed, as far as this agent knows."""
        return self._store.get(UsedNonce, id_) is not None

    def check_room(self, key_id: str) -> None:
        """See that another nonce may be kept.

        Raises:
            TooManyRequestsError: of this key, or of all, there are as many as may be.
        """
        own, minutes = self._kept[key_id], WINDOW_S // 60
        if own >= PER_KEY_MAX:
            raise TooManyRequestsError(
                f"this access key has signed {own} requests in the last {minutes} minutes: wait some minutes, "
                "or use an access token, of which nothing is kept"
            )
        if self._kept.total() >= OVERALL_MAX:
            raise TooManyRequestsError(
                f"more than {OVERALL_MAX} requests were signed in the last {minutes} minutes: wait some minutes, "
                "or use an access token, of which nothing is kept"
            )

    def _changed(self, change: Change) -> None:
        if change.everything:
            self._kept = self._counted()
            return
        for key in change.puts:
            if key.startswith(PREFIX):  # each is put once
                self._kept[_key_id(key)] += 1
        for key in change.deletes:
            if key.startswith(PREFIX):
                self._kept[_key_id(key)] -= 1
                if self._kept[_key_id(key)] <= 0:
                    del self._kept[_key_id(key)]

    def _counted(self) -> Counter[str]:
        ids = self._store.machine.all_ids(kind_of(UsedNonce))
        return Counter(_key_id(PREFIX + id_) for id_ in ids)


def floor_of(store: Store) -> NonceFloor:
    """Return the floor; of revision 0 as long as nothing was forgotten."""
    absent = NonceFloor(id=FLOOR_ID, name=FLOOR_ID, signed_ms=0)
    return store.get(NonceFloor, FLOOR_ID) or absent


async def forget(store: Store, *, now_ms: int) -> int:
    """Raise the floor to where the window begins now, and forget the nonces below it, in batches; return how many.

    Raises:
        UnavailableError: no quorum.
        ConflictError: another leader does it.
    """
    begins_ms = now_ms - WINDOW_S * 1000
    newest = await store.select(
        UsedNonce,
        where=(Condition("signed_ms", Op.LT, begins_ms),),
        order_by="signed_ms",
        descending=True,
        limit=1,
    )
    if not newest:
        return 0
    floor_ms = await _raise_floor(store, newest[0].signed_ms)
    forgotten = 0
    for _ in range(BATCHES_MAX):
        old = await store.select(
            UsedNonce,
            where=(Condition("signed_ms", Op.LE, floor_ms),),
            order_by="signed_ms",
            limit=FORGOTTEN_AT_ONCE,
        )
        if not old:
            break
        await store.apply(deletes=old)
        forgotten += len(old)
    return forgotten


async def _raise_floor(store: Store, to_ms: int) -> int:
    """Return where the floor is committed to be, at least there."""
    floor = floor_of(store)
    if floor.signed_ms < to_ms:
        floor = replace(floor, signed_ms=to_ms)
        await store.apply(puts=(floor,))
    return floor.signed_ms


def _key_id(key: str) -> str:
    return key.removeprefix(PREFIX).partition(".")[0]
