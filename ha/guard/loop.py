"""The guard's loop: deadline first, then the kill, then the watchdog; everything else when there is time.

`main` builds it from real parts; unit tests from fakes. `tick` never blocks and is called five times a second, and at
the deadline. The order inside `tick` is the safety argument: after a freeze the first thing that happens is the
deadline check, and the watchdog is fed only after it, and only while no guest runs that should not.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from ha.guard.lease_clock import LeaseClock, Phase, Refusal
from ha.guard.renewal import Order, Renewed
from ha.guard.settings import Settings, SettingsFile
from ha.guard.terms import Terms
from ha.guard.watchdog import NoWatchdog, Watchdog

log = logging.getLogger(__name__)

TICK_S = 0.2
FEED_S = 1.0
LOOK_S = 1.0
REARM_S = 2.0
STUCK_S = 2.0
STOP_S = 2.0
KILLING_TICK_S = 0.05


class Guests(Protocol):
    """What the loop needs of `GuestTable`."""

    def refresh(self, known: Collection[str] = ()) -> None: ...
    def drop_gone(self) -> None: ...
    def running(self) -> frozenset[str]: ...
    def kill(self, vm_ids: Collection[str]) -> int: ...


class RenewalThreads(Protocol):
    """What the loop needs of `Renewer`."""

    order: Order | None
    answers: deque[Renewed]
    seq: int


class Guard:
    """One host's guard. `save` persists the lease clock; `open_watchdog` makes the watchdog, again while it is none."""

    def __init__(
        self,
        *,
        boot_id: str,
        clock: LeaseClock,
        settings: SettingsFile,
        guests: Guests,
        renewer: RenewalThreads,
        open_watchdog: Callable[[], Watchdog],
        save: Callable[[LeaseClock], None],
        terms: Callable[[LeaseClock], Terms] = Terms,
    ) -> None:
        self.clock = clock
        self._terms = terms(clock)
        self._stop_asked_s: float | None = None
        self._boot_id = boot_id
        self._settings_file = settings
        self._guests = guests
        self._renewer = renewer
        self._open_watchdog = open_watchdog
        self._watchdog = open_watchdog()
        self._save = save
        self._dirty = False
        self._fed_s = self._looked_s = self._armed_s = float("-inf")
        self._killed_s: float | None = None
        self._kills = 0
        self._stuck_told = False
        self._host_id = ""

    # ---- the loop

    def tick(self, now_s: float) -> float:
        """Do what is due; returns the seconds until the next call is due."""
        if self.clock.must_end(now_s):
            self._end_lease(now_s, "the lease ran out")
        self._take_answers(now_s)
        self._take_settings(now_s)
        self._keep_terms(now_s)
        if self.clock.phase is Phase.ENDED or now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            self._guests.refresh(self.clock.grants.keys())
        else:
            self._guests.drop_gone()
        self._enforce(now_s)
        self._care_for_watchdog(now_s)
        if self._dirty:  # before others may count with it
            self._dirty = False
            self._remember()
        self._give_order()
        if self.clock.phase is Phase.HELD and self.clock.enforced:
            return max(0.0, min(TICK_S, self.clock.deadline_s - now_s))
        killing = self.clock.phase is Phase.ENDED and not self._stuck_told
        return KILLING_TICK_S if killing else TICK_S

    def ask_to_stop(self, now_s: float) -> None:
        """Refuse new guests; `may_exit` says when the process may end."""
        if self._stop_asked_s is None:
            self._stop_asked_s = now_s
            log.warning("asked to stop: ending when no lease-bound guest runs")

    def may_exit(self) -> bool:
        """True when a stop was asked for and no guest depends on this guard.

        A guest that was allowed just before the stop may still be on its way, so the last look must be later than that.
        """
        if self._stop_asked_s is None or self._bound() or self.clock.phase is Phase.ENDED:
            return False
        on_its_way = any(grant.lease_bound for grant in self.clock.grants.values())
        return not on_its_way or self._looked_s - self._stop_asked_s >= STOP_S

    def shut_down(self) -> None:
        """Disarm the watchdog; to be called only when `may_exit`."""
        self._watchdog.disarm()

    def _remember(self) -> None:
        try:
            self._save(self.clock)
        except OSError as error:  # what is on disk is older, hence ends earlier
            log.error("the state cannot be saved: %s", error)

    @property
    def _settings(self) -> Settings | None:
        return self._settings_file.settings

    def _bound(self) -> frozenset[str]:
        return frozenset(vm_id for vm_id in self._guests.running() if self.clock.is_bound(vm_id))

    def _take_answers(self, now_s: float) -> None:
        while self._renewer.answers:
            found = self._renewer.answers.popleft()
            held = self.clock.phase is Phase.HELD
            self._terms.answered(found.number, lease_s=found.lease_s, heard=found.heard)
            lease_s = min(found.lease_s, self.clock.kept_s)
            if self.clock.renewed(
                sent_s=found.sent_s, lease_s=lease_s, index=found.index, now_s=now_s
            ):
                self._dirty = True
                if not held:
                    log.info("lease begins at index %d, renewed through %s", found.index, found.via)

    def _take_settings(self, now_s: float) -> None:
        if not self._settings_file.reload():
            return
        settings = self._settings
        if settings is None:
            log.warning("no settings any more: the lease is not renewed")
            return
        log.info(
            "settings: host %s, lease %g s, watchdog %g s, %d peers",
            settings.host_id,
            settings.lease_s,
            settings.watchdog_s,
            len(settings.peers),
        )
        if self._host_id not in ("", settings.host_id) and self.clock.phase is Phase.HELD:
            self._end_lease(now_s, "this host has another identity")
        self._host_id = settings.host_id

    def _keep_terms(self, now_s: float) -> None:
        settings, terms = self._settings, self._terms
        if settings is None:
            return
        if terms.strengthen(
            lease_s=settings.lease_s,
            disarm=settings.disarm,
            bound=bool(self._bound()),
            now_s=now_s,
        ):
            log.info("lease %g s, enforced: %s", self.clock.kept_s, self.clock.enforced)
            self._armed_s = float("-inf")  # the watchdog is due, too
            self._dirty = True
        if terms.relax(disarm=settings.disarm):
            log.warning("disarmed: the end of the lease kills no guest, and the watchdog is off")
            self._dirty = True

    def _end_lease(self, now_s: float, why: str) -> None:
        self.clock.end()
        self._kills += self._guests.kill(self._bound())  # those known; `_enforce` looks for others
        log.error("%s: lease-bound guests are killed", why)
        self._dirty = True
        self._killed_s = now_s
        self._stuck_told = False

    def _enforce(self, now_s: float) -> None:
        """Without a lease no lease-bound guest runs: kill, and go on killing, until none is left."""
        bound = self._bound()
        unheld = self.clock.phase is Phase.IDLE and self.clock.enforced
        if unheld and bound and self._settings is not None:
            self._end_lease(now_s, "lease-bound guests run without a lease")
            bound = self._bound()
        if self.clock.phase is not Phase.ENDED:
            return
        if bound:
            self._kills += self._guests.kill(bound)
            self._guests.drop_gone()
            bound = self._bound()
        if not bound:
            log.warning("no lease-bound guest runs: a new lease may begin")
            self.clock.guests_gone(now_s)
            self._dirty = True
        elif (
            self._killed_s is not None and now_s - self._killed_s > STUCK_S and not self._stuck_told
        ):
            self._stuck_told = True
            log.critical(
                "guests survive SIGKILL, the watchdog is not fed: %s", ", ".join(sorted(bound))
            )

    def _care_for_watchdog(self, now_s: float) -> None:
        settings = self._settings
        wanted_s = settings.watchdog_s if settings is not None else 0.0
        if not self.clock.may_feed(now_s):
            return
        if not self.clock.enforced:
            if self._watchdog.armed and self._watchdog.may_disarm():
                self._watchdog.disarm()
        elif wanted_s > 0:
            changed = wanted_s != self.clock.watchdog_s
            due = (changed or not self._watchdog.armed) and now_s - self._armed_s >= REARM_S
            if due and self._terms.may_arm(wanted_s):
                self._armed_s = now_s
                if isinstance(self._watchdog, NoWatchdog):
                    self._watchdog = self._open_watchdog()
                self._watchdog.arm(wanted_s)
                if self._watchdog.armed:
                    self.clock.watchdog_s = wanted_s
                    self._dirty = True
        elif self._watchdog.armed and self.clock.phase is Phase.IDLE and not self._bound():
            self._watchdog.disarm()
        if now_s - self._fed_s >= FEED_S:
            self._fed_s = now_s
            self._watchdog.feed()

    def _give_order(self) -> None:
        settings = self._settings
        if settings is None or (self.clock.phase is Phase.ENDED):
            self._renewer.order = None
            return
        bound_grants = {vm_id for vm_id, grant in self.clock.grants.items() if grant.lease_bound}
        said = self._terms.say(
            lease_s=settings.lease_s, watchdog_s=settings.watchdog_s, disarm=settings.disarm
        )
        self._renewer.order = Order(
            settings,
            self._watchdog.armed,
            len(self._bound() | bound_grants),
            said,
            self._terms.number,
        )

    # ---- control socket

    def handle(self, request: Mapping[str, Any], now_s: float) -> dict[str, Any]:
        """Answer one request of the control socket.

        Raises:
            Refusal: the guard says no.
            KeyError, TypeError, ValueError: the request is malformed.
        """
        op = request["op"]
        if op == "status":
            return self._status(now_s)
        vm_id = request["vm_id"]
        if not isinstance(vm_id, str) or not vm_id:
            raise ValueError("vm_id is a text")
        if op == "revoke":
            self.clock.revoke(vm_id)
            self._remember()
            return {}
        if self._stop_asked_s is not None:
            raise Refusal("stopping", "the guard is being stopped: start no guest on this host")
        if op == "check":
            generation = request.get("generation")
            if generation is not None and type(generation) is not int:
                raise ValueError("generation is a whole number")
            grant = self.clock.check(vm_id, generation, now_s)
            return {"generation": grant.generation, "lease_bound": grant.lease_bound}
        if op == "grant":
            return self._grant(vm_id, request, now_s)
        raise ValueError(f"unknown op {op!r}")

    def _grant(self, vm_id: str, request: Mapping[str, Any], now_s: float) -> dict[str, Any]:
        generation, bound, applied = (
            request["generation"],
            request["lease_bound"],
            request["applied_index"],
        )
        if type(generation) is not int or type(bound) is not bool or type(applied) is not int:
            raise TypeError(
                "generation and applied_index are whole numbers, lease_bound is true or false"
            )
        self.clock.grant(
            vm_id, generation=generation, lease_bound=bound, applied_index=applied, now_s=now_s
        )
        self._remember()  # before the answer: no guest may start on a grant that is not remembered
        return {}

    def _status(self, now_s: float) -> dict[str, Any]:
        clock, settings = self.clock, self._settings
        return {
            "host_id": settings.host_id if settings is not None else "",
            "boot_id": self._boot_id,
            "phase": clock.phase,
            "lease_valid": clock.phase is Phase.HELD and not clock.is_over(now_s),
            "remaining_s": round(clock.remaining_s(now_s), 3),
            "first_index": clock.first_index,
            "renewed_index": clock.renewed_index,
            "seq": self._renewer.seq,
            "watchdog": {"kind": self._watchdog.kind, "armed": self._watchdog.armed},
            "lease_s": clock.kept_s,
            "watchdog_s": clock.watchdog_s,
            "disarmed": not clock.enforced,
            "grants": {
                vm_id: {"generation": grant.generation, "lease_bound": grant.lease_bound}
                for vm_id, grant in clock.grants.items()
            },
            "running": sorted(self._guests.running()),
            "kills": self._kills,
            "last_kill_boottime_s": self._killed_s,
            "stopping": self._stop_asked_s is not None,
        }
