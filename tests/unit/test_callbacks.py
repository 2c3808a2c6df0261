"""Callbacks: whoever named a URL hears of the task's end, signed, once or again, whatever dies; and agents talk to nobody they shouldn't."""

import asyncio
import base64
import ipaddress
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec.structs import replace

from core.errors import ForbiddenError, InvalidError, UnavailableError
from core.identity.sealing import unseal
from core.logs import FieldFormatter
from core.model import (
    VM,
    Callback,
    CallbackKey,
    Disk,
    Event,
    LogLine,
    PowerState,
    Snapshot,
    SnapshotState,
    Task,
    TaskState,
    VMPhase,
)
from nodeagent.api.description.operations import STARTING_TASKS
from nodeagent.api.keys import AGENT
from nodeagent.plugins.plugins import Plugins
from nodeagent.services import callback_sender, callbacks
from nodeagent.services.callback_sender import CallbackSender
from nodeagent.services.callback_targets import (
    CallbackPolicy,
    CallbackTargets,
    is_own_address,
    parse_target,
)
from nodeagent.services.callbacks import BODY_BYTES_MAX, TRIES_MAX, Callbacks, body_of
from tests.api import app_of
from tests.canaries import Canaries
from tests.one_member import (
    HOST_ID,
    OTHER_ID,
    LoopClock,
    OneMember,
    founded,
    in_virtual_time,
    running,
    until,
)
from tests.unit.test_plugins import example

__all__ = ("example",)  # a fixture

URL = "https://hooks.example.org/kvorum?key=s3cret-of-the-receiver"


# -- where callbacks may go


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.org",
        "ftp://hooks.example.org/",
        "file:///etc/passwd",
        "gopher://hooks.example.org/",
        "https://user:word@hooks.example.org/",
        "https://user@hooks.example.org/",
        "https:///nothing",
        "https://hooks.example.org/#part",
        "https://hooks.example.org:99999/",
        "https://hooks.example.org:25/",
        "https://hooks.example.org:0/",
        "https://hooks.example.org\\@127.0.0.1/",
        "https://hooks.example.org/\r\nX: y",
        "https://hooks.example.org/a b",
        "https://hööks.example.org/",
        "https://[::1/",
        "https://hooks.example.org/" + "x" * 2000,
    ],
)
def test_what_is_no_url_for_a_callback_is_refused_and_never_repeated(url):
    with pytest.raises(InvalidError) as refused:
        parse_target(url)
    assert not url or url not in refused.value.message


def targets(**policy: tuple[str, ...]) -> CallbackTargets:
    return CallbackTargets(
        CallbackPolicy(**policy),
        hosts=lambda: ["198.51.100.7", "2001:db8::7"],
        is_own=lambda address: str(address) == "198.51.100.99",
    )


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "0.1.2.3", "::"),
        *("169.254.169.254", "fe80::1", "fe80::1%eth0", "224.0.0.1", "ff02::1", "255.255.255.255"),
        *("198.51.100.7", "2001:db8::7", "2001:0db8:0:0::7", "198.51.100.99", "fec0::1"),
        *(
            "::ffff:127.0.0.1",
            "::ffff:198.51.100.7",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "::7f00:1",
        ),
    ],
)
def test_an_agent_is_not_made_to_call_itself_its_fellows_or_its_neighbours(address):
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(ForbiddenError) as refused:
        targets().checked(f"http://{host}:8080/")
    assert refused.value.code == "callback-refused"


@pytest.mark.parametrize(
    "host", ["203.0.113.5", "10.1.2.3", "[2001:db8::8]", "[64:ff9b::cb00:7105]"]
)
def test_other_addresses_are_called(host):
    assert targets().checked(f"https://{host}/").port == 443


def test_the_settings_deny_networks_and_allow_single_ones_again():
    judge = targets(deny=("10.0.0.0/8", "fd00::/8"), allow=("10.9.9.9/32", "127.0.0.1/32"))
    for url in ("http://10.9.9.9/", "http://127.0.0.1:8080/", "http://192.0.2.1/"):
        judge.checked(url)
    for url in ("http://10.9.9.8/", "http://127.0.0.2:8080/", "http://[fd00::1]/"):
        with pytest.raises(ForbiddenError):
            judge.checked(url)
    with pytest.raises(ValueError, match=r"10\.0\.0\.1/8"):
        CallbackPolicy(deny=("10.0.0.1/8",))


def test_an_address_of_this_host_is_known_as_such():
    assert is_own_address(ipaddress.ip_address("127.0.0.1"))
    assert not is_own_address(ipaddress.ip_address("203.0.113.5"))


# -- sending


class Receiver:
    """A server on loopback that writes down what it is sent."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 204
        self.silent = False

    async def answer(self, request: web.Request) -> web.Response:
        self.got.append((str(request.rel_url), dict(request.headers), await request.read()))
        if self.silent:
            await asyncio.Event().wait()
        return web.Response(status=self.status, headers={"Location": "/elsewhere"})


@asynccontextmanager
async def receiving() -> AsyncIterator[tuple[Receiver, TestServer]]:
    receiver, app = Receiver(), web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.answer)
    async with TestServer(app) as server:
        yield receiver, server


class Names:
    """A name service that says something else each time."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def __call__(self, host: str, port: int) -> list[str]:
        del host, port
        return self.answers.pop(0)


LOOPBACK_ALLOWED = CallbackTargets(
    CallbackPolicy(allow=("127.0.0.1/32",)), hosts=tuple, is_own=is_own_address
)


async def test_a_receiver_gets_the_body_and_the_headers_at_the_path_it_named():
    async with receiving() as (receiver, server):
        url = f"http://127.0.0.1:{server.port}/a%2Fb?x=%20y"
        assert await CallbackSender(LOOPBACK_ALLOWED).send(url, {"webhook-id": "1"}, b"body") == ""
    ((path, headers, body),) = receiver.got
    assert (path, headers["webhook-id"], body) == ("/a%2Fb?x=%20y", "1", b"body")


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 404, 500])
async def test_only_a_good_answer_counts_and_no_redirect_is_followed(status):
    async with receiving() as (receiver, server):
        receiver.status = status
        url = f"http://127.0.0.1:{server.port}/"
        assert str(status) in await CallbackSender(LOOPBACK_ALLOWED).send(url, {}, b"")
    assert len(receiver.got) == 1


@pytest.mark.parametrize(
    "addresses", [["127.0.0.2"], ["127.0.0.1", "127.0.0.2"], ["169.254.169.254"], ["nonsense"]]
)
async def test_a_name_that_stands_for_a_refused_address_is_not_called(addresses):
    async with receiving() as (receiver, server):
        sender = CallbackSender(LOOPBACK_ALLOWED, look_up=Names(addresses))
        why = await sender.send(f"http://hooks.example.org:{server.port}/", {}, b"")
    assert why == "its address may not be called"
    assert receiver.got == []


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f.1", "0177.0.0.1"])
async def test_no_spelling_of_this_host_gets_through(host):
    nothing_allowed = CallbackTargets(CallbackPolicy(), hosts=tuple, is_own=is_own_address)
    async with receiving() as (receiver, server):
        why = await CallbackSender(nothing_allowed).send(f"http://{host}:{server.port}/", {}, b"")
    assert why in {"its address may not be called", "its name can't be looked up"}
    assert receiver.got == []


async def test_what_was_judged_is_what_is_connected_to_whatever_the_name_says_later():
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    async with receiving() as (receiver, server):
        url = f"http://hooks.example.org:{server.port}/"
        assert await CallbackSender(LOOPBACK_ALLOWED, look_up=names).send(url, {}, b"") == ""
        assert receiver.got[0][1]["Host"] == f"hooks.example.org:{server.port}"
    assert len(names.answers) == 1


async def test_nobody_is_waited_for_without_end(monkeypatch):
    monkeypatch.setattr(callback_sender, "TIMEOUT_S", 0.2)
    async with receiving() as (receiver, server):
        receiver.silent = True
        url = f"http://127.0.0.1:{server.port}/"
        assert await CallbackSender(LOOPBACK_ALLOWED).send(url, {}, b"") == "no answer"
    monkeypatch.setattr(callback_sender, "LOOK_UP_TIMEOUT_S", 0.1)

    async def never(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return [host]

    why = await CallbackSender(LOOPBACK_ALLOWED, look_up=never).send("http://x.example/", {}, b"")
    assert why == "its name can't be looked up"


# -- delivering


class Post:
    """A sender that keeps what it sends, and whose receivers answer as told."""

    def __init__(self, *answers: str) -> None:
        self.sent: list[tuple[str, dict[str, str], bytes]] = []
        self.times_s: list[float] = []
        self.answers = list(answers)
        self.dies_after_sending = False

    async def send(self, url: str, headers: dict[str, str], body: bytes) -> str:
        self.sent.append((url, dict(headers), body))
        self.times_s.append(asyncio.get_running_loop().time())
        if self.dies_after_sending:
            await asyncio.Event().wait()
        return self.answers.pop(0) if self.answers else ""


class Owned:
    """A ring on which the hosts have these places."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = list(hosts)

    def owners(self, key: str, *, records_only: bool) -> list[str]:
        assert key.startswith("task/")
        assert records_only
        return self.hosts


def agent(member: OneMember, post: Post, owned: Owned, host_id: str = HOST_ID) -> Callbacks:
    return Callbacks(
        member.node_of(host_id, host_id[:2]),
        owned,
        post,
        targets=targets(),
        secrets_key=lambda: member.secrets_key,
    )


async def started(member: OneMember, service: Callbacks, id_: str = "t1", **fields) -> Task:
    """Store a task whose starter wants to be called back."""
    task = Task(id=id_, name=id_, workflow="start-vm", subject=f"vm/{id_}", **fields)
    puts, guards = service.wish(URL).beside(task)
    await member.store.apply(puts=(task, *puts), guards=guards)
    return member.store.need(Task, id_)


async def end(member: OneMember, task: Task, state: TaskState = TaskState.SUCCEEDED) -> None:
    ended = replace(task, state=state, ended_ms=member.clock.wall_ms())
    await member.store.apply(puts=(ended,))


def check_signature(public_key: str, headers: dict[str, str], body: bytes) -> None:
    """Check as a receiver does, by the words of docs/api.md."""
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.removeprefix("whpk_")))
    version, _, signature = headers["webhook-signature"].partition(",")
    assert version == "v1a"
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key.verify(base64.b64decode(signature), signed)


def virtually(test) -> None:
    """Run a test on a member in virtual time."""

    async def main() -> None:
        await test(await founded(clock=LoopClock()))

    in_virtual_time(main)


@pytest.mark.parametrize("state", [TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED])
def test_however_a_task_ends_its_result_is_sent_signed_and_the_url_is_kept_no_longer(state):
    async def test(member: OneMember) -> None:
        post = Post()
        service = agent(member, post, Owned(HOST_ID))
        async with running(service.run):
            task = await started(member, service)
            await asyncio.sleep(60)
            assert post.sent == []
            await end(member, task, state)
            await until(lambda: post.sent and not member.store.all(Callback))
            await asyncio.sleep(3600)
        ((url, headers, body),) = post.sent
        assert url == URL
        assert headers["webhook-id"] == task.id
        check_signature(service.public_key(), headers, body)
        with pytest.raises(InvalidSignature):
            check_signature(service.public_key(), headers, body + b" ")
        said = json.loads(body)
        assert (said["type"], said["task"]["id"]) == (f"task.{state}", task.id)
        assert said["task"]["state"] == state
        assert b"sealed" not in body

    virtually(test)


def test_a_receiver_that_takes_nothing_is_tried_ever_more_seldom_and_then_given_up_aloud():
    async def test(member: OneMember) -> None:
        post = Post(*["it answered 500"] * 50)
        service = agent(member, post, Owned(HOST_ID))
        async with running(service.run):
            await end(member, await started(member, service))
            await asyncio.sleep(10 * 3600)
        assert not member.store.all(Callback)
        assert len(post.sent) == TRIES_MAX
        pauses = [b - a for a, b in zip(post.times_s, post.times_s[1:], strict=False)]
        assert pauses == sorted(pauses)
        assert pauses[0] < 10
        assert pauses[-1] > 3600
        assert len({headers["webhook-id"] for _, headers, _ in post.sent}) == 1
        assert len({body for *_, body in post.sent}) == 1
        (event,) = (e for e in member.store.all(Event) if e.code == "callback-given-up")
        assert "https://hooks.example.org:443" in event.message
        assert "it answered 500" in event.message
        assert "s3cret" not in event.message

    virtually(test)


def test_it_is_delivered_though_the_agent_that_took_the_request_is_dead():
    async def test(member: OneMember) -> None:
        await member.add_host(OTHER_ID, "h2", "192.0.2.2")
        owned, dead, alive = Owned(HOST_ID), Post(), Post()
        service = agent(member, dead, owned)
        async with running(service.run):
            task = await started(member, service)
        await end(member, task)
        other = agent(member, alive, owned, OTHER_ID)
        async with running(other.run):
            await asyncio.sleep(60)
            assert alive.sent == []  # not its own as long as the first is thought to live
            owned.hosts = [OTHER_ID]
            await until(lambda: not member.store.all(Callback))
        assert dead.sent == []
        assert len(alive.sent) == 1

    virtually(test)


def test_an_agent_that_dies_between_sending_and_recording_leads_to_a_second_delivery_with_the_same_id():
    async def test(member: OneMember) -> None:
        post = Post()
        post.dies_after_sending = True
        service = agent(member, post, Owned(HOST_ID))
        async with running(service.run):
            await end(member, await started(member, service))
            await until(lambda: post.sent)
        post.dies_after_sending = False
        async with running(agent(member, post, Owned(HOST_ID)).run):
            await until(lambda: not member.store.all(Callback))
        assert [headers["webhook-id"] for _, headers, _ in post.sent] == ["t1", "t1"]

    virtually(test)


def test_two_agents_that_both_think_it_theirs_do_not_both_call():
    async def test(member: OneMember) -> None:
        await member.add_host(OTHER_ID, "h2", "192.0.2.2")
        post = Post()
        one = agent(member, post, Owned(HOST_ID))
        two = agent(member, post, Owned(OTHER_ID), OTHER_ID)
        async with running(one.run, two.run):
            for number in range(20):
                await end(member, await started(member, one, f"t{number}"))
            await until(lambda: not member.store.all(Callback))
            await asyncio.sleep(3600)
        assert sorted(headers["webhook-id"] for _, headers, _ in post.sent) == sorted(
            f"t{number}" for number in range(20)
        )

    virtually(test)


def test_the_next_try_is_another_hosts_as_the_first_may_have_no_way_there():
    async def test(member: OneMember) -> None:
        await member.add_host(OTHER_ID, "h2", "192.0.2.2")
        cut_off, well = Post(*["no answer"] * 20), Post()
        owned = Owned(HOST_ID, OTHER_ID)
        one, two = agent(member, cut_off, owned), agent(member, well, owned, OTHER_ID)
        async with running(one.run, two.run):
            await end(member, await started(member, one))
            await until(lambda: not member.store.all(Callback), deadline_s=3600)
        assert (len(cut_off.sent), len(well.sent)) == (1, 1)

    virtually(test)


def test_a_slow_receiver_holds_up_no_other():
    async def test(member: OneMember) -> None:
        slow = Post()
        slow.dies_after_sending = True
        quick, service = Post(), agent(member, slow, Owned(HOST_ID))
        async with running(service.run):
            for number in range(8):
                await end(member, await started(member, service, f"slow{number}"))
            await until(lambda: len(slow.sent) == 8)
            service._sender = quick  # what comes from now on goes elsewhere
            await end(member, await started(member, service, "quick"))
            await until(lambda: quick.sent)

    virtually(test)


def test_the_secrets_key_may_change_between_wish_and_delivery():
    async def test(member: OneMember) -> None:
        post = Post()
        service = agent(member, post, Owned(HOST_ID))
        async with running(service.run):
            await until(lambda: member.store.all(CallbackKey))
            first = service.public_key()
            task = await started(member, service)
            assert await service.change_key() != first
            await end(member, task)
            await until(lambda: not member.store.all(Callback))
        check_signature(service.public_key(), post.sent[0][1], post.sent[0][2])

    virtually(test)


def test_a_task_with_an_endless_log_is_told_in_short():
    lines = [LogLine(after=0, at_ms=0, what="x", text="y" * 10_000) for _ in range(50)]
    task = Task(id="t", name="t", workflow="w", subject="vm/x", log=tuple(lines), result={"a": "b"})

    async def test(member: OneMember) -> None:
        body = body_of(member.store, task)
        assert len(body) < BODY_BYTES_MAX
        assert json.loads(body)["task"]["result"] == {"a": "b"}

    virtually(test)


# -- the API


@pytest.fixture
async def shared(member) -> VM:
    return await member.add_vm("web1", phase=VMPhase.RUNNING)


async def call(api: TestClient, method: str, path: str, url: str = URL, **options):
    return await api.request(method, path, headers={"Callback-URL": url}, **options)


ONE = {"json": {"vms": ["web1"]}}
ROUTES = {
    **{("POST", f"/v1/vms/actions/{verb}"): ONE for verb in ("start", "stop", "reboot")},
    **{("POST", f"/v1/vms/actions/{verb}"): ONE for verb in ("migrate", "delete")},
    ("POST", "/v1/vms"): {"json": {"name": "new", "image": "debian"}},
    ("DELETE", "/v1/vms/{vm}"): {},
    ("POST", "/v1/vms/{vm}/actions/start"): {},
    ("POST", "/v1/vms/{vm}/actions/stop"): {},
    ("POST", "/v1/vms/{vm}/actions/reboot"): {},
    ("POST", "/v1/vms/{vm}/actions/migrate"): {},
    ("POST", "/v1/workflows/{workflow}/actions/run"): {
        "json": {"vm": "web1", "arguments": {"note": "x"}}
    },
    ("POST", "/v1/snapshots"): {"json": {"vm": "web1"}},
    ("DELETE", "/v1/snapshots/{snapshot}"): {},
    ("POST", "/v1/snapshots/{snapshot}/actions/revert"): {},
    ("POST", "/v1/snapshots/actions/delete"): {"json": {"snapshots": ["kept"]}},
}


@pytest.mark.parametrize("route", sorted(STARTING_TASKS))
async def test_every_route_that_starts_a_task_keeps_the_wish_with_the_task(
    member, example, api, shared, route
):
    method, path = route
    object.__setattr__(api.app[AGENT].services, "plugins", Plugins())
    if path.endswith("start"):
        await member.change_vm(shared.id, phase=VMPhase.STOPPED)
    if "/snapshots" in path:
        await member.change_vm(shared.id, phase=VMPhase.STOPPED, power=PowerState.STOPPED)
        (disk,) = member.store.all(Disk)
        kept = Snapshot(
            id="s",
            name="kept",
            disk_id=disk.id,
            layer_id="l",
            size_bytes=512,
            state=SnapshotState.READY,
        )
        await member.store.apply(puts=[kept])
    response = await call(
        api,
        method,
        path.format(vm="web1", workflow="stop-and-note", snapshot="kept"),
        **ROUTES[route],
    )
    answer = await response.json()
    (answer,) = answer.get("items", [answer])
    assert answer.get("status", response.status) == 202, answer
    task_id = answer["task"]["id"]
    wish = member.store.need(Callback, task_id)
    assert unseal(member.secrets_key, f"callback/{task_id}", wish.sealed_url) == URL.encode()


async def test_a_repeated_request_keeps_the_first_wish(member, api, shared):
    for url in (URL, "https://elsewhere.example.org/"):
        headers = {"Callback-URL": url, "Idempotency-Key": "k"}
        path = "/v1/vms/web1/actions/reboot"
        assert (await api.post(path, headers=headers)).status == 202
    (wish,) = member.store.all(Callback)
    assert wish.receiver == "https://hooks.example.org:443"


@pytest.mark.parametrize("url", ["nonsense", "http://127.0.0.1:8080/", "http://169.254.169.254/"])
async def test_a_url_that_cannot_be_called_is_refused_before_anything_is_done(member, api, url):
    response = await call(api, "POST", "/v1/vms", url, json={"name": "new", "image": "debian"})
    assert response.status in {400, 403}
    assert url not in await response.text()
    assert not member.store.all(VM)
    assert not member.store.all(Task)


async def test_where_no_task_is_started_the_header_is_refused_instead_of_ignored(member, api):
    response = await call(api, "POST", "/v1/security-groups", json={"name": "g"})
    assert response.status == 400
    assert "Callback-URL" in (await response.json())["detail"]
    assert [g["name"] for g in (await (await api.get("/v1/security-groups")).json())["items"]] == [
        "default"
    ]


async def test_anybody_may_have_the_public_key_and_only_an_administrator_changes_it(member, api):
    async with TestClient(TestServer(app_of(member))) as stranger:
        early = await stranger.get("/v1/callback-key")
        assert early.status == 503
        made = await (await api.post("/v1/callback-key/actions/rotate")).json()
        shown = await (await stranger.get("/v1/callback-key")).json()
        assert shown == made
        assert shown["public_key"].startswith("whpk_")
        assert (await stranger.post("/v1/callback-key/actions/rotate")).status == 401
    key = member.store.need(CallbackKey, "callback-key")
    assert unseal(member.secrets_key, "callback-key", key.sealed_key) != b""


async def test_the_url_is_nowhere_to_be_seen(member, api, shared, caplog):
    caplog.set_level(logging.DEBUG)
    canaries = Canaries()
    canaries.secrets["the URL"] = [b"s3cret-of-the-receiver"]
    response = await call(api, "POST", "/v1/vms/web1/actions/reboot")
    canaries.hear("the answer", await response.read())
    for path in ("tasks", "events", "audits", "vms", "openapi.json", "status"):
        canaries.hear(path, await (await api.get(f"/v1/{path}")).read())
    canaries.hear("a try to list them", await (await api.get("/v1/callbacks")).read())
    canaries.hear("the state", "".join(member.machine._db.iterdump()).encode())
    canaries.hear("the record", repr(member.store.all(Callback)))
    post = Post("no answer")
    service = agent(member, post, Owned(HOST_ID))
    monkey = pytest.MonkeyPatch()
    monkey.setattr(callbacks, "TRIES_MAX", 1)
    async with running(service.run):
        await end(member, member.store.all(Task)[0])
        await until(lambda: not member.store.all(Callback))
    monkey.undo()
    for event in member.store.all(Event):
        canaries.hear("an event", event.message)
    for record in caplog.records:
        canaries.hear("the log", FieldFormatter("%(message)s").format(record))
    assert post.sent[0][0] == URL
    assert canaries.found() == []


def test_without_a_quorum_nothing_is_sent_that_could_not_be_counted():
    async def test(member: OneMember) -> None:
        post = Post()
        service = agent(member, post, Owned(HOST_ID))
        async with running(service.run):
            task = await started(member, service)
            apply, asked = member.store.apply, []

            async def refuse(**what) -> int:
                asked.append(what)
                raise UnavailableError("no quorum")

            await end(member, task)
            member.store.apply = refuse
            await asyncio.sleep(30)
            assert asked
            assert post.sent == []
            member.store.apply = apply
            await until(lambda: post.sent)

    virtually(test)
