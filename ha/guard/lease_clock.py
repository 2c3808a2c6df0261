"""The holder's side of a host lease, as a pure state machine: no clock, no I/O.

The guard's loop feeds it times and answers; the simulation of the HA laws runs this very code. It exists apart from
the loop because everything that keeps a virtual machine from running twice is decided here:

* The lease ends at *send time of an acknowledged renewal* + L, by the holder's own clock.
* When it ends, lease-bound guests must be gone before anything else happens: renewals are not counted, the watchdog
  is not fed. Only a renewal sent after that begins a new epoch.
* A guest may start only under a lease with more than half its length left, and only when the asking agent has applied
  the log at least up to the epoch's first renewal: whatever was taken from this host before is then known to it.
* While nothing is enforced (the cluster is disarmed, and counts with it: `ha.guard.terms`) the end of the lease kills
  nothing. No guest may start then, and the next renewal begins a new lease as far as starts are concerned.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Phase(StrEnum):
    """Where the lease stands."""

    IDLE = "idle"  # no lease, and no lease-bound guest runs
    HELD = "held"
    ENDED = "ended"  # the lease is over and lease-bound guests are not yet known to be gone


class Refusal(Exception):
    """The guard says no. `code` is for programs: no-lease, lease-old, behind, stale, not-granted."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Grant:
    """The right of one VM, in one generation, to run here. Lease-bound guests die with the lease."""

    generation: int
    lease_bound: bool


@dataclass(slots=True)
class LeaseClock:
    """The lease and the grants under it. All times are seconds of one clock that never jumps (CLOCK_BOOTTIME).

    `lease_s` is the length of the present lease, `kept_s` that of the next renewal at most (0: not known yet),
    `watchdog_s` what the watchdog was armed with last (0: never). `ha.guard.terms` changes these, and `enforced`.
    """

    epoch_s: float
    phase: Phase = Phase.IDLE
    deadline_s: float = 0.0
    lease_s: float = 0.0
    first_index: int = 0
    renewed_index: int = 0
    grants: dict[str, Grant] = field(default_factory=dict)
    highest: dict[str, int] = field(default_factory=dict)
    kept_s: float = 0.0
    watchdog_s: float = 0.0
    enforced: bool = True

    def renewed(self, *, sent_s: float, lease_s: float, index: int, now_s: float) -> bool:
        """Count a renewal that was committed at log index `index`; False when it must not count.

        Not counted: after the deadline (the guests must die first, if it is enforced), when it was sent before the
        present epoch, or when its own time is already over.
        """
        if self.phase is Phase.ENDED or self.must_end(now_s):
            return False
        if sent_s < self.epoch_s or sent_s + lease_s <= now_s:
            return False
        if self.is_over(now_s):
            self.first_index = index  # an agent must know what was decided while there was no lease
        if self.phase is Phase.IDLE:
            self.phase = Phase.HELD
            self.first_index = index
            self.deadline_s = 0.0
        if sent_s + lease_s > self.deadline_s:
            self.deadline_s = sent_s + lease_s
            self.lease_s = lease_s
        self.renewed_index = max(self.renewed_index, index)
        return True

    def remaining_s(self, now_s: float) -> float:
        """Return the seconds left of the lease; 0.0 when there is none."""
        return max(0.0, self.deadline_s - now_s) if self.phase is Phase.HELD else 0.0

    def is_over(self, now_s: float) -> bool:
        """True when the deadline of a held lease has passed."""
        return self.phase is Phase.HELD and now_s >= self.deadline_s

    def must_end(self, now_s: float) -> bool:
        """True when `end` is due."""
        return self.enforced and self.is_over(now_s)

    def shorten(self, lease_s: float, now_s: float) -> None:
        """Keep to a shorter lease from now on: also the present one ends no later than one renewed now would."""
        self.kept_s = lease_s
        self.lease_s = min(self.lease_s, lease_s)
        self.deadline_s = min(self.deadline_s, now_s + lease_s)

    def end(self) -> None:
        """Give up the lease: every lease-bound grant is void, and its guest must die."""
        self.phase = Phase.ENDED
        self.grants = {
            vm_id: grant for vm_id, grant in self.grants.items() if not grant.lease_bound
        }

    def guests_gone(self, now_s: float) -> None:
        """All lease-bound guests are known to be gone: a renewal sent from now on counts again."""
        self.phase = Phase.IDLE
        self.epoch_s = now_s

    def is_bound(self, vm_id: str) -> bool:
        """True when a running guest of this VM dies with the lease; one that nobody granted does too."""
        grant = self.grants.get(vm_id)
        return grant is None or grant.lease_bound

    def may_feed(self, now_s: float) -> bool:
        """True when feeding the watchdog is right.

        Between the end of the lease and the proof that its guests are gone nothing is fed, so that a guest that cannot
        be killed is reset at the deadline + W at the latest.
        """
        return self.phase is not Phase.ENDED and not self.must_end(now_s)

    def grant(
        self, vm_id: str, *, generation: int, lease_bound: bool, applied_index: int, now_s: float
    ) -> None:
        """Allow a VM to run here.

        `applied_index` is the log index up to which the asking agent knows the state.

        Raises:
            Refusal: no-lease, lease-old, behind or stale.
        """
        self._check_fresh(now_s)
        if applied_index < self.first_index:
            raise Refusal(
                "behind",
                f"the agent knows the log up to {applied_index}, this lease began at {self.first_index}: "
                "wait until the agent has caught up",
            )
        known = self.highest.get(vm_id, 0)
        if generation < known:
            raise Refusal(
                "stale", f"generation {generation} is older than {known}: read the VM again"
            )
        self.highest[vm_id] = generation
        self.grants[vm_id] = Grant(generation, lease_bound)

    def revoke(self, vm_id: str) -> None:
        """Forget a grant; harmless when there is none. A guest that still runs then counts as lease-bound."""
        self.grants.pop(vm_id, None)

    def check(self, vm_id: str, generation: int | None, now_s: float) -> Grant:
        """Return the grant under which a VM may start or resume now.

        Raises:
            Refusal: not-granted, stale, no-lease or lease-old.
        """
        grant = self.grants.get(vm_id)
        if grant is None:
            raise Refusal(
                "not-granted", f"vm {vm_id} is not granted to this host: start it with kvorum"
            )
        if generation is not None and generation != grant.generation:
            raise Refusal(
                "stale", f"generation {generation} is asked, {grant.generation} is granted"
            )
        if grant.lease_bound:
            self._check_fresh(now_s)
        return grant

    def _check_fresh(self, now_s: float) -> None:
        if self.phase is not Phase.HELD or self.is_over(now_s):
            raise Refusal("no-lease", "this host holds no lease: is it connected to the cluster?")
        if self.remaining_s(now_s) <= self.lease_s / 2:
            raise Refusal(
                "lease-old", "the lease was not renewed for half its time: try again when it was"
            )
