"""A program as a user writes it, for the type checker: `make check` holds the SDK's types to it, strictly."""

from __future__ import annotations

from typing import assert_type

import kvorum_sdk
from kvorum_sdk import AsyncKvorum, Item, Kvorum, Page, Started, TaskView, models


def inventory(kvorum: Kvorum) -> dict[str, int]:
    """Return the memory of all running VMs by host."""
    memory: dict[str, int] = {}
    for vm in kvorum.vms.find(q=["phase=running"], sort="name"):
        assert_type(vm, models.VM)
        memory[vm.host_name] = memory.get(vm.host_name, 0) + vm.memory_mib
    return memory


def roll_out(kvorum: Kvorum, name: str) -> models.VM:
    """Make a VM, wait for it, switch HA off, and return it."""
    started = kvorum.vms.create(name=name, image="debian-12", cpus=2, security_groups=["web"])
    assert_type(started, Started[models.VM])
    assert_type(kvorum.wait(started, on_progress=lambda task: print(task.progress)), TaskView)
    changed = kvorum.vms.update(name, ha=False, if_match=kvorum.vms.get(name).revision)
    assert_type(changed, models.VM)
    if changed.phase is models.VMPhase.RUNNING:
        kvorum.wait(kvorum.vms.stop(name, force=True), timeout_s=60)
    plan = kvorum.vms.plan_delete(name)
    assert_type(plan.deleted, tuple[models.Touched, ...])
    assert_type(kvorum.port_groups.delete("old"), None)
    return changed


async def watch(kvorum: AsyncKvorum) -> None:
    """Print what happens, with what the host has room for."""
    assert_type(await kvorum.hosts.list(limit=10), Page[models.Host])
    assert_type(await kvorum.vms.select("name", "host.name"), Page[Item])
    assert_type(await kvorum.vms.count(q="phase=running"), int)
    assert_type((await kvorum.status()).members, tuple[models.Member, ...])
    async for event in kvorum.follow():
        assert_type(event.severity, models.Severity)
        print(event.message)


def main() -> None:
    """Use the cluster that the environment names."""
    with kvorum_sdk.connect() as kvorum:
        print(inventory(kvorum))
