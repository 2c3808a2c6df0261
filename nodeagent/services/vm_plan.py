"""What to do next about one VM on this host: a pure function of what is wanted and what is there.

Called by `nodeagent.services.vm_controller`. A VM with an open task is left to that task's workflow.
"""

from __future__ import annotations

from enum import StrEnum

from core.model import VM, PowerState, VMPhase
from nodeagent.compute.hypervisor import IO_ERROR, DomainState, DomainStatus


class Action(StrEnum):
    """The next step towards what is wanted.

    `AFTER_IO_ERROR`: the storage decides between `RESUME`, `LEAVE` and waiting (`nodeagent.services.storage_loss`).
    """

    NOTHING = "nothing"
    START = "start"
    DESTROY = "destroy"
    REPORT_RUNNING = "report-running"
    REPORT_STOPPED = "report-stopped"
    REPORT_PAUSED = "report-paused"
    AFTER_IO_ERROR = "after-io-error"
    RESUME = "resume"
    LEAVE = "leave"
    CLEAR_MIGRATION = "clear-migration"
    WARN_UNKNOWN = "warn-unknown"


def next_action(
    vm: VM | None, domain: DomainState | None, *, host_id: str, has_task: bool
) -> Action:
    """Return what this host should do about a VM now.

    A guest is destroyed only on what the replicated state says for certain: it belongs to another host, it is a
    former generation, or it is wanted stopped. A guest the state does not know is reported and left alone, as a
    lost record is our fault and not the guest's.
    """
    if vm is None:
        return Action.NOTHING if domain is None else Action.WARN_UNKNOWN
    if vm.host_id != host_id:
        return _elsewhere(vm, domain, host_id, has_task)
    if has_task or vm.phase in (VMPhase.CREATING, VMPhase.DELETING):
        return Action.NOTHING
    if domain is not None and domain.generation != vm.generation:
        return Action.DESTROY
    if vm.power is PowerState.STOPPED:
        if domain is not None:
            return Action.DESTROY
        return Action.NOTHING if vm.phase is VMPhase.STOPPED else Action.REPORT_STOPPED
    return _wanted_running(vm, domain)


def _elsewhere(vm: VM, domain: DomainState | None, host_id: str, has_task: bool) -> Action:
    if domain is None or vm.migrating_to_host_id == host_id:
        return Action.NOTHING
    if has_task and domain.migrating_in:
        return Action.NOTHING  # an arriving guest whose reservation is not applied here yet
    return Action.DESTROY


def left_by_migration(domain: DomainState) -> bool:
    """Tell whether a guest is paused because it was being moved away.

    Such a guest must never be resumed: the target may have run it since, so its memory is older than its disk.
    """
    return domain.status is DomainStatus.PAUSED and (
        "migrat" in domain.reason or "copy" in domain.reason
    )


def _paused(vm: VM, domain: DomainState) -> Action:
    if left_by_migration(domain):
        return Action.NOTHING if vm.migrating_to_host_id else Action.DESTROY
    if vm.phase is VMPhase.STARTING:
        return Action.START  # this agent was killed between starting it paused and letting it run
    if vm.phase is not VMPhase.PAUSED:
        return Action.REPORT_PAUSED
    return Action.AFTER_IO_ERROR if domain.reason == IO_ERROR else Action.NOTHING


def _wanted_running(vm: VM, domain: DomainState | None) -> Action:
    if domain is None or domain.status is DomainStatus.CRASHED:
        return Action.START
    if domain.status is DomainStatus.PAUSED:
        return _paused(vm, domain)
    if vm.migrating_to_host_id:
        return Action.CLEAR_MIGRATION
    if domain.status is DomainStatus.RUNNING and vm.phase is not VMPhase.RUNNING:
        return Action.REPORT_RUNNING
    return Action.NOTHING
