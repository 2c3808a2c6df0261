"""The typed SDK against a real agent's API: what comes back is what the models say, awaited or blocking."""

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

import kvorum_sdk
from core.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    PreconditionError,
)
from core.model import Event, Severity, Task, TaskState
from kvorum_sdk import TaskFailedError, models
from tests.one_member import ADMIN_TOKEN, OTHER_ID, THIRD_ID
from tests.sdk_program import inventory
from tests.served_member import obedient_host, served
from tools.sdk.client import Client
from tools.sdk.collection import Collection
from tools.sdk.endpoints import parse_endpoints
from tools.sdk.kvorum import AsyncKvorum, Kvorum
from tools.sdk.transport import Request


@pytest.fixture
async def agent(member):
    async with served(member) as agent:
        yield agent


@pytest.fixture
async def kvorum(agent):
    async with AsyncKvorum(client_of(agent)) as kvorum:
        yield kvorum


def client_of(agent, **options):
    return Client(
        parse_endpoints(agent.address),
        token=agent.token,
        ca_file=agent.ca_file,
        rng=random.Random(1),
        patience_s=2.0,
        **options,
    )


async def blocking(use, agent):
    """Let a function use the client that blocks, in a thread of its own as in a program of its own."""

    def work():
        with Kvorum(client_of(agent)) as kvorum:
            return use(kvorum)

    return await asyncio.to_thread(work)


async def test_a_vm_is_made_waited_for_changed_and_deleted(member, kvorum):
    async with obedient_host(member):
        started = await kvorum.vms.create(name="web1", image="debian", security_groups=["default"])
        assert (started.item.name, started.item.cpus) == ("web1", 1)
        heard = []
        ended = await kvorum.wait(started, on_progress=heard.append)
        assert ended.result == {"vm": "web1"}
        assert heard[-1].succeeded
        vm = await kvorum.vms.get("web1")
        assert vm.phase is models.VMPhase.RUNNING
        assert (await kvorum.vms.update("web1", ha=False, if_match=vm.revision)).ha is False
        with pytest.raises(PreconditionError):
            await kvorum.vms.update("web1", ha=True, if_match=vm.revision)
        plan = await kvorum.vms.plan_delete("web1")
        assert plan.allowed
        assert [one.kind for one in plan.deleted] == ["disk", "nic"]
        await kvorum.wait(await kvorum.vms.delete("web1"), timeout_s=10)
        with pytest.raises(NotFoundError):
            await kvorum.vms.get("web1")


async def test_the_client_that_blocks_does_the_same(member, agent):
    def use(kvorum):
        heard = []
        started = kvorum.vms.create(name="web1", image="debian")
        kvorum.wait(started, on_progress=lambda t: heard.append((t.state, threading.get_ident())))
        assert heard[-1] == ("succeeded", threading.get_ident())
        assert [vm.name for vm in kvorum.vms.find()] == ["web1"]
        assert kvorum.vms.list_all(q="name=web1").items[0].phase == "running"
        assert kvorum.wait(kvorum.vms.start("web1")).succeeded  # it runs: there was nothing to do
        assert kvorum.status().cluster_name == "test"
        return kvorum.vms.count(), kvorum.vms.select("name", "host.name").items[0].raw

    async with obedient_host(member):
        counted = await blocking(use, agent)
    assert counted == (1, {"name": "web1", "host.name": "h1"})


async def test_the_program_that_the_type_checker_reads_also_runs(member, agent):
    def use(kvorum):
        kvorum.security_groups.create(name="web")
        kvorum.port_groups.create(name="old", cidr="10.9.0.0/24")
        changed = inventory.roll_out(kvorum, "web1")
        kvorum.wait(kvorum.vms.start("web1"))
        return changed.ha, inventory.inventory(kvorum)

    await member.add_image("debian-12")
    async with obedient_host(member):
        assert await blocking(use, agent) == (False, {"h1": 1024})


async def test_every_collection_is_read_as_its_model(member, kvorum):
    """Each attribute that an agent shows has its place in the model, and the values are of its types."""
    await member.add_vm()
    async with obedient_host(member):
        await kvorum.wait(await kvorum.vms.create(name="web2", image="debian"))
    await member.store.apply(puts=(an_event(1),))
    collections = {
        name: group for name, group in vars(kvorum).items() if isinstance(group, Collection)
    }
    seen = set()
    for name, group in collections.items():
        page = await group.list_all()
        plain = await kvorum.collection(name.replace("_", "-")).list_all()
        for item, raw in zip(page.items, plain.items, strict=True):
            said = msgspec.to_builtins(item)
            assert said.keys() >= raw.raw.keys(), name
            plainly = {k: v for k, v in raw.raw.items() if isinstance(v, str | int)}
            assert {key: said[key] for key in plainly} == plainly
            assert await group.get(item.id) == item
            seen.add(name)
    assert seen >= {"vms", "hosts", "nics", "disks", "images", "tasks", "events", "access_tokens"}


async def test_what_is_no_collection_is_typed_too(kvorum):
    status = await kvorum.status()
    assert (status.cluster_name, status.quorum, status.vms) == ("test", True, {})
    assert [member.name for member in status.members] == ["h1"]
    assert (await kvorum.members.list(q=["name=h1"])).items == status.members
    assert (await kvorum.members.get_policy()).voters_max == 5
    assert (await kvorum.whoami()).permissions
    assert {role.name for role in (await kvorum.roles.list()).items} >= {"admin", "viewer"}
    assert (await kvorum.secrets.get()).key_id
    assert "paths" in await kvorum.openapi()
    group = await kvorum.security_groups.create(name="web")
    rule = await kvorum.security_groups.add_rule("web", direction="ingress", protocol="tcp")
    assert rule.direction is models.Direction.INGRESS
    assert rule in (await kvorum.security_groups.get(group.id)).rules
    await kvorum.security_groups.delete_rule("web", rule.id)
    assert await kvorum.security_groups.delete("web") is None


async def test_anything_can_be_asked_that_has_no_method(kvorum):
    assert (await kvorum.request("GET", "/v1/vms?count=1"))["count"] == 0
    made = await kvorum.request("POST", "/v1/security-groups", {"name": "db"})
    assert (await kvorum.collection("security-groups").get("db")).text("id") == made["id"]


async def test_a_repetition_with_its_key_does_nothing_twice(kvorum):
    first = await kvorum.vms.create(name="web1", image="debian", idempotency_key="mine")
    again = await kvorum.vms.create(name="web1", image="debian", idempotency_key="mine")
    assert first.item.id == again.item.id
    with pytest.raises(ConflictError, match="web1"):
        await kvorum.vms.create(name="web1", image="debian")


async def test_one_text_is_not_taken_for_a_list_of_its_letters(member, kvorum):
    with pytest.raises(InvalidError, match=r"write \['default'\]"):
        await kvorum.vms.create(name="web1", image="debian", security_groups="default")
    await member.add_vm()
    assert await kvorum.vms.count(q="name=web1") == 1


async def test_a_task_that_fails_is_an_error_with_its_reason(member, kvorum):
    started = await kvorum.vms.create(name="web1", image="debian")
    failed = {"error": "no space left on local", "error_code": "no-space"}
    (task,) = member.store.all(Task)
    await member.store.apply(
        puts=(msgspec.structs.replace(task, state=TaskState.FAILED, **failed),)
    )
    with pytest.raises(TaskFailedError, match="web1 failed: no space left on local") as caught:
        await kvorum.wait(started)
    assert (caught.value.code, caught.value.task.id) == ("no-space", task.id)


async def test_a_wait_ends_in_time_and_the_work_goes_on(kvorum):
    started = await kvorum.vms.create(name="web1", image="debian")
    with pytest.raises(TimeoutError):
        await kvorum.wait(started, timeout_s=0.05)
    assert (await kvorum.tasks.get(started.task.id)).state is models.TaskState.PENDING
    with pytest.raises(NotFoundError):
        await kvorum.wait("no-such-task")


async def test_where_all_agents_are_is_learned_from_a_real_one(member, agent):
    await member.add_host(OTHER_ID, "h2", "192.0.2.2", api_port=8443)
    await member.add_host(THIRD_ID, "h3", "fd00::3", joining=True)
    async with AsyncKvorum(client_of(agent, learning=True)) as kvorum:
        assert (await kvorum.hosts.count()) == 3
        learned = [str(endpoint) for endpoint in kvorum.endpoints]
    assert sorted(learned[1:]) == ["https://192.0.2.1:7443", "https://192.0.2.2:8443"]


async def test_events_are_followed_from_now_on(member, agent):
    def first(kvorum):
        ready.set()
        return next(iter(kvorum.follow()))

    ready = threading.Event()
    async with asyncio.TaskGroup() as group:
        following = group.create_task(blocking(first, agent), name="following")
        await asyncio.to_thread(ready.wait)
        number = 0
        async with asyncio.timeout(5):
            while not following.done():  # the stream begins some time after it is asked for
                number += 1
                await member.store.apply(puts=(an_event(number),))
                await asyncio.sleep(0.02)
    event = following.result()
    assert (type(event), event.severity) == (models.Event, models.Severity.NOTICE)


async def test_a_stream_says_where_it_begins_so_that_nothing_is_lost_before_its_first_event(
    member, agent
):
    request = Request("GET", "/v1/events", headers={"Accept": "text/event-stream"})
    async with client_of(agent) as client:
        async with client.transport.open_stream(request) as reader:
            assert await reader.readline() == f"id: {member.store.index}\n".encode()


async def test_threads_share_one_client(agent):
    def use(kvorum):
        def work(number):
            kvorum.security_groups.create(name=f"g{number}")
            return kvorum.security_groups.get(f"g{number}").name

        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(work, range(8)))

    assert await blocking(use, agent) == [f"g{n}" for n in range(8)]


async def test_a_closed_client_says_so_and_leaves_no_thread(agent):
    def use():
        before = threading.active_count()
        kvorum = Kvorum(client_of(agent))
        vms = kvorum.vms.find()
        assert list(vms) == []
        kvorum.close()
        kvorum.close()
        assert threading.active_count() == before
        with pytest.raises(InvalidError, match="closed"):
            kvorum.status()

    await asyncio.to_thread(use)


def test_connecting_goes_by_the_environment_and_by_what_is_given(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KVORUM_ADDRESS", "h1,h2")
    monkeypatch.delenv("KVORUM_TOKEN", raising=False)
    with pytest.raises(InvalidError, match="KVORUM_TOKEN"):
        kvorum_sdk.connect()
    with kvorum_sdk.connect(token="kvt_x") as kvorum:
        assert [str(e) for e in kvorum.endpoints] == ["https://h1:7443", "https://h2:7443"]
    with kvorum_sdk.connect(["h3", "h4:8443"], anonymous=True) as kvorum:
        assert [str(e) for e in kvorum.endpoints] == ["https://h3:7443", "https://h4:8443"]
    with pytest.raises(InvalidError, match="address"):
        kvorum_sdk.connect("http://h1", token="kvt_x")


def test_no_text_about_a_secret_shows_it():
    texts = [
        repr(models.LogIn(name="a", password="hunter2", code="123456")),
        repr(models.CreateAccount(name="a", password="hunter2")),
        repr(models.SetPassword(password="hunter2", old_password="hunter2")),
        repr(models.NewAccessToken(id="1", token=ADMIN_TOKEN)),
        repr(models.NewJoinTokens(tokens=("kvj_hunter2",))),
        repr(models.RecoveryCodes(recovery_codes=("hunter2",))),
        repr(models.ImportCertificate(content=b"x", passphrase="hunter2")),
    ]
    assert not [text for text in texts if "hunter2" in text or ADMIN_TOKEN in text]
    assert "name='a'" in texts[0]


def an_event(number):
    return Event(
        id=f"e{number}",
        name=f"e{number}",
        code="vm-started",
        subject="vm/x",
        subject_name="x",
        severity=Severity.NOTICE,
        message="started",
    )
