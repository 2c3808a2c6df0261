"""The API without TLS: nowhere by itself, where a host's settings name a place, and never unnoticed."""

import asyncio
import contextlib
import random
import socket
import ssl

import aiohttp
import pytest

from core.errors import InvalidError
from core.logs import REQUEST_ID
from core.member_file import MemberRecord
from core.model import Event, Severity
from core.paths import Paths
from nodeagent.api.plain_http import PlainHttp, PlainHttpWarning
from nodeagent.config import Config, read_config
from nodeagent.lifecycle import Lifecycle
from nodeagent.member import Basics
from nodeagent.services.member_states import MemberStates
from tests.api import ADMIN, FakeAgent
from tests.golden.cli.cases import kvorum
from tests.golden.cli.stub import StubAgent
from tests.golden.cli.world import small_cluster
from tests.mesh_identity import Authority
from tests.one_member import HOST_ID, OneMember, founded, running, until

PASSWORD = "canary staple 42 battery"


def free_port(address: str) -> int:
    with socket.create_server((address, 0)) as probe:
        return probe.getsockname()[1]


class FakeMember:
    """A member whose services do nothing."""

    def __init__(self, member: OneMember, context: ssl.SSLContext) -> None:
        agent = FakeAgent(member)
        self._agent, self.node, self.services = agent, agent.node, agent.services
        self._context = context

    async def run_services(self) -> None:
        self.begun_by = REQUEST_ID.get()
        await asyncio.Event().wait()

    def api_context(self) -> ssl.SSLContext:
        return self._context


@contextlib.asynccontextmanager
async def agent_of(member: OneMember, directory, config: Config):
    """The agent's life, on a host that is a member; its addresses are loopback ones."""
    files = Authority(directory).issue("a")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    paths = Paths(etc=directory / "etc", state=directory / "state", run=directory / "run")
    lifecycle = Lifecycle(Basics(config, paths, member.clock, random.Random(1)))
    record = MemberRecord(
        host_id=HOST_ID,
        host_name="h1",
        address="127.0.0.3",
        cluster_name="test",
        api_port=config.api_port,
        mesh_port=config.mesh_port,
        founder=True,
        members=(),
    )
    async with running(lifecycle.run):
        await until(paths.api_socket.exists, deadline_s=5)
        REQUEST_ID.set("the request that founded the cluster")
        published = FakeMember(member, context)
        await lifecycle._publish(published, record)
        yield published


async def status_of(url: str) -> int | None:
    """Return the status that a caller with a token gets; None when nobody listens or speaks HTTP there."""
    try:
        async with aiohttp.ClientSession(headers=ADMIN) as http:
            return (await http.get(f"{url}/v1/vms", ssl=False)).status
    except (aiohttp.ClientError, OSError):
        return None


async def test_by_itself_no_port_of_the_agent_speaks_without_tls(tmp_path, caplog):
    member, port = await founded(), free_port("127.0.0.3")
    async with agent_of(member, tmp_path, Config(api_port=port)):
        for address in ("127.0.0.3", "127.0.0.1"):
            assert await status_of(f"https://{address}:{port}") == 200
            assert await status_of(f"http://{address}:{port}") is None
    assert "TLS" not in caplog.text


async def test_what_the_agent_does_from_then_on_is_no_part_of_the_request_that_began_it(tmp_path):
    member, port = await founded(), free_port("127.0.0.3")
    async with agent_of(member, tmp_path, Config(api_port=port)) as published:
        await until(lambda: hasattr(published, "begun_by"), deadline_s=5)
        assert published.begun_by == ""


async def test_switched_on_it_serves_the_same_api_at_the_place_named_and_nowhere_else(
    tmp_path, caplog
):
    member, port, plain = await founded(), free_port("127.0.0.3"), free_port("127.0.0.4")
    config = Config(api_port=port, plain_http=PlainHttp(address="127.0.0.4", port=plain))
    async with agent_of(member, tmp_path, config):
        base = f"http://127.0.0.4:{plain}"
        assert await status_of(base) == 200
        assert await status_of(f"https://127.0.0.4:{plain}") is None
        assert await status_of(f"http://127.0.0.1:{plain}") is None
        assert await status_of(f"https://127.0.0.3:{port}") == 200
        async with aiohttp.ClientSession() as http:  # who gets in is judged as ever
            assert (await http.get(f"{base}/v1/vms")).status == 401
            assert (await http.get(f"{base}/v1/local/status")).status == 403
            account = {"name": "alice", "roles": ["viewer"], "password": PASSWORD}
            made = await http.post(f"{base}/v1/accounts", json=account, headers=ADMIN)
            assert made.status == 201, await made.text()
            entered = await http.post(
                f"{base}/v1/login", json={"name": "alice", "password": PASSWORD}
            )
            session = {"Authorization": f"Bearer {(await entered.json())['token']}"}
            assert (await http.get(f"{base}/v1/vms", headers=session)).status == 200
    (warning,) = (r for r in caplog.records if "WITHOUT TLS" in r.message)
    assert (warning.levelname, warning.url) == ("WARNING", base)
    assert PASSWORD not in caplog.text


async def test_a_place_that_cannot_be_had_keeps_nothing_else_from_working(tmp_path, caplog):
    member, port = await founded(), free_port("127.0.0.3")
    with socket.create_server(("127.0.0.4", 0)) as taken:
        plain = PlainHttp(address="127.0.0.4", port=taken.getsockname()[1])
        async with agent_of(member, tmp_path, Config(api_port=port, plain_http=plain)):
            assert await status_of(f"https://127.0.0.3:{port}") == 200
    assert "can't serve plain HTTP" in caplog.text


async def test_each_start_is_told_by_an_event(tmp_path):
    member = await founded()
    plain = PlainHttp(address="2001:db8::1", port=8080)
    async with running(PlainHttpWarning(member.node, plain).run):
        await until(lambda: member.store.all(Event), deadline_s=5)
        await asyncio.sleep(0.02)  # a service that ends would be started again, and tell it again
    (event,) = member.store.all(Event)
    assert (event.code, event.severity) == ("plain-http", Severity.WARNING)
    assert "http://[2001:db8::1]:8080" in event.message
    assert "remove [plain_http]" in event.message


async def test_an_agent_tells_the_others_of_it():
    member = await founded()
    states = MemberStates(member.node, plain_http="http://10.0.0.1:8080")
    assert (await states.health())[HOST_ID].plain_http == "http://10.0.0.1:8080"


def test_status_says_so_as_long_as_it_is_so():
    world = small_cluster()
    with StubAgent(world) as agent:
        assert "WARNING" not in kvorum("status", agent.address).out
        world.status["members"][1]["plain_http"] = "http://10.0.0.2:8080"
        shown = kvorum("status", agent.address).out
    assert "WARNING  h2 serves the API without TLS on http://10.0.0.2:8080" in shown


@pytest.mark.parametrize(
    "settings",
    [
        'address = "0.0.0.0"\nport = 8080',
        'address = "::"\nport = 8080',
        'address = "h1.example.org"\nport = 8080',
        'address = "127.0.0.1"\nport = 0',
        'address = "127.0.0.1"\nport = 7443',
        'address = "127.0.0.1"\nport = 7444',
        'address = "127.0.0.1"',
        "port = 8080",
        "",
    ],
)
def test_half_a_switch_is_refused_with_the_file_named(tmp_path, settings):
    file = tmp_path / "agent.toml"
    file.write_text(f"[plain_http]\n{settings}\n")
    with pytest.raises(InvalidError, match=r"agent\.toml"):
        read_config(file)
