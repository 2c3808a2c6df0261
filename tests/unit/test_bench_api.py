"""The reading of h2load's words in `make bench-api`, the load of creates, and how soon subscribers of other agents are told."""

import asyncio
import json
import time
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from core.errors import UnavailableError
from tools.bench.api.creates import WRITERS, Order, answer_from, carry_out
from tools.bench.api.delays import EVENT_CODE, measure_delays
from tools.bench.api.load import read

SAID = """
finished in 2.00s, 1500.50 req/s, 556.74KB/s
requests: 4 total, 4 started, 4 done, 4 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 4 2xx, 0 3xx, 0 4xx, 0 5xx
"""
LOG = "1700000000000000\t200\t4000\n1700000000000001\t200\t1000\n1700000000000002\t200\t2000\n"


def test_times_are_sorted_before_a_quantile_is_taken():
    load = read(SAID, LOG)
    assert (load.per_second, load.p50_ms, load.p99_ms) == (1500.5, 2.0, 4.0)


@pytest.mark.parametrize(
    ("said", "log"),
    [
        (SAID.replace("0 4xx", "1 4xx"), LOG),
        (SAID.replace("0 5xx", "3 5xx"), LOG),
        (SAID, ""),
        ("nothing", LOG),
    ],
)
def test_a_run_with_refusals_or_without_answers_is_no_measurement(said, log):
    with pytest.raises(UnavailableError):
        read(said, log)


class _Mesh:
    """Three agents that tell their subscribers of a change; h2 is told late, and the event is of h1."""

    def __init__(self) -> None:
        self.streams: dict[str, list[web.StreamResponse]] = {"h1": [], "h2": [], "h3": []}
        self.refuse = False

    def app(self, host: str) -> web.Application:
        async def events(request: web.Request) -> web.StreamResponse:
            stream = web.StreamResponse()
            await stream.prepare(request)
            self.streams[host].append(stream)
            await asyncio.Event().wait()
            return stream

        async def rotate(request: web.Request) -> web.Response:
            if self.refuse:
                return web.Response(status=409, text="under way")
            now_ms = time.time_ns() // 1_000_000
            event = {"id": "e", "code": EVENT_CODE, "host_id": "h1", "created_ms": now_ms - 500}
            for late, line in ((False, b'data: {"id":"x","code":"other","host_id":"h1",'
                                       b'"created_ms":0}\n'),
                               (True, b"data: " + json.dumps(event).encode() + b"\n")):  # fmt: skip
                for name, streams in self.streams.items():
                    if late and name == "h2":
                        await asyncio.sleep(0.01)
                    for stream in streams:
                        await stream.write(line)
            return web.Response(status=202)

        async def token(request: web.Request) -> web.Response:
            return web.Response(status=201)

        app = web.Application()
        app.router.add_get("/v1/events", events)
        app.router.add_post("/v1/secrets/actions/rotate", rotate)
        app.router.add_post("/v1/access-tokens", token)
        return app


@asynccontextmanager
async def mesh_of(tmp_path):
    mesh, sockets, runners = _Mesh(), {}, []
    for host in mesh.streams:
        runner = web.AppRunner(mesh.app(host), shutdown_timeout=0.1)
        await runner.setup()
        sockets[host] = tmp_path / host
        await web.UnixSite(runner, str(sockets[host])).start()
        runners.append(runner)
    try:
        yield mesh, sockets
    finally:
        for runner in runners:
            await runner.cleanup()


async def test_only_subscribers_of_other_agents_are_timed_and_only_for_that_event(tmp_path):
    async with mesh_of(tmp_path) as (_, sockets):
        delays = await measure_delays(sockets, "h2")
    assert 500 <= delays.event_ms < 5000, "since the time that the event says"
    assert 0 < delays.commit_ms < 5000


async def test_a_refused_change_ends_the_measurement(tmp_path):
    async with mesh_of(tmp_path) as (mesh, sockets):
        mesh.refuse = True
        with pytest.raises(UnavailableError, match="under way"):
            await measure_delays(sockets, "h2")


@asynccontextmanager
async def maker_of(socket, *, answer):
    """Serve creates on a unix socket; gives the names that came, and with which token."""
    came = []

    async def create(request):
        came.append(((await request.json())["name"], request.headers["Authorization"]))
        return await answer(request, len(came))

    app = web.Application()
    app.router.add_post("/v1/things", create)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    try:
        yield came
    finally:
        await runner.cleanup()


def order_of(socket, seconds):
    return Order(
        base="http://host",
        path="/v1/things",
        prefix="made",
        seconds=seconds,
        socket=str(socket),
        headers={"Authorization": "Bearer t"},
    )


async def answered(request, number):
    """Answer in both ways in which a body may come."""
    if number % 2:
        return web.json_response({"id": "x" * 300}, status=201)
    response = web.StreamResponse(status=201)
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(b"{}" * 200)
    await response.write(b"\r\n0\r\n")
    await response.write_eof()
    return response


async def test_creates_have_names_of_their_own_and_are_all_counted(tmp_path):
    async with maker_of(tmp_path / "s", answer=answered) as came:
        rate = await carry_out(order_of(tmp_path / "s", 0.3))
    names = [name for name, _ in came]
    assert len(set(names)) == len(names) > WRITERS
    assert {token for _, token in came} == {"Bearer t"}
    assert 0 < rate <= len(came) / 0.3


async def test_a_refused_create_ends_the_load(tmp_path):
    async def refused(request, number):
        return web.Response(status=503 if number > 40 else 201, text="no quorum")

    async with maker_of(tmp_path / "s", answer=refused):
        with pytest.raises(UnavailableError, match="no quorum"):
            await carry_out(order_of(tmp_path / "s", 30.0))


async def test_an_answer_of_unknown_length_is_no_measurement():
    reader = asyncio.StreamReader()
    reader.feed_data(b"HTTP/1.1 201 Created\r\nConnection: close\r\n\r\n{}")
    with pytest.raises(UnavailableError):
        await answer_from(reader)
