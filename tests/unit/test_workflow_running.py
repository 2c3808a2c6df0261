"""Workflows of plug-ins are run by people: those that say so, on VMs they may operate, with what the definition asks for."""

import pytest
from aiohttp.test_utils import TestClient, TestServer

from core.errors import FatalError
from core.model import (
    VM,
    AccessToken,
    Audit,
    Permission,
    PowerState,
    Role,
    Task,
    TaskState,
    VMPhase,
)
from core.workflow_definition import Source, parse_definitions
from nodeagent.identity.tokens import secret_hash
from nodeagent.plugins.plugins import Plugins
from nodeagent.workflows.registry import STEPS, check_runnable, load_registry
from tests.api import ADMIN, FakeAgent, app_of, problem_of
from tests.one_member import LoopClock, OneMember, founded, in_virtual_time, until
from tests.unit.test_plugins import example
from tests.workflow_world import ENDED, World

__all__ = ("example",)  # a fixture

RUN = "/v1/workflows/stop-and-note/actions/run"
NOTE = {"vm": "a", "arguments": {"note": "out of use"}}


@pytest.fixture
async def member() -> OneMember:
    made = await founded()
    await made.add_vm("a", phase=VMPhase.RUNNING)
    await made.add_vm("off", power=PowerState.STOPPED)
    return made


def app(member: OneMember, fake: FakeAgent | None = None):
    fake = fake or FakeAgent(member)
    object.__setattr__(fake.services, "plugins", Plugins())
    return app_of(member, fake)


async def test_those_that_can_be_run_are_listed_with_what_they_take(member, example):
    async with TestClient(TestServer(app(member)), headers=ADMIN) as api:
        answer = await (await api.get("/v1/workflows")).json()
    (item,) = answer["items"]
    assert (item["name"], item["run_on"]) == ("stop-and-note", "vm")
    assert [(one["name"], one["required"]) for one in item["inputs"]] == [
        ("note", True),
        ("force", False),
    ]
    assert item["steps"] == ["stop-guest", "note-description"]


async def test_a_run_is_a_task_with_the_wish_that_its_first_step_is_about(member, example):
    fake = FakeAgent(member)
    async with TestClient(TestServer(app(member, fake)), headers=ADMIN) as api:
        key = {"Idempotency-Key": "once"}
        answers = [await api.post(RUN, json=NOTE, headers=key) for _ in range(2)]
        assert [answer.status for answer in answers] == [202, 202]
        ids = {(await answer.json())["task"]["id"] for answer in answers}
    (task,) = member.store.all(Task)
    vm = member.store.find(VM, "a")
    assert ids == {task.id}
    assert (task.workflow, task.subject) == ("stop-and-note", f"vm/{vm.id}")
    assert task.arguments == {"note": "out of use", "force": ""}
    assert vm.power is PowerState.STOPPED
    await fake.services.identity.audits.flush()
    audits = {(audit.action, audit.subject) for audit in member.store.all(Audit)}
    assert audits == {
        ("POST /v1/workflows/{workflow}/actions/run", "workflow/stop-and-note"),
    }


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (RUN, {"vm": "a"}, 400, "invalid"),
        (RUN, {"vm": "a", "arguments": {"note": "x" * 61}}, 400, "invalid"),
        (RUN, {"vm": "a", "arguments": {"note": "x", "timeout_s": "1"}}, 400, "invalid"),
        (RUN, {**NOTE, "vm": "nope"}, 404, "not-found"),
        (RUN, {**NOTE, "vm": "off"}, 409, "conflict"),
        ("/v1/workflows/nope/actions/run", NOTE, 404, "not-found"),
        ("/v1/workflows/delete-vm/actions/run", {"vm": "a"}, 404, "not-found"),
        ("/v1/workflows/stop-vm/actions/run", {"vm": "a"}, 404, "not-found"),
    ],
)
async def test_what_cannot_be_run_is_refused_before_anything_is_done(
    member, example, path, body, status, code
):
    before = member.store.all(VM)
    async with TestClient(TestServer(app(member)), headers=ADMIN) as api:
        await problem_of(await api.post(path, json=body), status, code)
    assert not member.store.all(Task)
    assert member.store.all(VM) == before


async def as_role(member: OneMember, *permissions: Permission) -> TestClient:
    role = Role(id="r", name="r", permissions=permissions)
    token = AccessToken(id="t", name="t", secret_sha256=secret_hash("kvt_t"), role_ids=("r",))
    await member.store.apply(puts=(role, token))
    return TestClient(TestServer(app(member)), headers={"Authorization": "Bearer kvt_t"})


RUNS = Permission(kinds=("workflow",), actions=("operate",))
SEES = Permission(kinds=("vm",), actions=("read",))


@pytest.mark.parametrize(
    ("permissions", "status"),
    [
        ((Permission(kinds=("vm", "task"), actions=("read", "operate")),), 403),
        ((RUNS, SEES), 403),
        ((RUNS, SEES, Permission(kinds=("vm",), actions=("operate@env=test",))), 403),
        ((RUNS, Permission(kinds=("vm",), actions=("read@env=test", "operate"))), 404),
        ((RUNS, SEES, Permission(kinds=("vm",), actions=("operate",))), 202),
    ],
)
async def test_who_runs_one_may_run_workflows_and_operate_the_vm(
    member, example, permissions, status
):
    async with await as_role(member, *permissions) as api:
        assert (await api.post(RUN, json=NOTE)).status == status
    assert bool(member.store.all(Task)) == (status == 202)


async def test_operators_run_none_unless_they_are_given_the_right(member, example):
    async with TestClient(TestServer(app(member))) as api:
        token = AccessToken(
            id="o", name="o", secret_sha256=secret_hash("kvt_o"), role_ids=("operator",)
        )
        await member.store.apply(puts=(token,))
        headers = {"Authorization": "Bearer kvt_o"}
        await problem_of(await api.post(RUN, json=NOTE, headers=headers), 403, "forbidden")


def run_on_a_world(note: str, *, cancel: bool = False) -> tuple[Task, VM, list[str]]:
    """Run the example on a running VM, from the request to the audit."""
    registry, ended = load_registry(), []

    async def main() -> None:
        world = World(await founded(clock=LoopClock()))
        await world.begin()
        async with world.outside():
            vm = await world.made(registry, start=True, shared=True)
            workflow = registry.definitions["stop-and-note"]
            task = (await world.service().run(vm, workflow, {"note": note}, world.ids())).task
            if cancel:
                await world.cancel(task.id)
            async with world.agent(world.h1, registry):
                await until(lambda: world.task(task.id).state in ENDED, 600)
            world.new_agent()
            await world.settle()
            ended.extend((world.task(task.id), world.vm(), await world.garbage()))

    in_virtual_time(main)
    return ended


def test_it_runs_to_its_end_with_progress_and_result(example):
    task, vm, garbage = run_on_a_world("out of use")
    assert (task.state, task.progress) == (TaskState.SUCCEEDED, 100)
    assert task.result == {"note": "[out of use]"}
    assert (vm.phase, vm.description) == (VMPhase.STOPPED, " [out of use]")
    assert garbage == []


@pytest.mark.parametrize("cancel", [False, True])
def test_failed_or_cancelled_it_leaves_the_vm_running(example, cancel):
    task, vm, garbage = run_on_a_world("x" if cancel else "", cancel=cancel)
    assert task.state is (TaskState.CANCELLED if cancel else TaskState.FAILED)
    assert (vm.phase, vm.power, vm.description) == (VMPhase.RUNNING, PowerState.RUNNING, "")
    assert garbage == []


def definition(*steps: str):
    inside = "".join(f'<step ref="{step}"/>' for step in steps)
    text = f'<workflow name="w" run-on="vm">{inside}</workflow>'
    return parse_definitions([Source("w.xml", text)], frozenset((*STEPS, "mine")))["w"]


def test_steps_that_belong_to_requests_of_their_own_are_not_for_people_to_run():
    for steps in (("mine",), ("mine", "reboot-guest"), ("stop-guest", "mine")):
        check_runnable(definition(*steps))
    for step in set(STEPS) - {"reboot-guest", "stop-guest"}:
        with pytest.raises(FatalError, match=f"'{step}' is part of a request of its own"):
            check_runnable(definition("mine", step))
    with pytest.raises(FatalError, match="first step"):
        check_runnable(definition("mine", "stop-guest"))
    assert not any(d.run_on for d in load_registry([]).definitions.values())
