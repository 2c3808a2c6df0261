"""Placement rules: which hosts they leave for a VM, which of them can't both hold, and what is said when one doesn't."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from core.errors import InvalidError
from core.model import VM, Host, PlacementPolicy, PowerState, RuleStrength, VMPhase
from ha.placement import (
    VM_OVERHEAD_MIB,
    PlacementError,
    PlacementRequest,
    PlacementView,
    choose_host,
    loads_of,
    with_followers,
)
from ha.placement_rules import (
    RuleBook,
    RuleError,
    bounds_of,
    broken,
    contradictions,
    refuse_contradiction,
)
from tests.placement_worlds import hold, placement_rules, rule

APART, TOGETHER = PlacementPolicy.VM_ANTI_AFFINITY, PlacementPolicy.VM_AFFINITY
ON, OFF = PlacementPolicy.HOST_AFFINITY, PlacementPolicy.HOST_ANTI_AFFINITY
PREFERRED = RuleStrength.PREFERRED


def host(name: str, memory_mib: int = 8192, **changes: object) -> Host:
    made = Host(id=name, name=name, cluster_id="c", address=name, cpus=8, memory_mib=memory_mib)
    return replace(made, **changes)


def vm(name: str, host_id: str = "", memory_mib: int = 1024, **changes: object) -> VM:
    made = VM(id=name, name=name, cluster_id="c", host_id=host_id, cpus=1, memory_mib=memory_mib)
    return replace(made, **({"phase": VMPhase.RUNNING} | changes))


def stopped(name: str, host_id: str = "h1", memory_mib: int = 1024) -> VM:
    return vm(name, host_id, memory_mib, power=PowerState.STOPPED, phase=VMPhase.STOPPED)


def choose(wanted: VM, hosts, vms, rules, **about) -> str:
    known = {one.id: one for one in (*vms, wanted)}
    bounds = bounds_of(RuleBook.of(rules), wanted, known.get, **about)
    request = PlacementRequest(cpus=1, memory_mib=wanted.memory_mib, vm_id=wanted.id)
    view = PlacementView(
        hosts=hosts, vms=vms, lease_ages_s={one.id: 0.5 for one in hosts}, cpu_overcommits={}
    )
    return choose_host(with_followers(request, bounds, lambda _: frozenset()), view).host_id


H1, H2, H3 = host("h1", 16384), host("h2"), host("h3", 4096)


def test_vms_kept_apart_do_not_meet_and_the_refusal_says_by_which_rule():
    rules = [rule("web", APART, ["a", "b", "n"])]
    assert choose(vm("n"), [H1, H2], [vm("a", "h1")], rules) == "h2"
    with pytest.raises(PlacementError) as refused:
        choose(vm("n"), [H1, H2], [vm("a", "h1"), vm("b", "h2")], rules)
    assert refused.value.message == (
        "no host can take the VM: h1: rule 'web' keeps it apart from a, which is on it; "
        "h2: rule 'web' keeps it apart from b, which is on it"
    )


def test_a_vm_on_its_way_is_kept_away_from_on_both_hosts():
    moving = vm("a", "h1", migrating_to_host_id="h2")
    assert choose(vm("n"), [H1, H2, H3], [moving], [rule("web", APART, ["a", "n"])]) == "h3"


def test_a_stopped_vm_is_nowhere():
    assert choose(vm("n"), [H1, H2], [stopped("a")], [rule("web", APART, ["a", "n"])]) == "h1"


def test_vms_kept_together_follow_the_one_that_runs_also_through_others():
    rules = [rule("r1", TOGETHER, ["a", "b"]), rule("r2", TOGETHER, ["b", "n"])]
    assert choose(vm("n"), [H1, H2], [vm("a", "h2"), stopped("b")], rules) == "h2"
    full = [vm("a", "h3", 3000)]
    with pytest.raises(
        PlacementError, match="h1: rule 'r2' keeps it on one host with a; h3: 520 MiB"
    ):
        choose(vm("n"), [H1, H3], full, rules)


def test_a_group_on_two_hosts_lets_nothing_start_but_a_running_vm_may_come_nearer():
    rules = [rule("r", TOGETHER, ["a", "b", "n"])]
    split = [vm("a", "h1"), vm("b", "h2")]
    with pytest.raises(PlacementError, match="and these are on several hosts"):
        choose(vm("n"), [H1, H2, H3], split, rules)
    assert choose(vm("n", "h3"), [H1, H2, H3], split, rules, moves=True) in ("h1", "h2")


def test_hosts_that_are_named_are_the_only_ones_or_none():
    assert choose(vm("n"), [H1, H2, H3], [], [rule("on", ON, ["n"], ["h2", "h3"])]) == "h2"
    assert choose(vm("n"), [H1, H2, H3], [], [rule("off", OFF, ["n"], ["h1"])]) == "h2"


@pytest.mark.parametrize(
    ("policy", "hosts"), [(APART, []), (TOGETHER, []), (ON, ["h2"]), (OFF, ["h1"])]
)
def test_a_preferred_rule_comes_first_and_blocks_nothing(policy, hosts):
    beside = vm("a", "h2" if policy is TOGETHER else "h1")
    rules = [rule("soft", policy, ["a", "n"], hosts, PREFERRED)]
    assert choose(vm("n"), [H1, H2], [beside], rules) == "h2"
    assert choose(vm("n"), [H1], [beside], rules) == "h1"


def test_a_group_that_leaves_its_host_goes_where_all_of_it_fits():
    group = [vm("n", "h0", 3000), vm("b", "h0", 3000)]
    rules = [rule("r", TOGETHER, ["n", "b"])]
    hosts = [host("h1", 6000), host("h2", 5000), host("h3", 7300)]
    crowd = vm("crowd", "h3", 400)
    found = choose(group[0], hosts, [crowd, group[1]], rules, leaves=lambda _: True)
    assert found == "h3"
    with pytest.raises(PlacementError, match="h1: 5488 MiB free, 6128 needed"):
        choose(group[0], hosts[:2], [crowd, group[1]], rules, leaves=lambda _: True)


def test_what_its_followers_may_not_do_is_forbidden_to_the_first():
    rules = [rule("r", TOGETHER, ["n", "b"]), rule("off", OFF, ["b"], ["h1"])]
    group = [vm("n", "h0"), vm("b", "h0")]
    assert choose(group[0], [H1, H2], [group[1]], rules, leaves=lambda _: True) == "h2"


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_a_choice_never_breaks_a_mandatory_rule_and_none_means_none(data):
    """Whatever the rules, against their plain words tried on each host with room."""
    hosts = [host(f"h{n}", data.draw(st.integers(2, 8)) * 1024) for n in range(4)]
    ids = st.sampled_from([one.id for one in hosts])
    vms = [
        vm(f"v{n}", data.draw(ids), migrating_to_host_id=data.draw(st.one_of(st.just(""), ids)))
        if data.draw(st.booleans())
        else stopped(f"v{n}")
        for n in range(5)
    ]
    rules = data.draw(placement_rules(vms, hosts))
    wanted = data.draw(st.sampled_from(vms))
    others = [one for one in vms if one.id != wanted.id]
    places = {
        one.id: {one.host_id, one.migrating_to_host_id} - {""}
        for one in others
        if one.power is PowerState.RUNNING
    }
    group = RuleBook.of(rules).group_of(wanted.id)
    beside = set().union(*(places.get(id_, set()) for id_ in group - {wanted.id}))
    loads = loads_of(others)
    legal = {
        one.id
        for one in hosts
        if hold(rules, wanted.id, one.id, places)
        and beside <= {one.id}
        and one.memory_mib - 512 - (loads[one.id].memory_mib if one.id in loads else 0)
        >= wanted.memory_mib + VM_OVERHEAD_MIB
    }
    try:
        found = choose(wanted, hosts, others, rules)
    except PlacementError:
        assert not legal
        return
    assert found in legal
    soft = [replace(one, strength=RuleStrength.MANDATORY) for one in rules if not one.is_mandatory]
    if not any(one.policy is TOGETHER for one in soft):
        missed = {
            id_: sum(not hold([one], wanted.id, id_, places) for one in soft) for id_ in legal
        }
        assert missed[found] == min(missed.values())


def test_rules_of_a_hundred_thousand_vms_cost_nothing_for_one_without():
    rng = random.Random(1)
    rules = [
        rule(f"r{n}", APART, [f"v{rng.randrange(100_000)}" for _ in range(8)]) for n in range(2000)
    ]
    book = RuleBook.of(rules)
    asked: list[str] = []
    began_s = time.process_time()
    for _ in range(100_000):
        bounds_of(book, vm("other"), asked.append)
    assert not asked, "a VM without rules looks at no other"
    assert time.process_time() - began_s < 5.0, "measured 0.5 s"


def test_contradictions_are_named_with_both_rules():
    def name_of(id_: str) -> str:
        return id_.upper()

    one, two = rule("ab", TOGETHER, ["a", "b"]), rule("bc", TOGETHER, ["b", "c"])
    apart = rule("ac", APART, ["a", "c"])
    with pytest.raises(RuleError) as refused:
        refuse_contradiction(apart, [one, two], name_of)
    assert refused.value.code == "rule-contradiction"
    assert refused.value.message.startswith(
        "rules 'ab' and 'ac' can't both hold: A and C would have to be together and apart"
    )
    for first, second in (
        (rule("on1", ON, ["a"], ["h1"]), rule("on2", ON, ["c"], ["h2"])),
        (rule("on1", ON, ["a"], ["h1", "h2"]), rule("on2", OFF, ["b"], ["h1", "h2"])),
    ):
        with pytest.raises(RuleError, match="'on1' and 'on2' can't both hold: they leave no host"):
            refuse_contradiction(second, [one, two, first], name_of)


def test_what_can_hold_is_no_contradiction():
    rules = [
        rule("t", TOGETHER, ["a", "b"]),
        rule("t2", TOGETHER, ["c", "d"]),
        rule("apart", APART, ["a", "c", "e"]),
        rule("soft", APART, ["a", "b"], strength=PREFERRED),
        rule("on", ON, ["a"], ["h1", "h2"]),
        rule("on2", ON, ["b"], ["h2", "h3"]),
        rule("off", OFF, ["b"], ["h1", "h3"]),
    ]
    assert contradictions(rules, str) == []


def test_a_contradiction_of_others_does_not_stand_in_the_way():
    """Two agents may have written them at the same moment; other rules must still be changed, these too."""
    old = [rule("t", TOGETHER, ["a", "b"]), rule("apart", APART, ["a", "b"])]
    refuse_contradiction(rule("new", ON, ["c"], ["h1"]), old, str)
    refuse_contradiction(rule("apart", APART, ["a", "c"]), old, str)


def test_what_is_broken_is_told():
    vms = {one.id: one for one in (vm("a", "h1"), vm("b", "h1"), vm("c", "h2"), stopped("d"))}
    told = {
        name: broken(one, vms.get, str.upper)
        for name, one in {
            "apart": rule("r", APART, ["a", "b", "c", "d", "gone"]),
            "together": rule("r", TOGETHER, ["a", "b", "c", "d"]),
            "on": rule("r", ON, ["a", "c", "d"], ["h2"]),
            "off": rule("r", OFF, ["a", "c", "d"], ["h2"]),
            "fine": rule("r", TOGETHER, ["a", "b", "d"]),
        }.items()
    }
    assert told == {
        "apart": ["a and b are together on H1"],
        "together": ["a is on H1, b is on H1, c is on H2"],
        "on": ["a is on H1"],
        "off": ["c is on H2"],
        "fine": [],
    }


@pytest.mark.parametrize(("policy", "hosts"), [(APART, ("h1",)), (ON, ())])
def test_a_rule_names_hosts_if_it_is_about_hosts(policy, hosts):
    with pytest.raises(InvalidError):
        replace(rule("r", policy, ["a"]), host_ids=hosts).check()
