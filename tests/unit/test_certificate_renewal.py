"""Host certificates: renewed in time, by whoever can sign, for the asking host only, whole at any crash; and warnings."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web
from msgspec.structs import replace

from core.errors import InvalidError, PlatformError, UnavailableError
from core.identity.certificates import (
    KeyPair,
    fingerprint,
    is_for_address,
    life_of,
    make_authority,
    make_request,
    renewal_due,
    sign_request,
)
from core.identity.host_identity import check_issued, exchange_identity, finish_exchange
from core.identity.sealing import make_key
from core.mesh.client import MeshClient
from core.mesh.dialer import MeshDialer
from core.mesh.server import MeshServer
from core.mesh.tls import TlsFiles
from core.model import ApiCertificate, Event, Host, Mesh, Severity
from core.paths import Paths, write_file
from nodeagent.joining.founding import MESH_ID
from nodeagent.mesh_rpc import MeshRpc
from nodeagent.services.certificate_renewal import (
    AskCertificate,
    CertificateRenewal,
    IssuedCertificate,
)
from nodeagent.services.expiry_warnings import DAY_MS, ExpiryWarnings, days_reached
from tests.mesh_identity import Authority
from tests.one_member import (
    HOST_ID,
    NOW_MS,
    OTHER_ID,
    OneMember,
    authority,
    founded,
    running,
    until,
)
from tests.own_certificates import DAY as A_DAY
from tests.own_certificates import NOW, for_names
from tests.unit.test_mesh import ECHO, echo

LIFE_MS = 730 * DAY_MS


def issue(paths: Paths, host_id: str, *, now_ms: int = NOW_MS) -> KeyPair:
    request_pem, key_pem = make_request(host_id)
    about = {"host_id": host_id, "host_name": "h1", "address": "127.0.0.1", "now_ms": now_ms}
    pair = KeyPair(sign_request(authority(), request_pem, **about), key_pem)
    write_file(paths.ca_pem, authority().certificate_pem.encode())
    write_file(paths.host_pem, pair.certificate_pem.encode())
    write_file(paths.host_key, pair.key_pem.encode())
    return pair


def on_disk(paths: Paths) -> KeyPair:
    return KeyPair(paths.host_pem.read_text(), paths.host_key.read_text())


def fits(paths: Paths, host_id: str = HOST_ID) -> bool:
    with contextlib.suppress(InvalidError):
        check_issued(on_disk(paths), host_id=host_id, ca_pem=authority().certificate_pem)
        return True
    return False


@dataclass
class Renewing:
    member: OneMember
    paths: Paths
    renewal: CertificateRenewal
    reloads: list[str]


def renewing(member: OneMember, tmp_path: Path, host_id: str = HOST_ID, **options) -> Renewing:
    paths = Paths(state=tmp_path / host_id)
    node = options.pop("node", None) or member.node_of(host_id, "h1")
    object.__setattr__(node, "paths", paths)
    issue(paths, host_id)
    reloads: list[str] = []
    key = options.pop("secrets_key", member.secrets_key)
    renewal = CertificateRenewal(
        node, secrets_key=lambda: key, reload=lambda: reloads.append(on_disk(paths).key_pem)
    )
    return Renewing(member, paths, renewal, reloads)


@pytest.fixture
async def member() -> OneMember:
    return await founded()


async def test_it_is_renewed_once_when_the_cluster_has_a_vip_that_it_is_not_for(member, tmp_path):
    host = renewing(member, tmp_path)
    mesh = member.store.need(Mesh, MESH_ID)
    await member.store.apply(puts=(replace(mesh, vip="192.0.2.100"),))
    before = on_disk(host.paths)
    assert await host.renewal.renew_if_due()
    after = on_disk(host.paths)
    assert not is_for_address(before.certificate_pem, "192.0.2.100")
    assert is_for_address(after.certificate_pem, "192.0.2.100")
    assert is_for_address(after.certificate_pem, "192.0.2.1")
    assert fits(host.paths)
    assert not await host.renewal.renew_if_due()


async def test_setting_a_vip_renews_it_without_waiting_for_the_hourly_look(member, tmp_path):
    host = renewing(member, tmp_path)
    async with running(host.renewal.run):
        assert host.reloads == []
        mesh = member.store.need(Mesh, MESH_ID)
        await member.store.apply(puts=(replace(mesh, vip="192.0.2.100"),))
        await until(lambda: host.reloads, 5.0)
    assert is_for_address(on_disk(host.paths).certificate_pem, "192.0.2.100")


async def test_it_is_renewed_with_a_new_key_at_two_thirds_of_its_life_and_not_before(
    member, tmp_path
):
    host = renewing(member, tmp_path)
    before = on_disk(host.paths)
    member.clock.wall = NOW_MS + LIFE_MS * 2 // 3 - 2 * DAY_MS
    assert not await host.renewal.renew_if_due()
    member.clock.wall += 2 * DAY_MS
    assert await host.renewal.renew_if_due()
    after = on_disk(host.paths)
    assert fits(host.paths)
    assert after.key_pem != before.key_pem
    assert host.reloads == [after.key_pem]
    assert life_of(after.certificate_pem)[1] == member.clock.wall + LIFE_MS
    assert not await host.renewal.renew_if_due()
    assert [e.code for e in member.store.all(Event)] == ["certificate-renewed"]


async def test_a_host_whose_certificate_has_expired_renews_it_by_itself(member, tmp_path):
    host = renewing(member, tmp_path)
    member.clock.wall = NOW_MS + 2 * LIFE_MS
    assert await host.renewal.renew_if_due()
    assert life_of(on_disk(host.paths).certificate_pem)[1] > member.clock.wall


def test_one_that_was_issued_by_a_clock_that_was_ahead_is_due():
    ahead = sign_request(
        authority(),
        make_request(HOST_ID)[0],
        host_id=HOST_ID,
        host_name="h1",
        address="127.0.0.1",
        now_ms=NOW_MS + 300 * DAY_MS,
    )
    assert renewal_due(ahead, now_ms=NOW_MS)
    assert not renewal_due(ahead, now_ms=NOW_MS + 301 * DAY_MS)


def test_a_certificate_never_outlives_its_authority():
    old = make_authority("old", now_ms=NOW_MS - 7000 * DAY_MS)
    about = {"host_id": "h", "host_name": "h", "address": "127.0.0.1", "now_ms": NOW_MS}
    signed = sign_request(old, make_request("h")[0], **about)
    assert life_of(signed)[1] == life_of(old.certificate_pem)[1]


STEPS = ("host.next", "host.key", "host.pem")


@pytest.mark.parametrize("done", range(len(STEPS) + 1))
def test_a_crash_at_any_step_leaves_a_pair_that_fits(tmp_path, done):
    paths, other = Paths(state=tmp_path / "a"), Paths(state=tmp_path / "b")
    before, coming = issue(paths, HOST_ID), issue(other, HOST_ID)
    whole = Paths(state=tmp_path / "c")
    issue(whole, HOST_ID)
    journal = _journal_of(whole, coming)
    if done >= 1:
        write_file(paths.next_identity, journal)
    if done >= 2:
        write_file(paths.host_key, coming.key_pem.encode())
    if done >= 3:
        write_file(paths.host_pem, coming.certificate_pem.encode())
    finish_exchange(paths)
    assert fits(paths)
    assert on_disk(paths) == (coming if done else before)
    assert not paths.next_identity.exists()
    assert paths.host_key.stat().st_mode & 0o777 == 0o600


def _journal_of(paths: Paths, pair: KeyPair) -> bytes:
    """Let an exchange fail after its first step, and return what that left."""
    shutil.rmtree(paths.host_key, ignore_errors=True)
    paths.host_key.unlink()
    paths.host_key.mkdir()  # a file can't take a directory's place
    with pytest.raises(OSError, match="directory"):
        exchange_identity(paths, pair)
    assert paths.next_identity.stat().st_mode & 0o777 == 0o600
    return paths.next_identity.read_bytes()


def test_a_certificate_that_is_not_ours_is_not_taken(tmp_path):
    mine, theirs = (
        issue(Paths(state=tmp_path / "a"), HOST_ID),
        issue(Paths(state=tmp_path / "b"), OTHER_ID),
    )
    stranger = make_authority("other", now_ms=NOW_MS).certificate_pem
    for pair, ca_pem in (
        (theirs, authority().certificate_pem),
        (KeyPair(mine.certificate_pem, theirs.key_pem), authority().certificate_pem),
        (mine, stranger),
    ):
        with pytest.raises(InvalidError):
            check_issued(pair, host_id=HOST_ID, ca_pem=ca_pem)


class _Services:
    def __init__(self, renewal: CertificateRenewal) -> None:
        self.renewal = renewal


@contextlib.asynccontextmanager
async def signing(member: OneMember, signer: Renewing) -> AsyncIterator[int]:
    """Serve the mesh of host h1, which can sign; the port is given."""
    rpc = MeshRpc(member.node, _Services(signer.renewal))
    runner = web.AppRunner(rpc.app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    files = TlsFiles.in_directory(signer.paths.identity)
    server = MeshServer(files, "127.0.0.1", 0, admit=rpc.is_member)
    server.add_http(runner.server)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run(), name="mesh")
        await server.started.wait()
        yield server.port
        task.cancel()
    await runner.cleanup()


async def test_a_host_that_cannot_sign_asks_another_over_the_mesh(member, tmp_path):
    """Its certificate and key are of today, so that TLS believes them; time has passed for the renewal only."""
    await member.add_host(OTHER_ID, "h2", "127.0.0.2")
    signer = renewing(member, tmp_path)
    paths = Paths(state=tmp_path / OTHER_ID)
    dialer = MeshDialer(TlsFiles.in_directory(paths.identity))
    async with signing(member, signer) as port, MeshClient(dialer) as mesh:
        await _move(member, port)
        node = replace_mesh(member.node_of(OTHER_ID, "h2"), mesh)
        asking = renewing(member, tmp_path, OTHER_ID, node=node, secrets_key=make_key())
        member.clock.wall = NOW_MS + LIFE_MS
        assert await asking.renewal.renew_if_due()
    assert fits(paths, OTHER_ID)


async def _move(member: OneMember, port: int) -> None:
    host = member.store.need(Host, HOST_ID)
    await member.store.apply(puts=(replace(host, address="127.0.0.1", mesh_port=port),))


def replace_mesh(node, mesh):
    object.__setattr__(node, "mesh", mesh)
    return node


async def test_a_host_gets_certificates_for_itself_only_and_a_removed_one_none(member, tmp_path):
    other = await member.add_host(OTHER_ID, "h2", "127.0.0.2")
    signer = renewing(member, tmp_path)
    paths = Paths(state=tmp_path / OTHER_ID)
    issue(paths, OTHER_ID)
    forged, key_pem = make_request(HOST_ID)  # it asks in another's name
    async with (
        signing(member, signer) as port,
        MeshClient(MeshDialer(TlsFiles.in_directory(paths.identity))) as mesh,
    ):
        await _move(member, port)
        h1 = member.store.need(Host, HOST_ID)
        question = AskCertificate(request_pem=forged)
        answer = await mesh.call(h1, "/mesh/certificate", question, IssuedCertificate)
        check_issued(
            KeyPair(answer.certificate_pem, key_pem),
            host_id=OTHER_ID,
            ca_pem=authority().certificate_pem,
        )
        await member.store.apply(deletes=(other,))
        with pytest.raises(PlatformError) as refused:
            await mesh.call(h1, "/mesh/certificate", question, IssuedCertificate)
        assert refused.value.code == "not-a-member"


async def test_when_nobody_can_sign_the_former_pair_stays(member, tmp_path):
    host = renewing(member, tmp_path, secrets_key=make_key())
    before = on_disk(host.paths)
    member.clock.wall = NOW_MS + LIFE_MS
    with pytest.raises(UnavailableError, match="no member could sign"):
        await host.renewal.renew_if_due()
    assert on_disk(host.paths) == before
    assert host.reloads == []


async def test_new_mesh_connections_use_a_new_certificate_and_open_ones_go_on(tmp_path):
    ca = Authority(tmp_path)
    a, b = ca.issue("host-a"), ca.issue("host-b")
    server, dialer = MeshServer(a, "127.0.0.1", 0), MeshDialer(b)
    server.add_channel(ECHO, echo)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        task = group.create_task(server.run(), name="mesh")
        await server.started.wait()
        address = f"127.0.0.1:{server.port}"
        reader, writer = await dialer.open(address, "host-a", ECHO)
        first = _shown(writer)
        for files, host_id in ((a, "host-a"), (b, "host-b")):
            shutil.rmtree(files.ca.parent)
            ca.issue(host_id)
        _, unchanged = await dialer.open(address, "host-a", ECHO)
        assert _shown(unchanged) == first
        server.reload()
        dialer.reload()
        _, renewed = await dialer.open(address, "host-a", ECHO)
        assert _shown(renewed) != first
        writer.write(b"still here\n")
        assert await reader.read() == b"hello host-b: still here\n"
        for one in (writer, unchanged, renewed):
            one.transport.abort()
        task.cancel()


def _shown(writer: asyncio.StreamWriter) -> bytes:
    return writer.get_extra_info("ssl_object").getpeercert(binary_form=True)


# -- warnings


@pytest.mark.parametrize(
    ("left_ms", "days"),
    [(31, None), (30, 30), (8, 30), (7, 7), (2, 7), (1, 1), (0.5, 1), (0, 0), (-9, 0)],
)
def test_the_nearest_step_that_was_reached(left_ms, days):
    assert days_reached(NOW_MS + int(left_ms * DAY_MS), NOW_MS) == days


async def test_each_step_to_the_end_is_told_once(member, tmp_path):
    host = renewing(member, tmp_path)
    own = for_names("h1", ends=NOW + 40 * A_DAY)
    await member.store.apply(
        puts=(
            ApiCertificate(
                id="all",
                name="all",
                chain_pem=own.pem.decode(),
                sealed_key=b"",
                sha256=fingerprint(own.pem.decode()),
            ),
        )
    )
    warnings = ExpiryWarnings(replace_paths(member.node, host.paths))
    told = []
    for _ in range(45 * 4):
        await warnings.look()
        member.clock.wall += DAY_MS // 4
        events = member.store.all(Event)
        if len(events) > len(told):
            told = sorted(events, key=lambda e: e.revision)
    assert [(e.message.split("all hosts ")[1], e.severity) for e in told] == [
        ("expires within 30 days: see 'kvorum certificate show'", Severity.WARNING),
        ("expires within 7 days: see 'kvorum certificate show'", Severity.WARNING),
        ("expires within 1 day: see 'kvorum certificate show'", Severity.ALARM),
        ("has expired: see 'kvorum certificate show'", Severity.ALARM),
    ]


def replace_paths(node, paths):
    object.__setattr__(node, "paths", paths)
    return node


async def test_the_authority_is_warned_of_by_the_leader_and_a_host_by_itself(member, tmp_path):
    host = renewing(member, tmp_path)
    warnings = ExpiryWarnings(replace_paths(member.node, host.paths))
    member.clock.wall = life_of(member.store.need(Mesh, "mesh").ca_pem)[1] - 6 * DAY_MS
    await warnings.look()
    assert {(e.subject, e.severity) for e in member.store.all(Event)} == {
        ("mesh/mesh", Severity.WARNING),
        (f"host/{HOST_ID}", Severity.ALARM),
    }
