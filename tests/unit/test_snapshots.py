"""Snapshots as users ask for them: what is refused, what is repeated, who may, and the tree that comes of it."""

import pytest
from aiohttp.test_utils import TestClient, TestServer
from msgspec.structs import replace

from core.model import VM, Disk, PowerState, Snapshot, SnapshotState, Task, TaskState, VMPhase
from nodeagent.services.snapshots import CHAIN_MAX
from nodeagent.services.task_rescue import Rescue, rescue
from tests.api import FakeAgent, app_of, problem_of
from tests.one_member import OneMember
from tests.unit.test_api_tag_rights import People

STOPPED = {"power": PowerState.STOPPED, "phase": VMPhase.STOPPED}


@pytest.fixture
async def vm(member: OneMember) -> VM:
    return await member.add_vm(**STOPPED)


def disk_of(member: OneMember) -> Disk:
    (disk,) = member.store.all(Disk)
    return disk


async def ended(member: OneMember, task: str) -> None:
    """Let a task be over, so that the VM is free for the next one."""
    done = replace(member.store.need(Task, task), state=TaskState.SUCCEEDED)
    await member.store.apply(puts=[done])


async def chain(member: OneMember, length: int, *, state=SnapshotState.READY) -> list[Snapshot]:
    """Have the disk go on from so many snapshots, one on the other."""
    disk, parent, made = disk_of(member), "", []
    for number in range(length):
        made.append(
            Snapshot(
                id=f"s{number}",
                name=f"s{number}",
                disk_id=disk.id,
                parent_id=parent,
                state=state,
                layer_id=f"layer-{number}",
                size_bytes=disk.size_bytes,
                created_ms=number,
            )
        )
        parent = made[-1].id
    top = replace(disk, layer_id="top", current_snapshot_id=parent)
    await member.store.apply(puts=[*made, top])
    return made


async def take(api: TestClient, **body) -> dict:
    response = await api.post("/v1/snapshots", json={"vm": "web1", **body})
    assert response.status == 202, await response.text()
    answer = await response.json()
    assert response.headers["Location"] == f"/v1/tasks/{answer['task']['id']}"
    return answer


async def test_taking_one_records_what_the_disk_is_written_to_now(api, member, vm):
    answer = await take(api, name="before", description="the old version")
    disk = disk_of(member)
    snapshot = member.store.find(Snapshot, "before")
    assert answer["snapshot"]["id"] == snapshot.id
    assert (snapshot.layer_id, snapshot.parent_id) == (disk.id, "")
    assert (snapshot.state, snapshot.size_bytes) == (SnapshotState.TAKING, disk.size_bytes)
    task = member.store.need(Task, answer["task"]["id"])
    assert (task.workflow, task.subject) == ("take-snapshot", f"vm/{vm.id}")
    assert task.runner_host_id == vm.host_id
    shown = await (await api.get("/v1/snapshots/before")).json()
    assert (shown["disk_name"], shown["description"]) == ("web1.0", "the old version")


async def test_without_a_name_it_is_called_by_its_vm_and_the_moment(api, member, vm):
    name = (await take(api))["snapshot"]["name"]
    assert name.startswith("web1-2026") and len(name) == len("web1-20260921-120000")


@pytest.mark.parametrize(
    "state",
    [
        {"power": PowerState.RUNNING, "phase": VMPhase.RUNNING},
        {"power": PowerState.RUNNING, "phase": VMPhase.STOPPED},
        {"power": PowerState.STOPPED, "phase": VMPhase.RUNNING},
        {"power": PowerState.STOPPED, "phase": VMPhase.PAUSED},
    ],
)
async def test_a_vm_that_is_not_surely_stopped_is_left_alone(api, member, state):
    await member.add_vm(**state)
    await chain(member, 1)
    asked = [
        await api.post("/v1/snapshots", json={"vm": "web1", "name": "before"}),
        await api.post("/v1/snapshots/s0/actions/revert"),
        await api.delete("/v1/snapshots/s0"),
    ]
    for response in asked:
        problem = await problem_of(response, 409, "vm-not-stopped")
        assert "kvorum vm stop web1" in problem["detail"]
    assert member.store.all(Task) == []
    assert [s.name for s in member.store.all(Snapshot)] == ["s0"]


@pytest.mark.parametrize("asked", ["take", "revert", "delete"])
async def test_a_vm_that_is_started_in_the_same_moment_is_left_alone(api, member, vm, asked):
    """Another agent's start is committed between the look at the VM and the commit of the task."""
    await chain(member, 1)
    commit, begun = member.engine.propose, []

    async def propose(payload: bytes, *, timeout_s: float) -> bytes:
        if b"-snapshot" in payload and not begun:
            begun.append(True)
            await member.change_vm(vm.id, power=PowerState.RUNNING, phase=VMPhase.RUNNING)
        return await commit(payload, timeout_s=timeout_s)

    member.engine.propose = propose
    if asked == "take":
        response = await api.post("/v1/snapshots", json={"vm": "web1", "name": "new"})
    elif asked == "revert":
        response = await api.post("/v1/snapshots/s0/actions/revert")
    else:
        response = await api.delete("/v1/snapshots/s0")
    await problem_of(response, 409, "vm-not-stopped")
    assert begun and member.store.all(Task) == []
    assert [s.state for s in member.store.all(Snapshot)] == [SnapshotState.READY]


async def test_a_vm_that_something_else_works_on_is_left_alone(api, member, vm):
    await take(api, name="first")
    for response in (
        await api.post("/v1/snapshots", json={"vm": "web1", "name": "second"}),
        await api.post("/v1/vms/web1/actions/start"),
        await api.delete("/v1/vms/web1"),
    ):
        assert response.status == 409, await response.text()
    assert [task.workflow for task in member.store.all(Task)] == ["take-snapshot"]
    assert [s.name for s in member.store.all(Snapshot)] == ["first"]


async def test_a_repeated_request_is_answered_as_the_first(api, member, vm):
    headers = {"Idempotency-Key": "once"}
    answers = [
        await (
            await api.post("/v1/snapshots", json={"vm": "web1", "name": "a"}, headers=headers)
        ).json()
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert len(member.store.all(Task)) == len(member.store.all(Snapshot)) == 1


async def test_a_taken_name_or_a_bad_one_is_refused(api, member, vm):
    await chain(member, 1)
    taken = await api.post("/v1/snapshots", json={"vm": "web1", "name": "s0"})
    assert "already taken" in (await problem_of(taken, 409, "conflict"))["detail"]
    bad = await api.post("/v1/snapshots", json={"vm": "web1", "name": "../etc"})
    await problem_of(bad, 400, "invalid")
    assert member.store.all(Task) == []


async def test_a_chain_as_long_as_can_be_gets_no_longer(api, member, vm):
    await chain(member, CHAIN_MAX - 1)
    first = await take(api, name="last")
    await ended(member, first["task"]["id"])
    disk = disk_of(member)
    last = member.store.find(Snapshot, "last")
    await member.store.apply(puts=[replace(disk, layer_id="x", current_snapshot_id=last.id)])
    response = await api.post("/v1/snapshots", json={"vm": "web1", "name": "toomany"})
    problem = await problem_of(response, 409, "too-many-snapshots")
    assert "delete one of them first" in problem["detail"]


@pytest.mark.parametrize(("before", "warned"), [(4, False), (5, True)])
async def test_more_than_five_are_warned_of(api, member, vm, before, warned):
    await chain(member, before)
    task = (await take(api, name="another"))["task"]
    assert bool(task["log"]) is warned


async def test_going_back_says_which_layer_is_written_next_and_which_goes(api, member, vm):
    await chain(member, 2)
    response = await api.post("/v1/snapshots/s0/actions/revert")
    assert response.status == 202, await response.text()
    (task,) = member.store.all(Task)
    assert task.workflow == "revert-snapshot"
    assert task.arguments["dropped"] == "top"
    assert task.arguments["snapshot_id"] == "s0"
    assert member.store.find(Snapshot, "s0").state is SnapshotState.READY


@pytest.mark.parametrize("state", [SnapshotState.TAKING, SnapshotState.DELETING])
async def test_one_that_is_not_ready_is_not_gone_back_to(api, member, vm, state):
    await chain(member, 1, state=state)
    response = await api.post("/v1/snapshots/s0/actions/revert")
    assert "not ready" in (await problem_of(response, 409, "conflict"))["detail"]
    assert member.store.all(Task) == []


@pytest.mark.parametrize(
    ("which", "dropped", "has_new"),
    [("s1", "top layer-1", True), ("s0", "layer-0", False)],
)
async def test_deleting_merges_the_disks_own_layer_only_where_it_goes_on_from_it(
    api, member, vm, which, dropped, has_new
):
    await chain(member, 2)
    response = await api.delete(f"/v1/snapshots/{which}")
    assert response.status == 202, await response.text()
    (task,) = member.store.all(Task)
    assert task.arguments["dropped"] == dropped
    assert bool(task.arguments["new_layer_id"]) is has_new
    assert member.store.find(Snapshot, which).state is SnapshotState.DELETING


async def test_deleting_one_that_never_came_to_be_takes_no_file(api, member, vm):
    """A take that was given up leaves its record, which names what the disk is written to."""
    left = Snapshot(id="s", name="s", disk_id=disk_of(member).id, layer_id=disk_of(member).id, size_bytes=512)  # fmt: skip
    await member.store.apply(puts=[left])
    assert (await api.delete("/v1/snapshots/s")).status == 202
    (task,) = member.store.all(Task)
    assert (task.arguments["dropped"], task.arguments["new_layer_id"]) == ("", "")


async def test_a_preview_changes_nothing(api, member, vm):
    await chain(member, 2)
    before = member.store.index
    plan = await (await api.delete("/v1/snapshots/s0", params={"dry_run": "1"})).json()
    assert plan["allowed"] and [one["name"] for one in plan["detached"]] == ["s1"]
    assert member.store.index == before


async def test_a_vm_takes_its_snapshots_along(api, member, vm):
    await chain(member, 2)
    plan = await (await api.delete("/v1/vms/web1", params={"dry_run": "1"})).json()
    assert {"s0", "s1"} <= {one["name"] for one in plan["deleted"]}
    assert plan["allowed"]


async def test_many_are_deleted_each_with_its_own_task(api, member, vm):
    await chain(member, 2)
    other = await member.add_vm("web2", **STOPPED)
    disk = next(d for d in member.store.all(Disk) if d.vm_id == other.id)
    await member.store.apply(
        puts=[
            Snapshot(id="o", name="o", disk_id=disk.id, layer_id="l", size_bytes=512,
                     state=SnapshotState.READY),
        ]
    )  # fmt: skip
    response = await api.post(
        "/v1/snapshots/actions/delete", json={"snapshots": ["s0", "o", "nope"]}
    )
    items = (await response.json())["items"]
    assert [one["status"] for one in items] == [202, 202, 404]
    subjects = [one["task"] and one["task"]["subject"] for one in items]
    assert subjects == [f"vm/{vm.id}", f"vm/{other.id}", None]


async def test_whoever_may_not_operate_the_vm_touches_none_of_its_snapshots(member, vm):
    await chain(member, 1)
    async with TestClient(TestServer(app_of(member, FakeAgent(member)))) as stranger:
        people = People(stranger)
        by = await people.may("snapshot,disk:*", "vm:read")
        for response in (
            await stranger.post("/v1/snapshots", json={"vm": "web1", "name": "x"}, headers=by),
            await stranger.post("/v1/snapshots/s0/actions/revert", headers=by),
            await stranger.delete("/v1/snapshots/s0", headers=by),
        ):
            problem = await problem_of(response, 403, "forbidden")
            assert "operate" in problem["detail"]
        hidden = await people.may("snapshot:*")
        for response in (
            await stranger.post("/v1/snapshots/s0/actions/revert", headers=hidden),
            await stranger.delete("/v1/snapshots/s0", headers=hidden),
        ):
            assert "web1" not in (await problem_of(response, 403, "forbidden"))["detail"]
        named = await stranger.post("/v1/snapshots", json={"vm": "web1"}, headers=hidden)
        await problem_of(named, 403, "forbidden")
    assert member.store.all(Task) == []


async def test_a_snapshot_has_the_tags_of_its_vm_so_the_same_people_see_it(member):
    await member.add_vm(**STOPPED, tags=("env=test",))
    async with TestClient(TestServer(app_of(member, FakeAgent(member)))) as people_api:
        people = People(people_api)
        by = await people.may("vm:read,operate", "snapshot:create")
        made = await people_api.post("/v1/snapshots", json={"vm": "web1", "name": "s"}, headers=by)
        assert made.status == 202, await made.text()
        testers = await people.may("snapshot:read@env=test")
        others = await people.may("snapshot:read@env=prod")
        seen = await (await people_api.get("/v1/snapshots", headers=testers)).json()
        assert [one["name"] for one in seen["items"]] == ["s"]
        seen = await (await people_api.get("/v1/snapshots", headers=others)).json()
        assert seen["items"] == []


@pytest.mark.parametrize("workflow", ["take-snapshot", "revert-snapshot", "delete-snapshot"])
@pytest.mark.parametrize(("shared", "wanted"), [(True, Rescue.MOVE), (False, Rescue.WAIT)])
async def test_another_host_goes_on_for_a_lost_one_where_it_has_the_disk(
    member, vm, workflow, shared, wanted
):
    task = Task(
        id="t", name="t", workflow=workflow, subject=f"vm/{vm.id}", runner_host_id=vm.host_id
    )
    assert rescue(task, vm, disks_are_shared=shared) is wanted
