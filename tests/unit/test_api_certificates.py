"""The API's certificate as its callers see it: imported, checked, served at once to whoever connects, taken back."""

import asyncio
import base64
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest
import uvloop
from aiohttp import web
from msgspec.structs import replace

from core.errors import FatalError, UnavailableError
from core.identity.certificates import fingerprint, make_request, sign_request
from core.identity.keyring import Keyring
from core.mesh.tls import TlsFiles
from core.model import COLLECTIONS, ApiCertificate
from core.paths import write_file
from nodeagent.api.tls import ApiTls
from nodeagent.joining.joiner import ask_standing
from nodeagent.joining.messages import CLUSTER_NAME
from nodeagent.services.own_certificates import OwnCertificates
from nodeagent.services.secrets_rotation import SecretsRotation
from tests.api import ADMIN, FakeAgent, app_of, open_door
from tests.one_member import HOST_ID, OTHER_ID, OneMember, authority, founded, running, until
from tests.own_certificates import NOW, ROOT, for_names

WORD = "canary-passphrase"


@dataclass
class Served:
    """A member whose API answers over TLS."""

    member: OneMember
    own: OwnCertificates
    http: aiohttp.ClientSession
    port: int

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.port}{path}"

    async def call(self, method: str, path: str, **options) -> tuple[int, dict]:
        async with self.http.request(method, self.url(path), ssl=_trusting_all(), **options) as got:
            return got.status, await got.json(content_type=None)

    async def import_(self, content: bytes, **fields) -> tuple[int, dict]:
        body = {"content": base64.b64encode(content).decode(), **fields}
        return await self.call("POST", "/v1/certificates", json=body)

    def routes(self) -> list[str]:
        """Return the paths of all GET routes, with each collection by its name."""
        paths = {
            route.resource.canonical
            for route in app_of(self.member).router.routes()
            if route.method == "GET"
        }
        paths |= {f"/v1/{plural}" for plural in COLLECTIONS}
        return sorted(paths)

    async def presented(self, name: str = "h1.example.org") -> str:
        """Return the fingerprint of what a new caller is shown."""
        _, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=_trusting_all(), server_hostname=name
        )
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        return fingerprint(_pem(der))


def _pem(der: bytes) -> str:
    return ssl.DER_cert_to_PEM_cert(der)


def _trusting_all() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@asynccontextmanager
async def serving(tmp_path) -> AsyncIterator[Served]:
    member = await founded()
    request_pem, key_pem = make_request(HOST_ID)
    issued = sign_request(
        authority(),
        request_pem,
        host_id=HOST_ID,
        host_name="h1",
        address="192.0.2.1",
        now_ms=member.clock.wall_ms(),
    )
    object.__setattr__(member.node, "paths", replace_state(member.node.paths, tmp_path))
    files = TlsFiles.in_directory(member.node.paths.identity)
    files.ca.parent.mkdir()
    files.ca.write_text(authority().certificate_pem)
    files.certificate.write_text(issued)
    files.key.write_text(key_pem)
    tls = ApiTls(files)
    agent = FakeAgent(member)
    own = OwnCertificates(member.node, tls, secrets_key=lambda: member.secrets_key)
    write_file(member.node.paths.secrets_key, member.secrets_key)
    secrets = SecretsRotation(member.node, Keyring(member.node.paths))
    agent.services = _with(agent.services, certificates=own, secrets=secrets)
    runner = web.AppRunner(app_of(member, agent), shutdown_timeout=0.1)
    async with (
        open_door(runner, tls.context) as port,
        open_door(runner, tls.context, address="127.0.0.2", port=port),
        aiohttp.ClientSession(headers=ADMIN) as http,
    ):
        yield Served(member, own, http, port)
    await runner.cleanup()


def replace_state(paths, state):
    return type(paths)(etc=paths.etc, state=state, run=paths.run)


def _with(services, **others):
    fields = {name: getattr(services, name) for name in services.__dataclass_fields__}
    return type(services)(**(fields | others))


@pytest.fixture
async def api(tmp_path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as served:
        yield served


def test_an_import_is_served_at_once_while_open_connections_go_on(tmp_path):
    """On uvloop, as the agent runs it."""

    async def story() -> None:
        own = for_names("h1.example.org")
        trusted = ssl.create_default_context(cadata=ROOT.pem.decode())
        async with serving(tmp_path) as api:
            issued = await api.presented()
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", api.port, ssl=_trusting_all()
            )
            status, shown = await api.import_(own.as_pkcs12(WORD), passphrase=WORD)
            assert (status, shown["names"]) == (201, ["h1.example.org"])
            assert await api.presented() == fingerprint(own.pem.decode()) != issued
            writer.write(b"GET /v1/local/status HTTP/1.1\r\nHost: h1\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 403")
            writer.transport.abort()
            _, verified = await asyncio.open_connection(
                "127.0.0.1", api.port, ssl=trusted, server_hostname="h1.example.org"
            )
            verified.transport.abort()
            assert (await api.call("DELETE", "/v1/certificates/all"))[0] == 204
            assert await api.presented() == issued

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())


async def test_hosts_of_the_cluster_find_its_authority_whatever_is_imported(api):
    issued = await api.presented()
    await api.import_(for_names("h1.example.org").as_pem())
    assert await api.presented(CLUSTER_NAME) == issued
    standing = await ask_standing(f"127.0.0.1:{api.port}", authority().certificate_pem, HOST_ID)
    assert standing.member


async def test_a_host_of_the_cluster_is_believed_at_its_own_address_only(api):
    """The certificate is for 192.0.2.1 and 127.0.0.1."""
    with pytest.raises(UnavailableError, match=r"not for 127\.0\.0\.2"):
        await ask_standing(f"127.0.0.2:{api.port}", authority().certificate_pem, HOST_ID)


async def test_a_host_s_own_certificate_goes_before_the_one_for_all(api):
    everywhere, here, there = (for_names(n) for n in ("*.example.org", "h1", "h2"))
    await api.member.add_host(OTHER_ID, "h2", "192.0.2.2")
    await api.import_(here.as_pem(), host="h1")
    await api.import_(there.as_pem(), host="h2")
    await api.import_(everywhere.as_pem())
    assert await api.presented() == fingerprint(here.pem.decode())
    assert (await api.call("DELETE", "/v1/certificates/h1"))[0] == 204
    assert await api.presented() == fingerprint(everywhere.pem.decode())
    assert (await api.call("DELETE", "/v1/certificates/h1"))[0] == 404


async def test_what_another_host_imports_is_served_here_too(api):
    own = for_names("h1.example.org")
    elsewhere = OwnCertificates(
        api.member.node, _NoTls(), secrets_key=lambda: api.member.secrets_key
    )
    async with running(api.own.run):
        await elsewhere.import_(own.as_pem(), "", host=None, request_id="r1")
        async with asyncio.timeout(5):
            while await api.presented() != fingerprint(own.pem.decode()):
                await asyncio.sleep(0.01)


class _NoTls:
    def use(self, own) -> None:
        del own


async def test_a_refused_import_changes_nothing_and_says_why(api):
    issued = await api.presented()
    good = for_names("h1")
    for content, fields, why in (
        (for_names("h1", ends=NOW).as_pem(), {}, "expired"),
        (good.pem + for_names("h2").key_pem(), {}, "fits none"),
        (good.as_jks(WORD), {"passphrase": WORD + "x"}, "passphrase is wrong"),
        (b"\0" * (600 << 10), {}, "512 KiB"),
        (good.as_pem(), {"passphrase": "x" * 1025}, "1024"),
    ):
        status, problem = await api.import_(content, **fields)
        assert (status, why in problem["detail"]) == (400, True), problem
        assert WORD not in str(problem)
    assert (await api.import_(good.as_pem(), host="h7"))[0] == 404
    assert await api.presented() == issued
    assert api.member.store.all(ApiCertificate) == []


async def test_names_that_miss_a_host_are_a_warning(api):
    await api.member.add_host(OTHER_ID, "h2", "192.0.2.2")
    _, shown = await api.import_(for_names("h1.example.org").as_pem())
    assert shown["warnings"] == ["it names neither name nor address of h2"]
    _, shown = await api.import_(for_names("h1.example.org").as_pem(), host="h1")
    assert shown["warnings"] == []


async def test_all_certificates_are_shown_and_no_key(api):
    await api.import_(for_names("h1.example.org").as_jks(WORD), passphrase=WORD)
    _, shown = await api.call("GET", "/v1/certificates")
    assert [(i["name"], i["kind"]) for i in shown["items"]] == [
        ("all", "own"),
        ("h1", "host"),
        ("authority", "authority"),
    ]
    assert "PRIVATE" not in str(shown)
    assert "sealed_key" not in str(shown)


async def test_the_store_has_the_key_sealed_only_and_under_its_name(api):
    own = for_names("h1.example.org")
    await api.import_(own.as_pem())
    kept = api.member.store.all(ApiCertificate)[0]
    assert own.key_pem()[40:80] not in kept.sealed_key
    await api.member.store.apply(
        puts=(replace(kept, id=HOST_ID, name=HOST_ID, revision=0, sha256="another"),)
    )
    with pytest.raises(FatalError, match="can't be opened"):
        api.own.serve()


async def test_a_key_that_cannot_be_opened_leaves_the_former_certificate_in_place(api, caplog):
    own = for_names("h1.example.org")
    await api.import_(own.as_pem())
    kept = api.member.store.all(ApiCertificate)[0]
    with caplog.at_level(logging.WARNING):
        async with running(api.own.run):
            damaged = replace(kept, sealed_key=bytes(60), sha256="another")
            await api.member.store.apply(puts=(damaged,))
            await until(lambda: "can't serve the imported certificate" in caplog.text)
            assert await api.presented() == fingerprint(own.pem.decode())
