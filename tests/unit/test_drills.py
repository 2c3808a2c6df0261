"""Drills, the pure part: what stands in the way, what is promised, what is made of what was seen, and the report."""

from __future__ import annotations

import dataclasses

import pytest
from msgspec.structs import replace

from core.errors import ConflictError
from core.model import (
    VM,
    Bmc,
    BmcState,
    DataStorage,
    DataStorageKind,
    Disk,
    Drill,
    DrillEvent,
    DrillKind,
    DrillPromise,
    DrillState,
    DrillVerdict,
    DrillVM,
    Host,
    HostState,
    Lease,
    PlacementPolicy,
    PlacementRule,
    PowerState,
    RuleStrength,
    Task,
    VMPhase,
)
from ha.drills.obstacles import DrillView, Wish
from ha.drills.preflight import Plan, preflight
from ha.drills.report import report_of
from ha.drills.verdict import judged
from ha.drills.watching import Seen, Watching
from ha.health_facts import GuardSeen
from ha.profile import PROFILES
from nodeagent.drills.faults import cut_rules, server_of
from tests.unit.test_health import change, cluster, say, silence

DEFAULT = PROFILES["default"]


def host(number: int, **fields) -> Host:
    well = {"cluster_id": "c", "address": f"192.0.2.{number}", "cpus": 8, "memory_mib": 16384}
    return Host(id=f"h{number}", name=f"h{number}", **(well | fields))


def vm(name: str, on: str = "h2", **fields) -> VM:
    runs = {"phase": VMPhase.RUNNING, "generation": 4, "memory_mib": 512, "cpus": 1}
    return VM(id=f"id-{name}", name=name, cluster_id="c", host_id=on, **(runs | fields))


def disk_of(one: VM, storage: str = "shared") -> Disk:
    return Disk(
        id=f"d-{one.name}",
        name=one.name,
        vm_id=one.id,
        data_storage_id=storage,
        size_bytes=1,
        host_id=one.host_id if storage == "local" else "",
    )


def board(of: str, state: BmcState = BmcState.OK) -> Bmc:
    return Bmc(id=of, name=of, host_id=of, address=of, user="u", sealed_password=b"x", state=state)


def view(*vms: VM, local: tuple[str, ...] = (), **fields) -> DrillView:
    storages = {
        kind: DataStorage(
            id=kind, name=kind, data_center_id="dc", kind=DataStorageKind(kind), path=f"/srv/{kind}"
        )
        for kind in ("shared", "local")
    }
    usual = {
        "facts": cluster(),
        "profile": DEFAULT,
        "hosts": {f"h{n}": host(n) for n in (1, 2, 3)},
        "vms": vms,
        "disks": tuple(disk_of(one, "local" if one.name in local else "shared") for one in vms),
        "storages": storages,
        "bmcs": {f"h{n}": board(f"h{n}") for n in (1, 2, 3)},
    }
    return DrillView(**(usual | fields))


def check(seen: DrillView, kind: DrillKind, on: str = "h2", **wish) -> Plan:
    return preflight(seen, Wish(kind, on, **wish))


def codes(plan: Plan) -> set[str]:
    assert all(one.what and one.advice for one in (*plan.obstacles, *plan.warnings))
    return {one.code for one in plan.obstacles}


TASK = Task(id="t", name="t", workflow="migrate-vm", subject="vm/id-web", runner_host_id="h2")
OPEN = Drill(id="d", name="agent-kill-h3-d", kind=DrillKind.AGENT_KILL)
OTHER_TIMES = Lease(id="h3", name="h3", boot_id="b", seq=1, lease_s=30.0, watchdog_s=10.0)
NO_WATCHDOG = GuardSeen(answers=True, phase="held", lease_valid=True, watchdog="none", armed=False)


@pytest.mark.parametrize("kind", [kind for kind in DrillKind if kind is not DrillKind.STORAGE_LOSS])
def test_a_cluster_that_is_well_can_take_any_drill(kind: DrillKind) -> None:
    on = {DrillKind.LEADER_LOSS: "h1", DrillKind.FULL_POWER_LOSS: ""}.get(kind, "h2")
    plan = check(view(vm("web")), kind, on)
    assert codes(plan) == set()
    assert (plan.observer_id in ("h1", "h2", "h3")) == bool(on)
    assert not on or plan.observer_id != on


@pytest.mark.parametrize(
    ("seen", "kind", "code"),
    [
        (view(open_drill=OPEN), DrillKind.AGENT_KILL, "drill-open"),
        (view(facts=replace(cluster(), disarmed="ann: switch work")), DrillKind.AGENT_KILL, "ha-disarmed"),
        (view(facts=silence(cluster(), 3)), DrillKind.AGENT_KILL, "host-not-well"),
        (view(facts=silence(cluster(), 3)), DrillKind.AGENT_KILL, "vote-needed"),
        (view(facts=change(cluster(), 3, fenced=True)), DrillKind.POWER_OFF, "host-not-well"),
        (view(facts=change(cluster(), 3, maintenance=True)), DrillKind.POWER_OFF, "host-not-well"),
        (view(facts=change(cluster(), 3, joining=True)), DrillKind.POWER_OFF, "host-not-well"),
        (view(facts=change(cluster(), 3, lease_fresh=False)), DrillKind.POWER_OFF, "host-not-well"),
        (view(facts=say(cluster(), 2, guard=NO_WATCHDOG)), DrillKind.POWER_OFF, "watchdog-not-armed"),
        (view(facts=say(cluster(), 2, guard=NO_WATCHDOG)), DrillKind.NETWORK_CUT, "watchdog-not-armed"),
        (view(facts=say(cluster(), 2, guard=GuardSeen(answers=False))), DrillKind.GUARD_KILL, "no-guard"),
        (view(bmcs={}), DrillKind.POWER_OFF, "no-bmc"),
        (view(bmcs={"h2": board("h2", BmcState.FAULT)}), DrillKind.POWER_OFF, "bmc-not-ok"),
        (view(), DrillKind.LEADER_LOSS, "not-leader"),
        (view(), DrillKind.STORAGE_LOSS, "no-storage"),
        (view(too_old=("h3",)), DrillKind.AGENT_KILL, "version"),
        (view(facts=change(cluster(), 2, witness=True)), DrillKind.POWER_OFF, "witness"),
        (view(hosts={"h2": host(2), "h3": host(3, down_boot_id="b")}), DrillKind.POWER_OFF, "host-not-well"),
        (view(vm("web"), hosts={"h2": host(2), "h3": host(3, unreachable_storage_ids=("shared",))}), DrillKind.POWER_OFF, "no-room"),
        (view(leases={"h3": OTHER_TIMES}), DrillKind.AGENT_KILL, "profile-changing"),
        (view(facts=replace(cluster(), disarmed="root")), DrillKind.AGENT_KILL, "ha-disarmed"),
        (view(target_refuses="no nft"), DrillKind.NETWORK_CUT, "target-refuses"),
        (view(vm("web"), open_tasks=(TASK,)), DrillKind.AGENT_KILL, "task-open"),
        (view(vm("web", phase=VMPhase.CREATING)), DrillKind.AGENT_KILL, "vm-busy"),
        (view(vm("web", "h1", migrating_to_host_id="h2", phase=VMPhase.MIGRATING)), DrillKind.POWER_OFF, "vm-busy"),
        (view(vm("web", blocked_reason="no room")), DrillKind.POWER_OFF, "vm-blocked"),
        (view(vm("big", memory_mib=16_000)), DrillKind.POWER_OFF, "no-room"),
        (view(vm("wide", cpus=9), cpu_overcommits={"c": 1}), DrillKind.POWER_OFF, "no-room"),
        (view(facts=cluster(of=2)), DrillKind.AGENT_KILL, "vote-needed"),
    ],
)  # fmt: skip
def test_every_obstacle_is_named(seen: DrillView, kind: DrillKind, code: str) -> None:
    assert code in codes(check(seen, kind))


def test_a_cluster_that_puts_more_on_a_thread_has_more_room() -> None:
    assert codes(check(view(vm("wide", cpus=65)), DrillKind.POWER_OFF)) == {"no-room"}
    more = view(vm("wide", cpus=65), cpu_overcommits={"c": 9})
    assert codes(check(more, DrillKind.POWER_OFF)) == set()


def apart(strength: RuleStrength, *names: str) -> PlacementRule:
    """A rule that keeps VMs apart."""
    return PlacementRule(
        id="r",
        name="apart",
        cluster_id="c",
        policy=PlacementPolicy.VM_ANTI_AFFINITY,
        strength=strength,
        vm_ids=tuple(f"id-{name}" for name in names),
    )


def test_a_vm_that_no_other_host_may_have_by_its_rules_is_named() -> None:
    vms = (vm("one", "h1"), vm("two", "h2"), vm("three", "h3"))
    names = [one.name for one in vms]
    strict = check(view(*vms, rules=(apart(RuleStrength.MANDATORY, *names),)), DrillKind.POWER_OFF)
    assert codes(strict) == {"ruled-out"}
    assert "VM two" in strict.obstacles[0].what
    mild = check(view(*vms, rules=(apart(RuleStrength.PREFERRED, *names),)), DrillKind.POWER_OFF)
    assert codes(mild) == set()


def test_a_vm_that_stays_needs_no_room_elsewhere() -> None:
    assert codes(check(view(vm("big", memory_mib=16_000)), DrillKind.AGENT_KILL)) == set()


def test_a_cut_whose_outcome_is_open_is_refused() -> None:
    without_boards = view(vm("web"), bmcs={})
    for duration_s, wanted in (
        (8, set()),
        (9, {"cut-unclear"}),
        (22, {"cut-unclear"}),
        (23, set()),
    ):
        plan = check(without_boards, DrillKind.NETWORK_CUT, duration_s=duration_s)
        assert codes(plan) == wanted, duration_s
    assert codes(check(view(), DrillKind.NETWORK_CUT, duration_s=5)) == {"cut-unclear"}
    assert codes(check(view(), DrillKind.NETWORK_CUT, duration_s=121)) == {"duration-out-of-bounds"}


def test_a_storage_is_lost_for_less_than_guests_wait_for_it() -> None:
    for duration_s, wanted in ((0, set()), (20, set()), (21, {"duration-out-of-bounds"})):
        plan = check(
            view(vm("web")),
            DrillKind.STORAGE_LOSS,
            data_storage_id="shared",
            duration_s=duration_s,
        )
        assert codes(plan) == wanted
        assert [one.promise for one in plan.vms] == [DrillPromise.STAYS]


def test_the_leader_observes_unless_it_is_the_one_that_fails() -> None:
    assert check(view(), DrillKind.AGENT_KILL, "h2").observer_id == "h1"
    assert check(view(), DrillKind.POWER_OFF, "h1").observer_id == "h2"


@pytest.mark.parametrize(
    ("profile", "bound_ms"), [("default", 21_000), ("wide", 44_000), ("moonshot", 14_500)]
)
def test_the_promise_is_the_profiles(profile: str, bound_ms: int) -> None:
    seen = view(vm("web"), vm("own"), vm("there", "h1"), local=("own",), profile=PROFILES[profile])
    plan = check(seen, DrillKind.POWER_OFF)
    assert [(one.name, one.promise, one.bound_ms) for one in plan.vms] == [
        ("own", DrillPromise.WAITS, 0),
        ("web", DrillPromise.MOVES, bound_ms),
    ]
    assert [one.code for one in plan.warnings] == ["vms-down"]
    (first, second) = check(seen, DrillKind.AGENT_KILL).vms
    assert {first.promise, second.promise} == {DrillPromise.STAYS}


def test_a_vm_that_waits_for_others_has_the_time_for_it() -> None:
    later = vm("later", start_after_ids=("id-web",), start_delay_s=5)
    plan = check(view(vm("web"), later), DrillKind.POWER_OFF)
    assert [one.bound_ms for one in plan.vms] == [86_000, 21_000]


# -- what was seen


def drill(kind: DrillKind = DrillKind.POWER_OFF, **fields) -> Drill:
    about = {
        "host_id": "h2",
        "host_label": "h2",
        "observer_host_id": "h1",
        "state": DrillState.WATCHING,
        "boots": {"h1": "b", "h2": "b", "h3": "b"},
    }
    return Drill(id="d", name=f"{kind}-h2-d", kind=kind, **(about | fields))


def one(promise: DrillPromise = DrillPromise.MOVES, **fields) -> DrillVM:
    bound = 21_000 if promise is DrillPromise.MOVES else 0
    about = {"was_on": "h2", "generation": 4, "bound_ms": bound}
    return DrillVM(vm="id-web", name="web", promise=promise, **(about | fields))


def watching(of: Drill, *, leader: str = "h1", others: tuple[VM, ...] = ()) -> Watching:
    return Watching(
        drill=of,
        profile=DEFAULT,
        names={"h1": "h1", "h2": "h2", "h3": "h3"},
        leader_before=leader,
        boot_before="b",
        others={other.id: other for other in others},
    )


def look(after_s: float, *vms: VM, age_s: float = 0.5, **fields) -> Seen:
    usual = {
        "leader_id": "h1",
        "ages_s": {"h1": 0.3, "h2": age_s, "h3": 0.3},
        "boot_id": "b",
        "host_state": HostState.MEMBER,
        "answers": True,
        "written_ms": -1,
        "vms": {v.id: v for v in vms},
    }
    return Seen(after_ms=round(1000 * after_s), **(usual | fields))


def test_a_vm_that_moves_is_timed() -> None:
    seen = watching(drill(vms=(one(),)))
    seen.look(look(5, vm("web"), age_s=5))
    assert not seen.is_done(5000)
    taken = vm("web", "h3", generation=5, phase=VMPhase.STARTING)
    seen.look(look(6, taken, age_s=6))
    seen.look(look(7, replace(taken, phase=VMPhase.RUNNING), age_s=7))
    assert [(v.taken_ms, v.running_ms, v.now_on) for v in seen.vms] == [(6000, 7000, "h3")]
    assert seen.is_done(7000)
    assert not seen.unexpected


@pytest.mark.parametrize("phase", [VMPhase.STARTING, VMPhase.STOPPED, VMPhase.BLOCKED])
def test_a_vm_that_was_to_stay_and_is_down_was_touched(phase: VMPhase) -> None:
    seen = watching(drill(DrillKind.AGENT_KILL, vms=(one(DrillPromise.STAYS),)))
    seen.look(look(2, vm("web", phase=phase)))
    (touched,) = judged(replace(seen.drill, vms=tuple(seen.vms)), DEFAULT).vms
    assert touched.verdict is DrillVerdict.FAILED


def test_what_a_user_does_meanwhile_is_not_held_against_the_cluster() -> None:
    seen = watching(drill(vms=(one(),)))
    seen.look(look(2, vm("web", power=PowerState.STOPPED)))
    assert seen.is_done(30_000) or seen.vms[0].stopped_by_user


@pytest.mark.parametrize(
    ("seen", "damage"),
    [
        (look(14, vm("there", "h1"), ages_s={"h1": 0.3, "h2": 14, "h3": 14}), False),
        (look(6, vm("there", "h1", generation=5)), True),
        (look(6, vm("there", "h3")), True),
        (look(6, vm("there", "h1", migrating_to_host_id="h3")), False),
    ],
)
def test_what_the_fault_was_not_to_touch_ends_the_drill(seen: Seen, *, damage: bool) -> None:
    it = watching(drill(), others=(vm("there", "h1"),))
    it.look(seen)
    assert it.unexpected
    assert it.damage == damage
    ended = judged(it.drill, DEFAULT, cut_short=it.unexpected, damage=it.damage)
    assert ended.verdict is (DrillVerdict.FAILED if damage else DrillVerdict.INCONCLUSIVE)


def events(*codes_at: tuple[str, int]) -> tuple[DrillEvent, ...]:
    return tuple(DrillEvent(after_ms=at, code=code, text=code) for code, at in codes_at)


FELT = events(("fault", 0), ("suspected", 4600))
AGENT = (("fault", 0), ("agent-silent", 300))


@pytest.mark.parametrize(
    ("ended", "verdict", "words"),
    [
        (drill(vms=(one(running_ms=20_900),), events=FELT), DrillVerdict.PASSED, "20.9 s"),
        (drill(vms=(one(running_ms=21_100),), events=FELT), DrillVerdict.FAILED, "21.1 s"),
        (drill(vms=(one(blocked="no room"),), events=FELT), DrillVerdict.FAILED, "no room"),
        (drill(vms=(one(running_ms=900),)), DrillVerdict.INCONCLUSIVE, "didn't happen"),
        (drill(vms=(one(stopped_by_user=True),), events=FELT), DrillVerdict.INCONCLUSIVE, "user"),
        (drill(vms=(one(DrillPromise.WAITS),), events=FELT), DrillVerdict.INCONCLUSIVE, "again"),
        (drill(vms=(one(DrillPromise.WAITS, running_ms=60_000),), events=FELT), DrillVerdict.PASSED, "ran again"),
        (drill(DrillKind.AGENT_KILL, events=events(*AGENT, ("agent-back", 2200))), DrillVerdict.PASSED, "2.2 s"),
        (drill(DrillKind.AGENT_KILL, events=events(*AGENT)), DrillVerdict.FAILED, "never"),
        (drill(DrillKind.AGENT_KILL, events=events(*AGENT, ("agent-back", 31_000))), DrillVerdict.FAILED, "31.0 s"),
        (drill(DrillKind.LEADER_LOSS, events=events(*AGENT, ("agent-back", 2200), ("writes-back", 5900))), DrillVerdict.PASSED, "5.9 s"),
        (drill(DrillKind.LEADER_LOSS, events=events(*AGENT, ("agent-back", 2200), ("writes-back", 6100))), DrillVerdict.FAILED, "6.1 s"),
        (drill(vms=(one(running_ms=900),), events=FELT, left_to_do="switch it on"), DrillVerdict.FAILED, "switch it on"),
    ],
)  # fmt: skip
def test_verdicts(ended: Drill, verdict: DrillVerdict, words: str) -> None:
    found = judged(ended, DEFAULT)
    assert found.verdict is verdict
    assert words in found.why


def test_a_broken_promise_stays_broken_though_the_drill_was_cut_short() -> None:
    late = drill(vms=(one(running_ms=25_000),), events=FELT, abort_reason="enough")
    assert judged(late, DEFAULT, cut_short="enough").verdict is DrillVerdict.FAILED
    open_ = drill(vms=(one(),), events=FELT, abort_reason="enough")
    assert judged(open_, DEFAULT, cut_short="enough").verdict is DrillVerdict.ABORTED


# -- the report


def test_the_report_says_the_verdict_first_and_the_same_in_both_forms(request) -> None:
    whole = drill(
        state=DrillState.ENDED,
        vms=(one(taken_ms=6200, running_ms=6800, now_on="h3"),),
        events=(
            *events(("fault", 0)),
            DrillEvent(after_ms=4600, code="suspected", text="h2 is suspected"),
        ),
    )
    report = report_of(judged(whole, DEFAULT), DEFAULT, "h1")
    assert report.text.startswith(
        "PASSED: power-off h2: 1 VM ran again after 6.8 s at most; 21.0 s is promised\n"
    )
    for words in (
        "What was done",
        "h1 watched",
        "T_safe 19 s",
        "+4.6",
        "6.8 s of 21.0 s",
        "What to do",
    ):
        assert words in report.text
        assert words.replace("_", "\\_") in report.markdown
    assert "| VM | WAS ON |" in report.markdown


def test_a_name_cannot_spoil_the_markdown() -> None:
    odd = drill(vms=(one(blocked="a | b <script>"),), events=FELT, state=DrillState.ENDED)
    text = report_of(judged(odd, DEFAULT), DEFAULT, "h1").markdown
    assert "a \\| b \\<script\\>" in text


def test_a_short_cut_promises_that_nothing_changes() -> None:
    for duration_s, words in ((8, "changes nothing"), (34, "run elsewhere within 21 s")):
        cut = drill(DrillKind.NETWORK_CUT, duration_s=duration_s)
        assert words in report_of(cut, DEFAULT, "h1").text


@pytest.mark.parametrize("kind", list(DrillKind))
@pytest.mark.parametrize("verdict", list(DrillVerdict))
def test_every_report_says_what_to_do(kind: DrillKind, verdict: DrillVerdict) -> None:
    report = report_of(drill(kind, verdict=verdict, left_to_do="press the button."), DEFAULT, "h1")
    assert "press the button" in report.to_do
    assert report.meaning


# -- a host's cuts


def test_a_cut_ends_in_the_kernel_at_its_time() -> None:
    rules = cut_rules(["192.0.2.1", "2001:db8::1"], 30)
    assert "192.0.2.1 timeout 30s" in rules
    assert "2001:db8::1 timeout 30s" in rules
    assert rules.count("drop") == 4


@pytest.mark.parametrize(
    ("addresses", "duration_s"),
    [
        ([], 30),
        (["192.0.2.1"], 0),
        (["192.0.2.1"], 121),
        (["h2; reboot"], 30),
        (["127.0.0.1"], 30),
        (["::"], 30),
        (["192.0.2.1 } flush ruleset"], 30),
    ],
)
def test_no_other_cut_is_made(addresses: list[str], duration_s: int) -> None:
    with pytest.raises(ConflictError):
        cut_rules(addresses, duration_s)


MOUNTS = """\
24 1 8:1 / / rw - ext4 /dev/sda1 rw
30 24 0:45 / /srv/shared rw - nfs4 nas:/vol rw,vers=4.2,proto=tcp,addr=192.0.2.50
31 30 0:46 / /srv/shared/local rw - tmpfs tmpfs rw
"""


def test_the_server_of_a_storage_is_that_of_the_mount_it_lies_on() -> None:
    assert server_of(MOUNTS, "/srv/shared/kvorum") == "192.0.2.50"
    for path in ("/var/lib", "/srv/shared/local/x", "/srv/shared2"):
        with pytest.raises(ConflictError, match="not mounted by NFS"):
            server_of(MOUNTS, path)


def test_the_view_is_not_changed_by_a_check() -> None:
    seen = view(vm("web"))
    before = dataclasses.replace(seen)
    check(seen, DrillKind.POWER_OFF)
    assert seen == before
