"""Deletions over the API: previews change nothing, what is used stays, and no create slips in between."""

import asyncio

import pytest
from aiohttp.test_utils import TestClient, TestServer

from core.errors import ConflictError
from core.model import (
    VM,
    DataStorage,
    Deletion,
    Disk,
    Host,
    Image,
    PortGroup,
    SecurityGroup,
)
from nodeagent.services.cascade import delete_cascading
from nodeagent.services.host_service import remove_host
from nodeagent.services.housekeeping import Housekeeping
from tests.api import app_of
from tests.one_member import HOST_ID, OTHER_ID, OneMember


async def plan_of(api, path: str) -> dict:
    response = await api.delete(path, params={"dry_run": "1"})
    assert response.status == 200, await response.text()
    return await response.json()


def names(touched: list[dict]) -> set[str]:
    return {f"{one['kind']} {one['name']}" for one in touched}


async def test_a_preview_of_a_vm_names_what_goes_and_changes_nothing(api, member):
    vm = await member.add_vm()
    before = member.store.index
    plan = await plan_of(api, "/v1/vms/web1")
    assert names(plan["deleted"]) == {"disk web1.0", "nic web1.0"}
    assert (plan["allowed"], plan["target"]["name"]) == (True, "web1")
    assert member.store.index == before
    assert member.store.get(VM, vm.id) is not None


@pytest.mark.parametrize(
    ("path", "who"),
    [
        ("/v1/data-storages/shared", "disk web1.0"),
        ("/v1/port-groups/default", "nic web1.0"),
        ("/v1/security-groups/default", "nic web1.0"),
        (f"/v1/hosts/{HOST_ID}", "vm web1"),
        (f"/v1/members/{HOST_ID}", "vm web1"),
    ],
)
async def test_a_preview_says_what_stands_in_the_way_and_so_does_the_refusal(
    api, member, path, who
):
    await member.add_vm()
    before = member.store.index
    plan = await plan_of(api, path)
    assert who in names(plan["refused"])
    assert not plan["allowed"] and "web1" in plan["why_not"]
    assert member.store.index == before, "a preview isn't even recorded"
    response = await api.delete(path)
    assert response.status == 409
    assert (await api.get(path)).status == 200
    assert member.store.all(Deletion) == []


@pytest.mark.parametrize("path", ["/v1/images/debian", "/v1/data-storages/local"])
async def test_what_nothing_uses_is_deleted_and_leaves_no_fence(api, member, path):
    assert (await plan_of(api, path))["allowed"]
    assert (await api.delete(path)).status == 204
    assert (await api.get(path)).status == 404
    assert member.store.all(Deletion) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [("/v1/images/debian", "maybe"), ("/v1/images/debian", ""), ("/v1/tasks/t", "1"),
     ("/v1/access-tokens/admin", "1"), ("/v1/security-groups/default/rules/x", "1")],
)  # fmt: skip
async def test_a_preview_that_is_not_understood_never_deletes(api, member, path, value):
    before = member.store.index
    response = await api.delete(path, params={"dry_run": value})
    assert response.status == 400
    assert "dry_run" in (await response.json())["detail"]
    assert member.store.index == before


async def test_a_preview_needs_credentials_like_the_deletion(member):
    async with TestClient(TestServer(app_of(member))) as stranger:
        response = await stranger.delete("/v1/images/debian", params={"dry_run": "1"})
        assert response.status == 401


CREATE = {"name": "web9", "image": "debian", "cpus": 1, "memory_mib": 512}


def between_the_transactions(member: OneMember, action) -> list[object]:
    """Let `action` happen when a deletion has its fence and is about to commit; return what came of it."""
    came: list[object] = []
    commit = member.engine.propose

    async def propose(payload: bytes, *, timeout_s: float) -> bytes:
        if member.store.all(Deletion) and not came:
            came.append("begun")
            came[0] = await action()
        return await commit(payload, timeout_s=timeout_s)

    member.engine.propose = propose
    return came


@pytest.mark.parametrize(
    "path", ["/v1/images/debian", "/v1/port-groups/default", "/v1/data-storages/local"]
)
async def test_a_vm_created_while_what_it_uses_is_deleted_is_refused(api, member, path):
    async def create() -> int:
        return (await api.post("/v1/vms", json=CREATE)).status

    came = between_the_transactions(member, create)
    assert (await api.delete(path)).status == 204
    assert came == [409]
    assert member.store.all(VM) == [] and member.store.all(Disk) == []


async def test_a_vm_created_just_before_the_fence_keeps_the_image(api, member):
    """It isn't there yet when the deletion is first judged; the fence makes it seen."""
    commit, created = member.engine.propose, []

    async def propose(payload: bytes, *, timeout_s: float) -> bytes:
        member.engine.propose = commit
        created.append((await api.post("/v1/vms", json=CREATE)).status)
        return await commit(payload, timeout_s=timeout_s)

    member.engine.propose = propose
    response = await api.delete("/v1/images/debian")
    assert (created, response.status) == ([202], 409)
    assert "web9.0" in (await response.json())["detail"]
    assert len(member.store.all(Image)) == 1
    assert member.store.all(Deletion) == []


async def test_a_vm_is_not_placed_on_a_host_that_is_being_removed(member):
    await member.add_host(OTHER_ID, "h2", "192.0.2.2")
    host = member.store.need(Host, OTHER_ID)

    async def place() -> str:
        vm = VM(
            id="v", name="v", cluster_id=host.cluster_id, host_id=OTHER_ID, cpus=1, memory_mib=64
        )
        try:
            await member.store.apply(puts=(vm,))
        except ConflictError:
            return "refused"
        return "placed"

    came = between_the_transactions(member, place)
    await remove_host(member.node, host)
    assert came == ["refused"]
    assert member.store.get(Host, OTHER_ID) is None


async def test_a_removed_host_is_forgotten_by_the_images_it_held(member):
    await member.add_host(OTHER_ID, "h2", "192.0.2.2")
    image = await member.add_image("other", host_ids=(HOST_ID, OTHER_ID))
    await remove_host(member.node, member.store.need(Host, OTHER_ID))
    assert member.store.need(Image, image.id).host_ids == (HOST_ID,)


async def test_two_deletions_at_once_do_not_both_succeed(api, member):
    statuses = sorted(
        response.status
        for response in await asyncio.gather(*(api.delete("/v1/images/debian") for _ in range(2)))
    )
    assert statuses[0] == 204 and statuses[1] in (404, 409)
    assert member.store.all(Image) == []


async def test_the_fence_of_an_agent_that_died_is_removed_and_its_own_deletion_is_void(member):
    group = member.store.all(SecurityGroup)[0]
    port_group = member.store.all(PortGroup)[0]
    storage = member.store.all(DataStorage)[0]

    async def a_long_pause() -> None:
        member.clock.pass_s(61)
        await member.store.apply(deletes=Housekeeping(member.node).outdated())

    came = between_the_transactions(member, a_long_pause)
    with pytest.raises(ConflictError):
        await delete_cascading(member.node, group)
    assert came == [None]
    assert member.store.all(Deletion) == []
    for kept in (group, port_group, storage):
        assert member.store.get(type(kept), kept.id) == kept
