"""The order in which guests come up by themselves after a host, or all power, was lost."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from core.model import VM, Lease, PowerState, VMPhase, VMPriority
from ha.start_order import WAIT_S_MAX, StartGate

LEASES = {name: Lease(id=name, name=name, boot_id=f"{name}-now", seq=1) for name in ("h1", "h2")}
DOWN = VM(
    id="", name="", cluster_id="c", host_id="h1", cpus=1, memory_mib=128, phase=VMPhase.STARTING
)
HIGH, MEDIUM, LOW = VMPriority


def vm(name: str, **changes: object) -> VM:
    return replace(DOWN, id=name, name=name, **changes)


def up(one: VM) -> VM:
    return replace(one, phase=VMPhase.RUNNING, boot_id=f"{one.host_id}-now")


@dataclass
class Site:
    """VMs after a loss of power; what may start is up a second later."""

    vms: dict[str, VM]
    now_s: float = 1000.0
    gate: StartGate = field(default_factory=StartGate)
    started: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, *vms: VM) -> Site:
        return cls({one.id: one for one in vms})

    def put(self, one: VM) -> None:
        self.vms[one.id] = one

    def second(self) -> list[str]:
        """Let a second pass; return what was started in it."""
        self.now_s += 1.0
        self.gate.look(self.vms.values(), LEASES, self.now_s)
        due = [
            one
            for one in self.vms.values()
            if one.phase is VMPhase.STARTING and self.gate.may_start(one, self.now_s)
        ]
        for one in due:
            self.put(up(one))
        self.started += [one.id for one in due]
        return [one.id for one in due]

    def seconds_until(self, name: str) -> float:
        began_s = self.now_s
        while name not in self.second():
            assert self.now_s - began_s < 10_000
        return self.now_s - began_s


def test_a_priority_waits_for_those_above_it() -> None:
    site = Site.of(
        vm("a", priority=LOW), vm("b"), vm("c", priority=HIGH), vm("d", priority=HIGH, host_id="h2")
    )
    assert site.second() == ["c", "d"]
    assert site.second() == ["b"]
    assert site.second() == ["a"]


def test_what_ran_before_the_power_went_is_not_taken_for_running() -> None:
    stale = vm("c", priority=HIGH, phase=VMPhase.RUNNING, boot_id="h1-before")
    site = Site.of(stale, vm("b"))
    assert site.second() == []
    site.put(up(stale))
    assert site.second() == ["b"]


@pytest.mark.parametrize(
    "change",
    [
        {"power": PowerState.STOPPED},
        {"phase": VMPhase.BLOCKED},
        {"phase": VMPhase.DELETING},
        {"phase": VMPhase.CREATING},
        {"blocked_reason": "no room"},
        {"host_id": ""},
    ],
)
def test_nobody_waits_for_what_will_not_come(change: dict[str, object]) -> None:
    site = Site.of(vm("c", priority=HIGH, **change), vm("b"))
    assert "b" in site.second()


def test_a_vm_of_a_lost_host_that_is_recorded_as_running_holds_nobody_up() -> None:
    lost = vm("c", host_id="h2", priority=HIGH, phase=VMPhase.RUNNING, boot_id="h2-now")
    assert Site.of(lost, vm("b")).second() == ["b"]


def test_nobody_waits_for_more_than_a_minute() -> None:
    hangs = vm("c", priority=HIGH, host_id="h2")
    site = Site.of(vm("b"), vm("x", start_after_ids=("c",), start_delay_s=30))
    site.put(replace(hangs, phase=VMPhase.STOPPED))  # is being started, and never comes up
    assert site.seconds_until("b") == WAIT_S_MAX + 1
    assert "x" in site.started


def test_a_vm_starts_after_those_that_it_names_and_its_delay() -> None:
    site = Site.of(
        vm("app", start_after_ids=("db", "cache"), start_delay_s=10), vm("db"), vm("web")
    )
    site.put(vm("cache", start_after_ids=("db",)))
    assert site.second() == ["db", "web"]
    assert site.second() == ["cache"]
    assert site.seconds_until("app") == 11


def test_a_long_delay_is_kept_though_nobody_waits_longer_than_a_minute_for_others() -> None:
    site = Site.of(vm("app", start_after_ids=("db",), start_delay_s=300), vm("db"))
    assert site.second() == ["db"]
    assert site.seconds_until("app") == 301


def test_a_guest_that_died_alone_does_not_wait_out_its_delay() -> None:
    site = Site.of(up(vm("db")), vm("app", start_after_ids=("db",), start_delay_s=300))
    assert site.second() == ["app"]


def test_each_loss_has_its_own_minute() -> None:
    site = Site.of(vm("b"), vm("c", priority=HIGH, phase=VMPhase.STOPPED))
    site.seconds_until("b")
    site.second()
    site.put(vm("b"))
    assert site.seconds_until("b") == WAIT_S_MAX + 1


VMS = st.lists(
    st.tuples(
        st.sampled_from(VMPriority),
        st.lists(st.integers(0, 9), max_size=3),
        st.integers(0, 20),
        st.sampled_from(VMPhase),
    ),
    max_size=10,
)


@given(VMS)
def test_whatever_names_whatever_all_come_up(drawn) -> None:
    site = Site.of(
        *(
            vm(
                f"v{i}",
                priority=priority,
                start_after_ids=tuple(f"v{n}" for n in awaited if n != i),
                start_delay_s=delay_s,
                phase=phase,
            )
            for i, (priority, awaited, delay_s, phase) in enumerate(drawn)
        )
    )
    due = {one.id for one in site.vms.values() if one.phase is VMPhase.STARTING}
    for _ in range(int(WAIT_S_MAX) * 2 + 20 * 11):
        site.second()
    assert set(site.started) == due
