"""One search finds a request: in its answer, its audit, its task, and the log of the host that does the work, down to libvirt."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from core.logs import REQUEST_ID, FieldFormatter
from core.model import Audit, Task, VMPhase
from core.workflow_definition import Definition, StepRule
from nodeagent.compute.call_threads import CallThreads
from nodeagent.compute.domain_spec import Accelerator, DomainSpec
from nodeagent.compute.libvirt_hypervisor import LibvirtHypervisor
from nodeagent.services.task_journal import ENDED
from nodeagent.services.task_runner import TaskRunner
from tests.one_member import OneMember, running, until


class Lines(logging.Handler):
    """What the agent's log has, as it is written."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(FieldFormatter("%(name)s: %(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def about(self, *words: str) -> list[str]:
        return [line for line in self.lines if all(word in line for word in words)]


@pytest.fixture
def log(caplog) -> Lines:
    caplog.set_level(logging.DEBUG)
    made = Lines()
    logging.getLogger().addHandler(made)
    yield made
    logging.getLogger().removeHandler(made)


class RestartIt:
    """A step that starts a domain of the task's VM and ends it, by libvirt."""

    name = "restart"

    def __init__(self, hypervisor: LibvirtHypervisor, vm_id: str) -> None:
        self._hypervisor, self._vm_id = hypervisor, vm_id

    async def do(self) -> None:
        spec = DomainSpec(
            vm_id=self._vm_id,
            name="web",
            generation=1,
            host_name="h1",
            cpus=1,
            memory_mib=32,
            disks=(),
            accelerator=Accelerator.TCG,
        )
        await self._hypervisor.define_and_start(spec, paused=False)
        await self._hypervisor.destroy(self._vm_id)

    async def undo(self) -> None:
        await self._hypervisor.destroy(self._vm_id)


@asynccontextmanager
async def working_host(member: OneMember) -> AsyncIterator[None]:
    """The host that does the work: its task runner, with libvirt's own test driver in place of QEMU."""
    hypervisor = LibvirtHypervisor("test:///default")

    def steps(task: Task, names) -> list[RestartIt]:
        assert list(names) == ["restart"]
        return [RestartIt(hypervisor, task.subject.removeprefix("vm/"))]

    async def prepare() -> None:
        await hypervisor.wait_connected()

    definitions = {"reboot-vm": Definition("reboot-vm", (StepRule(ref="restart"),))}
    runner = TaskRunner(member.node, definitions, steps, prepare=prepare)
    async with running(hypervisor.run, runner.run):
        yield


async def test_the_id_in_an_answer_is_in_the_log_of_every_libvirt_call_that_the_request_led_to(
    member, api, log
):
    names = ("web1", "web2", "web3")
    vms = [await member.add_vm(name, phase=VMPhase.RUNNING) for name in names]
    async with working_host(member):
        answers = [await api.post(f"/v1/vms/{vm.name}/actions/reboot") for vm in vms]
        ids = [answer.headers["X-Request-Id"] for answer in answers]
        await until(lambda: all(t.state in ENDED for t in member.store.all(Task)), deadline_s=10)
    assert len(set(ids)) == 3
    for vm, id_ in zip(vms, ids, strict=True):
        for words in (("domain started",), ("domain changed", "change=destroying")):
            (line,) = log.about("libvirt_hypervisor", *words, f"vm={vm.id}")
            assert f"request_id={id_}" in line
    assert all("request_id" not in line for line in log.about("libvirt connected"))


async def test_the_task_and_the_audit_name_the_request(member, api):
    await member.add_vm("web1", phase=VMPhase.RUNNING)
    answer = await api.post("/v1/vms/web1/actions/reboot")
    id_ = answer.headers["X-Request-Id"]
    assert (await answer.json())["task"]["request_id"] == id_
    (found,) = (await (await api.get(f"/v1/tasks?q=request_id={id_}")).json())["items"]
    assert found["subject_name"] == "web1"
    await until(lambda: [audit.request_id for audit in member.store.all(Audit)] == [id_])


async def test_a_repeated_request_does_not_rename_the_task(member, api):
    await member.add_vm("web1", phase=VMPhase.RUNNING)
    key = {"Idempotency-Key": "once"}
    first = await api.post("/v1/vms/web1/actions/reboot", headers=key)
    again = await api.post("/v1/vms/web1/actions/reboot", headers=key)
    assert (await again.json())["task"]["request_id"] == first.headers["X-Request-Id"]


async def test_a_thread_logs_for_the_request_that_called_it():
    threads = CallThreads(1, "test")
    try:

        async def ask(request_id: str) -> str:
            REQUEST_ID.set(request_id)
            return await asyncio.wrap_future(threads.submit(REQUEST_ID.get))

        assert await asyncio.gather(ask("a"), ask("b"), ask("")) == ["a", "b", ""]
    finally:
        threads.shutdown()


def test_a_line_names_its_request_once_and_only_if_there_is_one():
    formatter = FieldFormatter("%(message)s")
    plain = logging.makeLogRecord({"msg": "done"})
    told = logging.makeLogRecord({"msg": "done", "request_id": "other"})
    assert formatter.format(plain) == "done"
    token = REQUEST_ID.set("r1")
    try:
        assert formatter.format(plain) == "done [request_id=r1]"
        assert formatter.format(told) == "done [request_id=other]"
    finally:
        REQUEST_ID.reset(token)
