"""What this host does next about a VM, for every state it can be found in, and how long it waits before."""

import pytest

from core.model import VM, PowerState, VMPhase
from nodeagent.compute.hypervisor import DomainState, DomainStatus
from nodeagent.services.backoff import Backoff
from nodeagent.services.vm_plan import Action, left_by_migration, next_action

HERE, THERE = "here", "there"
GENERATION = 3
UP, DOWN = PowerState.RUNNING, PowerState.STOPPED


def vm_of(phase=VMPhase.RUNNING, *, power=UP, host=HERE, to="") -> VM:
    return VM(
        id="v",
        name="v",
        cluster_id="c",
        host_id=host,
        cpus=1,
        memory_mib=64,
        power=power,
        phase=phase,
        generation=GENERATION,
        migrating_to_host_id=to,
    )


def guest(status=DomainStatus.RUNNING, *, generation=GENERATION, reason="", **fields):
    return DomainState(vm_id="v", generation=generation, status=status, reason=reason, **fields)


PAUSED, CRASHED = DomainStatus.PAUSED, DomainStatus.CRASHED
P = VMPhase
A = Action

TABLE = [
    # what the state says, what runs here, action
    ("nothing known, nothing here", None, None, A.NOTHING),
    ("a guest the state does not know", None, guest(), A.WARN_UNKNOWN),
    ("running as wanted", vm_of(), guest(), A.NOTHING),
    ("died", vm_of(), None, A.START),
    ("crashed and kept", vm_of(), guest(CRASHED), A.START),
    ("never started", vm_of(P.STOPPED), None, A.START),
    ("start was tried before", vm_of(P.BLOCKED), None, A.START),
    ("runs but is not said to", vm_of(P.STARTING), guest(), A.REPORT_RUNNING),
    ("runs though it was blocked", vm_of(P.BLOCKED), guest(), A.REPORT_RUNNING),
    ("goes on after a pause", vm_of(P.PAUSED), guest(), A.REPORT_RUNNING),
    ("wanted stopped, runs", vm_of(power=DOWN), guest(), A.DESTROY),
    ("wanted stopped, is paused", vm_of(power=DOWN), guest(PAUSED), A.DESTROY),
    ("wanted stopped, shut itself down", vm_of(power=DOWN), None, A.REPORT_STOPPED),
    ("stopped as wanted", vm_of(P.STOPPED, power=DOWN), None, A.NOTHING),
    ("former generation", vm_of(), guest(generation=2), A.DESTROY),
    ("later generation", vm_of(), guest(generation=4), A.DESTROY),
    ("generation unreadable", vm_of(), guest(generation=-1), A.DESTROY),
    ("being created", vm_of(P.CREATING), None, A.NOTHING),
    ("being created, wanted stopped", vm_of(P.CREATING, power=DOWN), None, A.NOTHING),
    ("being deleted", vm_of(P.DELETING, power=DOWN), guest(), A.NOTHING),
    ("paused by a person, known", vm_of(P.PAUSED), guest(PAUSED, reason="user"), A.NOTHING),
    ("is another host's, nothing here", vm_of(host=THERE), None, A.NOTHING),
    ("is another host's, runs here", vm_of(host=THERE), guest(), A.DESTROY),
    ("is another host's, paused here", vm_of(host=THERE), guest(PAUSED), A.DESTROY),
    ("is another host's, older run here", vm_of(host=THERE), guest(generation=2), A.DESTROY),
    ("on its way here", vm_of(host=THERE, to=HERE), guest(migrating_in=True), A.NOTHING),
    ("on its way elsewhere, left here", vm_of(host=THERE, to="third"), guest(), A.DESTROY),
    (
        "arriving without a task is not arriving",
        vm_of(host=THERE),
        guest(migrating_in=True),
        A.DESTROY,
    ),
    ("moves away, still runs here", vm_of(P.MIGRATING, to=THERE), guest(), A.CLEAR_MIGRATION),
    (
        "paused in the last moment of its move",
        vm_of(P.MIGRATING, to=THERE),
        guest(PAUSED, reason="migration"),
        A.NOTHING,
    ),
    ("left behind by a move", vm_of(), guest(PAUSED, reason="migration"), A.DESTROY),
    ("left behind by a copying move", vm_of(), guest(PAUSED, reason="post-copy"), A.DESTROY),
    (
        "left behind while starting",
        vm_of(P.STARTING),
        guest(PAUSED, reason="migration"),
        A.DESTROY,
    ),
    ("the agent died before it resumed it", vm_of(P.STARTING), guest(PAUSED), A.START),
    ("storage fails", vm_of(), guest(PAUSED, reason="io-error"), A.REPORT_PAUSED),
    ("storage fails, told", vm_of(P.PAUSED), guest(PAUSED, reason="io-error"), A.AFTER_IO_ERROR),
    ("shuts down by itself", vm_of(), guest(DomainStatus.STOPPING), A.NOTHING),
    ("unknown to libvirt", vm_of(), guest(DomainStatus.UNKNOWN), A.NOTHING),
]


@pytest.mark.parametrize(
    ("vm", "domain", "action"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_the_next_action_is(vm, domain, action):
    assert next_action(vm, domain, host_id=HERE, has_task=False) is action


@pytest.mark.parametrize(
    ("vm", "domain"), [row[1:3] for row in TABLE if row[1] is not None], ids=lambda x: ""
)
def test_a_vm_of_this_host_with_a_task_is_left_to_its_task(vm, domain):
    if vm.host_id == HERE:
        assert next_action(vm, domain, host_id=HERE, has_task=True) is Action.NOTHING


def test_an_arriving_guest_is_spared_while_a_task_moves_it():
    vm, arriving = vm_of(host=THERE), guest(PAUSED, migrating_in=True)
    assert next_action(vm, arriving, host_id=HERE, has_task=True) is Action.NOTHING


def test_a_task_elsewhere_does_not_keep_a_second_run_alive_here():
    assert next_action(vm_of(host=THERE), guest(), host_id=HERE, has_task=True) is Action.DESTROY


@pytest.mark.parametrize("phase", list(VMPhase))
@pytest.mark.parametrize("power", list(PowerState))
@pytest.mark.parametrize("reason", ["migration", "post-copy", "post-copy-failed"])
def test_no_state_lets_a_guest_left_by_a_migration_run_again(phase, power, reason):
    domain = guest(PAUSED, reason=reason)
    assert left_by_migration(domain)
    for to in ("", THERE):
        action = next_action(vm_of(phase, power=power, to=to), domain, host_id=HERE, has_task=False)
        assert action in (Action.NOTHING, Action.DESTROY)


def test_a_running_guest_was_not_left_by_a_migration():
    assert not left_by_migration(guest(reason="migration"))
    assert not left_by_migration(guest(PAUSED, reason="io-error"))


def starts(backoff: Backoff, count: int, now_s: float = 0.0) -> list[float]:
    """Start whenever it is due; return the waits between the starts."""
    waits = []
    for _ in range(count):
        waits.append(max(0.0, backoff.due_s - now_s))
        now_s = max(now_s, backoff.due_s)
        backoff.note_done(now_s, counts=True)
    return waits


def test_a_guest_that_keeps_dying_is_started_ever_later_up_to_five_minutes():
    assert starts(Backoff(), 11) == [0, 0, 5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_ten_good_minutes_forget_the_history_and_less_does_not():
    backoff = Backoff()
    starts(backoff, 6)
    last_s = backoff.last_s
    backoff.note_good(last_s + 599)
    assert backoff.counted == 6
    backoff.note_good(last_s + 600)
    assert starts(backoff, 2, now_s=last_s + 700) == [0, 0]


def test_a_missing_lease_is_no_fault_of_the_vm():
    backoff = Backoff()
    for second in range(100):
        assert backoff.is_due(second)
        backoff.note_failed(second, counts=False)
        assert not backoff.is_due(second + 0.5)
    assert backoff.counted == 0


def test_a_failed_start_waits_at_least_a_second_and_then_longer():
    backoff, waits, now_s = Backoff(), [], 0.0
    for _ in range(4):
        backoff.note_failed(now_s, counts=True)
        waits.append(backoff.due_s - now_s)
        now_s = backoff.due_s
    assert waits == [1, 5, 10, 20]


def test_other_actions_wait_for_nothing():
    backoff = Backoff()
    starts(backoff, 5)
    backoff.note_done(7.0, counts=False)
    assert backoff.is_due(7.0)
    assert backoff.counted == 5
