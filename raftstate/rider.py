"""What goes along with the next transaction that a piece of work commits, so that both are stored or neither.

Set by the API for a request whose change must not be stored without its audit; looked at by `raftstate.store`. It travels
in a ContextVar, so no handler knows of it, and reaches the tasks that the work starts and waits for.
"""

from __future__ import annotations

import contextvars

from core.model import Resource

RIDER: contextvars.ContextVar[Rider | None] = contextvars.ContextVar("rider", default=None)


class Rider:
    """A resource that waits for a transaction. It replaces what is stored under its id, whatever that is."""

    def __init__(self, resource: Resource) -> None:
        self._resource = resource
        self._waits = True
        self._over = False

    def get_on(self) -> Resource | None:
        """Return the resource for the transaction that is about to be committed; None when another has it."""
        if not self._waits:
            return None
        self._waits = False
        return self._resource

    def get_off(self, *, stored: bool) -> None:
        """Take in how that went. Unless stored (refused, unknown, a repetition of older work), the next one takes it."""
        self._waits = not stored and not self._over

    def stay_behind(self) -> None:
        """Go with no transaction any more: the work has ended."""
        self._waits, self._over = False, True
