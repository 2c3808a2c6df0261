"""Strangers at the API's port who mean harm: each is over soon and told why where it can be, while others are served.

What they send goes out byte by byte as written here, which no client library would do. The application is the real one, behind
a real socket; the patience of the agent is shortened, so that a test takes a second.
"""

import asyncio
import contextlib
import io
import json
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from core.model import AccessToken, Event, Permission, Role
from nodeagent.api import events, serving
from nodeagent.api.limits import ApiLimits
from nodeagent.api.serving import runner_of
from nodeagent.identity.tokens import secret_hash
from tests.api import ADMIN, app_of, open_door
from tests.mesh_identity import Authority
from tests.one_member import ADMIN_TOKEN, OneMember

STRANGER, OTHER = "127.0.0.9", "127.0.0.8"
PATIENCE_S = 0.5
SOON_S = 4.0  # what is over after a patience is over by then, on a busy machine too
SERVED_S = 2.0
EVENT = Event(id="e1", name="e1", code="c", subject="s", subject_name="", message="")
SECRET_PATH = "/v1/smuggled"


@dataclass
class Heard:
    """What a stranger was answered until the agent hung up, and after how long that was."""

    text: bytes
    after_s: float

    @property
    def statuses(self) -> list[int]:
        return [int(found) for found in re.findall(rb"HTTP/\d\.\d (\d{3}) ", self.text)]

    def problem(self) -> dict:
        """Return the last answer's problem."""
        head, _, body = self.text.rpartition(b"\r\n\r\n")
        assert b"application/problem+json" in head.rpartition(b"HTTP/1.1")[2], self.text
        return json.loads(body)


class Agent:
    """An agent under attack, and how to attack it."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def connect(self, address: str = STRANGER, **options):
        return await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(address, 0), **options
        )

    async def say(
        self, words: bytes | Callable[[asyncio.StreamWriter], Awaitable[None]], **options
    ) -> Heard:
        """Say something, all at once or as a function does it, and listen until the agent hangs up."""
        begun = time.monotonic()
        reader, writer = await self.connect(**options)

        async def talk() -> None:
            with contextlib.suppress(OSError):
                if isinstance(words, bytes):
                    writer.write(words)
                    await writer.drain()
                else:
                    await words(writer)

        heard = b""
        async with asyncio.TaskGroup() as group:
            talking = group.create_task(talk(), name="talk")
            with contextlib.suppress(OSError):
                while piece := await reader.read(1 << 16):
                    heard += piece
            talking.cancel()
        writer.close()
        return Heard(heard, time.monotonic() - begun)

    @contextlib.asynccontextmanager
    async def others_served(self) -> AsyncIterator[None]:
        """Have another client ask all the time, for the block: every answer is right, and soon there."""
        waits: list[float] = []

        async def ask() -> None:
            connector = aiohttp.TCPConnector(local_addr=(OTHER, 0))
            async with aiohttp.ClientSession(connector=connector, headers=ADMIN) as http:
                while True:
                    begun = time.monotonic()
                    response = await http.get(f"http://127.0.0.1:{self.port}/v1/whoami")
                    assert response.status == 200
                    await response.read()
                    waits.append(time.monotonic() - begun)
                    await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as group:
            asking = group.create_task(ask(), name="another client")
            yield
            asked = len(waits)
            async with asyncio.timeout(SERVED_S):
                while len(waits) <= asked:  # and afterwards, too
                    await asyncio.sleep(0.01)
            asking.cancel()
        assert max(waits) < SERVED_S


@pytest.fixture
def impatient(monkeypatch) -> None:
    for name in ("HEAD_S", "BODY_WINDOW_S", "FETCH_S", "LINGER_S", "HANDSHAKE_TIMEOUT_S"):
        monkeypatch.setattr(serving, name, PATIENCE_S)
    monkeypatch.setattr(serving, "LOOK_S", 0.05)
    monkeypatch.setattr(events, "KEEP_ALIVE_S", 0.05)


@contextlib.asynccontextmanager
async def attacked(
    member: OneMember, context: ssl.SSLContext | None = None, **limits: int
) -> AsyncIterator[Agent]:
    bounds = ApiLimits(**({"requests_per_s": 100_000, "requests_burst": 100_000} | limits))
    runner = runner_of(app_of(member, limits=bounds))
    async with open_door(runner, context, limits=bounds) as port:
        yield Agent(port)
    await runner.cleanup()


def request(line: str, *headers: str, body: bytes = b"", token: str = "") -> bytes:
    head = [f"{line} HTTP/1.1", "Host: h1", *headers]
    head += [f"Authorization: Bearer {token}"] if token else []
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


async def drip(writer: asyncio.StreamWriter, piece: bytes = b"a", every_s: float = 0.02) -> None:
    while True:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(every_s)


async def pour(writer: asyncio.StreamWriter, piece: bytes) -> None:
    while True:
        writer.write(piece)
        await writer.drain()


# -- those who are slow


async def slow_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /v1/vms HTTP/1.1\r\nHost: h1\r\nX-Slow: ")
    await drip(writer)


async def slow_second_head(writer: asyncio.StreamWriter) -> None:
    writer.write(request("GET /v1/vms", token=ADMIN_TOKEN) + b"GET /v1/")
    await drip(writer)


async def slow_body(writer: asyncio.StreamWriter) -> None:
    writer.write(request("POST /v1/login", "Content-Length: 5000", body=b'{"name": "'))
    await drip(writer)


async def slow_pieces(writer: asyncio.StreamWriter) -> None:
    writer.write(request("POST /v1/vms", "Transfer-Encoding: chunked", token=ADMIN_TOKEN))
    await drip(writer, b"1\r\n \r\n")


async def too_short_body(writer: asyncio.StreamWriter) -> None:
    writer.write(request("POST /v1/login", "Content-Length: 500", body=b'{"name": "a"}'))
    await asyncio.Event().wait()


SLOW = {
    "a head that never ends": (slow_head, "too-slow-head"),
    "a second head that never ends": (slow_second_head, "too-slow-head"),
    "a body that trickles": (slow_body, "too-slow-body"),
    "a body that trickles in pieces": (slow_pieces, "too-slow-body"),
    "a body shorter than announced": (too_short_body, "too-slow-body"),
}


async def test_who_is_slow_is_told_so_and_hung_up_on(member, impatient, caplog):
    async with attacked(member) as agent, agent.others_served(), asyncio.timeout(15):
        async with asyncio.TaskGroup() as group:
            tasks = {
                name: group.create_task(agent.say(talk), name=name)
                for name, (talk, _) in SLOW.items()
            }
            silent = group.create_task(agent.say(b""), name="silent")
    for name, (_, code) in SLOW.items():
        heard = tasks[name].result()
        assert (heard.statuses[-1], heard.problem()["code"]) == (408, code), name
        assert heard.after_s < SOON_S, name
    assert (silent.result().text, silent.result().after_s < SOON_S) == (b"", True)
    assert not [r for r in caplog.records if r.levelname == "ERROR"], "strangers fill the log"


async def test_a_long_wait_for_an_answer_is_no_slowness(member, impatient):
    """Long polls, event streams and idle connections of honest clients outlast the patience with the slow."""
    async with attacked(member) as agent, aiohttp.ClientSession(headers=ADMIN) as http:
        url = f"http://127.0.0.1:{agent.port}/v1"
        stream = await http.get(f"{url}/events", headers={"Accept": "text/event-stream"})
        assert (await http.get(f"{url}/vms")).status == 200
        await asyncio.sleep(3 * PATIENCE_S)
        assert (await http.get(f"{url}/vms")).status == 200
        await member.store.apply(puts=(EVENT,))
        async with asyncio.timeout(5):
            while b"e1" not in await stream.content.readline():
                pass
        stream.close()


async def test_who_sends_faster_than_is_read_is_not_taken_for_slow(impatient):
    """An upload waits while its host is busy: the agent holds it back itself."""

    async def read_late(late: web.Request) -> web.Response:
        await asyncio.sleep(3 * PATIENCE_S)
        return web.Response(text=str(len(await late.read())))

    app = web.Application(middlewares=[serving.pace_middleware], client_max_size=64 << 20)
    app.router.add_post("/", read_late)
    runner = runner_of(app)
    async with open_door(runner) as port, aiohttp.ClientSession() as http:
        body = io.BytesIO(b" " * (16 << 20))
        response = await http.post(f"http://127.0.0.1:{port}/", data=body)
        assert await response.text() == str(16 << 20)
    await runner.cleanup()


async def broken_piece(writer: asyncio.StreamWriter) -> None:
    writer.write(request("POST /v1/vms", "Transfer-Encoding: chunked", token=ADMIN_TOKEN))
    await writer.drain()
    await asyncio.sleep(0.1)  # the agent is reading the body by now
    writer.write(b"2\r\n{}nonsense\r\n0\r\n\r\n")
    await writer.drain()


async def test_a_body_that_breaks_its_own_rules_is_the_senders_fault(member, impatient, caplog):
    async with attacked(member) as agent, agent.others_served():
        heard = await agent.say(broken_piece)
    assert heard.statuses[0] in {400, 408}
    assert heard.after_s < SOON_S
    assert not [r for r in caplog.records if r.levelname == "ERROR"]


async def test_who_does_not_fetch_answers_is_hung_up_on(member, impatient):
    for number in range(60):
        await member.add_vm(f"vm{number}", description="x" * 900)
    ask = request("GET /v1/vms", token=ADMIN_TOKEN)
    async with attacked(member) as agent, agent.others_served(), asyncio.timeout(15):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, ("127.0.0.1", agent.port))
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - begun < SOON_S + 4:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):  # a full socket: the agent reads no more
                        await loop.sock_sendall(connection, ask * 4)
        assert time.monotonic() - begun < SOON_S + 4, "never hung up on"
        connection.close()


# -- those who send too much


async def endless_line(writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /")
    await pour(writer, b"a" * 65536)


async def endless_header(writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /v1/vms HTTP/1.1\r\nX: ")
    await pour(writer, b"a" * 65536)


async def endless_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /v1/vms HTTP/1.1\r\n")
    await pour(writer, b"".join(b"X-%d: a\r\n" % n for n in range(1000)))


async def endless_body(writer: asyncio.StreamWriter) -> None:
    writer.write(request("POST /v1/vms", "Transfer-Encoding: chunked", token=ADMIN_TOKEN))
    await pour(writer, b"10000\r\n" + b" " * 65536 + b"\r\n")


async def endless_body_of_a_stranger(writer: asyncio.StreamWriter) -> None:
    writer.write(request("POST /v1/images?name=x", f"Content-Length: {1 << 40}"))
    await pour(writer, b" " * 65536)


async def endless_body_of_a_get(writer: asyncio.StreamWriter) -> None:
    writer.write(request("GET /v1/whoami", "Transfer-Encoding: chunked", token=ADMIN_TOKEN))
    await pour(writer, b"10000\r\n" + b" " * 65536 + b"\r\n")


async def after_an_upgrade(writer: asyncio.StreamWriter) -> None:
    writer.write(
        request("GET /v1/events", "Connection: Upgrade", "Upgrade: websocket", token=ADMIN_TOKEN)
    )
    await pour(writer, b"\x82\x7f" + b"\0" * 65536)


LARGE = {
    "an endless request line": (endless_line, 400),
    "an endless header": (endless_header, 400),
    "endless headers": (endless_headers, 400),
    "an endless body": (endless_body, 413),
    "an endless body of nobody": (endless_body_of_a_stranger, 401),
    "an endless body where none is read": (endless_body_of_a_get, 200),
    "data after an upgrade that isn't made": (after_an_upgrade, 200),
}


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_who_sends_without_end_is_hung_up_on_and_kept_nowhere(member, impatient):
    async with attacked(member) as agent, agent.others_served(), asyncio.timeout(18):
        before = resident_bytes()
        for name, (talk, status) in LARGE.items():
            heard = await agent.say(talk)
            # What is sent into a closed connection may take the answer away with it.
            assert heard.statuses[:1] in ([status], []), (name, heard.text[:200])
            assert heard.after_s < SOON_S, name
        assert resident_bytes() - before < 64 << 20


BAD_HEADS = {
    "a header too large": request("GET /v1/vms", "X-Large: " + "a" * 5000),
    "too many headers": request("GET /v1/vms", *(f"X-{n}: a" for n in range(200))),
    "a path too long": request("GET /v1/vms?q=" + "a" * 9000),
    "no version": b"GET /v1/vms\r\n\r\n",
    "another version": b"GET /v1/vms HTTP/3.7\r\nHost: h1\r\n\r\n",
    "garbage": bytes(range(256)) * 8,
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200,
    "a header without a colon": request("GET /v1/vms", "nonsense"),
    "a space before the colon": request("GET /v1/vms", "Content-Length : 5", body=b"12345"),
    "a null byte in a header": request("GET /v1/vms", "X: a\0b"),
    "a bare return in a header": request("GET /v1/vms", "X: a\rb"),
    "a length that is none": request("POST /v1/vms", "Content-Length: five", body=b"12345"),
    "a negative length": request("POST /v1/vms", "Content-Length: -1"),
    "a length with a sign": request("POST /v1/vms", "Content-Length: +5", body=b"12345"),
    "a length in hex": request("POST /v1/vms", "Content-Length: 0x5", body=b"12345"),
    "a length beyond all numbers": request("POST /v1/vms", "Content-Length: " + "9" * 30),
    "two lengths": request(
        "POST /v1/vms", "Content-Length: 5", "Content-Length: 6", body=b"123456"
    ),
    "a list of lengths": request("POST /v1/vms", "Content-Length: 5, 6", body=b"123456"),
    "a piece whose size is none": request(
        "POST /v1/vms", "Transfer-Encoding: chunked", body=b"xyz\r\n1\r\n0\r\n\r\n"
    ),
    "a piece with a negative size": request(
        "POST /v1/vms", "Transfer-Encoding: chunked", body=b"-1\r\n1\r\n0\r\n\r\n"
    ),
    "a piece larger than all memory": request(
        "POST /v1/vms", "Transfer-Encoding: chunked", body=b"f" * 40 + b"\r\n1\r\n0\r\n\r\n"
    ),
}


@pytest.mark.parametrize("name", BAD_HEADS)
async def test_what_is_no_proper_request_is_answered_with_a_problem_and_the_end(
    member, impatient, name, caplog
):
    async with attacked(member) as agent, agent.others_served():
        heard = await agent.say(BAD_HEADS[name])
    assert set(heard.statuses) <= {400, 401, 408}, heard.text[:300]
    assert heard.statuses, "no answer"
    assert heard.problem()["detail"]
    assert heard.after_s < SOON_S
    assert not [r for r in caplog.records if r.levelname == "ERROR"], "a stranger fills the log"


SMUGGLED = f"GET {SECRET_PATH} HTTP/1.1\r\nHost: h1\r\n\r\n".encode()
CHUNKED_END = b"0\r\n\r\n"
SMUGGLING = {
    "length and pieces": request(
        "POST /v1/login",
        f"Content-Length: {len(CHUNKED_END) + len(SMUGGLED)}",
        "Transfer-Encoding: chunked",
        body=CHUNKED_END + SMUGGLED,
    ),
    "pieces and a length": request(
        "POST /v1/login",
        "Transfer-Encoding: chunked",
        "Content-Length: 4",
        body=b"5c\r\n" + SMUGGLED + b"\r\n0\r\n\r\n",
    ),
    "pieces, misspelt": request(
        "POST /v1/login", "Transfer-Encoding: xchunked", body=CHUNKED_END + SMUGGLED
    ),
    "pieces, with a tab": request(
        "POST /v1/login", "Transfer-Encoding:\tchunked, identity", body=CHUNKED_END + SMUGGLED
    ),
    "pieces and then something else": request(
        "POST /v1/login",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        body=CHUNKED_END + SMUGGLED,
    ),
    "a folded header": request(
        "POST /v1/login", "X: a\r\n Transfer-Encoding: chunked", body=CHUNKED_END + SMUGGLED
    ),
    "a space before the colon": request(
        "POST /v1/login", "Transfer-Encoding : chunked", body=CHUNKED_END + SMUGGLED
    ),
    "bare line feeds": b"POST /v1/login HTTP/1.1\nHost: h1\nContent-Length: 5\n\n0\n\n\n"
    + SMUGGLED,
    "a bare line feed after a piece": request(
        "POST /v1/login", "Transfer-Encoding: chunked", body=b"0\n\n" + SMUGGLED
    ),
    "a second Host": request(
        "POST /v1/login", "Host: other", "Content-Length: 3, 3", body=b"{ }" + SMUGGLED
    ),
}


@pytest.mark.parametrize("name", SMUGGLING)
async def test_nothing_is_smuggled_past_who_stands_in_between(member, impatient, name):
    """A proxy in front that reads a request otherwise must not let a second one through inside of it: the agent ends the connection."""
    async with attacked(member) as agent, agent.others_served():
        heard = await agent.say(SMUGGLING[name])
    assert SECRET_PATH.encode() not in heard.text, heard.text
    assert len(heard.statuses) <= 2, heard.text
    assert all(status in {400, 401, 408} for status in heard.statuses), heard.text


# -- those who try other ways to what they may not see

PATHS = [
    "/v1/vms/../hosts",
    "/v1/vms/%2e%2e/hosts",
    "/v1/vms/..%2fhosts",
    "/v1/vms/%252e%252e%252fhosts",
    "/v1/vms/..%5chosts",
    "/v1//hosts",
    "//v1/hosts",
    "/./v1/hosts",
    "/v1/hosts/",
    "/v1/hosts%00",
    "/v1/%00/hosts",
    "/v1/%68osts",
    "/v1/hosts;vms",
    "/v1/hosts?plural=vms",
    "/v1/vms?/../hosts",
    "/V1/HOSTS",
    "/v1/vms%2f..%2fhosts",
    "/v1/%ff%fe",
    "/v1/vms/%c0%ae%c0%ae/hosts",
    "http://other.example.org/v1/hosts",
    "http://h1/v1/vms/../hosts",
    "https://h1@other/v1/hosts",
    "/v1/hosts#/v1/vms",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/v1/local/status",
    "/v1/%6cocal/status",
    "/v1//local/status",
    "/v1/local%2fstatus",
    "/v1/vms/../local/status",
    "*",
    "",
]


async def test_no_spelling_of_a_path_shows_what_a_caller_may_not_see(member, impatient):
    role = Role(id="vms", name="vms", permissions=(Permission(kinds=("vm",), actions=("read",)),))
    token = AccessToken(id="t", name="t", secret_sha256=secret_hash("kvt_vms"), role_ids=("vms",))
    await member.store.apply(puts=(role, token))
    await member.add_vm("mine")
    async with attacked(member) as agent, agent.others_served():
        for who in ("", "kvt_vms"):
            for path in PATHS:
                for method in ("GET", "HEAD", "OPTIONS", "CONNECT", "TRACE"):
                    line = request(f"{method} {path}", "Connection: close", token=who)
                    heard = await agent.say(line)
                    assert b'"address"' not in heard.text, (method, path)
                    assert b'"state":"member"' not in heard.text, (method, path)
                    assert b"root:" not in heard.text
                    assert 500 not in heard.statuses, (method, path, heard.text)
                    assert heard.statuses, (method, path)
                    if not who:
                        assert 200 not in heard.statuses, (method, path, heard.text)
        fine = await agent.say(request("GET /v1/vms", "Connection: close", token="kvt_vms"))
        assert b'"mine"' in fine.text  # the token works where it may


# -- those who are many

MANY = 2000
EACH = 64


async def test_thousands_of_idle_connections_of_one_address_leave_room_for_others(
    member, impatient, monkeypatch
):
    monkeypatch.setattr(serving, "HEAD_S", 3.0)
    async with attacked(member, connections_per_address=EACH) as agent, agent.others_served():
        before, held = resident_bytes(), 0
        writers: list[asyncio.StreamWriter] = []
        async with asyncio.timeout(15):
            for _ in range(MANY // 100):
                opened = await asyncio.gather(*(agent.connect() for _ in range(100)))
                await asyncio.sleep(0)
                for reader, writer in opened:
                    try:
                        async with asyncio.timeout(0.001 if held < EACH else 2.0):
                            assert await reader.read(1) == b""
                        writer.close()
                    except TimeoutError:
                        held += 1
                        writers.append(writer)
                    except ConnectionError:
                        writer.close()
        assert held <= 2 * EACH, "hung up on at once, but for those that fit"
        assert resident_bytes() - before < 64 << 20
    for writer in writers:
        writer.close()


async def test_strangers_who_never_finish_a_handshake_are_soon_gone(member, impatient, tmp_path):
    files = Authority(tmp_path).issue("a")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with attacked(member, context) as agent, asyncio.timeout(15):
        async with asyncio.TaskGroup() as group:
            strangers = [
                group.create_task(agent.say(b"\x16\x03\x01" if n % 2 else b""), name=f"s{n}")
                for n in range(200)
            ]
            await asyncio.sleep(0.1)
            async with aiohttp.ClientSession(headers=ADMIN) as http:
                url = f"https://127.0.0.1:{agent.port}/v1/whoami"
                assert (await http.get(url, ssl=trusting)).status == 200
    assert max(task.result().after_s for task in strangers) < SOON_S
