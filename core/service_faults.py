"""What went wrong in which service of this agent: kept for people, so that a failure that was contained is still seen.

Written by `core.supervise` (a service that ended), by `core.bus` (a call that failed unexpectedly, or was refused
because the queue is full), and by the API (a request that failed unexpectedly); shown with the members. Only the last fault of each service is kept, with a count.
"""

from __future__ import annotations

import msgspec

from core.errors import PlatformError

WHY_LENGTH_MAX = 300


class ServiceFault(msgspec.Struct, frozen=True, kw_only=True):
    """`count` since the agent started; `at_ms` (Unix time) and `why` are of the last."""

    service: str
    count: int
    at_ms: int
    why: str


class ServiceFaults:
    """The faults of one agent."""

    def __init__(self) -> None:
        self._faults: dict[str, ServiceFault] = {}

    def note(self, service: str, error: Exception, at_ms: int) -> None:
        """Keep a fault. Errors that nobody wrote for people are told by their type alone: the log has the rest."""
        before = self._faults.get(service)
        if isinstance(error, PlatformError):
            why = error.message[:WHY_LENGTH_MAX]
        else:
            why = f"{type(error).__name__}; see the agent's log"
        count = before.count + 1 if before else 1
        self._faults[service] = ServiceFault(service=service, count=count, at_ms=at_ms, why=why)

    def all(self) -> tuple[ServiceFault, ...]:
        """Return the last fault of each service that had one, by name."""
        return tuple(self._faults[service] for service in sorted(self._faults))
