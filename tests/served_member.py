"""A member's API over HTTPS, for tests that use it as programs do; and a host that does at once what its tasks ask for."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from aiohttp import web
from msgspec.structs import replace

from core.model import VM, Disk, LogLine, Nic, Task, TaskState, VMPhase
from tests.api import app_of, open_door
from tests.mesh_identity import Authority
from tests.one_member import ADMIN_TOKEN, HOST_ID, OneMember


@dataclass(frozen=True)
class Agent:
    """Where an agent listens, and whom to trust; the token is the administrator's."""

    address: str
    ca_file: str
    token: str = ADMIN_TOKEN

    @property
    def environ(self) -> dict[str, str]:
        """What a person would have in the environment."""
        return {
            "KVORUM_ADDRESS": self.address,
            "KVORUM_TOKEN": self.token,
            "KVORUM_CA": self.ca_file,
        }


@asynccontextmanager
async def served(member: OneMember) -> AsyncIterator[Agent]:
    """Serve the API over HTTPS, as other machines meet it."""
    home = Path(mkdtemp(prefix="kvt-served-"))
    files = Authority(home).issue(HOST_ID)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    runner = web.AppRunner(app_of(member), shutdown_timeout=0.1)
    try:
        async with open_door(runner, context) as port:
            yield Agent(f"127.0.0.1:{port}", str(files.ca))
    finally:
        await runner.cleanup()
        shutil.rmtree(home, ignore_errors=True)


@asynccontextmanager
async def obedient_host(member: OneMember) -> AsyncIterator[None]:
    """Do at once whatever tasks ask for: their VM runs, is stopped, or is gone."""
    watch = member.store.watch(Task)

    async def work() -> None:
        while True:
            for task in member.store.all(Task):
                if task.state is TaskState.PENDING:
                    await _do(member, task)
            await watch.next()

    async with asyncio.TaskGroup() as group:
        worker = group.create_task(work(), name="obedient-host")
        try:
            yield
        finally:
            worker.cancel()
            member.store.unwatch(watch)


async def _do(member: OneMember, task: Task) -> None:
    store = member.store
    begun = replace(task, state=TaskState.RUNNING, progress=50, step="begun")
    await store.apply(puts=(begun,))
    vm = store.get(VM, task.subject.partition("/")[2])
    line = LogLine(after=0, at_ms=member.clock.wall_ms(), what="done")
    ended = replace(
        store.need(Task, task.id),
        state=TaskState.SUCCEEDED,
        progress=100,
        result={"vm": vm.name if vm else ""},
        log=(line,),
        ended_ms=member.clock.wall_ms(),
    )
    if vm is None:
        await store.apply(puts=(ended,))
    elif "delete" in task.workflow:
        parts = [one for type_ in (Disk, Nic) for one in store.all(type_) if one.vm_id == vm.id]
        await store.apply(puts=(ended,), deletes=(vm, *parts))
    else:
        phase = VMPhase.STOPPED if "stop" in task.workflow else VMPhase.RUNNING
        await store.apply(puts=(ended, replace(vm, phase=phase)))
