"""Plug-ins of every kind: the example works as docs/plugins.md says, a broken one is left out or contained, none is fatal."""

import dataclasses
import re
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp.test_utils import TestClient, TestServer
from msgspec.structs import replace

from core.errors import ConflictError, InvalidError, PermanentError, PlatformError, TemporaryError
from core.model import (
    VM,
    DataCenter,
    DataStorage,
    DataStorageKind,
    Disk,
    Event,
    Host,
    PluginState,
    Severity,
)
from core.workflow_definition import StepRule
from ha.placement import Candidate, PlacementRequest
from nodeagent.compute.domain_xml import domain_xml
from nodeagent.plugins import loading
from nodeagent.plugins.allocators import ALLOCATORS_GROUP
from nodeagent.plugins.observing import OBSERVERS_GROUP, Observing
from nodeagent.plugins.plugins import Plugins
from nodeagent.plugins.storage_drivers import METHODS
from nodeagent.services.event_log import EventLog
from nodeagent.services.host_reporter import HostReporter
from nodeagent.services.storages import Storages
from tests.api import ADMIN, FakeAgent, app_of, problem_of
from tests.one_member import HOST_ID, founded, running, until
from tests.unit.test_compute_domain_xml import SMALL

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "tests" / "example_plugin"
NO_IMAGES = SimpleNamespace(kept=None, fetch=None)
UUID = "0f0f0f0f-0000-4000-8000-000000000001"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return what puts a distribution of one module on the path, as pip would."""

    def put(name: str, entries: str, code: str = "") -> None:
        place = tmp_path / name
        info = place / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (place / f"{name}_code.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entries)
        monkeypatch.syspath_prepend(str(place))
        monkeypatch.delitem(sys.modules, f"{name}_code", raising=False)

    return put


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))


def states(plugins: Plugins) -> dict[str, str]:
    return {f"{p.package}/{p.name}": str(p.state) for p in plugins.reports()}


# -- loading


def test_the_example_gives_one_thing_of_each_kind(example):
    plugins = Plugins()
    assert {(p.package, p.version, p.state, p.why) for p in plugins.reports()} == {
        ("kvorum-example", "1.0", PluginState.ACTIVE, "")
    }
    assert {p.group for p in plugins.reports()} == {
        "kvorum.steps", "kvorum.workflows", "kvorum.observers", "kvorum.system_tags",
        "kvorum.storage_drivers", "kvorum.allocators",
        "kvorum.hypervisors", "kvorum.networks", "kvorum.firewalls",
    }  # fmt: skip


def test_the_document_shows_the_example_as_it_is(example):
    """Each block of code in docs/plugins.md that names a file is part of that file."""
    text = (ROOT / "docs" / "plugins.md").read_text()
    blocks = re.findall(r"<!-- ([\w./-]+) -->\n```\w*\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 4
    for name, code in blocks:
        assert code.strip() in (ROOT / name).read_text(), name
    groups = {p.group for p in Plugins().reports()}
    assert all(f"`{group}`" in text for group in groups)


GOOD = {
    "kvorum.steps": "class Thing:\n  name='thing'\n  def do(self): pass\n  def undo(self): pass\n",
    "kvorum.observers": "class Thing:\n  def observe(self, event): pass\n",
    "kvorum.system_tags": "class Thing:\n  kinds=('vm',)\n  many=False\n  description='d'\n"
    "  def check(self, value): pass\n  def shape(self, value, spec): return spec\n",
    "kvorum.storage_drivers": "def Thing(storage_id, path, *, host_id): pass\n",
    "kvorum.allocators": "def Thing(request, candidates): return ''\n",
    "kvorum.hypervisors": "def Thing(*, host_id, run_dir): pass\n",
    "kvorum.networks": "def Thing(*, host_id, run_dir, firewall): pass\n",
    "kvorum.firewalls": "def Thing(*, host_id, run_dir): pass\n",
}
NAMES = {"kvorum.system_tags": "some.thing"}
TAKEN = {
    "kvorum.steps": "start-guest",
    "kvorum.system_tags": "smbios.serial",
    "kvorum.storage_drivers": "local",
    "kvorum.allocators": "most-memory-free",
    "kvorum.hypervisors": "libvirt",
    "kvorum.networks": "linux",
    "kvorum.firewalls": "nftables",
}


def entry(group: str, package: str, name: str = "") -> str:
    return f"[{group}]\n{name or NAMES.get(group, 'thing')} = {package}_code:Thing\n"


def refused(plugins: Plugins, package: str):
    (found,) = (p for p in plugins.reports() if p.package == package)
    assert found.state is PluginState.REFUSED, found
    return found.why


@pytest.mark.parametrize("group", GOOD)
def test_whatever_breaks_while_it_is_loaded_is_left_out_and_the_rest_works(group, install, example):
    wrong = {
        "kvorum.storage_drivers": "Thing = 7",
        "kvorum.hypervisors": "Thing = 7",
        "kvorum.networks": "Thing = 7",
        "kvorum.firewalls": "Thing = 7",
        "kvorum.allocators": "class Thing: pass",
    }.get(group, "class Thing: pass")
    install("absent", f"[{group}]\n{NAMES.get(group, 'thing')}1 = nowhere_at_all:Thing\n")
    install(
        "raising", entry(group, "raising", "a.raising" if group in NAMES else "raising"), "1 / 0"
    )
    install("exiting", entry(group, "exiting", "a.exiting" if group in NAMES else "exiting"), "raise SystemExit(3)")  # fmt: skip
    install("wrong", entry(group, "wrong", "a.wrong" if group in NAMES else "wrong"), wrong)
    install("badname", entry(group, "badname", "Not A Name"), GOOD[group])
    install("good", entry(group, "good"), GOOD[group])
    install("late", entry(group, "late"), GOOD[group])
    plugins = Plugins()
    assert "ModuleNotFoundError" in refused(plugins, "absent")
    assert "ZeroDivisionError" in refused(plugins, "raising")
    assert "SystemExit" in refused(plugins, "exiting")
    assert "is not" in refused(plugins, "wrong") or "makes no" in refused(plugins, "wrong")
    assert "a-z, 0-9" in refused(plugins, "badname")
    assert "taken by plug-in good already: choose another" in refused(plugins, "late")
    assert states(plugins)[f"good/{NAMES.get(group, 'thing')}"] == "active"
    assert states(plugins)["kvorum-example/note-description"] == "active"
    if taken := TAKEN.get(group):
        install("thief", entry(group, "thief", taken), GOOD[group])
        assert "taken by kvorum already" in refused(Plugins(), "thief")


@pytest.mark.parametrize("group", ["kvorum.observers", "kvorum.system_tags"])
def test_one_that_raises_when_it_is_made_is_left_out(group, install):
    code = "class Thing:\n  def __init__(self): raise ValueError('no\\nluck')\n"
    install("broken", entry(group, "broken"), code)
    assert "ValueError: no luck" in refused(Plugins(), "broken")


def test_one_that_never_comes_back_from_being_imported_is_left_out(install, monkeypatch):
    monkeypatch.setattr(loading, "LOAD_S_MAX", 0.05)
    install("hanging", entry("kvorum.observers", "hanging"), "import time\ntime.sleep(2)\n")
    assert "took longer than" in refused(Plugins(), "hanging")


async def test_what_is_left_out_is_an_event_and_shown_at_any_agent(install, example):
    install("broken", entry("kvorum.observers", "broken"), "1 / 0")
    member, plugins = await founded(), Plugins()
    await plugins.report_refused(member.node, EventLog(member.node))
    (event,) = (e for e in member.store.all(Event) if e.code == "plugin-refused")
    assert event.severity is Severity.WARNING and "ZeroDivisionError" in event.message
    reporter = HostReporter(member.node, "tcg", plugins.reports)
    async with running(member.hypervisor.run, reporter.run):
        await until(lambda: member.store.get(Host, HOST_ID).plugins, 5)
    async with TestClient(TestServer(app_of(member)), headers=ADMIN) as api:
        answer = await (await api.get("/v1/plugins?q=state=refused")).json()
        (item,) = answer["items"]
        assert (item["host_name"], item["package"], item["group"]) == (
            "h1",
            "broken",
            OBSERVERS_GROUP,
        )
        assert "ZeroDivisionError" in item["why"]
        assert len((await (await api.get("/v1/plugins")).json())["items"]) == 10
        hosts = await (await api.get("/v1/hosts?q=plugins.state=refused")).json()
        assert [host["name"] for host in hosts["items"]] == ["h1"]


# -- system tags


async def tagged(member, plugins: Plugins, *add: str, kind="vms/web1"):
    agent = FakeAgent(member)
    object.__setattr__(agent.services, "plugins", plugins)
    async with TestClient(TestServer(app_of(member, agent)), headers=ADMIN) as api:
        await api.post("/v1/vms", json={"name": "web1", "image": "debian"})
        response = await api.patch(f"/v1/{kind}/tags", json={"add": list(add)})
        known = await (await api.get("/v1/system-tags")).json()
        assert {item["name"] for item in known["items"]} >= {"smbios::serial", "smbios::family"}
        if response.status == 200:
            return await response.json()
        return await problem_of(response, response.status, (await response.json())["code"])


REFUSED_TAGS = {
    "smbios::serials::X": "not known here",
    "nobody::knows::this": "kvorum plugin list",
    "smbios::serial::" + "x" * 61: "at most 60 characters",
    "example::oem::" + "x" * 61: "60 characters at most",
    "smbios::serial": "namespace::name::value",
}


async def test_a_system_tag_that_makes_no_sense_is_refused_with_what_to_do(member, example):
    plugins = Plugins()
    for tag, words in REFUSED_TAGS.items():
        problem = await tagged(member, plugins, tag)
        assert problem["code"] == "invalid" and words in problem["detail"], tag


async def test_a_system_tag_is_for_its_kinds_and_has_one_value_unless_it_may_have_many(member, example):  # fmt: skip
    plugins = Plugins()
    problem = await tagged(member, plugins, "smbios::serial::X", kind="hosts/h1")
    assert "is for vm, not for host" in problem["detail"]
    await tagged(member, plugins, "smbios::serial::X", "example::oem::a")
    answer = await tagged(member, plugins, "smbios::serial::Y", "example::oem::b")
    assert answer["tags"] == ["example::oem::a", "example::oem::b", "smbios::serial::Y"]


def test_system_tags_change_what_the_guest_reads_of_its_machine(example):
    shape = Plugins().system_tags.shape
    before = domain_xml(SMALL)
    spec = shape(
        SMALL, ("prod", 'smbios::serial::A<b>&"1"', "smbios::family::F", "example::oem::o<1>")
    )
    xml = domain_xml(spec)
    assert '<entry name="serial">A&lt;b&gt;&amp;"1"</entry>' in xml
    assert '<entry name="family">F</entry>' in xml
    assert "<entry>o&lt;1&gt;</entry>" in xml
    added = {line.strip() for line in xml.splitlines()} - {
        line.strip() for line in before.splitlines()
    }
    assert len(added) == 5, "nothing else differs"
    assert shape(SMALL, ("prod", "no::such::tag")) == SMALL


HARMFUL = {
    "raises": "raise ZeroDivisionError('x')",
    "exits": "raise SystemExit(1)",
    "ends the agent": "from core.errors import FatalError; raise FatalError('x')",
    "returns nothing": "return None",
    "returns nonsense": "return dataclasses.replace(spec, oem_strings=('a\\nb',))",
}


@pytest.mark.parametrize("case", HARMFUL)
def test_a_system_tag_that_fails_has_no_effect_and_keeps_no_vm_down(case, install):
    code = f"import dataclasses\n{GOOD['kvorum.system_tags']}".replace("return spec", HARMFUL[case])
    install("broken", entry("kvorum.system_tags", "broken"), code)
    plugins = Plugins()
    spec = plugins.system_tags.shape(SMALL, ("smbios::serial::S", "some::thing::v"))
    assert spec == dataclasses.replace(SMALL, smbios_serial="S")
    (report,) = plugins.reports()
    assert (report.state is PluginState.FAILING and "some::thing" in report.why) or case.startswith(
        "returns"
    )


def test_a_system_tag_touches_neither_disks_nor_cards_nor_identity(install):
    harm = (
        "return dataclasses.replace(spec, vm_id='x', disks=(), generation=99, host_name='h9', "
        "memory_mib=1, smbios_family='ok')"
    )
    code = f"import dataclasses\n{GOOD['kvorum.system_tags']}".replace("return spec", harm)
    install("greedy", entry("kvorum.system_tags", "greedy"), code)
    spec = Plugins().system_tags.shape(SMALL, ("some::thing::v",))
    assert spec == dataclasses.replace(SMALL, smbios_family="ok")


async def test_a_check_that_fails_is_no_answer_of_the_agents_own(member, install):
    code = GOOD["kvorum.system_tags"].replace(
        "def check(self, value): pass", "def check(self, value): 1 / 0"
    )
    install("broken", entry("kvorum.system_tags", "broken"), code)
    problem = await tagged(member, Plugins(), "some::thing::v")
    assert problem["code"] == "permanent" and "ZeroDivisionError" in problem["detail"]
    assert member.store.find(VM, "web1").tags == ()


# -- storage drivers and allocators


async def test_a_data_storage_may_be_driven_by_a_plug_in(example, tmp_path):
    member = await founded()
    storages = Storages(member.node, NO_IMAGES, Plugins().storage_drivers)
    (tmp_path / "example").mkdir()
    storage = DataStorage(id=UUID, name="s", data_center_id=member.store.all(DataCenter)[0].id, kind=DataStorageKind.LOCAL, path=str(tmp_path), driver="example-below")  # fmt: skip
    await storages.prepare_new(storage)
    await member.store.apply(puts=(storage,))
    disk = Disk(id=UUID, name="d", vm_id=UUID, data_storage_id=storage.id, size_bytes=1 << 20)
    assert storages.disk_path(disk) == tmp_path / "example" / "disks" / f"{UUID}.qcow2"
    assert any((tmp_path / "example").iterdir())
    await storages.delete_disk(disk, (disk.id,))  # through the product's own errors and results
    unknown = replace(storage, driver="not-here")
    with pytest.raises(InvalidError, match=r"not-here.*install its plug-in"):
        await storages.prepare_new(unknown)


DRIVER = """
class Made:
    path = "/x"
    def __getattr__(self, name):
        async def fails(*args, **kwargs): raise {error}
        return fails
    def close(self): pass
from core.errors import FatalError, TemporaryError
def Thing(storage_id, path, *, host_id): {make}
"""


FAILING_DRIVERS = [
    ("KeyError('k')", "return Made()", PermanentError),
    ("SystemExit(1)", "return Made()", PermanentError),
    ("FatalError('x')", "return Made()", PermanentError),
    ("TemporaryError('away', retry_after_s=1.0)", "return Made()", TemporaryError),
    ("None", "1 / 0", PermanentError),
    ("None", "return 7", PermanentError),
]


FENCING_DRIVERS = """
from storage.memory_driver import MemoryDriver
class SaysNo(MemoryDriver):
    fences = False
class AnswersToAll:
    def __init__(self, storage_id, path): pass
    def __getattr__(self, name):
        async def done(*args, **kwargs): return None
        return done
def Thing(storage_id, path, *, host_id): return {kind}(storage_id, path)
"""


async def test_only_a_driver_that_says_so_has_a_shared_storage_refuse_a_host(install):
    for n, kind in enumerate(("MemoryDriver", "SaysNo", "AnswersToAll")):
        code = FENCING_DRIVERS.format(kind=kind)
        install(f"fencing{n}", entry("kvorum.storage_drivers", f"fencing{n}", f"fencing{n}"), code)
    member = await founded()
    storages = Storages(member.node, NO_IMAGES, Plugins().storage_drivers)
    center = member.store.all(DataCenter)[0].id
    for n, (driver, kind) in enumerate(
        (driver, kind) for driver in ("fencing0", "fencing1", "fencing2", "missing") for kind in DataStorageKind
    ):  # fmt: skip
        id_ = f"{UUID[:-1]}{n}"
        made = DataStorage(id=id_, name=f"{driver}-{kind}", data_center_id=center, kind=kind, path="/x", driver=driver)  # fmt: skip
        await member.store.apply(puts=(made,))
    names_of = {storage.id: storage.name for storage in member.store.all(DataStorage)}
    assert [names_of[id_] for id_ in storages.fencing_ids()] == ["fencing0-shared"]
    fenced = storages.fencing(member.store.find(DataStorage, "fencing0-shared"))
    await fenced.fence("h", "boot-1")
    with pytest.raises(ConflictError):
        await fenced.readmit("h", "boot-1")


async def test_a_storage_driver_that_fails_is_a_storage_that_fails(install):
    for n, (error, make, _) in enumerate(FAILING_DRIVERS):
        code = DRIVER.format(error=error, make=make)
        install(f"broken{n}", entry("kvorum.storage_drivers", f"broken{n}", f"thing{n}"), code)
    member = await founded()
    storages = Storages(member.node, NO_IMAGES, Plugins().storage_drivers)
    await member.store.apply(deletes=member.store.all(DataStorage))
    for n, (error, make, expected) in enumerate(FAILING_DRIVERS):
        id_ = f"{UUID[:-1]}{n}"
        storage = DataStorage(id=id_, name=f"s{n}", data_center_id=member.store.all(DataCenter)[0].id, kind=DataStorageKind.LOCAL, path="/x", driver=f"thing{n}")  # fmt: skip
        with pytest.raises(PlatformError) as raised:
            await storages.prepare_new(storage)
        assert type(raised.value) is expected, (error, make)
        await member.store.apply(puts=(storage,))
    await storages.sweep()  # goes on with the others, as the product's own failures do


def test_all_methods_of_a_driver_are_asked_for():
    assert {"create_storage", "delete_disk", "disk_path", "close"} <= set(METHODS)
    assert "path" not in METHODS and "storage_id" not in METHODS


def hosts(*free: int) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(Host(id=f"i{n}", name=f"h{n}", cluster_id="", address=""), mib, 0)
        for n, mib in enumerate(free)
    )


def test_an_allocator_chooses_among_the_hosts_that_fit(example):
    request = PlacementRequest(cpus=1, memory_mib=64)
    candidates = hosts(500, 900, 100)
    assert Plugins().allocators.prefer(request, candidates) == "i1"
    assert Plugins(allocator="fill-up").allocators.prefer(request, candidates) == "i2"
    assert Plugins(allocator="not-here").allocators.prefer(request, candidates) == "i1"


@pytest.mark.parametrize("does", ["1 / 0", "return 'elsewhere'", "return None", "raise SystemExit(1)"])  # fmt: skip
def test_an_allocator_that_fails_is_passed_over_and_said_so(does, install):
    install(
        "broken", entry(ALLOCATORS_GROUP, "broken"), f"def Thing(request, candidates): {does}\n"
    )
    plugins = Plugins(allocator="thing")
    assert plugins.allocators.prefer(PlacementRequest(cpus=1, memory_mib=1), hosts(1, 2)) == "i1"
    (report,) = plugins.reports()
    assert report.state is PluginState.FAILING and "allocator thing" in report.why


# -- observers


class Seen:
    def __init__(self) -> None:
        self.codes: list[str] = []

    def observe(self, event: Event) -> None:
        self.codes.append(event.code)


class Failing(Seen):
    def observe(self, event: Event) -> None:
        super().observe(event)
        if event.code != "good":
            raise RuntimeError("observer's own trouble")


class Hanging(Seen):
    def __init__(self) -> None:
        super().__init__()
        self.release = threading.Event()

    def observe(self, event: Event) -> None:
        super().observe(event)
        self.release.wait(10)


async def observed(member, observers, told, codes, done, call_s_max=5.0):
    """Run observers while events are recorded, until `done`."""
    log = EventLog(member.node)
    service = Observing(member.node, log, observers, told, call_s_max=call_s_max)
    async with running(service.run):
        await until(lambda: len(member.store.hub._watches) >= len(observers), 5)
        for code in codes:
            await log.record(code, member.node.host(), "m")
        await until(done, 10)


async def test_an_observer_is_told_of_every_event_in_order_from_its_start_on():
    member = await founded()
    await EventLog(member.node).record("before", member.node.host(), "m")
    one, two = Seen(), Seen()
    codes = [f"c{n}" for n in range(250)]
    await observed(
        member, {"one": one, "two": two}, lambda *_: None, codes,
        lambda: len(one.codes) == len(two.codes) == 250,
    )  # fmt: skip
    assert one.codes == two.codes == codes


async def test_a_failing_observer_is_reported_once_and_goes_on_and_others_too():
    member, failing, well, told = await founded(), Failing(), Seen(), []
    await observed(
        member, {"failing": failing, "well": well}, lambda *said: told.append(said),
        ["a", "b", "c", "good"], lambda: any(not why for *_, why in told),
    )  # fmt: skip
    reports = [e for e in member.store.all(Event) if e.code == "plugin-failed"]
    assert len(reports) == 1 and "observer's own trouble" in reports[0].message
    assert [code for code in failing.codes if code != "plugin-failed"] == ["a", "b", "c", "good"]
    assert [code for code in well.codes if code != "plugin-failed"][:3] == ["a", "b", "c"]


async def test_a_hanging_observer_is_called_no_more_and_holds_nobody_up():
    member, hanging, well, told = await founded(), Hanging(), Seen(), []
    log, host = EventLog(member.node), member.node.host()
    both = {"hanging": hanging, "well": well}
    service = Observing(member.node, log, both, lambda *said: told.append(said), call_s_max=0.1)
    async with running(service.run):
        await until(lambda: len(member.store.hub._watches) == 2, 5)
        for code in ("a", "b", "c"):
            await log.record(code, host, "m")
        await until(lambda: told and len(well.codes) == 4, 5)
        hanging.release.set()  # it comes back at last, too late
        await log.record("d", host, "m")
        await until(lambda: len(well.codes) == 5, 5)
    assert hanging.codes == ["a"]
    assert sorted(well.codes) == ["a", "b", "c", "d", "plugin-failed"]
    (report,) = (e for e in member.store.all(Event) if e.code == "plugin-failed")
    assert "called no more" in report.message
    assert told[-1][:2] == (OBSERVERS_GROUP, "hanging")


def test_an_observer_that_would_never_be_awaited_is_left_out(install):
    code = "class Thing:\n  async def observe(self, event): pass\n"
    install("asyncly", entry("kvorum.observers", "asyncly"), code)
    assert "plain function" in refused(Plugins(), "asyncly")


async def test_the_observer_of_the_example_keeps_warnings_in_a_file(example, tmp_path, monkeypatch):
    monkeypatch.setenv("KVORUM_EXAMPLE_WARNINGS", str(tmp_path / "warnings"))
    member, plugins = await founded(), Plugins()
    log = EventLog(member.node)
    service = Observing(member.node, log, plugins.observers.all(), plugins.tell)
    async with running(service.run):
        await until(lambda: member.store.hub._watches, 5)
        await log.record("fine", member.node.host(), "nothing")
        await log.record("hot", member.node.host(), "it burns", severity=Severity.ALARM)
        await until((tmp_path / "warnings").exists, 5)
    assert re.fullmatch(r"\d+ hot h1: it burns\n", (tmp_path / "warnings").read_text())


def test_a_conflict_of_revisions_is_nothing_that_ends_a_workflow():
    """Somebody who tags a VM at the moment that a step writes it must not make the step fail."""
    lost = ConflictError("x", code="conflict-guard")
    assert StepRule(ref="s").pause_after(lost, tries=1, spent_s=0) is not None
    assert StepRule(ref="s").pause_after(ConflictError("x"), tries=1, spent_s=0) is None
