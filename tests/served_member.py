"""A member's API on unix sockets, for tests that use it as programs do; and a host that does at once what its tasks ask for."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import mkdtemp

from aiohttp import web
from msgspec.structs import replace

from core.model import VM, Disk, LogLine, Nic, Task, TaskState, VMPhase
from nodeagent.api.app import serve_unix
from tests.api import app_of
from tests.one_member import OneMember

PHASES = {"vm-stop": VMPhase.STOPPED, "stop-vm": VMPhase.STOPPED}


@asynccontextmanager
async def served(member: OneMember, *, agents: int = 1) -> AsyncIterator[list[web.AppRunner]]:
    """Run several agents of one state; `address_of` says where each listens."""
    home = Path(mkdtemp(prefix="kvt-served-"))
    runners = [web.AppRunner(app_of(member), shutdown_timeout=0.1) for _ in range(agents)]
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        for number, runner in enumerate(runners):
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await serve_unix(runner, home / f"{number}.sock")
        yield runners


def address_of(runner: web.AppRunner) -> str:
    """Return where an agent listens."""
    return f"unix:{runner.addresses[0]}"


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
