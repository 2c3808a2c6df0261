"""The callers found last, by their credentials: used again until anything that they were found by changes here.

Owned by `nodeagent.identity.identity`, asked by `nodeagent.api.access` for each request. Tokens, sessions, accounts and
roles are all that decides who a bearer is and what they may do; the store's hub says when one of these kinds last changed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from core.model import AccessToken, Account, Role, Session, kind_of
from nodeagent.identity.callers import Caller, caller_of_bearer
from raftstate.store import Store

DECISIVE = frozenset(kind_of(type_) for type_ in (AccessToken, Account, Role, Session))
KEPT_MAX = 2048


@dataclass(frozen=True, slots=True)
class _Known:
    caller: Caller
    index: int


class KnownCallers:
    """For one store; on its event loop. Credentials are kept as hashes, never as they are."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[tuple[bytes, str], _Known] = {}

    def of_bearer(self, header: str, *, address: str, now_ms: int) -> Caller:
        """Return the caller of an Authorization header.

        Raises:
            UnauthenticatedError: it names nobody who may come in now.
        """
        key = hashlib.sha256(header.encode(errors="surrogatepass")).digest(), address
        known = self._known.get(key)
        if known is not None and self._holds(known, now_ms):
            return known.caller
        self._known.pop(key, None)
        index = self._store.index
        caller = caller_of_bearer(self._store, header, address=address, now_ms=now_ms)
        if len(self._known) >= KEPT_MAX:
            self._known.clear()
        self._known[key] = _Known(caller, index)
        return caller

    def _holds(self, known: _Known, now_ms: int) -> bool:
        until_ms = known.caller.until_ms
        if 0 < until_ms <= now_ms:
            return False
        return self._store.hub.changed_at(DECISIVE) <= known.index
