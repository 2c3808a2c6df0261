"""Secrets that are in use, looked for in everything that goes out: logs, answers, errors, events, arguments, backups."""

import base64
import logging
import os
import sys

import msgspec
import pytest
from msgspec.structs import replace

from core.identity.certificates import make_request
from core.identity.sealing import seal
from core.logs import FieldFormatter
from core.model import Event, Mesh
from nodeagent.identity.tokens import parse_join_token
from nodeagent.joining.messages import FEATURE_LEVEL, JoinCancel, JoinRequest
from tests.canaries import Canaries, forms_of, of_pem
from tests.one_member import ADMIN_TOKEN, OTHER_ID, authority
from tests.own_certificates import for_names
from tests.signed_requests import Program
from tests.unit.test_api_certificates import Served, serving

WORD = "canary-passphrase-of-a-keystore"
BOARD_WORD = "canary-of-a-board"
GOSSIP_KEY = os.urandom(32)
OWN = for_names("h1.example.org")
STARTED: list[list[str]] = []
NAMES = {"plural": "hosts", "ref": "h1", "host": "h1", "task": "none", "vm": "none"}


def _hook(event: str, args: tuple) -> None:
    if event == "subprocess.Popen":
        STARTED.append([str(args[0]), *map(str, args[1]), str(args[3])])


sys.addaudithook(_hook)


@pytest.mark.parametrize(
    "leak",
    [
        b"%s",
        b"before %s after",
    ],
)
def test_the_listener_hears_every_form(leak):
    secret = b"a secret of some length"
    for shift in range(3):
        plain = b"x" * shift + secret + b"yz"
        for what in (plain, plain.hex().encode(), base64.b64encode(plain)):
            canaries = Canaries({"it": [secret]})
            canaries.hear("here", leak % what)
            assert canaries.found() == ["it in here"]
    quiet = Canaries({"it": [secret]}, [("here", b"nothing of it")])
    assert quiet.found() == []
    assert all(len(form) > 20 for form in forms_of(secret))


async def put_gossip_key(api: Served) -> None:
    mesh = api.member.store.need(Mesh, "mesh")
    sealed = seal(api.member.secrets_key, "gossip-key", GOSSIP_KEY)
    await api.member.store.apply(puts=(replace(mesh, sealed_gossip_key=sealed),))


async def hear(api: Served, canaries: Canaries, method: str, path: str, **options) -> bytes:
    async with api.http.request(method, api.url(path), ssl=False, **options) as answer:
        body = await answer.read()
        canaries.hear(f"{method} {path}", body + str(dict(answer.headers)).encode())
        return body


def join_request(text: str) -> JoinRequest:
    ticket = parse_join_token(text)
    return JoinRequest(
        token_id=ticket.token_id,
        secret_hex=ticket.secret.hex(),
        host_id=OTHER_ID,
        host_name="h2",
        address="192.0.2.2",
        request_pem=make_request(OTHER_ID)[0],
        version="0.1.0",
        feature_level=FEATURE_LEVEL,
        clock_ms=0,
        cpus=1,
        memory_mib=1024,
        arch="x86_64",
    )


async def use_access_key(api: Served, canaries: Canaries) -> Program:
    """Make an access key, give it a new secret, sign with it rightly, wrongly and twice."""
    body = {"name": "ci", "roles": ["admin"]}
    _, made = await api.call("POST", "/v1/access-keys", json=body)
    _, made = await api.call("POST", "/v1/access-keys/ci/actions/rotate")
    signer = Program(made["id"], made["secret"], lambda: api.member.clock.wall_ms() // 1000)
    wrong = Program(made["id"], made["secret"] + "x", signer.now_s)
    for head in (
        good := signer.head("GET", "/v1/vms"),
        good,
        wrong.head("GET", "/v1/vms"),
        signer.head("GET", "/v1/vms", time="1"),
        {"Authorization": f"KVORUM-HMAC-SHA256 key={made['id']}, secret={made['secret']}"},
        {"Authorization": f"Bearer {made['secret']}"},
    ):
        await hear(api, canaries, "GET", "/v1/vms", headers=head)
    for method, path, sent in (
        ("POST", "/v1/access-keys", {**body, "secret": made["secret"]}),
        ("PATCH", "/v1/access-keys/ci", {"disabled": True}),
        ("GET", f"/v1/access-keys/{made['id']}", None),
    ):
        await hear(api, canaries, method, path, json=sent)
    return signer


async def use_everything(api: Served, canaries: Canaries) -> None:
    """Make and use each secret, rightly and wrongly; only what must hold one is not listened to."""
    _, made = await api.call("POST", "/v1/join-tokens", json={})
    _, access = await api.call("POST", "/v1/access-tokens", json={"name": "ci"})
    request = join_request(made["tokens"][0])
    secret = bytes.fromhex(request.secret_hex)
    signer = await use_access_key(api, canaries)
    canaries.secrets |= {
        "the secret of the access key": [signer.secret.encode(), signer.secret[5:].encode()],
        "the join token": [secret, made["tokens"][0].encode()],
        "the access token": [access["token"].encode()],
    }
    wrong = {"clock_ms": 0}, {"clock_ms": api.member.clock.wall_ms(), "address": "nowhere"}
    for fields in wrong:
        await hear(
            api, canaries, "POST", "/v1/join", data=msgspec.json.encode(replace(request, **fields))
        )
    good = replace(request, clock_ms=api.member.clock.wall_ms())
    status, admitted = await api.call("POST", "/v1/join", data=msgspec.json.encode(good))
    assert status == 200
    assert admitted["secrets_key_hex"] == api.member.secrets_key.hex()
    await hear(api, canaries, "POST", "/v1/join", data=msgspec.json.encode(good))
    cancel = JoinCancel(
        token_id=request.token_id, secret_hex=request.secret_hex, host_id=request.host_id
    )
    await hear(api, canaries, "POST", "/v1/join/cancel", data=msgspec.json.encode(cancel))
    for content, passphrase in (
        (OWN.as_pkcs12(WORD), WORD),
        (OWN.as_jks(WORD), WORD),
        (OWN.as_pem(WORD), WORD),
        (OWN.as_pkcs12("another"), WORD),
        (OWN.as_pem(WORD), [WORD]),
        (OWN.as_pem() + OWN.key_pem(), ""),
    ):
        body = {"content": base64.b64encode(content).decode(), "passphrase": passphrase}
        await hear(api, canaries, "POST", "/v1/certificates", json=body)
    broken = '{"passphrase": "' + WORD
    await hear(api, canaries, "POST", "/v1/certificates", data=broken)
    board = {"host": "h1", "address": "192.0.2.9", "user": "kvorum", "password": BOARD_WORD}
    for change in ({}, {"user": "-x"}, {"port": 0}, {"host": "nobody"}, {"password": [BOARD_WORD]}):
        await hear(api, canaries, "POST", "/v1/bmcs", json=board | change)
    bearer = {"Authorization": f"Bearer {ADMIN_TOKEN}x"}
    await hear(api, canaries, "GET", "/v1/vms", headers=bearer)


async def test_no_secret_gets_out(tmp_path, caplog):
    canaries = Canaries()
    caplog.set_level(logging.DEBUG)
    STARTED.clear()
    async with serving(tmp_path) as api:
        await put_gossip_key(api)
        canaries.secrets |= {
            "the passphrase": [WORD.encode()],
            "the board's password": [BOARD_WORD.encode()],
            "the gossip key": [GOSSIP_KEY],
            "the secrets key": [api.member.secrets_key],
            "the authority's key": of_pem(authority().key_pem),
            "the host's key": of_pem(api.member.node.paths.host_key.read_text()),
            "the imported key": of_pem(OWN.key_pem().decode()),
            "the admin's token": [ADMIN_TOKEN.encode()],
        }
        await use_everything(api, canaries)
        backup = b""
        for route in api.routes():
            body = await hear(api, canaries, "GET", route.format_map(NAMES | _others(route)))
            assert b"internal error" not in body, route
            backup = body if route == "/v1/state/backup" else backup
        for event in api.member.store.all(Event):
            canaries.hear("an event", event.message)
        assert b"h1.example.org" in backup or b"BEGIN CERTIFICATE" in backup, "it is not packed"
    formatter = FieldFormatter("%(message)s")
    for record in caplog.records:
        canaries.hear(f"the log of {record.name}", formatter.format(record))
    assert STARTED, "the reader of certificate files is a process"
    for argv in STARTED:
        canaries.hear("arguments and environment of a process", " ".join(argv))
    assert canaries.found() == []
    assert len(canaries.said) > 50


def _others(route: str) -> dict[str, str]:
    """A name for each part of a path that has none of its own here."""
    parts = (part.strip("{}") for part in route.split("/") if part.startswith("{"))
    return {part: "default" for part in parts if part not in NAMES}
