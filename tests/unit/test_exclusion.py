"""How a host finds out that it was removed while it was away: others say so over HTTPS, and only newer copies count."""

import pytest
from aiohttp import web

from core.clock import SystemClock
from core.identity.certificates import make_authority, make_request, sign_request
from core.mesh.tls import TlsFiles
from core.model import Host
from core.paths import Paths
from nodeagent.api.app import build_app
from nodeagent.api.tls import ApiTls
from nodeagent.services.exclusion import Exclusion, Verdict
from tests.api import open_door
from tests.many_hosts import ManyHosts, id_of
from tests.one_member import HOST_ID


class Answering:
    """The agent of h2, whose copy of the state is `many`'s."""

    def __init__(self, many: ManyHosts) -> None:
        self.node, self.services = many.node, object()


@pytest.fixture
async def returned(tmp_path):
    """Host h1 as it was, before it was away; h2, whose state goes on; and the way from one to the other."""
    was, now = ManyHosts(seed=3), ManyHosts(seed=3)
    now_ms = SystemClock().wall_ms()
    ca = make_authority("test", now_ms=now_ms)
    request_pem, key_pem = make_request(id_of(2))
    certificate = sign_request(
        ca, request_pem, host_id=id_of(2), host_name="h2", address="192.0.2.2", now_ms=now_ms
    )
    identity = Paths(state=tmp_path).identity
    identity.mkdir()
    for name, text in (
        ("host.pem", certificate),
        ("host.key", key_pem),
        ("ca.pem", ca.certificate_pem),
    ):
        (identity / name).write_text(text)
    runner = web.AppRunner(build_app(Answering(now), clock=now.clock, rng=now.rng))
    async with open_door(runner, ApiTls(TlsFiles.in_directory(identity)).context) as port:
        for many in (was, now):
            await many.found()
            await many.add_host(id_of(2), "h2", "127.0.0.1", api_port=port)
            await many.join(3)
        was.node = replace_paths(was.node, Paths(state=tmp_path))
        yield was, now
    await runner.cleanup()


def replace_paths(node, paths):
    return type(node)(**{f: getattr(node, f) for f in node.__dataclass_fields__} | {"paths": paths})


async def remove_h1(many: ManyHosts) -> None:
    await many.store.apply(deletes=(many.store.need(Host, HOST_ID),))


async def test_a_host_that_has_its_record_is_a_member(returned):
    was, _ = returned
    assert await Exclusion(was.node).look() is Verdict.MEMBER


async def test_a_host_without_a_record_was_removed(returned):
    was, now = returned
    await remove_h1(now)
    assert await Exclusion(was.node).look() is Verdict.REMOVED


async def test_a_copy_older_than_ones_own_says_nothing(returned):
    was, now = returned
    await remove_h1(now)
    for _ in range(3):
        await was.change(3, cpus=was.store.need(Host, id_of(3)).cpus + 1)
    assert await Exclusion(was.node).look() is Verdict.UNKNOWN


async def test_silence_and_strangers_say_nothing(returned):
    was, now = returned
    await remove_h1(now)
    other = make_authority("other", now_ms=SystemClock().wall_ms())
    was.node.paths.ca_pem.write_text(other.certificate_pem)
    assert await Exclusion(was.node).look() is Verdict.UNKNOWN
    await was.change(2, api_port=1)
    assert await Exclusion(was.node).look() is Verdict.UNKNOWN
