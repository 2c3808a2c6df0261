"""Thin members: what they know follows what concerns their host, whichever member they ask, and nothing else leaves."""

import asyncio
import random
from types import SimpleNamespace

import pytest

from core.clock import SystemClock
from core.errors import UnavailableError
from core.model import VM, Nic
from nodeagent.services.thin_feeds import AskThin, ThinFeeds
from raftstate.consensus.single import SingleNodeEngine
from raftstate.filtered import Delta
from raftstate.state.machine import Machine
from raftstate.thin import ThinView, follow
from tests.loose_store import LooseStore


def vm(name: str, host_id: str, **fields) -> VM:
    return VM(id=name, name=name, cluster_id="c", host_id=host_id, cpus=1, memory_mib=64, **fields)


class Agent:
    """A member with a whole copy of the state; it can be down."""

    def __init__(self, machine: Machine, **limits) -> None:
        engine = SingleNodeEngine(machine)
        self.store = LooseStore(machine, engine, clock=SystemClock(), rng=random.Random())
        node = SimpleNamespace(store=self.store, clock=SystemClock())
        self.feeds = ThinFeeds(node, **limits)
        self.up, self.asked = True, 0

    async def ask(self, index: int) -> Delta:
        self.asked += 1
        if not self.up:
            raise UnavailableError("down")
        return await self.feeds.answer("h1", AskThin(index=index), wait_s=0.2)

    async def put(self, *resources) -> None:
        current = [self.store.get(type(r), r.id) for r in resources]
        await self.store.apply(
            puts=[
                r if c is None else type(r)(**{**as_dict(r), "revision": c.revision})
                for r, c in zip(resources, current, strict=True)
            ]
        )


def as_dict(resource) -> dict:
    return {name: getattr(resource, name) for name in resource.__struct_fields__}


async def until(condition, deadline_s: float = 5.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def followed():
    """A thin view of host h1 that follows an agent, and what it heard."""
    agent, view, heard = Agent(Machine(":memory:")), ThinView(), []
    async with asyncio.TaskGroup() as group:
        following = group.create_task(
            follow(view, lambda: [agent.ask], changed=heard.append, rng=random.Random(1)),
            name="follow",
        )
        yield agent, view, heard
        following.cancel()


async def test_a_thin_member_has_its_own_vms_and_no_others(followed):
    agent, view, _ = followed
    await agent.put(vm("mine", "h1"), vm("theirs", "h2"))
    await agent.put(Nic(id="n", name="n", vm_id="mine", port_group_id="p", mac="m", ip="i"))
    await until(lambda: view.get(Nic, "n") is not None)
    assert [found.name for found in view.all(VM)] == ["mine"]
    assert view.get(VM, "mine") == agent.store.get(VM, "mine")
    await agent.put(vm("mine", "h2"))
    await until(lambda: not view.all(VM) and view.get(Nic, "n") is None)


async def test_it_waits_for_changes_instead_of_asking_all_the_time(followed):
    agent, view, heard = followed
    await agent.put(vm("mine", "h1"))
    await until(lambda: view.get(VM, "mine") is not None)
    asked, deltas = agent.asked, len(heard)
    for number in range(20):
        await agent.put(vm(f"theirs-{number}", "h2"))
    await asyncio.sleep(0.1)
    assert agent.asked - asked <= 2
    assert all(not delta.puts for delta in heard[deltas:])


async def test_when_a_member_fails_it_goes_on_at_another_from_where_it_was():
    machine = Machine(":memory:")
    first, second, view = Agent(machine), Agent(machine), ThinView()
    whole: list[bool] = []
    async with asyncio.TaskGroup() as group:
        following = group.create_task(
            follow(
                view,
                lambda: [first.ask, second.ask],
                changed=lambda delta: whole.append(delta.whole),
                rng=random.Random(1),
                pause_s=(0.0, 0.01),
            ),
            name="follow",
        )
        await first.put(vm("a", "h1"))
        await until(lambda: view.get(VM, "a") is not None)
        first.up = False
        await until(lambda: second.asked > 0)
        await second.put(vm("b", "h1"))
        await until(lambda: view.get(VM, "b") is not None)
        following.cancel()
    assert not any(whole[1:])


async def test_a_host_asks_once_at_a_time_and_idle_feeds_end():
    agent = Agent(Machine(":memory:"), idle_s=0.2, feeds_max=1)
    await agent.feeds.answer("h1", AskThin(index=0), wait_s=0.05)
    async with asyncio.TaskGroup() as group:
        group.create_task(agent.feeds.answer("h1", AskThin(index=99), wait_s=0.3), name="first")
        await asyncio.sleep(0.05)
        with pytest.raises(UnavailableError, match="asks already"):
            await agent.feeds.answer("h1", AskThin(index=99), wait_s=0.1)
    with pytest.raises(UnavailableError, match="too many"):
        await agent.feeds.answer("h2", AskThin(index=0), wait_s=0.05)
    await asyncio.sleep(0.25)
    assert (await agent.feeds.answer("h2", AskThin(index=0), wait_s=0.05)).index == 0
