"""The agent, with points before and after each effect of a workflow at which it stands still or meets a failure.

Started in place of `nodeagent.main` on lab hosts (`test_workflow_garbage.py`). All in it is real. `ORDERS` names VMs and for
each a point; a VM's workflow that passes its point says so in `REPORT` and, as ordered, waits there for the agent's
death, waits until the orders are taken away, or fails there. Effects are the calls to hypervisor, storages, guard, network and migration, the programs that
these start, and commits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec.structs import replace

from core import command
from core.errors import PermanentError, UnavailableError
from core.model import VM, Task
from ha.guard_client import GuardClient
from nodeagent import main as agent
from nodeagent.compute.libvirt_hypervisor import LibvirtHypervisor
from nodeagent.services.migration import MigrationService
from nodeagent.services.network_controller import NetworkController
from nodeagent.services.storages import Storages
from nodeagent.services.task_runner import TaskRunner
from nodeagent.services.work_kinds import Limits
from raftstate.store import Store
from storage.directory_layers import DirectoryLayers

ORDERS = Path("/run/kvorum/test-orders.json")
REPORT = Path("/run/kvorum/test-points")
HOLD, PAUSE, FAIL = "hold", "pause", "fail"
LOOK_S = 0.05

EFFECTS: dict[type, tuple[str, ...]] = {
    LibvirtHypervisor: (
        "define_and_start",
        "resume",
        "shutdown",
        "reboot",
        "destroy",
        "undefine",
        "set_generation",
        "migrate",
        "abort_migration",
    ),
    Storages: ("ensure_image", "create_disk", "delete_disk", "write_seed", "delete_seed"),
    DirectoryLayers: ("add_layer", "merge_layer", "drop_layer"),
    GuardClient: ("grant", "revoke"),
    NetworkController: ("ensure",),
    MigrationService: ("prepare", "release", "move", "abort"),
}


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What is to happen in one workflow: to which VM, by name, at which point. `commits` are points too, or not."""

    workflow: str
    kind: str
    points: dict[str, int]
    commits: bool = False


@dataclass
class Passing:
    """How far one VM's workflow is."""

    vm: str
    at: int
    kind: str
    commits: bool
    passed: int = 0


_passing: ContextVar[Passing | None] = ContextVar("passing", default=None)
_begun: set[str] = set()


def _say(vm: str, passed: int, where: str) -> None:
    with REPORT.open("a") as report:
        report.write(f"{vm}\t{passed}\t{where}\n")


async def _point(where: str, error: type[Exception]) -> None:
    passing = _passing.get()
    if passing is None or (error is UnavailableError and not passing.commits):
        return
    passing.passed += 1
    if passing.passed != passing.at:
        return
    _say(passing.vm, passing.passed, where)
    if passing.kind == FAIL:
        raise error(f"fault {where}")
    while passing.kind == HOLD or ORDERS.exists():
        await asyncio.sleep(LOOK_S)


def _effect(holder: object, name: str, error: type[Exception] = PermanentError) -> None:
    inner = getattr(holder, name)
    label = f"{getattr(holder, '__name__', '').rpartition('.')[2]}.{name}"

    async def call(*args, **kwargs):
        about = f"{label} {Path(args[0][0]).name}" if holder is command else label
        await _point(f"before {about}", error)
        result = await inner(*args, **kwargs)
        await _point(f"after {about}", error)
        return result

    setattr(holder, name, call)


def _orders() -> Orders | None:
    try:
        return msgspec.json.decode(ORDERS.read_bytes(), type=Orders)
    except FileNotFoundError:
        return None


def _counted(attempt: Callable) -> Callable:
    async def counted(self: TaskRunner, task_id: str, journal):
        store, orders = self._node.store, _orders()
        task = store.get(Task, task_id)
        vm = store.get(VM, task.subject.removeprefix("vm/")) if task is not None else None
        ordered = orders is not None and task is not None and task.workflow == orders.workflow
        if not ordered or vm is None or vm.name not in orders.points or task_id in _begun:
            return await attempt(self, task_id, journal)
        _begun.add(task_id)
        passing = Passing(vm.name, orders.points[vm.name], orders.kind, orders.commits)
        token = _passing.set(passing)
        try:
            return await attempt(self, task_id, journal)
        finally:
            _passing.reset(token)
            if passing.passed < passing.at:
                _say(passing.vm, passing.passed, "end")

    return counted


def main() -> None:
    """Run the agent with its points, and with room for more work at once than is usual."""
    for holder, names in EFFECTS.items():
        for name in names:
            _effect(holder, name)
    _effect(Store, "apply", UnavailableError)
    _effect(command, "run")
    TaskRunner._attempt = _counted(TaskRunner._attempt)  # type: ignore[method-assign]
    roomy = Limits(boots=64, stops=64, deletes=64, migrations=64, other_tasks=64)
    read = agent.read_config
    agent.read_config = lambda path: replace(read(path), limits=roomy)
    agent.main()


if __name__ == "__main__":
    main()
