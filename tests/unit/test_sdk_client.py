"""The client against stand-in agents: fail-over, retries that do nothing twice, waiting, uploads, events, TLS."""

import asyncio
import hashlib
import random
import ssl
from contextlib import aclosing

import msgspec
import pytest

from core.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    PlatformError,
    UnauthenticatedError,
    UnavailableError,
)
from nodeagent.services.vm_requests import StopVMs
from tests.golden.cli.stub import Fault, StubAgent, World
from tests.golden.cli.world import small_cluster
from tests.mesh_identity import Authority
from tools.sdk.bodies import PortGroupBody, StopBody, VMBody, VMPatch
from tools.sdk.client import Client
from tools.sdk.endpoints import parse_endpoints
from tools.sdk.transport import retry_after_s


@pytest.fixture
def world():
    return small_cluster()


@pytest.fixture
def agent(world):
    with StubAgent(world) as agent:
        yield agent


def client_of(*addresses, **options):
    options = {"patience_s": 5.0, "first_patience_s": 5.0, **options}
    return Client(parse_endpoints(",".join(addresses)), rng=random.Random(1), **options)


def silent(*_):
    pass


async def test_fields_left_alone_are_not_sent(agent):
    async with client_of(agent.address) as client:
        await client.create("port-groups", PortGroupBody(name="pg", cidr="10.1.0.0/24"))
        await client.update("vms", "web1", VMPatch(ha=False))
    assert [asked.json for asked in agent.asked] == [
        {"name": "pg", "cidr": "10.1.0.0/24"},
        {"ha": False},
    ]


async def test_a_503_is_tried_again_with_the_same_key(agent):
    agent.faults.extend([Fault(503, "no quorum"), Fault(503, "no quorum")])
    heard = []
    async with client_of(agent.address, on_retry=heard.append) as client:
        await client.create("port-groups", PortGroupBody(name="pg", cidr="10.1.0.0/24"))
    assert len(agent.asked) == 3
    assert len({asked.key for asked in agent.asked}) == 1
    assert [error.message for error in heard] == ["no quorum", "no quorum"]


async def test_a_change_whose_answer_was_lost_is_done_once(agent, world):
    agent.faults.append(Fault(drop_answer=True))
    async with client_of(agent.address) as client:
        await client.create("port-groups", PortGroupBody(name="pg", cidr="10.1.0.0/24"))
    assert len(agent.asked) == 2
    assert [group["name"] for group in world.collections["port-groups"]] == ["default", "pg"]


async def test_two_changes_have_two_keys(agent):
    async with client_of(agent.address) as client:
        await client.act("vms", "web1", "stop", StopBody(force=True))
        await client.act("vms", "web1", "start")
    assert agent.asked[0].key != agent.asked[1].key


async def test_who_shall_be_called_back_is_named_with_what_starts_the_work(agent):
    url = "https://hooks.example.org/"
    async with client_of(agent.address) as client:
        await client.act("vms", "web1", "stop", callback_url=url)
        await client.act("vms", "web1", "start")
        await client.create_vm(VMBody(name="web2", image="debian-12"), callback_url=url)
        await client.delete("vms", "web1", callback_url=url)
    assert [asked.headers.get("Callback-URL") for asked in agent.asked] == [url, None, url, url]


async def test_very_many_are_acted_on_some_at_a_time_and_answered_in_order(agent):
    names = ["web1", *(f"nope{n}" for n in range(240)), "web1"]
    async with client_of(agent.address) as client:
        outcomes = await client.act_on_many("vms", names, "stop", StopBody(force=True))
    assert [outcome.ref for outcome in outcomes] == names
    assert [len(asked.json["vms"]) for asked in agent.asked] == [200, 42]
    assert len({asked.key for asked in agent.asked}) == 2
    for asked in agent.asked:  # what is sent is what an agent decodes
        assert msgspec.json.decode(asked.body, type=StopVMs).force
    assert outcomes[0].task is not None
    assert isinstance(outcomes[1].error, NotFoundError)
    assert (outcomes[-1].task, outcomes[-1].error) == (None, None)  # stopped already


async def test_an_agent_that_had_enough_is_asked_again_when_it_said(agent):
    agent.faults.append(Fault(429, "too many", code="too-many-requests", retry_after="1"))
    loop = asyncio.get_running_loop()
    async with client_of(agent.address) as client:
        await client.status()
        began_s = loop.time()
        agent.faults.append(Fault(429, "too many", code="too-many-requests", retry_after="1"))
        await client.status()
    assert loop.time() - began_s >= 1.0, "its own first pause is 0.2 s at most"
    assert len(agent.asked) == 4


async def test_another_agent_is_asked_at_once_meanwhile(agent, world):
    with StubAgent(world) as other:
        agent.faults.append(Fault(429, "too many", code="too-many-requests", retry_after="4"))
        began_s = asyncio.get_running_loop().time()
        async with client_of(agent.address, other.address) as client:
            await client.status()
        assert asyncio.get_running_loop().time() - began_s < 3
    assert (len(agent.asked), len(other.asked)) == (1, 1)


async def test_who_shall_wait_longer_than_it_is_patient_is_told_at_once(agent):
    agent.faults.append(Fault(429, "too many: wait", code="too-many-requests", retry_after="900"))
    began_s = asyncio.get_running_loop().time()
    async with client_of(agent.address) as client:
        with pytest.raises(PlatformError, match="too many: wait"):
            await client.status()
    assert asyncio.get_running_loop().time() - began_s < 3
    assert len(agent.asked) == 1


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("0", 0), ("30", 30), (" 7 ", 7), ("-1", 0), ("soon", 0), ("1e9", 0), ("٣", 0), ("9" * 12, 0)],
)
def test_only_whole_seconds_of_retry_after_count(said, seconds):
    assert retry_after_s({"Retry-After": said}) == seconds
    assert retry_after_s({}) == 0


async def test_when_quorum_stays_lost_the_last_word_is_the_agents(agent):
    agent.faults.extend(Fault(503, "no quorum: h2 and h3 are missing") for _ in range(99))
    async with client_of(agent.address, patience_s=0.3) as client:
        with pytest.raises(UnavailableError, match="h2 and h3 are missing"):
            await client.status()
    assert 1 < len(agent.asked) < 10


async def test_an_agents_word_counts_more_than_the_silence_of_the_dead(agent):
    agent.faults.extend(Fault(503, "no quorum") for _ in range(99))
    async with client_of(agent.address, "unix:/nowhere/dead.sock", patience_s=0.05) as client:
        with pytest.raises(UnavailableError, match="no quorum"):
            await client.status()


async def test_a_refusal_is_not_tried_again(agent):
    async with client_of(agent.address) as client:
        with pytest.raises(NotFoundError, match="no vm 'nope'"):
            await client.get("vms", "nope")
    assert len(agent.asked) == 1


async def test_a_host_without_a_cluster_is_not_waited_for(agent):
    agent.faults.append(Fault(503, "not a member of a cluster yet", code="not-a-member"))
    async with client_of(agent.address) as client:
        with pytest.raises(UnavailableError, match="not a member"):
            await client.list("vms")
    assert len(agent.asked) == 1


async def test_the_next_agent_is_asked_when_one_is_dead_and_stayed_with(agent):
    async with client_of("unix:/nowhere/dead.sock", agent.address) as client:
        await client.status()
        await client.list("vms")
        assert client.endpoint.socket_path == str(agent.socket)
    assert [asked.path for asked in agent.asked] == ["/v1/status", "/v1/vms"]


async def test_an_agent_that_died_in_the_middle_is_replaced(world):
    with StubAgent(world) as second:
        with StubAgent(world) as first:
            async with client_of(first.address, second.address) as client:
                await client.status()
                first.faults.append(Fault(drop_answer=True))
                started = await client.create_vm(VMBody(name="web2", image="debian-12"))
        assert [asked.key for asked in second.asked] == [first.asked[-1].key]
    assert started.task is not None
    assert sum(vm["name"] == "web2" for vm in world.collections["vms"]) == 1


async def test_nobody_there_is_said_soon_and_with_advice():
    async with client_of("unix:/nowhere/api.sock", first_patience_s=0.2) as client:
        async with asyncio.timeout(2):
            with pytest.raises(UnavailableError, match="systemctl status kvorum-agent"):
                await client.status()


async def test_waiting_for_a_task_tells_its_steps_and_its_end(agent):
    heard = []
    async with client_of(agent.address) as client:
        started = await client.create_vm(VMBody(name="web2", image="debian-12"))
        ended = await client.wait_task(started.task.id, heard.append)
    assert ended.succeeded
    assert [(task.state, task.step) for task in heard] == [
        ("running", "create-disk"),
        ("running", "start"),
        ("succeeded", "start"),
    ]
    assert "Prefer" not in agent.asked[1].headers
    assert agent.asked[2].headers["Prefer"] == "wait=20"


async def test_a_wait_survives_an_agent_that_is_away_for_a_while(agent):
    async with client_of(agent.address) as client:
        started = await client.create_vm(VMBody(name="web2", image="debian-12"))
        agent.faults.extend([Fault(503, "no quorum"), Fault(drop_answer=True)])
        assert (await client.wait_task(started.task.id)).succeeded


async def test_an_agent_that_does_not_hold_answers_back_is_not_hammered(agent, world):
    world.collections["tasks"].append({"id": "t9", "name": "t9", "state": "running"})
    world.task_steps = ("again",) * 2
    async with client_of(agent.address) as client:
        agent.faults.extend(Fault(body=b'{"id": "t9", "state": "running"}') for _ in range(99))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await client.wait_task("t9")
    assert len(agent.asked) <= 6


async def test_nothing_to_do_has_no_task(agent):
    async with client_of(agent.address) as client:
        assert (await client.act("vms", "web1", "start")).task is None


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(5).randbytes(3_000_000))
    return path


async def test_an_upload_sends_its_hash_and_its_length_first(agent, file):
    sent = []
    async with client_of(agent.address) as client:
        image = await client.upload_image(
            "i", file, source_format="raw", on_hash=silent, on_bytes=lambda *now: sent.append(now)
        )
    (asked,) = agent.asked
    assert asked.headers["Content-Length"] == "3000000"
    assert "Transfer-Encoding" not in asked.headers
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert dict(asked.query) == {"name": "i", "sha256": sha256, "format": "raw"}
    assert image.text("sha256") == sha256
    assert sent[-1] == (3_000_000, 3_000_000)


async def test_a_broken_upload_starts_over_with_the_same_key(agent, world, file):
    agent.faults.extend([Fault(drop_after_bytes=70_000), Fault(drop_answer=True)])
    async with client_of(agent.address) as client:
        await client.upload_image("i", file, on_hash=silent, on_bytes=silent)
    assert len(agent.asked) == 3
    assert len({asked.key for asked in agent.asked}) == 1
    assert agent.asked[2].body == file.read_bytes()
    assert [image["name"] for image in world.collections["images"]] == ["debian-12", "i"]


async def test_an_upload_that_always_breaks_ends_as_unavailable(agent, file):
    agent.faults.extend(Fault(drop_after_bytes=10) for _ in range(99))
    async with client_of(agent.address, patience_s=0.3) as client:
        with pytest.raises(UnavailableError, match=r"connection .* broke"):
            await client.upload_image("i", file, on_hash=silent, on_bytes=silent)


async def test_an_upload_that_is_refused_at_once_is_not_sent_to_its_end(agent, tmp_path):
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(200 << 20)
    sent = []
    agent.faults.append(Fault(409, "an image named i exists", early=True))
    async with client_of(agent.address) as client:
        with pytest.raises(ConflictError, match="exists"):
            await client.upload_image(
                "i", large, on_hash=silent, on_bytes=lambda *now: sent.append(now)
            )
    assert len(agent.asked) == 1
    assert all(done < size for done, size in sent)


async def test_a_file_that_changes_while_it_is_read_is_refused_by_its_hash(agent, file):
    def change(done, size):
        if done == size:
            file.write_bytes(b"x" * size)

    async with client_of(agent.address) as client:
        with pytest.raises(InvalidError, match="SHA-256"):
            await client.upload_image("i", file, on_hash=change, on_bytes=silent)


async def test_what_is_no_file_is_not_uploaded(agent, tmp_path):
    (tmp_path / "empty").touch()
    async with client_of(agent.address) as client:
        for path in (tmp_path, tmp_path / "none", tmp_path / "empty"):
            with pytest.raises(InvalidError):
                await client.upload_image("i", path, on_hash=silent, on_bytes=silent)
    assert not agent.asked


async def test_an_answer_that_is_not_json_is_said_so(agent):
    agent.faults.append(Fault(body=b"<html>"))
    async with client_of(agent.address) as client:
        with pytest.raises(UnavailableError, match="not JSON"):
            await client.status()


def event(index):
    return f'id: {index}\nevent: x\ndata: {{"name": "e{index}"}}\n\n'.encode()


async def test_events_go_on_after_a_break_without_loss(agent):
    agent.streams.extend([[event(1), event(2)[:9]], [event(2), b": still here\n\n", event(3)]])
    found = []
    async with client_of(agent.address) as client:
        async with asyncio.timeout(10), aclosing(client.follow_events()) as events:
            async for item in events:
                found.append(item.text("name"))
                if len(found) == 3:
                    break
    assert found == ["e1", "e2", "e3"]
    assert [asked.headers.get("Last-Event-ID") for asked in agent.asked] == [None, "1"]


async def test_events_go_on_at_another_agent(agent):
    agent.streams.append([event(8)])
    async with client_of("unix:/nowhere/dead.sock", agent.address) as client:
        async with asyncio.timeout(10), aclosing(client.follow_events("7")) as events:
            assert (await anext(events)).text("name") == "e8"
    assert agent.asked[0].headers["Last-Event-ID"] == "7"


async def test_following_events_of_nobody_ends_soon():
    async with client_of("unix:/nowhere/api.sock") as client:
        async with asyncio.timeout(5), aclosing(client.follow_events()) as events:
            with pytest.raises(UnavailableError, match="kvorum-agent"):
                await anext(events)


async def test_a_refused_event_stream_is_an_error(agent):
    agent.faults.append(Fault(400, "Last-Event-ID must be a number"))
    async with client_of(agent.address) as client:
        with pytest.raises(InvalidError, match="must be a number"):
            async with aclosing(client.follow_events("x")) as events:
                await anext(events)


async def test_a_conflict_keeps_its_kind(agent):
    async with client_of(agent.address) as client:
        with pytest.raises(ConflictError):
            await client.create("port-groups", PortGroupBody(name="default", cidr="10.1.0.0/24"))


def test_the_worlds_of_tests_are_their_own():
    assert World().collections is not World().collections


@pytest.fixture
def secure_agent(tmp_path, world):
    files = Authority(tmp_path / "cluster").issue("6b1c0f1e-0000-4000-8000-000000000001")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    with StubAgent(world, tls=context) as agent:
        yield agent, files


async def test_over_https_the_token_goes_only_to_agents_of_the_cluster(secure_agent, tmp_path):
    agent, files = secure_agent
    async with client_of(agent.address, token="kvt_x", ca_file=str(files.ca)) as client:
        assert (await client.status()).text("cluster_name") == "prod"
    assert agent.asked[0].headers["Authorization"] == "Bearer kvt_x"
    stranger = Authority(tmp_path / "other").issue("stranger")
    async with client_of(agent.address, token="kvt_x", ca_file=str(stranger.ca)) as client:
        with pytest.raises(UnavailableError, match="did not sign"):
            await client.status()
    assert len(agent.asked) == 1


async def test_https_without_token_or_ca_is_refused_before_anything_is_sent(secure_agent, tmp_path):
    agent, files = secure_agent
    async with client_of(agent.address, ca_file=str(files.ca)) as client:
        with pytest.raises(UnauthenticatedError, match="KVORUM_TOKEN"):
            await client.status()
    async with client_of(agent.address, token="kvt_x", ca_file=str(tmp_path / "none")) as client:
        with pytest.raises(UnauthenticatedError, match="KVORUM_CA"):
            await client.status()
    assert not agent.asked


async def test_a_dead_https_agent_is_passed_over(secure_agent):
    agent, files = secure_agent
    async with client_of(
        "127.0.0.1:9", agent.address, token="kvt_x", ca_file=str(files.ca)
    ) as client:
        await client.status()
    assert len(agent.asked) == 1


# -- queries


async def test_all_pages_are_fetched_and_a_limit_is_kept(world):
    world.collections["images"] = [{"id": f"i{n}", "name": f"n{n}"} for n in range(7)]
    world.page_size = 3
    with StubAgent(world) as agent:
        async with client_of(agent.address) as client:
            wanted = [f"n{n}" for n in range(7)]
            assert [i.text("name") async for i in client.find("images")] == wanted
            assert [i.text("name") for i in (await client.list_all("images")).items] == wanted
            assert len((await client.list_all("images", limit=5)).items) == 5
            page = await client.list("images", limit=2, fields=("name",))
            assert (page.next, page.items[0].raw) == ("2", {"name": "n0"})
            assert await client.count("images", query=("name=n3",)) == 1
            assert (await client.explain("images")).integer("reads_rows") == 7
