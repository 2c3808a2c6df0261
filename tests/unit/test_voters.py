"""Who is made a voter, who gives the vote up, in which order, and why."""

import pytest

from core.model import Host, Vote
from raftstate.consensus.engine import Progress
from raftstate.voters import (
    LAG_READY,
    LAG_USABLE,
    Change,
    Policy,
    Situation,
    Step,
    assuming,
    dead,
    losses_survived,
    note_lost,
    plan,
    quorum,
    voters_for,
    wished,
)

INDEX = 50_000
NOW_S = 10_000.0
POLICY = Policy()


def host(id_: str, **fields) -> Host:
    return Host(id=id_, name=id_, cluster_id="c", address=f"192.0.2.{ord(id_[0])}", **fields)


def situation(hosts: str, voters: str, *, down: str = "", **others) -> Situation:
    """Return a situation of hosts with one-letter ids; `a` leads, `down` are silent since long ago."""
    special = others.pop("special", {})
    records = {id_: special.get(id_) or host(id_) for id_ in hosts}
    lags = others.pop("lags", {})
    live = frozenset(hosts) | frozenset(voters)
    live -= frozenset(down)
    made = {
        "leader": "a",
        "hosts": records,
        "voters": frozenset(voters),
        "live": live,
        "lost_since_s": dict.fromkeys(set(down) & set(voters), 0.0),
        "progress": {id_: Progress(INDEX - lags.get(id_, 0), 1, NOW_S) for id_ in live},
        "index": INDEX,
    }
    return Situation(**(made | others))


def steps(at: Situation, policy: Policy = POLICY) -> list[str]:
    """Apply changes until there are no more; return them as text such as `+b` and `-c`."""
    taken: list[str] = []
    while (change := plan(at, policy, NOW_S)) is not None:
        assert len(taken) < 20, f"no end: {taken}"
        assert change.reason
        sign = {Step.ADD: "+", Step.REMOVE: "-", Step.HAND_OVER: ">"}[change.step]
        taken.append(sign + change.host_id)
        at = applied(at, change)
    return taken


def applied(at: Situation, change: Change) -> Situation:
    fields = {f: getattr(at, f) for f in at.__dataclass_fields__}
    match change.step:
        case Step.ADD:
            fields["voters"] = at.voters | {change.host_id}
        case Step.REMOVE:
            fields["voters"] = at.voters - {change.host_id}
        case Step.HAND_OVER:
            fields["leader"] = min((at.voters & at.live) - {at.leader})
    return Situation(**fields)


@pytest.mark.parametrize(
    ("hosts", "most", "voters"),
    [
        *((1, 5, 1), (2, 5, 1), (3, 5, 3), (4, 5, 3), (5, 5, 5), (6, 5, 5), (10_000, 5, 5)),
        *((6, 7, 5), (7, 7, 7), (10_000, 7, 7), (9, 3, 3), (9, 1, 1)),
    ],
)
def test_the_number_of_voters_follows_the_number_of_hosts(hosts, most, voters):
    assert voters_for(hosts, most) == voters
    assert losses_survived(voters) == voters - quorum(voters) == (voters - 1) // 2


@pytest.mark.parametrize(
    ("hosts", "voters", "expected"),
    [
        ("a", "a", []),
        ("ab", "a", []),
        ("abc", "a", ["+b", "+c"]),
        ("abcd", "abc", []),
        ("abcde", "abc", ["+d", "+e"]),
        ("abc", "ab", ["+c"]),
        ("ab", "ab", ["-b"]),
        ("abcd", "abcde", ["-d", "-e"]),  # e was removed from the hosts
    ],
)
def test_voters_grow_and_shrink_with_the_hosts(hosts, voters, expected):
    assert sorted(steps(situation(hosts, voters))) == sorted(expected)


def test_the_first_of_two_new_voters_waits_for_the_second():
    behind = LAG_READY + 1
    at = situation("abc", "a", lags={"c": behind})
    assert "c" in wished(at, POLICY, NOW_S)
    assert plan(at, POLICY, NOW_S) is None
    assert steps(situation("abc", "a", lags={"c": LAG_READY})) == ["+b", "+c"]
    assert plan(situation("abc", "ab", lags={"c": behind}), POLICY, NOW_S) is None


def test_a_host_that_does_not_keep_up_or_is_too_old_or_unknown_is_no_candidate():
    for useless in (
        situation("abcd", "abc", down="c", lags={"d": LAG_USABLE + 1}),
        situation("abcd", "abc", down="c", progress={}),
        situation("abcd", "abc", down="cd"),
        situation("abcd", "abc", down="c", special={"d": host("d", maintenance=True)}),
        situation("abcd", "abc", down="c", special={"d": host("d", state="fenced")}),
        situation("abcd", "abc", down="c", special={"d": host("d", joining=True)}),
    ):
        assert plan(useless, POLICY, NOW_S) is None
    old = Policy(feature_level=2)
    assert plan(situation("abcd", "abc", down="c"), old, NOW_S) is None


def test_a_dead_voter_goes_first_and_its_successor_comes_then():
    at = situation("abcd", "abc", down="c")
    change = plan(at, POLICY, NOW_S)
    assert change == Change(Step.REMOVE, "c", "it has been silent for more than 600 s", dead=True)
    assert steps(at) == ["-c", "+d"]


def test_a_voter_is_dead_only_after_the_time_that_was_set():
    silent = dict.fromkeys("c", NOW_S - 599.9)
    at = situation("abcd", "abc", down="c", lost_since_s=silent)
    assert plan(at, POLICY, NOW_S) is None
    assert dead(at, POLICY, NOW_S + 0.2) == {"c"}
    assert plan(at, POLICY, NOW_S + 0.2).step is Step.REMOVE
    assert plan(at, Policy(replace_after_s=30.0), NOW_S).step is Step.REMOVE


def test_silence_is_counted_from_when_this_leader_noticed_it():
    lost = note_lost({}, frozenset("abc"), frozenset("ab"), 5.0)
    assert lost == {"c": 5.0}
    assert note_lost(lost, frozenset("abc"), frozenset("a"), 9.0) == {"b": 9.0, "c": 5.0}
    assert note_lost(lost, frozenset("abc"), frozenset("abc"), 9.0) == {}


def test_without_a_successor_a_dead_voter_of_three_keeps_its_place():
    assert plan(situation("abc", "abc", down="c"), POLICY, NOW_S) is None
    assert plan(situation("abcde", "abcde", down="e"), POLICY, NOW_S) is None


def test_five_with_two_dead_and_no_successor_become_three():
    assert steps(situation("abcde", "abcde", down="de")) == ["-d", "-e"]


def test_two_voters_stay_two_while_the_third_is_missing():
    assert plan(situation("abc", "ab", down="c"), POLICY, NOW_S) is None


def test_nothing_is_proposed_without_a_quorum_or_that_would_cost_it():
    assert plan(situation("abcdef", "abcde", down="cde"), POLICY, NOW_S) is None
    # Growing to five would need four steps by living hosts: with one of three silent, the first newcomer would decide.
    silent = {"c": NOW_S}
    assert plan(situation("abcde", "abc", down="c", lost_since_s=silent), POLICY, NOW_S) is None


def test_one_voter_of_each_failure_domain_comes_before_a_second_of_any():
    racks = {"a": "r1", "b": "r1", "c": "r1", "d": "r2", "e": "r3"}
    special = {id_: host(id_, failure_domain=rack) for id_, rack in racks.items()}
    three = Policy(voters_max=3)
    assert wished(situation("abcde", "a", special=special), three, NOW_S) == set("ade")
    assert steps(situation("abcde", "abc", special=special), three) == ["+d", "-b", "+e", "-c"]
    assert steps(situation("abcde", "ade", special=special), three) == []


def test_hosts_without_a_domain_share_their_fate_with_nobody():
    special = {id_: host(id_, failure_domain="r1") for id_ in "ab"}
    wish = wished(situation("abcd", "a", special=special), POLICY, NOW_S)
    assert wish == set("acd")


def test_witnesses_vote_before_other_hosts_but_never_take_a_lone_vote():
    special = {"d": host("d", witness=True)}
    assert steps(situation("abcd", "abc", special=special)) == ["+d", "-c"]
    assert steps(situation("ad", "a", special=special)) == []


def test_among_equals_those_that_vote_already_go_on():
    assert steps(situation("abcdef", "abcdf")) == []
    assert steps(situation("abcd", "acd")) == []
    assert steps(situation("abcd", "bcd", leader="d")) == []


def test_what_an_operator_pinned_comes_before_everything():
    always = {"d": host("d", vote=Vote.ALWAYS)}
    assert steps(situation("abcd", "abc", special=always)) == ["+d", "-c"]
    never = {"b": host("b", vote=Vote.NEVER)}
    assert steps(situation("abcd", "abc", special=never)) == ["+d", "-b"]
    both = {"d": host("d", vote=Vote.ALWAYS), "c": host("c", witness=True)}
    assert "d" in wished(situation("abcd", "abc", special=both), POLICY, NOW_S)
    lone = {"b": host("b", vote=Vote.ALWAYS)}
    assert steps(situation("ab", "a", special=lone)) == ["+b", ">a", "-a"]


def test_a_leader_that_shall_not_vote_hands_over_when_the_others_are_in_place():
    never = {"a": host("a", vote=Vote.NEVER)}
    assert steps(situation("abcd", "abc", special=never)) == ["+d", ">a", "-a"]
    assert steps(situation("a", "a", special=never)) == []


def test_a_host_that_is_being_removed_counts_no_more():
    never = {"c": host("c", vote=Vote.NEVER)}
    assert steps(situation("abc", "abc", special=never, down="c")) == ["-c", "-b"]
    assert steps(situation("abc", "abc", special=never)) == ["-b", "-c"]


def test_nothing_happens_before_the_cluster_has_records():
    assert plan(situation("", "a"), POLICY, NOW_S) is None


def test_a_host_that_is_still_joining_doesnt_count():
    joining = {"c": host("c", joining=True)}
    assert steps(situation("abc", "a", special=joining)) == []


def test_whom_to_ask_is_who_would_be_wished_if_all_kept_up():
    at = situation("abcdefgh", "abc", progress={})
    assert wished(at, POLICY, NOW_S) == set("abc")
    assert wished(assuming(at, at.live, 1), POLICY, NOW_S) == set("abcde")
