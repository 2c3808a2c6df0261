"""The client with an access key: what it signs an agent takes, each try anew."""

import hashlib
import random
from pathlib import Path

import pytest
from aiohttp import web

from core.clock import SystemClock
from core.errors import ConflictError, UnauthenticatedError
from core.identity.signing import Signed, is_signed, parse
from core.mesh.tls import TlsFiles
from core.model import Audit, PortGroup, UsedNonce
from nodeagent.api.app import build_app
from nodeagent.api.tls import ApiTls
from tests.api import FakeAgent, open_door
from tests.golden.cli.stub import Fault, StubAgent
from tests.golden.cli.world import small_cluster
from tests.mesh_identity import Authority
from tests.one_member import ADMIN_TOKEN, HOST_ID, OneMember, founded
from tests.signed_requests import ORDER
from tools.sdk.bodies import AccessKeyBody, PortGroupBody
from tools.sdk.client import Client
from tools.sdk.endpoints import parse_endpoints
from tools.sdk.kvorum import connect_async

KEY = ("kvk_3f2a9c5d1b7e4860a9d2c4f6e8b01357", "kvks_ZXhhbXBsZS1vbmx5LXNlY3JldC1vZi10aGUtbWFudWF")
GROUP = PortGroupBody(name="pg", cidr="10.1.0.0/24")


@pytest.fixture
def tls(tmp_path: Path) -> TlsFiles:
    return Authority(tmp_path).issue(HOST_ID)


def client_of(address: str, tls: TlsFiles, key: tuple[str, str] = KEY, **options) -> Client:
    return Client(
        parse_endpoints(address),
        access_key=key,
        ca_file=str(tls.ca),
        rng=random.Random(1),
        **options,
    )


def check(asked, sha256: str) -> tuple[str, str]:
    """See that a request is signed as the stub got it; return its nonce and its Idempotency-Key."""
    small = {name.lower(): value for name, value in asked.headers.items()}
    said = parse(small["authorization"])
    headers = {name: small[name] for name in ORDER if name in small}
    query = "&".join(f"{name}={value}" for name, value in asked.query)
    signed = Signed(asked.method, asked.path + (f"?{query}" if query else ""), headers, sha256)
    assert is_signed(KEY[1].encode(), said, signed)
    return said.nonce, small.get("idempotency-key", "")


async def test_each_try_is_signed_anew_with_the_same_idempotency_key(tls):
    with StubAgent(small_cluster(), ApiTls(tls).context) as agent:
        agent.faults.extend([Fault(503, "no quorum"), Fault(drop_answer=True)])
        async with client_of(agent.address, tls, patience_s=5.0) as client:
            await client.create("port-groups", GROUP)
        tried = [check(a, hashlib.sha256(a.body).hexdigest()) for a in agent.asked]
    assert len(tried) == len({nonce for nonce, _ in tried}) == 3
    assert len({key for _, key in tried}) == 1


async def test_an_upload_is_signed_with_the_hash_of_the_file(tls, tmp_path):
    file = tmp_path / "image"
    file.write_bytes(b"some image")
    with StubAgent(small_cluster(), ApiTls(tls).context) as agent:
        async with client_of(agent.address, tls) as client:
            await client.upload_image("i", file, on_hash=_silent, on_bytes=_silent)
        check(agent.asked[0], hashlib.sha256(b"some image").hexdigest())


async def test_on_a_host_s_own_socket_nothing_is_signed(tls):
    with StubAgent(small_cluster()) as agent:
        async with client_of(agent.address, tls) as client:
            await client.status()
        assert "Authorization" not in agent.asked[0].headers


async def test_the_typed_client_signs_too(tls, tmp_path, monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    file = tmp_path / "image"
    file.write_bytes(b"some image")
    with StubAgent(small_cluster(), ApiTls(tls).context) as agent:
        async with connect_async(agent.address, access_key=KEY, ca_file=str(tls.ca)) as kvorum:
            await kvorum.port_groups.create(name="pg", cidr="10.1.0.0/24")
            await kvorum.images.create(file=file, name="i")
        changes = [asked for asked in agent.asked if asked.method == "POST"]
        for asked in changes:
            check(asked, hashlib.sha256(asked.body).hexdigest())
    assert [asked.path for asked in changes] == ["/v1/port-groups", "/v1/images"]
    assert all("Authorization" in asked.headers for asked in agent.asked)


async def test_a_real_agent_takes_what_the_client_signs(tls, tmp_path):
    member = await founded(clock=SystemClock())
    runner = web.AppRunner(build_app(FakeAgent(member), clock=member.clock, rng=member.rng))
    try:
        async with open_door(runner, ApiTls(tls).context) as port:
            await use(member, f"127.0.0.1:{port}", tls)
    finally:
        await runner.cleanup()


async def use(member: OneMember, address: str, tls: TlsFiles) -> None:
    async with Client(
        parse_endpoints(address), token=ADMIN_TOKEN, ca_file=str(tls.ca), rng=random.Random(2)
    ) as admin:
        made = await admin.create_access_key(AccessKeyBody(name="ci", roles=("admin",)))
        key = (made.text("id"), made.text("secret"))
        async with client_of(address, tls, key) as client:
            assert (await client.who_am_i()).text("via") == "access-key"
            for condition in ("name=w+b & c", "name~=*ä/%41?#", "name?=a,b", 'description="x"'):
                await client.list("vms", query=[condition], sort="-name", fields=["name"], limit=5)
            await client.create("port-groups", GROUP)
            assert member.store.find(PortGroup, "pg")
            with pytest.raises(ConflictError, match="already taken"):
                await client.create("port-groups", GROUP)
            await client.delete("port-groups", "pg")
            with pytest.raises(ConflictError, match="you came in as access-key"):
                await client.log_out()  # which has no body
            await client.request("GET", "/v1/vms?q=name%3Dweb1&limit=1")
            await client.act("access-keys", "ci", "rotate")
            assert {a.operator for a in member.store.all(Audit)} == {"admin", "ci"}
            used = len(member.store.all(UsedNonce))
            with pytest.raises(UnauthenticatedError, match="signature"):
                await client.list("vms")
            assert len(member.store.all(UsedNonce)) == used


def _silent(*_) -> None:
    pass
