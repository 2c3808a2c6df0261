"""The guard's loop on fakes: what it kills, feeds, renews and answers, second by second."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from ha.guard.control import answer
from ha.guard.guests import vm_of_cmdline
from ha.guard.lease_clock import LeaseClock
from ha.guard.loop import Guard
from ha.guard.renewal import Order, Renewed
from ha.guard.settings import SettingsFile
from ha.guard.terms import Said
from ha.guard.watchdog import NoWatchdog, Watchdog

VM = "11111111-2222-3333-4444-555555555555"


class FakeGuests:
    def __init__(self) -> None:
        self.alive: set[str] = set()
        self.immortal: set[str] = set()
        self.killed: list[str] = []

    def refresh(self, known: Collection[str] = ()) -> None: ...

    def drop_gone(self) -> None: ...

    def running(self) -> frozenset[str]:
        return frozenset(self.alive)

    def kill(self, vm_ids: Collection[str]) -> int:
        self.killed += vm_ids
        self.alive -= set(vm_ids) - self.immortal
        return len(vm_ids)


class FakeThreads:
    def __init__(self) -> None:
        self.order: Order | None = None
        self.answers: deque[Renewed] = deque()
        self.seq = 0


class FakeWatchdog:
    kind = "fake"

    def __init__(self) -> None:
        self.armed = False
        self.timeout_s = 0.0
        self.fed = 0
        self.nowayout = False

    def arm(self, timeout_s: float) -> None:
        self.armed, self.timeout_s = True, timeout_s

    def feed(self) -> None:
        self.fed += 1

    def disarm(self) -> None:
        self.armed = False

    def may_disarm(self) -> bool:
        return not self.nowayout


class World:
    """A guard whose time the test moves in steps of 0.1 s; it renews each second unless cut."""

    def __init__(self, tmp_path: Path) -> None:
        self.config = tmp_path / "guard.json"
        self.configure()
        self.now_s, self.cut = 1000.0, False
        self.guests, self.threads, self.watchdog = FakeGuests(), FakeThreads(), FakeWatchdog()
        self.saved = 0
        self.guard = self.make(self.watchdog)

    def make(self, watchdog: Watchdog) -> Guard:
        return Guard(
            boot_id="boot",
            clock=LeaseClock(epoch_s=self.now_s),
            settings=SettingsFile(str(self.config)),
            guests=self.guests,
            renewer=self.threads,
            open_watchdog=lambda: watchdog,
            save=self.save,
        )

    def save(self, clock: LeaseClock) -> None:
        self.saved += 1

    def configure(self, **changes: object) -> None:
        settings = {"host_id": "h", "lease_s": 12, "watchdog_s": 6, "peers": []} | changes
        self.config.write_text(json.dumps(settings))

    def run(self, seconds: float) -> None:
        for step in range(round(seconds * 10)):
            if step % 10 == 0 and not self.cut:
                self.renew()
            self.guard.tick(self.now_s)
            self.now_s += 0.1

    def renew(self, *, heard: bool = True) -> None:
        order = self.threads.order
        said, number = (order.said.lease_s, order.number) if order is not None else (12.0, 0)
        self.threads.answers.append(
            Renewed(self.now_s, said, int(self.now_s), "local", number, heard and number > 0)
        )

    def said(self) -> Said:
        assert self.threads.order is not None
        return self.threads.order.said

    def ask(self, **request: object) -> dict[str, Any]:
        return answer(
            json.dumps(request).encode(), lambda found: self.guard.handle(found, self.now_s)
        )

    def grant(self, **changes: object) -> dict[str, Any]:
        request: dict[str, object] = {
            "op": "grant",
            "vm_id": VM,
            "generation": 1,
            "lease_bound": True,
        }
        return self.ask(**(request | {"applied_index": 5000} | changes))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_guest_is_killed_once_at_the_deadline_and_feeding_goes_on(world: World) -> None:
    world.run(3)
    assert world.grant() == {"ok": True}
    world.guests.alive = {VM}
    world.cut = True
    world.run(10.5)
    assert world.guests.killed == []
    world.run(1.0)
    assert world.guests.killed == [VM]
    fed = world.watchdog.fed
    world.run(3)
    assert world.watchdog.fed == fed + 3
    assert world.guests.killed == [VM]
    assert world.ask(op="status")["grants"] == {}


def test_guest_that_cannot_be_killed_stops_the_feeding(world: World) -> None:
    world.run(3)
    world.grant()
    world.guests.alive = world.guests.immortal = {VM}
    world.cut = True
    world.run(12)
    fed = world.watchdog.fed
    world.cut = False
    world.run(10)
    assert world.watchdog.fed == fed
    assert not world.ask(op="status")["lease_valid"]
    assert world.threads.order is None


def test_first_thing_after_a_freeze_is_the_kill(world: World) -> None:
    world.run(3)
    world.grant()
    world.guests.alive = {VM}
    world.now_s += 30
    fed = world.watchdog.fed
    world.threads.answers.append(Renewed(world.now_s - 1, 12.0, 2000, "local"))
    world.guard.tick(world.now_s)
    assert world.guests.killed == [VM]
    assert world.watchdog.fed == fed + 1  # only after the guest was gone
    assert not world.ask(op="status")["lease_valid"]


def test_guest_that_nobody_granted_dies_when_there_is_no_lease(world: World) -> None:
    world.cut = True
    world.guests.alive = {VM}
    world.run(1)
    assert world.guests.killed == [VM]


def test_granted_guests_are_counted_in_renewals_before_they_run(world: World) -> None:
    world.run(1)
    world.grant()
    world.run(1)
    assert world.threads.order is not None
    assert world.threads.order.guests == 1 and world.threads.order.watchdog_armed
    world.ask(op="revoke", vm_id=VM)
    world.run(1)
    assert world.threads.order.guests == 0


def test_settings_that_go_away_end_the_renewals_then_the_lease_and_then_the_watchdog(
    world: World,
) -> None:
    world.run(2)
    world.grant()
    world.guests.alive = {VM}
    world.cut = True
    world.config.unlink()
    world.run(5)
    assert world.threads.order is None and world.watchdog.armed
    world.run(8)
    assert world.guests.killed == [VM]
    assert not world.watchdog.armed


def test_another_watchdog_timeout_is_armed_again(world: World) -> None:
    world.run(1)
    assert world.watchdog.timeout_s == 6
    world.configure(watchdog_s=10)
    world.run(3)
    assert world.watchdog.timeout_s == 10


def test_host_without_watchdog_says_so_in_its_renewals(world: World) -> None:
    world.guard = world.make(NoWatchdog())
    world.run(2)
    assert world.threads.order is not None and not world.threads.order.watchdog_armed


def test_state_that_cannot_be_saved_stops_nothing(world: World, tmp_path: Path) -> None:
    def full(clock: LeaseClock) -> None:
        raise OSError("no space")

    world.guard._save = full
    world.run(2)
    assert world.grant() == {"ok": True}


def test_grant_is_saved_before_it_is_answered(world: World) -> None:
    world.run(1)
    saved = world.saved
    world.grant()
    assert world.saved == saved + 1


def test_guard_ends_only_when_no_guest_needs_it(world: World) -> None:
    world.run(1)
    world.grant()
    world.guests.alive = {VM}
    world.guard.ask_to_stop(world.now_s)
    world.run(30)
    assert not world.guard.may_exit()
    assert world.grant()["code"] == "stopping"
    world.guests.alive.clear()
    world.run(3)
    assert world.guard.may_exit()


def test_guest_on_its_way_delays_the_end(world: World) -> None:
    world.run(1)
    world.grant()
    world.guard.ask_to_stop(world.now_s)
    world.run(1)
    assert not world.guard.may_exit()
    world.run(3)
    assert world.guard.may_exit()


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[]", b'{"op": 1}', b'{"op": "grant"}', b'{"op": "check", "vm_id": 7}', b"[" * 100_000, b"\xff\xfe",
     b'{"op": "grant", "vm_id": "v", "generation": true, "lease_bound": true, "applied_index": 1}'],
)  # fmt: skip
def test_malformed_requests_are_answered(world: World, line: bytes) -> None:
    found = answer(line, lambda request: world.guard.handle(request, world.now_s))
    assert (found["ok"], found["code"]) == (False, "invalid")


@pytest.mark.parametrize(
    ("args", "vm_id"),
    [
        (["qemu", "-name", f"guest=kvorum-{VM},debug-threads=on", "-S"], VM),
        (["qemu", "-name", f"kvorum-{VM}"], VM),
        (["qemu", "-uuid", "known"], "known"),
        (["qemu", "-name", "guest=other,process=x", "-uuid", VM], None),
        (["grep", f"-name guest=kvorum-{VM}"], None),
        (["qemu", "-name", f"guest=kvorum-{VM}x"], None),
        (["qemu", "-name"], None),
    ],
)
def test_guests_are_known_by_their_command_line(args: list[str], vm_id: str | None) -> None:
    assert vm_of_cmdline("\0".join([*args, ""]).encode(), {"known"}) == vm_id


def test_a_longer_lease_and_watchdog_are_said_before_they_are_kept_to(world: World) -> None:
    world.run(2)
    world.cut = True
    world.configure(lease_s=30, watchdog_s=10)
    world.run(1)
    assert world.said() == Said(30.0, 10.0, disarmed=False)
    assert world.watchdog.timeout_s == 6
    world.renew(heard=False)  # an older agent dropped what was said
    world.run(0.2)
    assert (world.guard.clock.kept_s, world.watchdog.timeout_s) == (12, 6)
    world.renew()
    world.run(3)
    assert (world.guard.clock.kept_s, world.watchdog.timeout_s) == (30, 10)


def test_a_shorter_lease_and_watchdog_are_kept_to_before_they_are_said(world: World) -> None:
    world.configure(lease_s=30, watchdog_s=10)
    world.run(5)
    world.cut = True
    world.configure(lease_s=7, watchdog_s=5)
    world.guard.tick(world.now_s)
    assert world.guard.clock.remaining_s(world.now_s) <= 7
    assert world.watchdog.timeout_s == 5
    assert world.said() == Said(7.0, 5.0, disarmed=False)


def test_an_answer_to_what_was_said_before_proves_nothing(world: World) -> None:
    world.run(2)
    world.cut = True
    world.configure(lease_s=30)
    world.run(0.5)
    world.renew()
    late = world.threads.answers.pop()
    world.configure(lease_s=12, watchdog_s=7)
    world.run(0.5)
    world.configure(lease_s=30, watchdog_s=7)
    world.run(0.5)
    world.threads.answers.append(late)
    world.run(0.2)
    assert world.guard.clock.kept_s == 12


def test_disarming_acts_only_when_the_cluster_counts_with_it(world: World) -> None:
    world.run(2)
    assert world.grant()["ok"]
    world.guests.alive = {VM}
    world.cut = True
    world.configure(disarm=True)
    world.run(1)
    assert world.said().disarmed
    assert world.watchdog.armed
    world.renew()
    world.run(30)
    assert world.guests.alive == {VM}
    assert not world.watchdog.armed
    assert world.ask(op="status")["disarmed"] is True
    assert world.grant(vm_id="other")["code"] == "no-lease"


def test_disarming_that_nobody_heard_of_kills_as_ever(world: World) -> None:
    world.run(2)
    world.guests.alive = {VM}
    world.grant()
    world.cut = True
    world.configure(disarm=True)
    world.run(15)
    assert world.guests.alive == set()


def test_arming_enforces_first_and_says_so_when_a_renewal_was_answered(world: World) -> None:
    world.configure(disarm=True)
    world.run(3)
    world.grant()
    world.guests.alive = {VM}
    world.cut = True
    world.run(20)
    world.configure()
    world.run(1)
    assert world.guests.alive == {VM}, "without a lease there is no reason to kill"
    assert world.said().disarmed
    world.renew()
    world.guard.tick(world.now_s)
    assert world.guard.clock.enforced
    assert world.said().disarmed
    world.run(3)
    assert world.watchdog.armed
    assert world.said().disarmed
    world.renew()
    world.guard.tick(world.now_s)
    assert not world.said().disarmed
    world.run(15)
    assert world.guests.alive == set()


def test_a_watchdog_without_a_way_out_is_fed_on_while_disarmed(world: World) -> None:
    world.watchdog.nowayout = True
    world.configure(disarm=True)
    world.run(3)
    world.cut = True
    fed = world.watchdog.fed
    world.run(20)
    assert world.watchdog.armed
    assert world.watchdog.fed >= fed + 15


def test_a_first_answer_that_comes_after_a_shorter_wish_counts_for_the_shorter_time(
    world: World,
) -> None:
    world.cut = True
    world.run(0.2)
    world.renew()
    late = world.threads.answers.pop()
    world.configure(lease_s=7)
    world.run(0.5)
    world.threads.answers.append(late)
    world.guard.tick(world.now_s)
    assert world.guard.clock.kept_s == 7
    assert world.guard.clock.deadline_s == late.sent_s + 7
