"""Allocators of plug-ins: which of the hosts that can take a VM gets it. One is chosen by `allocator` in the agent's settings.

Used when users create, start and move VMs; a lost host's VMs are always spread by the product's own rule. An allocator chooses
among hosts that fit and can't choose another; one that fails or chooses nonsense is passed over.
"""

from __future__ import annotations

import logging
from importlib.metadata import EntryPoint
from typing import cast

from core.errors import FatalError, PlatformError
from ha.placement import Candidate, PlacementRequest, Prefer, most_memory_free
from nodeagent.plugins.contained import contained
from nodeagent.plugins.loading import Group
from nodeagent.plugins.observing import Told

log = logging.getLogger(__name__)

ALLOCATORS_GROUP = "kvorum.allocators"
DEFAULT = "most-memory-free"


class Allocators:
    """The allocators that were loaded, and the one in use."""

    def __init__(self, told: Told, chosen: str = "") -> None:
        self._told = told
        self._chosen = chosen or DEFAULT
        self._prefer: dict[str, Prefer] = {DEFAULT: most_memory_free}
        self._failing = False

    def group(self) -> Group:
        """Return how plug-ins add to them."""
        return Group(ALLOCATORS_GROUP, "allocator", _load, self._accept, (DEFAULT,))

    def prefer(self, request: PlacementRequest, candidates: tuple[Candidate, ...]) -> str:
        """Return the host that the chosen allocator prefers, or the product's rule where that fails."""
        allocator = self._prefer.get(self._chosen)
        if allocator is None:
            log.warning("the allocator of the settings is not here", extra={"entry": self._chosen})
            return most_memory_free(request, candidates)
        try:
            host_id = contained(f"allocator {self._chosen}", allocator, request, candidates)
        except PlatformError as error:
            why = error.message
        else:
            if any(host_id == candidate.host.id for candidate in candidates):
                self._say("")
                return host_id
            why = f"allocator {self._chosen} chose what is none of the hosts it was given"
        self._say(why)
        return most_memory_free(request, candidates)

    def _say(self, why: str) -> None:
        if why or self._failing:
            self._told(ALLOCATORS_GROUP, self._chosen, why)
        self._failing = bool(why)

    def _accept(self, name: str, loaded: object) -> None:
        self._prefer[name] = cast(Prefer, loaded)


def _load(plugin: EntryPoint) -> object:
    prefer = plugin.load()
    if not callable(prefer) or isinstance(prefer, type):
        raise FatalError(f"{plugin.value} is no function: it is not an allocator")
    return prefer
