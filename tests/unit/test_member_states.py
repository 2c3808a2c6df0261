"""What is shown of hosts: how far they are, how they are, and never a wait that has no end."""

import pytest

from nodeagent.services.feed_follower import FeedFollower
from nodeagent.services.member_states import ASKED_MAX, LAG_CATCHING_UP, Linked, MemberStates
from tests.many_hosts import ManyHosts, id_of
from tests.one_member import HOST_ID, LoopClock, in_virtual_time, running, until


@pytest.fixture
async def many() -> ManyHosts:
    made = ManyHosts()
    await made.found()
    return made


async def health_of(many: ManyHosts) -> dict[str, str]:
    shown = await MemberStates(many.node).health()
    return {id_[0]: found.health for id_, found in shown.items()}


async def test_every_host_is_shown_as_it_says_of_itself_or_as_those_who_feed_it_say(many):
    await many.join(2, 3, 4, 5, 6)
    late = many.machine.applied() - LAG_CATCHING_UP - 1
    states = many.mesh_client.states
    states[id_of(3)] = many.state(applied=late)
    states[id_of(4)] = many.state(fault="its state differs from the leader's: restore it")
    many.die(5)
    states[id_of(2)] = many.state(linked={id_of(5): Linked(applied=late, level=1)})
    many.die(6)
    assert await health_of(many) == {
        "1": "ok",
        "2": "ok",
        "3": "catching-up",
        "4": "silent: its state differs from the leader's: restore it",
        "5": "catching-up",
        "6": "disconnected",
    }


async def test_lag_is_counted_from_the_leaders_log_and_never_below_zero(many):
    await many.join(2)
    many.mesh_client.states[id_of(2)] = many.state(applied=many.machine.applied() - 7)
    shown = await MemberStates(many.node).health()
    assert (shown[id_of(2)].lag, shown[HOST_ID].lag) == (7, 0)
    many.mesh_client.states[id_of(2)] = many.state(applied=many.machine.applied() + 7)
    shown = await MemberStates(many.node).health()
    assert shown[id_of(2)].lag == 0


async def test_this_host_shows_its_own_fault(many):
    many.engine.fault_text = "a newer generation of the cluster exists"
    assert await health_of(many) == {"1": "silent: a newer generation of the cluster exists"}


async def test_hosts_are_not_asked_twice_in_a_moment_and_not_all_of_them_at_once(many):
    await many.join(2)
    states = MemberStates(many.node)
    await states.health()
    await states.health()
    assert many.mesh_client.asked == ["h2/mesh/state"]
    for number in range(ASKED_MAX + 20):
        host_id = f"{number:08d}-1111-4111-8111-111111111111"
        await many.add_host(host_id, f"x{number}", f"198.51.100.{number}")
    many.mesh_client.asked.clear()
    shown = await MemberStates(many.node).health()
    assert len(many.mesh_client.asked) == ASKED_MAX
    assert {found.health for found in shown.values()} == {"ok", "disconnected", "-"}


def test_a_replica_follows_the_tree_and_is_told_again_when_it_changes():
    async def main() -> None:
        many = ManyHosts(clock=LoopClock())
        await many.found()
        await many.join(2, 3, 4)
        many.vote(2, 3)
        node = many.node_of(id_of(4), "h4")
        async with running(FeedFollower(node).run):
            await until(lambda: many.engine.parents, 5)
            (first,) = many.engine.parents
            assert set(first[:2]) == {id_of(2), id_of(3)}, "those that don't lead before the leader"
            assert first[2] == HOST_ID
            many.vote(4)
            await until(lambda: len(many.engine.parents) == 2, 5)
            assert many.engine.parents[1] == ()

    in_virtual_time(main)
