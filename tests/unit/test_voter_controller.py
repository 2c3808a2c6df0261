"""The leader's loop: hosts that keep up get votes, dead voters lose theirs, and everybody can read why."""

import asyncio

from msgspec.structs import replace

from core.model import Event, Vote
from nodeagent.services.event_log import EventLog
from nodeagent.services.member_states import MemberStates
from nodeagent.services.voter_controller import ASIDE_S_MAX, VoterController
from tests.many_hosts import ManyHosts, id_of
from tests.one_member import LoopClock, in_virtual_time, running, until


def roles_test(test):
    def wrapper() -> None:
        async def main() -> None:
            many = ManyHosts(clock=LoopClock())
            await many.found()
            await test(many)

        in_virtual_time(main)

    wrapper.__name__ = test.__name__
    return wrapper


def controlled(many: ManyHosts):
    controller = VoterController(many.node, MemberStates(many.node), EventLog(many.node))
    return running(controller.run)


@roles_test
async def test_the_third_host_brings_both_others_a_vote(many):
    async with controlled(many):
        await many.join(2)
        await asyncio.sleep(5)
        assert many.votes() == "1"
        await many.join(3)
        await until(lambda: many.votes() == "123", 10)
        await asyncio.sleep(5)
    assert many.engine.orders == ["+2", "+3"]
    assert many.events() == ["voter-added h2", "voter-added h3"]
    (event, _) = many.store.since(Event, 0)
    assert event.message == "host h2 votes now: a cluster of 3 hosts has 3 voters"


@roles_test
async def test_a_dead_voter_is_told_of_and_replaced_after_the_time_that_was_set(many):
    await many.join(2, 3, 4)
    many.vote(2, 3)
    await many.store.apply(puts=(replace(many.mesh(), voter_replace_after_s=60),))
    async with controlled(many):
        many.die(3)
        await asyncio.sleep(58)
        assert many.engine.orders == []
        await until(lambda: many.votes() == "124", 10)
    assert many.engine.orders == ["-3", "+4"]
    assert many.events() == ["voter-dead h3", "voter-removed h3", "voter-added h4"]


@roles_test
async def test_a_host_that_does_not_answer_or_says_that_it_is_broken_gets_no_vote(many):
    await many.join(2, 3, 4, 5)
    many.die(2)
    many.mesh_client.states[id_of(3)] = many.state(fault="its state differs: restore it")
    async with controlled(many):
        await until(lambda: many.votes() == "145", 10)
        await asyncio.sleep(20)
    assert many.votes() == "145"


@roles_test
async def test_a_host_that_is_just_joining_waits_seconds_for_its_vote(many):
    await many.join(2, 3)
    many.die(3)
    async with controlled(many):
        await asyncio.sleep(3)
        assert many.votes() == "1"
        many.mesh_client.states[id_of(3)] = many.state()
        await until(lambda: many.votes() == "123", 10)


@roles_test
async def test_a_silent_candidate_is_asked_ever_more_seldom(many):
    await many.join(2, 3)
    many.die(3)
    async with controlled(many):
        await asyncio.sleep(600)
        assert 10 <= many.mesh_client.asked.count("h3/mesh/state") <= 20
        many.mesh_client.states[id_of(3)] = many.state()
        await until(lambda: many.votes() == "123", ASIDE_S_MAX + 10)


@roles_test
async def test_a_candidate_that_cannot_be_added_makes_room_for_another(many):
    await many.join(2, 3, 4)
    many.engine.refuses.add(id_of(2))
    async with controlled(many):
        await until(lambda: many.votes() == "134", 10)


@roles_test
async def test_a_leader_that_shall_not_vote_hands_over(many):
    await many.join(2, 3, 4)
    many.vote(2, 3)
    await many.change(1, vote=Vote.NEVER)
    async with controlled(many):
        await until(lambda: "hand-over" in many.engine.orders, 10)
    assert many.engine.orders == ["+4", "hand-over"]


@roles_test
async def test_only_the_leader_acts(many):
    await many.join(2, 3)
    many.engine.leads = False
    async with controlled(many):
        await asyncio.sleep(20)
        assert (many.engine.orders, many.mesh_client.asked) == ([], [])
        many.engine.leads = True
        await until(lambda: many.votes() == "123", 10)


@roles_test
async def test_a_new_leader_counts_silence_anew(many):
    await many.join(2, 3, 4)
    many.vote(2, 3)
    await many.store.apply(puts=(replace(many.mesh(), voter_replace_after_s=60),))
    many.die(3)
    async with controlled(many):
        await asyncio.sleep(50)
        many.engine.leads = False
        await asyncio.sleep(5)
        many.engine.leads = True
        await asyncio.sleep(50)
        assert many.votes() == "123"
        await until(lambda: many.votes() == "124", 20)


@roles_test
async def test_the_feature_level_is_raised_to_the_lowest_of_all_voters_and_never_lowered(many):
    await many.join(2, 3)
    many.vote(2, 3, level=1)
    await many.store.apply(puts=(replace(many.mesh(), feature_level=0),))
    many.engine.linked.pop(id_of(3))
    async with controlled(many):
        await asyncio.sleep(3)
        assert many.mesh().feature_level == 0, "nobody knows what h3 understands"
        many.link(3, level=1)
        await until(lambda: many.mesh().feature_level == 1, 5)
        many.link(3, level=0)
        await asyncio.sleep(3)
    assert many.mesh().feature_level == 1
    assert many.events().count("feature-level-raised test") == 1
