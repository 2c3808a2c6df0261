"""What users ask of VMs: what is recorded, what is refused, and that a repeated request meets its own outcome."""

import asyncio
from collections.abc import Iterable

import pytest
from msgspec.structs import replace

from core.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    PermanentError,
    PlatformError,
    TemporaryError,
    UnavailableError,
)
from core.model import (
    VM,
    DataStorage,
    DataStorageKind,
    Disk,
    Host,
    Image,
    ImageState,
    Nic,
    PortGroup,
    PowerState,
    Task,
    TaskState,
    VMPhase,
    VMPriority,
)
from core.workflow import RepeatStepError
from nodeagent.api.requests import Ids
from nodeagent.services.vm_requests import ChangeVM, CreateVM, MigrateVM, StopVM
from nodeagent.services.vm_service import VmService
from nodeagent.workflows.vm_steps import DeleteDisks
from nodeagent.workflows.work import VmWork, Workshop
from tests.one_member import HOST_ID, OTHER_ID, OneMember, founded


class Chooser:
    """A placer that notes what it is asked; `full` names hosts that can take nothing."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.full: set[str] = set()

    def choose(self, vm: VM, disks, *, only: str = "", never: str = "", joined=()) -> str:
        del vm, disks
        self.asked.append((only, never))
        names = {"h1": HOST_ID, "h2": OTHER_ID}
        for host_id in (HOST_ID, OTHER_ID):
            wanted = not only or names.get(only, only) == host_id
            if wanted and host_id != never and host_id not in self.full:
                return host_id
        raise ConflictError("no host has room")


class Bench:
    def __init__(self, member: OneMember) -> None:
        self.member, self.store = member, member.store
        self.placer = Chooser()
        self.service = VmService(member.node, self.placer)
        self.keys = 0

    def ids(self, key: str = "") -> Ids:
        self.keys += 1
        return Ids(key or f"key-{self.keys}")

    async def create(self, name: str = "web1", *, key: str = "", **fields):
        body = CreateVM(**({"name": name, "image": "debian"} | fields))
        return await self.service.create(body, self.ids(key))

    async def refused(self, error: type[PlatformError], words: str, **fields) -> None:
        digest = self.store.digest()
        with pytest.raises(error, match=words):
            await self.create(**fields)
        assert self.store.digest() == digest, "a refusal changes nothing"

    async def end_task(self, vm_id: str) -> None:
        for task in self.store.all(Task):
            if task.subject == f"vm/{vm_id}" and task.state is TaskState.PENDING:
                await self.store.apply(puts=(replace(task, state=TaskState.SUCCEEDED),))


@pytest.fixture
async def bench() -> Bench:
    member = await founded()
    await member.add_host(OTHER_ID, "h2", "192.0.2.2")
    await member.add_image()
    return Bench(member)


# -- create


async def test_a_created_vm_has_its_disk_nic_and_task_in_one_transaction(bench):
    before = bench.store.index
    opened = await bench.create(ssh_keys=())
    vm, task = opened.vm, opened.task
    (disk,), (nic,) = bench.store.all(Disk), bench.store.all(Nic)
    assert bench.store.index == before + 1
    assert {r.revision for r in (vm, disk, nic, task)} == {before + 1}
    assert (vm.host_id, vm.phase, vm.power, vm.cpus, vm.memory_mib, vm.ha) == (
        HOST_ID,
        VMPhase.CREATING,
        PowerState.RUNNING,
        1,
        1024,
        True,
    )
    assert vm.cloud_init.hostname == "web1"
    assert (disk.vm_id, disk.size_bytes, disk.image_sha256) == (vm.id, 1 << 30, "ab" * 32)
    assert (nic.vm_id, nic.ip) == (vm.id, "10.100.1.1")
    assert len(nic.security_group_ids) == 1
    assert (task.workflow, task.subject, task.runner_host_id) == (
        "create-vm",
        f"vm/{vm.id}",
        HOST_ID,
    )


async def test_many_created_at_once_all_get_an_address_of_their_own(bench):
    commit = bench.member.engine.propose

    async def propose(payload: bytes, *, timeout_s: float) -> bytes:
        await asyncio.sleep(0)  # all have planned before the first is committed
        return await commit(payload, timeout_s=timeout_s)

    bench.member.engine.propose = propose
    async with asyncio.TaskGroup() as group:
        for number in range(40):
            group.create_task(bench.create(f"vm{number}"), name=f"create-{number}")
    assert len(bench.store.all(VM)) == 40
    assert len({nic.ip for nic in bench.store.all(Nic)}) == 40


async def test_a_host_that_changes_meanwhile_is_looked_at_again(bench):
    asked = len(bench.placer.asked)
    host = bench.store.need(Host, HOST_ID)
    count = bench.store.count

    async def count_while_it_changes(*args, **options) -> int:
        if len(bench.placer.asked) == asked + 1:
            await bench.store.apply(puts=(replace(host, watchdog="other"),))
        return await count(*args, **options)

    bench.store.count = count_while_it_changes
    await bench.create("web1")
    assert len(bench.placer.asked) == asked + 2, "the plan was made anew"


async def test_what_is_asked_for_is_what_is_recorded(bench):
    opened = await bench.create(
        cpus=4,
        memory_mib=2048,
        disk_size_bytes=5 << 30,
        host="h2",
        ha=False,
        hostname="mail",
        start=False,
        description="the mail server",
    )
    vm = opened.vm
    assert (vm.cpus, vm.memory_mib, vm.ha, vm.host_id) == (4, 2048, False, OTHER_ID)
    assert (vm.power, vm.cloud_init.hostname, vm.description) == (
        PowerState.STOPPED,
        "mail",
        "the mail server",
    )
    assert bench.store.all(Disk)[0].size_bytes == 5 << 30


async def test_without_a_shared_storage_the_disk_is_on_its_host(bench):
    await bench.create()
    (disk,) = bench.store.all(Disk)
    assert bench.store.need(DataStorage, disk.data_storage_id).kind is DataStorageKind.LOCAL
    assert disk.host_id == HOST_ID


async def test_the_only_shared_storage_is_preferred_so_that_vms_survive_a_host(bench):
    shared = await bench.member.add_shared_storage()
    await bench.create()
    (disk,) = bench.store.all(Disk)
    assert (disk.data_storage_id, disk.host_id) == (shared.id, "")


async def test_with_several_shared_storages_the_user_must_say(bench):
    await bench.member.add_shared_storage("one")
    await bench.member.add_shared_storage("two")
    await bench.refused(InvalidError, "say which data storage")
    await bench.create(data_storage="two")
    assert bench.store.all(Disk)[0].data_storage_id == bench.store.find(DataStorage, "two").id


@pytest.mark.parametrize(
    ("error", "words", "fields"),
    [
        (InvalidError, "VM name", {"name": "Web 1"}),
        (InvalidError, "VM name", {"name": ""}),
        (InvalidError, "VM name", {"name": "a" * 64}),
        (InvalidError, "cpus", {"cpus": 0}),
        (InvalidError, "cpus", {"cpus": 256}),
        (InvalidError, "memory", {"memory_mib": 63}),
        (InvalidError, "memory", {"memory_mib": (16 << 20) + 1}),
        (InvalidError, "smaller than the image", {"disk_size_bytes": 512}),
        (InvalidError, "disk_size_bytes must be 0 to", {"disk_size_bytes": -512}),
        (InvalidError, "multiple of 512", {"disk_size_bytes": (1 << 30) + 1}),
        (InvalidError, "disk_size_bytes must be 0 to", {"disk_size_bytes": (64 << 40) + 512}),
        (InvalidError, "description", {"description": "x" * 1001}),
        (InvalidError, "cloud-config", {"user_data": "#!/bin/sh\nreboot"}),
        (InvalidError, "user-data", {"user_data": "#cloud-config\na: [1"}),
        (InvalidError, "SSH", {"ssh_keys": ("not a key",)}),
        (InvalidError, "hostname", {"hostname": "under_score!"}),
        (NotFoundError, "image 'none'", {"image": "none"}),
        (NotFoundError, "data storage 'none'", {"data_storage": "none"}),
        (NotFoundError, "port group 'none'", {"port_group": "none"}),
        (NotFoundError, "security group 'none'", {"security_groups": ("default", "none")}),
    ],
)
async def test_a_create_that_cannot_be_is_refused_and_changes_nothing(bench, error, words, fields):
    await bench.refused(error, words, **fields)


async def test_an_image_that_is_still_uploading_is_refused(bench):
    await bench.member.add_image("early", state=ImageState.UPLOADING, sha256="")
    await bench.refused(ConflictError, "not ready", image="early")


async def test_a_taken_name_is_refused_in_words(bench):
    await bench.create()
    await bench.refused(ConflictError, "'web1' is already taken")


async def test_a_name_taken_in_the_same_moment_is_refused_in_the_same_words(bench):
    commit = bench.member.engine.propose

    async def propose(payload: bytes, *, timeout_s: float) -> bytes:
        bench.member.engine.propose = commit
        await bench.create(key="quicker")
        return await commit(payload, timeout_s=timeout_s)

    bench.member.engine.propose = propose
    with pytest.raises(ConflictError, match="'web1' is already taken"):
        await bench.create(key="slower")
    assert len(bench.store.all(VM)) == len(bench.store.all(Nic)) == 1


async def test_when_no_host_has_room_nothing_is_recorded(bench):
    bench.placer.full = {HOST_ID, OTHER_ID}
    await bench.refused(ConflictError, "no host has room")


async def test_an_empty_address_pool_is_refused_in_words(bench):
    group = bench.store.find(PortGroup, "default")
    await bench.store.apply(puts=(replace(group, pool_last=group.pool_first),))
    await bench.create("web1")
    await bench.refused(ConflictError, "address", name="web2")


async def test_addresses_are_given_once(bench):
    for number in range(5):
        await bench.create(f"web{number}")
    nics = bench.store.all(Nic)
    assert len({n.ip for n in nics}) == len({n.mac for n in nics}) == 5


async def test_an_address_taken_in_the_same_moment_is_replaced_by_another(bench):
    commit, rivals = bench.member.engine.propose, []

    async def propose(payload: bytes, *, timeout_s: float) -> bytes:
        bench.member.engine.propose = commit
        rivals.append(await bench.create("rival"))
        return await commit(payload, timeout_s=timeout_s)

    bench.member.engine.propose = propose
    opened = await bench.create("web1")
    nic = next(n for n in bench.store.all(Nic) if n.vm_id == opened.vm.id)
    assert nic.ip not in {n.ip for n in bench.store.all(Nic) if n != nic}
    assert len({n.ip for n in bench.store.all(Nic)}) == 2


async def test_a_race_that_is_always_lost_ends_with_advice(bench):
    commit, count = bench.member.engine.propose, 0

    async def propose(payload: bytes, *, timeout_s: float) -> bytes:
        nonlocal count
        count += 1
        bench.member.engine.propose = commit
        host = bench.store.need(Host, HOST_ID)
        await bench.store.apply(puts=(replace(host, watchdog=f"dog{count}"),))
        bench.member.engine.propose = propose
        return await commit(payload, timeout_s=timeout_s)

    bench.member.engine.propose = propose
    with pytest.raises(ConflictError, match="try again"):
        await bench.create("web1")
    assert bench.store.claim_holder("vm.name/web1") == ""


async def test_a_repeated_request_gives_the_same_vm_and_task(bench):
    first = await bench.create(key="k")
    digest = bench.store.digest()
    again = await bench.create(key="k")
    assert (again.vm, again.task) == (first.vm, first.task)
    assert bench.store.digest() == digest


async def test_a_repeat_at_another_agent_and_much_later_still_meets_its_vm(bench):
    first = await bench.create(key="k")
    await bench.end_task(first.vm.id)
    bench.member.clock.pass_s(3600)
    other = VmService(bench.member.node_of(OTHER_ID, "h2"), bench.placer)
    again = await other.create(CreateVM(name="web1", image="debian"), Ids("k"))
    assert again.vm.id == first.vm.id
    assert again.task is not None and again.task.state is TaskState.SUCCEEDED


async def test_a_request_whose_outcome_was_unknown_can_be_repeated(bench):
    commit = bench.member.engine.propose

    async def applied_but_not_told(payload: bytes, *, timeout_s: float) -> bytes:
        bench.member.engine.propose = commit
        await commit(payload, timeout_s=timeout_s)
        raise UnavailableError("the leader went away")

    bench.member.engine.propose = applied_but_not_told
    with pytest.raises(UnavailableError):
        await bench.create(key="k")
    opened = await bench.create(key="k")
    assert opened.vm.name == "web1"
    assert len(bench.store.all(VM)) == len(bench.store.all(Task)) == 1


async def test_an_image_deleted_in_the_same_moment_leaves_no_vm_without_it(bench):
    commit = bench.member.engine.propose

    async def propose(payload: bytes, *, timeout_s: float) -> bytes:
        bench.member.engine.propose = commit
        await bench.store.apply(deletes=(bench.store.all(Image)[0],))
        return await commit(payload, timeout_s=timeout_s)

    bench.member.engine.propose = propose
    with pytest.raises(NotFoundError, match="image 'debian' does not exist"):
        await bench.create()
    assert bench.store.all(VM) == []


# -- verbs


RUNS = {"phase": VMPhase.RUNNING}
STOPPED = {"phase": VMPhase.STOPPED, "power": PowerState.STOPPED}
DELETING = {"phase": VMPhase.DELETING, "power": PowerState.STOPPED}


async def test_starting_a_running_vm_and_stopping_a_stopped_one_are_nothing_to_do(bench):
    up, down = await bench.member.add_vm("up", **RUNS), await bench.member.add_vm("down", **STOPPED)
    digest = bench.store.digest()
    assert (await bench.service.start(up, bench.ids())).task is None
    assert (await bench.service.stop(down, StopVM(), bench.ids())).task is None
    assert bench.store.digest() == digest


async def test_a_start_wants_it_running_where_it_was(bench):
    vm = await bench.member.add_vm(host_id=OTHER_ID, blocked_reason="x", **STOPPED)
    opened = await bench.service.start(vm, bench.ids())
    assert (opened.vm.power, opened.vm.host_id, opened.vm.blocked_reason) == (
        PowerState.RUNNING,
        OTHER_ID,
        "",
    )
    assert (opened.task.workflow, opened.task.runner_host_id) == ("start-vm", OTHER_ID)


async def test_a_stopped_vm_on_shared_storage_starts_elsewhere_when_its_host_is_full(bench):
    bench.placer.full = {OTHER_ID}
    vm = await bench.member.add_vm(host_id=OTHER_ID, **STOPPED)
    opened = await bench.service.start(vm, bench.ids())
    assert (opened.vm.host_id, opened.task.runner_host_id) == (HOST_ID, HOST_ID)


async def test_a_stopped_vm_on_local_storage_stays_where_its_disk_is(bench):
    bench.placer.full = {OTHER_ID}
    vm = await bench.member.add_vm(host_id=OTHER_ID, shared=False, **STOPPED)
    assert (await bench.service.start(vm, bench.ids())).vm.host_id == OTHER_ID
    assert bench.placer.asked == []


async def test_a_stop_is_wanted_before_it_is_done(bench):
    vm = await bench.member.add_vm(**RUNS)
    opened = await bench.service.stop(vm, StopVM(force=True, timeout_s=7), bench.ids())
    assert (opened.vm.power, opened.vm.phase) == (PowerState.STOPPED, VMPhase.RUNNING)
    assert opened.task.arguments == {"force": "yes", "timeout_s": "7"}
    other = await bench.member.add_vm("web2", **RUNS)
    assert (await bench.service.stop(other, StopVM(), bench.ids())).task.arguments["force"] == ""


@pytest.mark.parametrize("timeout_s", [0, -1, 3601])
async def test_a_stop_with_a_strange_timeout_is_refused(bench, timeout_s):
    vm = await bench.member.add_vm(**RUNS)
    with pytest.raises(InvalidError):
        await bench.service.stop(vm, StopVM(timeout_s=timeout_s), bench.ids())


async def test_a_vm_being_deleted_is_neither_started_nor_stopped(bench):
    vm = await bench.member.add_vm(**DELETING)
    with pytest.raises(ConflictError, match="being deleted"):
        await bench.service.start(vm, bench.ids())
    with pytest.raises(ConflictError, match="being deleted"):
        await bench.service.stop(vm, StopVM(), bench.ids())


@pytest.mark.parametrize("phase", [VMPhase.STOPPED, VMPhase.PAUSED, VMPhase.BLOCKED])
async def test_only_a_running_vm_is_rebooted_or_migrated(bench, phase):
    vm = await bench.member.add_vm(phase=phase)
    with pytest.raises(ConflictError, match=f"it is {phase}, not running"):
        await bench.service.reboot(vm, bench.ids())
    with pytest.raises(ConflictError, match="can't migrate"):
        await bench.service.migrate(vm, MigrateVM(), bench.ids())


async def test_a_migration_names_its_target_and_never_goes_to_where_it_is(bench):
    vm = await bench.member.add_vm(**RUNS)
    opened = await bench.service.migrate(vm, MigrateVM(), bench.ids())
    assert opened.task.arguments == {"target_host_id": OTHER_ID}
    assert (opened.task.runner_host_id, opened.vm.host_id) == (HOST_ID, HOST_ID)
    assert bench.placer.asked == [("", HOST_ID)]


async def test_a_migration_without_a_host_that_fits_or_with_local_disks_is_refused(bench):
    local = await bench.member.add_vm("local1", shared=False, **RUNS)
    with pytest.raises(ConflictError, match="local storage"):
        await bench.service.migrate(local, MigrateVM(), bench.ids())
    vm = await bench.member.add_vm(**RUNS)
    bench.placer.full = {OTHER_ID}
    digest = bench.store.digest()
    with pytest.raises(ConflictError, match="no host"):
        await bench.service.migrate(vm, MigrateVM(host="h2"), bench.ids())
    assert bench.store.digest() == digest


async def test_one_thing_at_a_time_is_done_with_a_vm(bench):
    vm = await bench.member.add_vm(**RUNS)
    await bench.service.reboot(vm, bench.ids())
    vm = bench.member.vm(vm.id)
    for verb in (
        bench.service.reboot(vm, bench.ids()),
        bench.service.stop(vm, StopVM(), bench.ids()),
        bench.service.delete(vm, bench.ids()),
        bench.service.migrate(vm, MigrateVM(), bench.ids()),
    ):
        with pytest.raises(ConflictError, match="busy with another task"):
            await verb
    await bench.end_task(vm.id)
    await bench.service.stop(vm, StopVM(), bench.ids())


async def test_a_repeated_verb_meets_its_own_task(bench):
    vm = await bench.member.add_vm(**RUNS)
    first = await bench.service.stop(vm, StopVM(), bench.ids("k"))
    again = await bench.service.stop(bench.member.vm(vm.id), StopVM(), bench.ids("k"))
    assert again.task == first.task
    await bench.end_task(vm.id)
    assert (await bench.service.stop(first.vm, StopVM(), bench.ids("k"))).task.id == first.task.id


async def test_a_decision_on_an_old_reading_is_refused(bench):
    stale = await bench.member.add_vm(**RUNS)
    await bench.member.change_vm(stale.id, host_id=OTHER_ID)
    with pytest.raises(ConflictError, match="changed by someone else"):
        await bench.service.stop(stale, StopVM(), bench.ids())


async def test_a_delete_is_wanted_once(bench):
    vm = await bench.member.add_vm(**RUNS)
    first = await bench.service.delete(vm, bench.ids())
    assert (first.vm.power, first.vm.phase) == (PowerState.STOPPED, VMPhase.DELETING)
    again = await bench.service.delete(bench.member.vm(vm.id), bench.ids())
    assert again.task == first.task


async def test_a_delete_whose_task_is_gone_can_be_asked_for_again(bench):
    vm = await bench.member.add_vm(**DELETING)
    opened = await bench.service.delete(vm, bench.ids())
    assert opened.task is not None and opened.task.workflow == "delete-vm"


async def test_only_given_fields_change(bench):
    vm = await bench.member.add_vm(description="old", **RUNS)
    changed = await bench.service.change(vm, ChangeVM(ha=False), bench.ids())
    assert (changed.ha, changed.description) == (False, "old")
    changed = await bench.service.change(changed, ChangeVM(description=""), bench.ids())
    assert (changed.ha, changed.description) == (False, "")
    with pytest.raises(InvalidError, match="nothing to change"):
        await bench.service.change(changed, ChangeVM(), bench.ids())
    with pytest.raises(InvalidError, match="1000"):
        await bench.service.change(changed, ChangeVM(description="x" * 1001), bench.ids())
    with pytest.raises(ConflictError):
        await bench.service.change(vm, ChangeVM(ha=True), bench.ids())


async def test_what_a_vm_starts_after_is_named_and_never_a_circle(bench):
    db = (await bench.create("db1")).vm
    app = (await bench.create("app1", start_after=("db1", db.id), start_delay_s=5)).vm
    web = (await bench.create("web1", start_after=("app1",), priority=VMPriority.LOW)).vm
    assert (app.start_after_ids, app.start_delay_s) == ((db.id,), 5)
    assert (web.start_after_ids, web.priority) == ((app.id,), VMPriority.LOW)

    async def change(vm: VM, **fields) -> VM:
        vm = bench.store.need(VM, vm.id)
        return await bench.service.change(vm, ChangeVM(**fields), bench.ids())

    for vm, named, error in (
        (db, "web1", ConflictError),
        (db, "app1", ConflictError),
        (db, "db1", InvalidError),
        (db, "nobody", NotFoundError),
    ):
        with pytest.raises(error):
            await change(vm, start_after=(named,))
    with pytest.raises(InvalidError, match="3600"):
        await change(web, start_delay_s=3601)
    assert (await change(app, start_after=())).start_after_ids == ()
    assert (await change(db, start_after=("web1",))).start_after_ids == (web.id,)
    with pytest.raises(ConflictError, match="web1"):
        await change(app, start_after=("db1",))


# -- the step of a delete from which there is only forward


class BrokenStorage:
    """Deletes nothing while it is told to fail."""

    def __init__(self, error: PlatformError | None) -> None:
        self.error = error
        self.deleted: list[str] = []

    async def delete_seed(self, disk: Disk) -> None:
        self.deleted.append(f"seed {disk.name}")

    async def delete_disk(self, disk: Disk, layers: Iterable[str]) -> None:
        if self.error is not None:
            raise self.error
        self.deleted.append(disk.name)


@pytest.mark.parametrize("error", [TemporaryError("away"), PermanentError("broken")])
async def test_a_delete_whose_storage_fails_is_repeated_not_undone(bench, error):
    vm = await bench.member.add_vm(**DELETING)
    storage = BrokenStorage(error)
    shop = Workshop(node=bench.member.node, power=None, storages=storage, migration=None)
    task = Task(id="t", name="t", workflow="delete-vm", subject=f"vm/{vm.id}")
    step = DeleteDisks(VmWork(shop, task))
    for attempt in (step.do, step.undo):
        with pytest.raises(RepeatStepError, match="tried again"):
            await attempt()
    assert bench.member.vm(vm.id), "the records stay while files may be there"
    storage.error = None
    await step.undo()
    assert storage.deleted[-1] == "web1.0"
    assert bench.store.all(VM) == bench.store.all(Disk) == bench.store.all(Nic) == []


def test_ids_of_a_request_are_the_same_wherever_it_is_repeated():
    a, b, c = Ids("POST /v1/vms k"), Ids("POST /v1/vms k"), Ids("POST /v1/vms l")
    assert (a.request_id, a.id_for("vm")) == (b.request_id, b.id_for("vm"))
    ids = {i.id_for(p) for i in (a, c) for p in ("vm", "disk", "nic", "task")}
    assert len(ids) == 8
