"""How much one caller may use of the API, and that answers are packed only where nothing secret can be in them."""

import asyncio
import gzip
import io
import json
import zlib

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from core.model import AccessToken
from nodeagent.api import events, packing
from nodeagent.api import limits as limits_module
from nodeagent.api.app import serve_unix
from nodeagent.api.limits import ApiLimits, Buckets, Places
from nodeagent.api.packing import packed, wants_gzip
from nodeagent.api.permissions import NEEDS, Gate
from nodeagent.api.serving import runner_of
from nodeagent.config import read_config
from nodeagent.identity.tokens import secret_hash
from tests.api import ADMIN, app_of, open_door, problem_of
from tests.one_member import ADMIN_TOKEN, OneMember

# -- the parts


def test_a_bucket_lets_through_its_burst_then_its_rate_and_says_how_long_to_wait():
    buckets = Buckets(per_s=10, burst=3)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [0, 0, 0]
    assert buckets.take("a", 0.0) == pytest.approx(0.1)
    assert buckets.take("b", 0.0) == 0
    assert buckets.take("a", 0.1) == 0
    assert buckets.take("a", 0.1) > 0
    assert [buckets.take("a", 100.0) for _ in range(3)] == [0, 0, 0]
    assert buckets.take("a", 100.0) > 0


def test_the_table_of_callers_does_not_grow_without_end(monkeypatch):
    monkeypatch.setattr(limits_module, "KEPT_MAX", 100)
    buckets = Buckets(per_s=1, burst=1)
    for number in range(1000):
        buckets.take(str(number), 0.0)
    assert len(buckets._levels) == 100


def test_places_are_bounded_in_all_and_for_each():
    places = Places(3, 2)
    for key in ("a", "a", "b"):
        assert places.has_room(key)
        places.enter(key)
    assert not places.has_room("c")
    places.leave("b")
    assert places.has_room("c")
    assert not places.has_room("a")


def test_the_settings_name_the_limits(tmp_path):
    file = tmp_path / "agent.toml"
    file.write_text("[api]\nrequests_per_s = 7\n")
    assert read_config(file).api.requests_per_s == 7


# -- requests


async def client_of(member: OneMember, **fields: int) -> TestClient:
    app = app_of(member, limits=ApiLimits(**fields))
    return TestClient(TestServer(app), headers=ADMIN)


async def test_an_address_that_asks_too_often_is_told_when_to_come_back(member):
    async with await client_of(member, requests_per_s=1, requests_burst=3) as api:
        for _ in range(3):
            assert (await api.get("/v1/vms", headers={"Authorization": "x"})).status == 401
        response = await api.get("/v1/vms")
        await problem_of(response, 429, "too-many-requests")
        assert response.headers["Retry-After"] == "1"


async def test_a_caller_is_held_to_its_share_from_all_addresses_together(member):
    token = AccessToken(id="t", name="t", secret_sha256=secret_hash("kvt_other"))
    await member.store.apply(puts=(token,))
    app = app_of(member, limits=ApiLimits(requests_per_s=1, requests_burst=4))
    runner = web.AppRunner(app)
    async with open_door(runner) as port:
        statuses = {}
        for token_text in (ADMIN_TOKEN, "kvt_other"):
            statuses[token_text] = []
            for number in range(2, 8):
                connector = aiohttp.TCPConnector(local_addr=(f"127.0.1.{number}", 0))
                async with aiohttp.ClientSession(connector=connector) as http:
                    headers = {"Authorization": f"Bearer {token_text}"}
                    url = f"http://127.0.0.1:{port}/v1/vms"
                    statuses[token_text].append((await http.get(url, headers=headers)).status)
    assert statuses[ADMIN_TOKEN] == [200, 200, 200, 200, 429, 429]
    assert statuses["kvt_other"][:2] == [200, 200]  # another caller has a share of its own
    await runner.cleanup()


async def test_root_on_the_host_is_never_held_back(member, tmp_path):
    tight = ApiLimits(
        requests_per_s=1, requests_burst=1, event_streams=1, event_streams_per_address=1
    )
    runner = web.AppRunner(app_of(member, limits=tight), shutdown_timeout=0.1)
    await runner.setup()
    await serve_unix(runner, tmp_path / "api.sock")
    connector = aiohttp.UnixConnector(str(tmp_path / "api.sock"))
    async with aiohttp.ClientSession("http://local", connector=connector) as root:
        assert [(await root.get("/v1/vms")).status for _ in range(20)] == [200] * 20
        streams = [
            await root.get("/v1/events", headers={"Accept": "text/event-stream"}) for _ in range(3)
        ]
        assert [stream.status for stream in streams] == [200] * 3
        for stream in streams:
            stream.close()
    await runner.cleanup()


async def test_an_address_has_only_so_many_requests_under_way(member):
    async with await client_of(member, requests_at_once_per_address=3) as api:
        headers = {"Accept": "text/event-stream"}
        streams = [await api.get("/v1/events", headers=headers) for _ in range(3)]
        await problem_of(await api.get("/v1/vms"), 429, "too-many-requests")
        streams[0].close()
        await until_ok(api)


async def until_ok(api: TestClient) -> None:
    async with asyncio.timeout(5):
        while (await api.get("/v1/vms")).status != 200:
            await asyncio.sleep(0.02)


async def test_an_address_has_only_so_many_event_streams_and_gets_a_place_back(member, monkeypatch):
    monkeypatch.setattr(
        events, "KEEP_ALIVE_S", 0.02
    )  # a stream sees that its reader is gone when it writes
    async with await client_of(member, event_streams_per_address=2) as api:
        headers = {"Accept": "text/event-stream"}
        streams = [await api.get("/v1/events", headers=headers) for _ in range(2)]
        await problem_of(await api.get("/v1/events", headers=headers), 429, "too-many-streams")
        assert (await api.get("/v1/events")).status == 200  # a list is no stream
        streams[0].close()
        async with asyncio.timeout(5):
            while (await api.get("/v1/events", headers=headers)).status != 200:
                await asyncio.sleep(0.02)


OPEN_POSTS = [
    route.removeprefix("POST ")
    for route, need in NEEDS.items()
    if need.gate is Gate.OPEN and route.startswith("POST ")
]


@pytest.mark.parametrize("path", OPEN_POSTS)
async def test_strangers_may_send_little(member, path):
    async with TestClient(TestServer(app_of(member))) as stranger:
        body = b"{" + b" " * (65 << 10)

        async def untold():
            yield body

        for data in (body, untold()):
            await problem_of(await stranger.post(path, data=data), 413, "too-large")


async def test_what_is_too_large_is_refused_before_it_is_judged_who_asks(member):
    async with TestClient(TestServer(app_of(member))) as stranger:
        response = await stranger.post("/v1/vms", data=io.BytesIO(b" " * ((1 << 20) + 1)))
        await problem_of(response, 413, "too-large")


async def test_a_packed_body_is_refused_because_nobody_knows_how_large_it_is(member):
    bomb = zlib.compress(b" " * (64 << 20))
    assert len(bomb) < 1 << 20
    runner = runner_of(app_of(member))
    async with open_door(runner) as port, aiohttp.ClientSession(headers=ADMIN) as http:
        for coding in ("gzip", "deflate", "br", "zstd"):
            headers = {"Content-Encoding": coding}
            url = f"http://127.0.0.1:{port}/v1/vms"
            response = await http.post(url, data=bomb, headers=headers)
            await problem_of(response, 415, "invalid")
    await runner.cleanup()


# -- packing


@pytest.mark.parametrize(
    ("accepted", "wanted"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("*", True),
        ("x-gzip", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000, *", False),
        ("br;q=1", False),
        ("gzipped", False),
        ("gzip;q=nonsense", False),
    ],
)
def test_gzip_is_wanted_when_it_is_named_with_a_weight(accepted, wanted):
    assert wants_gzip(accepted) is wanted


async def test_what_is_packed_is_what_it_was():
    body = json.dumps([{"name": f"vm{n}"} for n in range(50_000)]).encode()
    assert gzip.decompress(await packed(body)) == body


async def raw(api: TestClient, path: str, accepted: str = "gzip") -> tuple[bytes, dict]:
    headers = {**ADMIN, "Accept-Encoding": accepted}
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        response = await http.get(api.make_url(path), headers=headers)
        return await response.read(), dict(response.headers)


async def test_a_long_list_is_packed_for_whoever_takes_it(member, api):
    for number in range(20):
        await member.add_vm(f"vm{number}")
    plain, headers = await raw(api, "/v1/vms", "identity")
    assert "Content-Encoding" not in headers
    assert headers["Vary"] == "Accept-Encoding"
    body, headers = await raw(api, "/v1/vms")
    assert (headers["Content-Encoding"], headers["Vary"]) == ("gzip", "Accept-Encoding")
    assert int(headers["Content-Length"]) == len(body) < len(plain) / 3
    assert gzip.decompress(body) == plain
    assert len((await (await api.get("/v1/vms")).json())["items"]) == 20  # as a client reads it


async def test_neither_short_answers_nor_streams_nor_single_resources_are_packed(member, api):
    await member.add_vm("web1", description="x" * 5000)
    for path in ("/v1/whoami", "/v1/vms/web1"):
        _, headers = await raw(api, path)
        assert "Content-Encoding" not in headers, path
    stream = await api.get("/v1/events", headers={"Accept": "text/event-stream"})
    assert "Content-Encoding" not in stream.headers
    stream.close()


async def test_no_answer_to_a_change_is_packed_as_it_may_show_a_secret(api, monkeypatch):
    monkeypatch.setattr(packing, "BYTES_MIN", 1)
    headers = {"Accept-Encoding": "gzip"}
    for path, body in (
        ("/v1/access-tokens", {"name": "ci"}),
        ("/v1/join-tokens", {}),
        ("/v1/accounts", {"name": "alice", "roles": ["viewer"]}),
        ("/v1/accounts/alice/actions/enable-totp", {}),
    ):
        response = await api.post(path, json=body, headers=headers)
        assert response.status < 300, await response.text()
        assert "Content-Encoding" not in response.headers, path
