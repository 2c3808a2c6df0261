"""The steps of a live migration: who owns the VM after each, and what failover is told about the guest's boot."""

from __future__ import annotations

import pytest

from core.errors import ConflictError, UnavailableError
from core.model import Task, VMPhase
from nodeagent.workflows.migrate_steps import HandOver, MoveGuest, PrepareTarget, ReserveTarget
from nodeagent.workflows.work import VmWork, Workshop
from tests.one_member import HOST_ID, OTHER_ID, FakeGuard, OneMember, founded


class FakeMigration:
    """Says where the guest is; `here` and `there` are errors when that can't be found out."""

    def __init__(self) -> None:
        self.here: bool | Exception = True
        self.there: bool | Exception = False
        self.calls: list[str] = []

    async def prepare(self, vm, target) -> None:
        self.calls.append(f"prepare at {vm.revision}")

    async def release(self, vm_id, target) -> None:
        self.calls.append("release")

    async def move(self, vm, target) -> None:
        self.calls.append("move")
        self.here, self.there = False, True

    async def end(self, vm_id) -> None:
        self.calls.append("end")

    async def settle(self, vm, target) -> bool:
        for found in (self.here, self.there):
            if isinstance(found, Exception):
                raise found
        return not self.here and bool(self.there)


class Move:
    """A VM on this host that runs, and the work of moving it to the other host."""

    def __init__(self, member: OneMember, vm_id: str) -> None:
        self.member, self.vm_id = member, vm_id
        self.migration = FakeMigration()
        shop = Workshop(node=member.node, power=None, storages=None, migration=self.migration)
        task = Task(
            id="t",
            name="t",
            workflow="migrate-vm",
            subject=f"vm/{vm_id}",
            arguments={"target_host_id": OTHER_ID},
            runner_host_id=HOST_ID,
        )
        self.work = VmWork(shop, task)

    @property
    def vm(self):
        return self.member.vm(self.vm_id)


@pytest.fixture
async def move() -> Move:
    member = await founded()
    assert isinstance(member.node.guard, FakeGuard)
    if member.node.store.claim_holder("host.name/h2") == "":
        await member.add_host(OTHER_ID, "h2", "10.77.0.2")
    await member.renew(OTHER_ID, boot_id="boot-of-h2")
    vm = await member.add_vm(phase=VMPhase.RUNNING, boot_id="boot-of-h1", generation=4)
    return Move(member, vm.id)


async def test_the_new_owner_is_recorded_with_the_boot_that_the_guest_runs_in(move: Move) -> None:
    await ReserveTarget(move.work).do()
    assert (move.vm.host_id, move.vm.migrating_to_host_id) == (HOST_ID, OTHER_ID)
    assert move.vm.phase is VMPhase.MIGRATING
    await MoveGuest(move.work).do()
    await HandOver(move.work).do()
    assert (move.vm.host_id, move.vm.migrating_to_host_id) == (OTHER_ID, "")
    assert move.vm.phase is VMPhase.RUNNING
    assert move.vm.boot_id == "boot-of-h2", "another boot would be taken as proof that nothing runs"
    assert move.vm.generation == 4


async def test_handing_over_twice_changes_nothing(move: Move) -> None:
    await ReserveTarget(move.work).do()
    await HandOver(move.work).do()
    before = move.vm
    await HandOver(move.work).do()
    assert move.vm == before


async def test_the_target_prepares_from_the_committed_reservation(move: Move) -> None:
    await ReserveTarget(move.work).do()
    await PrepareTarget(move.work).do()
    assert move.migration.calls == [f"prepare at {move.vm.revision}"]


async def test_a_move_that_failed_with_the_guest_here_is_taken_back_whole(move: Move) -> None:
    await ReserveTarget(move.work).do()
    for step in (MoveGuest, PrepareTarget, ReserveTarget):
        await step(move.work).undo()
    assert (move.vm.host_id, move.vm.migrating_to_host_id) == (HOST_ID, "")
    assert move.vm.phase is VMPhase.RUNNING
    assert move.migration.calls == ["release"]


async def test_a_move_that_failed_although_the_guest_arrived_gives_it_to_the_target(
    move: Move,
) -> None:
    await ReserveTarget(move.work).do()
    move.migration.here, move.migration.there = False, True
    for step in (MoveGuest, PrepareTarget, ReserveTarget):
        await step(move.work).undo()
    assert (move.vm.host_id, move.vm.boot_id) == (OTHER_ID, "boot-of-h2")
    assert "release" not in move.migration.calls, "the target must not destroy the guest it runs"


async def test_a_guest_whose_place_is_unknown_is_given_to_nobody(move: Move) -> None:
    await ReserveTarget(move.work).do()
    move.migration.here = False
    move.migration.there = UnavailableError("host h2 does not answer")
    with pytest.raises(UnavailableError):
        await MoveGuest(move.work).undo()
    assert (move.vm.host_id, move.vm.migrating_to_host_id) == (HOST_ID, OTHER_ID)


async def test_only_a_running_vm_is_reserved_for_a_move(move: Move) -> None:
    await move.member.change_vm(move.vm_id, phase=VMPhase.STOPPED)
    with pytest.raises(ConflictError, match="not running"):
        await ReserveTarget(move.work).do()
    assert move.vm.migrating_to_host_id == ""


async def test_a_move_whose_target_is_lost_is_ended_here_and_the_lost_host_is_not_asked(
    move: Move,
) -> None:
    await ReserveTarget(move.work).do()
    await move.member.change_vm(move.vm_id, migrating_to_host_id="")  # as failover does, on a proof
    with pytest.raises(ConflictError, match="h2 was lost while VM 'web1' was being moved") as lost:
        await MoveGuest(move.work).do()
    assert lost.value.code == "migration-target-lost"
    move.migration.there = UnavailableError("host h2 does not answer")
    for step in (MoveGuest, PrepareTarget, ReserveTarget):
        await step(move.work).undo()
    assert move.migration.calls == ["end"], "libvirt's job is ended before the VM is free"
    assert (move.vm.host_id, move.vm.phase) == (HOST_ID, VMPhase.RUNNING)


async def test_a_guest_that_was_lost_with_the_target_is_not_waited_for(move: Move) -> None:
    """It had arrived: nothing runs here, and a proof says that nothing runs there."""
    await ReserveTarget(move.work).do()
    move.migration.here = False
    move.migration.there = UnavailableError("host h2 does not answer")
    await move.member.change_vm(move.vm_id, migrating_to_host_id="")
    await MoveGuest(move.work).undo()
    assert (move.vm.host_id, move.vm.migrating_to_host_id) == (HOST_ID, "")
