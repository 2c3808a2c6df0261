"""Answers to `GET` of single resources, kept as bytes while nothing in them can have changed.

Used by `nodeagent.api.collections`. What is shown of a resource depends on itself, on the names behind its ids and on what
belongs to it, so an answer stays true until any resource of those kinds changes; the store's hub says when a kind last did.
Leases, tasks and events, which change all the time, are in few answers.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cache

import msgspec

from core.model import LINKS, Resource, kind_of
from nodeagent.api.requests import etag_of
from nodeagent.api.views import belongings, show
from raftstate.store import Store

ANSWERS_MAX = 1024
ANSWER_BYTES_MAX = 16 << 10


@dataclass(frozen=True, slots=True)
class Answer:
    """A body, its validator, and the log index of the copy it was made of."""

    body: bytes
    etag: str
    index: int


class ShownCache:
    """The answers used last. For one store; on its event loop."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._answers: OrderedDict[tuple[str, str], Answer] = OrderedDict()

    def answer(self, type_: type[Resource], ref: str) -> Answer:
        """Return what a resource looks like now.

        Raises:
            NotFoundError: there is none of that name or id.
            ConflictError: several have that name.
        """
        kind = kind_of(type_)
        kept = self._answers.get((kind, ref))
        if kept is not None and self.store.hub.changed_at(kinds_shown(type_)) <= kept.index:
            self._answers.move_to_end((kind, ref))
            return kept
        index = self.store.index
        resource = self.store.find(type_, ref)
        body = msgspec.json.encode(show(self.store, resource))
        answer = Answer(body, etag_of(resource), index)
        if len(body) <= ANSWER_BYTES_MAX:
            self._answers[kind, ref] = answer
            self._answers.move_to_end((kind, ref))
            if len(self._answers) > ANSWERS_MAX:
                self._answers.popitem(last=False)
        return answer


@cache
def kinds_shown(type_: type[Resource]) -> frozenset[str]:
    """Return the kinds that what is shown of a type is made of."""
    kind = kind_of(type_)
    named = {relation.target for relation in type_.RELATIONS}
    owned = {LINKS[kind][name].target for name in belongings(type_)}
    return frozenset({kind} | named | owned)
