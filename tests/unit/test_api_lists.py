"""Lists of the API: what they may be asked, what they refuse in words, and that nothing typed is more than data."""

import base64
import json

import pytest
from aiohttp.test_utils import TestClient
from msgspec.structs import replace

from core.model import (
    COLLECTIONS,
    VM,
    AccessKey,
    AccessToken,
    Account,
    Audit,
    Bmc,
    Disk,
    Drill,
    DrillKind,
    Event,
    Host,
    JoinToken,
    Nic,
    PlacementPolicy,
    PlacementRule,
    Session,
    Snapshot,
    Task,
    VMPhase,
)
from nodeagent.api.views import show
from nodeagent.identity.tokens import secret_hash
from raftstate.txn import Put, Txn
from tests.loose_store import LooseStore
from tests.one_member import ADMIN_TOKEN, HOST_ID, OTHER_ID, OneMember, founded


@pytest.fixture
async def member() -> OneMember:
    made = await founded()
    await made.add_host(OTHER_ID, "h2", "192.0.2.2", failure_domain="rack1")
    await made.add_vm("b", memory_mib=2048, ha=False, host_id=OTHER_ID, phase=VMPhase.RUNNING)
    await made.add_vm("a", memory_mib=512, description="it's 100% a_b*c?[d]")
    await made.add_vm("c", memory_mib=10240, blocked_reason="no quorum")
    return made


async def ask(api: TestClient, plural: str, *queries: str, status: int = 200, **options) -> dict:
    params = [*(("q", query) for query in queries), *options.items()]
    response = await api.get(f"/v1/{plural}", params=params)
    answer = await response.json()
    assert response.status == status, answer
    return answer


async def names(api: TestClient, *queries: str, plural: str = "vms", **options) -> list[str]:
    return [item["name"] for item in (await ask(api, plural, *queries, **options))["items"]]


async def refusal(api: TestClient, plural: str, *queries: str, **options) -> str:
    return (await ask(api, plural, *queries, status=400, **options))["detail"]


async def test_a_list_shows_each_resource_as_it_is_shown_alone(member, api):
    await member.add_image()
    await member.store.apply(
        puts=(
            JoinToken(id="j", name="j", secret_sha256="x", expires_ms=1, used_by_host_id=HOST_ID),
            Bmc(id="b", name="h1", host_id=HOST_ID, address="a", user="u", sealed_password=b"x"),
            PlacementRule(
                id="p",
                name="p",
                cluster_id=member.store.need(Host, HOST_ID).cluster_id,
                policy=PlacementPolicy.VM_AFFINITY,
                vm_ids=tuple(vm.id for vm in member.store.all(VM)),
            ),
            Snapshot(
                id="n",
                name="n",
                disk_id=member.store.all(Disk)[0].id,
                layer_id="l",
                size_bytes=512,
            ),
            Drill(id="d", name="d", kind=DrillKind.POWER_OFF, host_id=HOST_ID, host_label="h1"),
            Account(id="a", name="alice", role_ids=("viewer",), password_hash="x"),
            Session(id="s", name="s", account_id="a", secret_sha256="x", expires_ms=1),
            AccessKey(id="k", name="k", account_id="a", sealed_secret=b"x"),
            Audit(id="u", name="u", action="log in", operator="alice"),
            Task(id="t", name="t", workflow="w", subject="vm/x", arguments={"a": "b"}),
            Event(
                id="e", name="e", code="c", subject="s", subject_name="", message="", host_id="?"
            ),
        )
    )
    for plural, type_ in COLLECTIONS.items():
        if plural == "roles":
            continue  # the built-in ones are listed too, and stored nowhere
        items = (await ask(api, plural))["items"]
        alone = [json.loads(json.dumps(show(member.store, one))) for one in member.store.all(type_)]
        assert items == alone, plural
        assert items, f"no {plural} to compare"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("memory_mib>=2GiB", ["b", "c"]),
        ("memory_mib > 2048", ["c"]),
        ("memory_mib<2GiB", ["a"]),
        ("memory_mib!=512", ["b", "c"]),
        ("name?=a,c,x", ["a", "c"]),
        ("name !?= a,c", ["b"]),
        ("ha=no", ["b"]),
        ("host.name=h2", ["b"]),
        ("host=h2", ["b"]),
        ("host_name=h2", ["b"]),
        ("host.failure_domain=rack1", ["b"]),
        ("host.cluster.data_center.clusters.hosts.name=h2", ["a", "b", "c"]),
        ("nics.ip=10.100.1.2", ["a"]),
        ("nics.security_groups.rules.port_first=0", ["a", "b", "c"]),
        ("disks.size_bytes>=1GiB", ["a", "b", "c"]),
        ("disks.size_bytes>1G", []),
        ("blocked_reason is:null", ["a", "b"]),
        ("blocked_reason!is:null", ["c"]),
        ("migrating_to_host is:null", ["a", "b", "c"]),
        ("host.maintenance=false", ["a", "b", "c"]),
        ("created_ms<2026-11-24T16:00:00+02:00", ["a", "b", "c"]),
        ("description~=it's*%*_b[*]c[?][[]d]", []),
        ("description~=it's*%*a_b?c?[d]", ["a"]),
        ("description~=*[d]", ["a"]),
        ("description~=A*", []),
        ("name~=?", ["a", "b", "c"]),
        ("description= it's 100% a_b*c?[d]", []),
        ("description = it's 100% a_b*c?[d]", ["a"]),
    ],
)
async def test_operators_and_relations(api, query, expected):
    assert await names(api, query) == expected
    assert (await ask(api, "vms", query, count="1"))["count"] == len(expected)


async def test_conditions_hold_together_and_reach_back(api):
    assert await names(api, "host=h2", "memory_mib>1GiB") == ["b"]
    assert await names(api, "vms.phase=running", plural="hosts") == ["h2"]
    assert await names(api, "vms is:null", plural="hosts") == []
    assert await names(api, "incoming_vms is:null", plural="hosts") == ["h1", "h2"]
    assert await names(api, "nics.vm.host=h2", plural="security-groups") == ["default"]


async def test_order_through_a_relation_and_of_events(member, api):
    assert await names(api, sort="host.name") == ["a", "c", "b"] or await names(
        api, sort="host.name"
    ) == ["c", "a", "b"]
    assert await names(api, sort="-host_name", limit=1) == ["b"]
    for number in (3, 1, 2):
        event = Event(
            id=f"e{number}", name=f"e{number}", code="c", subject="s", subject_name="", message=""
        )
        await member.store.apply(puts=(event,))
    assert (await names(api, "code=c", plural="events")) == ["e3", "e1", "e2"]


async def test_fields_are_chosen_also_through_relations(member, api):
    fields = "name,host.name,memory_mib,ha,host_name,migrating_to_host,disks.size_bytes,ips,cloud_init,nics"
    (item,) = (await ask(api, "vms", "name=b", fields=fields))["items"]
    nic = next(n for n in member.store.all(Nic) if n.name == "b.0")
    assert item == {
        "name": "b",
        "host.name": "h2",
        "memory_mib": 2048,
        "ha": False,
        "host_name": "h2",
        "migrating_to_host": "",
        "disks.size_bytes": [1 << 30],
        "ips": [nic.ip],
        "cloud_init": {"hostname": "", "ssh_keys": [], "user_data": ""},
        "nics": [{"name": nic.name, "mac": nic.mac, "ip": nic.ip}],
    }
    (group,) = (await ask(api, "security-groups", fields="rules.enabled,nics.vm.name"))["items"]
    assert set(group["rules.enabled"]) == {True}
    assert group["nics.vm.name"] == ["a", "b", "c"]


async def test_pages_give_each_item_once_while_others_come_and_go(member, api):
    for number in range(10):
        await member.add_vm(f"p{number}", memory_mib=512 * (number % 3 + 1))
    got, cursor, pages = [], "", 0
    while True:
        options = {"cursor": cursor} if cursor else {}
        answer = await ask(
            api, "vms", "name~=p*", sort="-memory_mib", limit=3, fields="name", **options
        )
        got += [item["name"] for item in answer["items"]]
        pages += 1
        if pages == 1:  # one that was shown goes, one comes before the present place, one behind it
            await member.store.apply(deletes=(member.store.find(VM, got[0]),))
            await member.add_vm("p-before", memory_mib=4096)
            await member.add_vm("p-behind", memory_mib=64)
        if "next" not in answer:
            break
        cursor = answer["next"]
    assert pages == 4
    assert sorted(got) == sorted([f"p{number}" for number in range(10)] + ["p-behind"])


async def test_the_last_page_says_nothing_of_a_next_one(api):
    assert "next" not in await ask(api, "vms", limit=3)
    assert "next" in await ask(api, "vms", limit=2)


async def test_a_cursor_of_another_query_or_none_at_all_is_refused(api):
    cursor = (await ask(api, "vms", "ha=true", limit=1, sort="cpus"))["next"]
    assert (await ask(api, "vms", "ha=true", sort="cpus", cursor=cursor, limit=9, fields="id"))[
        "items"
    ]
    for plural, query, sort in (
        ("vms", "ha=false", "cpus"),
        ("vms", "ha=true", "name"),
        ("disks", "ha=true", ""),
    ):
        if plural == "vms":
            assert "of another query" in await refusal(api, plural, query, sort=sort, cursor=cursor)
    assert "of another query" in await refusal(api, "hosts", sort="cpus", cursor=cursor)
    forged = base64.urlsafe_b64encode(b'["x","\\ud800",1]').decode()
    for broken in ("x", cursor[:-3], cursor + "A", "é", "%00", "' OR 1=1", forged, "A" * 4000):
        assert "cursor" in await refusal(api, "vms", "ha=true", sort="cpus", cursor=broken)


async def test_a_cursor_made_up_moves_the_place_and_nothing_else(api):
    cursor = (await ask(api, "vms", limit=1))["next"]
    mark, _, id_ = json.loads(base64.urlsafe_b64decode(cursor + "=="))
    for value, expected in (("b", 200), (7, 400), (None, 200), (1 << 70, 400), ("\x00'--", 200)):
        forged = base64.urlsafe_b64encode(json.dumps([mark, value, id_]).encode()).decode()
        answer = await (await api.get("/v1/vms", params={"cursor": forged})).json()
        assert ("items" in answer) == (expected == 200), answer


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("phase", "operators are"),
        ("=x", "operators are"),
        ("", "operators are"),
        ("name==x is:null", None),
        ("name is:null x", "nothing may follow"),
        ("nameis:null", "operators are"),
        ("colour=red", "vm has no attribute 'colour': there are"),
        ("host.colour=red", "host has no attribute 'colour'"),
        ("name.x=1", "name of vm is one value"),
        ("cloud_init=x", "consists of several attributes"),
        ("cloud_init.user_data=x", "no attribute 'user_data'"),
        ("cpus=many", "compared with a whole number"),
        ("memory_mib=8GB8", "size such as"),
        ("memory_mib=1.5KiB", "not a whole number of MiB"),
        ("ha=perhaps", "true or false"),
        ("created_ms>yesterday", "moment such as"),
        ("created_ms>2026-13-40", "moment"),
        ("cpus=99999999999999999999", "out of range"),
        ("cpus=9223372036854775808", "out of range"),
        ("cpus=" + "9" * 4000, "out of range"),
        ("cpus~=1*", "compares a text"),
        ("name~=" + "*" * 201, "compares a text"),
        ("name~=a\0*", "compares a text"),
        ("name=" + "x" * 4097, "at most 4096"),
        ("name?=" + "," * 1000, "at most 1000"),
        ("host.vms.host.vms.host.vms.name=x", "more than 5 relations"),
        ("a" * 201 + "=1", "more than 200"),
        ('name"=x', "operators are"),
        ("name)=x", "operators are"),
        ("type=vm.v1", "no attribute"),
        ("body=x", "no attribute"),
        ("claims=x", "no attribute"),
        ("rowid=1", "no attribute"),
    ],
)
async def test_a_condition_that_makes_no_sense_is_refused_in_words(api, query, says):
    if says is None:
        assert await names(api, query) == []
    else:
        assert says in await refusal(api, "vms", query)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sort": "colour"}, "no attribute"),
        ({"sort": "disks.size_bytes"}, "several values"),
        ({"sort": "cloud_init"}, "several values"),
        ({"sort": "name;DROP TABLE x"}, "no attribute"),
        ({"sort": "-"}, "no attribute"),
        ({"fields": "name,"}, "commas"),
        ({"fields": "name,colour"}, "no attribute"),
        ({"fields": "host.cloud_init"}, "no attribute"),
        ({"fields": "disks.vm.cloud_init"}, "several attributes"),
        ({"fields": ",".join(f"name{n}" for n in range(51))}, "at most 50"),
        ({"limit": "²"}, "limit"),
        ({"count": "maybe"}, "count must be"),
        ({"explain": "2"}, "explain must be"),
    ],
)
async def test_an_option_that_makes_no_sense_is_refused_in_words(api, options, says):
    assert says in await refusal(api, "vms", **options)


async def test_more_conditions_than_are_sensible_are_refused(api):
    assert await names(api, *["ha=true"] * 20) == ["a", "c"]
    assert "at most 20 conditions" in await refusal(api, "vms", *["ha=true"] * 21)


ATTACKS = [
    "' OR '1'='1",
    '" OR 1=1 --',
    "'; DROP TABLE claim; --",
    "a\x00b",
    "\ufffd",
    "%",
    "_",
    "*",
    "[a-z]",
    "\\",
    "a) OR (1=1",
    "?",
    ":x",
    "\U0010ffff",
]


@pytest.mark.parametrize("text", ATTACKS)
async def test_what_is_typed_is_only_ever_compared(member, api, text):
    for operator in ("=", "?=", "<=", "!="):
        await ask(api, "vms", f"name{operator}{text}")
    assert await names(api, f"name={text}") == []
    vm = await member.change_vm(member.store.find(VM, "a").id, description=text)
    assert await names(api, f"description={text}") == [vm.name]
    assert await names(api, f"disks.vm.description={text}", plural="hosts") == []
    (item,) = (
        await ask(api, "vms", f"description={text}", fields="description,disks.vm.description")
    )["items"]
    assert item == {"description": text, "disks.vm.description": [text]}
    assert await names(api) == ["a", "b", "c"]


async def test_bytes_that_are_no_text_are_refused_or_match_nothing(api):
    for raw in ("%ff", "%ed%a0%80", "%00"):
        response = await api.session.get(f"{api.make_url('/v1/vms')}?q=name={raw}")
        assert response.status in (200, 400)
        if response.status == 200:
            assert (await response.json())["items"] == []


@pytest.mark.parametrize("path", ["secret_sha256", "sealed_ca_key"])
async def test_a_secret_is_neither_searched_nor_sorted_by_nor_shown(member, api, path):
    secret = secret_hash(ADMIN_TOKEN)
    await member.store.apply(
        puts=(
            JoinToken(
                id="j", name="j", secret_sha256=secret, expires_ms=1, used_by_host_id=HOST_ID
            ),
        )
    )
    asked = [
        ("access-tokens", path),
        ("join-tokens", path),
        ("hosts", f"join_tokens.{path}"),
        ("vms", f"host.join_tokens.{path}"),
    ]
    for plural, attribute in asked:
        for query in (
            f"{attribute}={secret}",
            f"{attribute}~=*",
            f"{attribute}!is:null",
            f"{attribute}>0",
        ):
            detail = await refusal(api, plural, query)
            assert f"no attribute '{path}'" in detail
            assert path not in detail.partition("there are")[2]
        for options in ({"sort": attribute}, {"fields": attribute}, {"fields": f"id,{attribute}"}):
            await refusal(api, plural, **options)
    for plural in ("access-tokens", "join-tokens"):
        assert secret not in json.dumps(await ask(api, plural))
    assert member.store.all(AccessToken), "there was something to find"


async def test_an_explanation_tells_what_would_be_read_and_runs_nothing(api):
    by_index = await ask(api, "vms", "host.name=h2", explain="1")
    assert by_index["items"] == []
    assert any("INDEX" in line["step"] for line in by_index["plan"])
    everything = await ask(api, "vms", "description~=*x*", explain="1")
    assert everything["reads_rows"] >= 3
    assert any(line["reads_rows"] == 3 for line in everything["plan"])
    counted = await ask(api, "vms", "disks.size_bytes>1", explain="1", count="1")
    assert any("disk#" in line["step"] for line in counted["plan"])


async def test_a_count_gives_no_items(api):
    answer = await ask(api, "vms", "ha=true", count="1", limit=1)
    assert (answer["count"], answer["items"]) == (2, [])
    assert answer["index"]


def loose(member) -> LooseStore:
    return LooseStore(member.machine, member.engine, clock=member.clock, rng=member.rng)


async def test_a_host_that_is_gone_has_no_name(member, api):
    vm = member.store.find(VM, "b")
    await loose(member).apply(puts=(replace(vm, host_id="nobody"),))
    (item,) = (await ask(api, "vms", "name=b"))["items"]
    assert (item["host_id"], item["host_name"]) == ("nobody", "")
    (item,) = (await ask(api, "vms", "name=b", fields="host,host.cpus"))["items"]
    assert item == {"host": "", "host.cpus": None}
    assert await names(api, "host is:null") == ["b"]
    assert await names(api, "host.name!=x") == ["a", "c"]


async def test_more_values_than_an_item_can_show_are_refused_and_never_left_out(member, api):
    many = [
        VM(id=f"m{n}", name=f"m{n}", cluster_id="", host_id=HOST_ID, cpus=1, memory_mib=1)
        for n in range(1001)
    ]
    await loose(member).apply(puts=many)
    assert "more than 1000" in await refusal(api, "hosts", fields="vms.name")
    assert await names(api, plural="hosts", fields="name") == ["h1", "h2"]
    assert member.store.all(Host)


async def test_names_behind_lists_of_ids_and_in_rules(member, api):
    image = await member.add_image()
    await loose(member).apply(puts=(replace(image, host_ids=(OTHER_ID, "nobody", HOST_ID)),))
    (image,) = (await ask(api, "images"))["items"]
    assert image["host_names"] == ["h2", "h1"], (
        "in the order of the ids, without those that are gone"
    )
    (nic,) = (await ask(api, "nics", "name=a.0"))["items"]
    assert nic["security_group_names"] == ["default"]
    (group,) = (await ask(api, "security-groups"))["items"]
    assert {rule["remote_group_name"] for rule in group["rules"]} == {"default"}


async def test_what_this_version_cannot_read_has_nothing_to_compare(member, api):
    put = Put(kind="vm", id="x", name="x", body=b"of the future", claims=())
    await member.store.commit(Txn(request_id="x", stamp_ms=1, puts=(put,)))
    for query in ("host is:null", "cpus is:null", "disks is:null", "cloud_init.hostname is:null"):
        assert "x" in await names(api, query, fields="name"), query
    for query in ("host!is:null", "cpus!=7", "ha=false", "cloud_init.ssh_keys!=k"):
        assert "x" not in await names(api, query, fields="name"), query
