"""The commands of accounts, roles, log-in and audits against a real agent's API."""

import asyncio

import pytest
from aiohttp import web

from core.clock import SystemClock
from core.identity.certificates import make_authority, make_request, sign_request
from core.mesh.tls import TlsFiles
from nodeagent.api.app import build_app, serve_unix
from nodeagent.api.tls import ApiTls
from tests.api import FakeAgent, open_door
from tests.golden.cli.cases import kvorum
from tests.one_member import HOST_ID, founded
from tools.cli.login import write_private

PASSWORD = "canary staple 42 battery"


class Machines:
    """A host on which root types, and a machine elsewhere."""

    def __init__(self, directory, port):
        self.directory, self.port = directory, port

    async def root(self, command, stdin=""):
        address = f"unix:{self.directory}/api.sock"
        return await asyncio.to_thread(kvorum, command, address, stdin=stdin)

    async def elsewhere(self, command, stdin=""):
        environ = {"HOME": str(self.directory), "KVORUM_CA": str(self.directory / "ca.pem")}
        address = f"127.0.0.1:{self.port}"
        return await asyncio.to_thread(kvorum, command, address, stdin=stdin, environ=environ)


@pytest.fixture
async def machines(tmp_path):
    member, now_ms = await founded(), SystemClock().wall_ms()
    ca = make_authority("test", now_ms=now_ms)
    request_pem, key_pem = make_request(HOST_ID)
    certificate = sign_request(
        ca, request_pem, host_id=HOST_ID, host_name="h1", address="127.0.0.1", now_ms=now_ms
    )
    for name, text in (
        ("host.pem", certificate), ("host.key", key_pem), ("ca.pem", ca.certificate_pem),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
    runner = web.AppRunner(build_app(FakeAgent(member), clock=member.clock, rng=member.rng))
    await runner.setup()
    await serve_unix(runner, tmp_path / "api.sock")
    async with open_door(runner, ApiTls(TlsFiles.in_directory(tmp_path)).context) as port:
        yield Machines(tmp_path, port)
    await runner.cleanup()


async def test_an_account_is_made_logs_in_and_out(machines, tmp_path):
    made = await machines.root("account create alice --role viewer", stdin=f"{PASSWORD}\n")
    assert (made.code, made.out) == (0, "alice: created\n"), made.err
    wrong = await machines.elsewhere("login alice", stdin="wrong password 1\n\n")
    assert wrong.code == 1 and "is wrong" in wrong.err
    done = await machines.elsewhere("login alice", stdin=f"{PASSWORD}\n\n")
    assert done.out.startswith("logged in as alice"), done.err
    kept = tmp_path / ".config/kvorum/session"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert (await machines.elsewhere("whoami")).out == "alice (session)\n"
    assert (await machines.elsewhere("vm list")).code == 0
    refused = await machines.elsewhere("account list")
    assert refused.code == 1 and "don't allow 'read' on 'account'" in refused.err
    assert (await machines.elsewhere("logout")).out == "logged out\n"
    assert not kept.exists()
    assert "no access token" in (await machines.elsewhere("whoami")).err


async def test_a_disabled_account_is_out_at_once_and_the_audits_tell_it(machines):
    await machines.root("account create alice --role viewer", stdin=f"{PASSWORD}\n")
    await machines.elsewhere("login alice", stdin=f"{PASSWORD}\n\n")
    assert (await machines.root("account disable alice")).out == "alice: disabled\n"
    out = await machines.elsewhere("vm list")
    assert out.code == 1 and "log in again" in out.err
    assert "yes" in (await machines.root("account show alice")).out
    listed = (await machines.root("audit list")).out
    assert "PATCH /v1/accounts/{account}" in listed and "log in" in listed
    assert PASSWORD not in listed
    assert (await machines.root("account enable alice")).code == 0
    assert (await machines.elsewhere("vm list")).code == 0


async def test_roles_and_limited_tokens_are_made_and_shown(machines):
    made = await machines.root("role create starter --allow vm:read,operate --allow task:read")
    assert made.out == "starter: created\n", made.err
    listed = (await machines.root("role list")).out
    assert "vm:read,operate; task:read" in listed and "admin" in listed
    bad = await machines.root("role create bad --allow vm")
    assert bad.code == 2
    await machines.root("access-token create ci --role starter")
    assert "starter" in (await machines.root("access-token list")).out
    assert (await machines.root("role delete starter --yes")).code == 1


async def test_time_codes_are_switched_on_and_off(machines):
    await machines.root("account create alice --role viewer", stdin=f"{PASSWORD}\n")
    shown = await machines.root("account totp enable alice")
    assert shown.out.startswith("otpauth://totp/Kvorum%20test:alice?"), shown.err
    wrong = await machines.root("account totp confirm alice", stdin="123\n")
    assert wrong.code == 1 and "the code is wrong" in wrong.err
    assert (await machines.root("account totp disable alice")).code == 0


async def test_recovery_codes_are_made_anew_by_their_owner_only(machines):
    await machines.root("account create alice --role viewer", stdin=f"{PASSWORD}\n")
    root = await machines.root("account totp recovery-codes alice", stdin="123456\n")
    assert root.code == 1 and "only whoever has logged in" in root.err
    await machines.elsewhere("login alice", stdin=f"{PASSWORD}\n\n")
    own = await machines.elsewhere("account totp recovery-codes alice", stdin="123456\n")
    assert own.code == 1 and "time codes are off" in own.err


async def test_an_access_key_is_made_shown_changed_and_deleted(machines):
    made = await machines.root("access-key create billing --role viewer --description invoices")
    key, secret = made.out.splitlines()
    assert key.startswith("kvk_") and secret.startswith("kvks_"), made.err
    await machines.root("account create robot --role operator --no-password")
    other = await machines.root("access-key create backup --account robot --ttl 90d -o json")
    assert '"secret": "kvks_' in other.out
    listed = (await machines.root("access-key list")).out
    assert "account robot" in listed and "viewer" in listed and "invoices" in listed
    assert (await machines.root("access-key disable billing")).out == "billing: disabled\n"
    shown = (await machines.root(f"access-key show {key}")).out
    assert "DISABLED     yes" in shown
    assert (await machines.root("access-key enable billing")).out == "billing: enabled\n"
    again, fresh = (await machines.root("access-key rotate billing")).out.splitlines()
    assert again == key and fresh != secret
    assert (await machines.root("access-key delete billing")).out == "billing: deleted\n"
    everything = listed + shown + (await machines.root("audit list -o json")).out
    assert secret not in everything and fresh not in everything
    nothing = await machines.root("access-key create x")
    assert nothing.code == 1 and "say what the key may do" in nothing.err


async def test_a_password_is_never_taken_from_the_command_line(machines):
    for command in ("account create bob --password x", f"login bob {PASSWORD!r}"):
        assert (await machines.elsewhere(command)).code == 2
    nothing = await machines.root("account create bob --role viewer")
    assert nothing.code == 2 and "no password" in nothing.err


def test_a_session_replaces_what_was_there_and_follows_no_link(tmp_path):
    target, path = tmp_path / "target", tmp_path / "session"
    target.write_text("mine")
    path.symlink_to(target)
    write_private(path, "kvs_x")
    assert target.read_text() == "mine"
    assert not path.is_symlink() and path.stat().st_mode & 0o777 == 0o600
