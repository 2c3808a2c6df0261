"""`If-Match`: a change is made only to the state that its caller has seen, and a repetition is known for one."""

import pytest
from aiohttp.test_utils import TestClient

from tests.api import problem_of

VM = {"name": "web1", "image": "debian"}


async def etag_of(api: TestClient, path: str) -> str:
    answer = await api.get(path)
    assert answer.status == 200
    return answer.headers["ETag"]


async def described(api: TestClient, text: str, **headers: str) -> int:
    name = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await api.patch("/v1/vms/web1", json={"description": text}, headers=name)
    return answer.status


async def test_of_two_who_saw_the_same_state_only_the_first_changes_it(api):
    await api.post("/v1/vms", json=VM)
    seen = await etag_of(api, "/v1/vms/web1")
    assert await described(api, "first", If_Match=seen) == 200
    late = await api.patch(
        "/v1/vms/web1", json={"description": "second"}, headers={"If-Match": seen}
    )
    problem = await problem_of(late, 412, "changed-meanwhile")
    assert seen in problem["detail"]
    assert (await (await api.get("/v1/vms/web1")).json())["description"] == "first"
    now = await etag_of(api, "/v1/vms/web1")
    assert await described(api, "second", If_Match=f'"1", {now}') == 200


@pytest.mark.parametrize("condition", ["*", " * "])
async def test_any_state_will_do_if_the_caller_says_so(api, condition):
    await api.post("/v1/vms", json=VM)
    assert await described(api, "anything", If_Match=condition) == 200


@pytest.mark.parametrize("condition", ["", "0", "web1", 'W/"1"', '"' + "9" * 1990 + '"', "\u00e9"])
async def test_a_condition_that_names_no_present_state_changes_nothing(api, condition):
    await api.post("/v1/vms", json=VM)
    assert await described(api, "no", If_Match=condition) == 412
    assert (await (await api.get("/v1/vms/web1")).json())["description"] == ""


async def test_a_method_that_is_not_possible_names_those_that_are(api):
    refused = await api.put("/v1/vms", json={})
    await problem_of(refused, 405, "invalid")
    assert refused.headers["Allow"] == "GET,HEAD,POST"


async def test_a_key_too_long_is_refused_even_where_none_is_needed(api):
    key = {"Idempotency-Key": "k" * 201}
    refused = await api.patch("/v1/members/policy", json={"voters_max": 3}, headers=key)
    await problem_of(refused, 400, "invalid")


async def test_a_condition_too_long_is_refused(api):
    await api.post("/v1/vms", json=VM)
    assert await described(api, "no", If_Match='"1",' * 600) == 400


async def test_a_repeated_change_meets_its_own_outcome_and_not_its_condition(api):
    await api.post("/v1/vms", json=VM)
    seen = await etag_of(api, "/v1/vms/web1")
    assert await described(api, "mine", If_Match=seen, Idempotency_Key="k") == 200
    assert await described(api, "mine", If_Match=seen, Idempotency_Key="k") == 200
    assert await described(api, "mine", If_Match=seen, Idempotency_Key="another") == 412


async def test_deleting_asks_for_the_condition_too(api):
    await api.post("/v1/security-groups", json={"name": "web"})
    seen = await etag_of(api, "/v1/security-groups/web")
    rule = {"protocol": "tcp", "port_first": 80}
    assert (await api.post("/v1/security-groups/web/rules", json=rule)).status == 201
    stale = await api.delete("/v1/security-groups/web", headers={"If-Match": seen})
    await problem_of(stale, 412, "changed-meanwhile")
    now = await etag_of(api, "/v1/security-groups/web")
    assert (await api.delete("/v1/security-groups/web", headers={"If-Match": now})).status == 204
