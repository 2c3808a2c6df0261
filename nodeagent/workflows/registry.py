"""Which step a name in a workflow definition means, and the definitions themselves.

The composition root loads them once; a plug-in will add to `STEPS` by an entry point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources

from core.model import Task
from core.workflow import Definition, Step, parse_definitions
from nodeagent.workflows import migrate_steps, vm_steps
from nodeagent.workflows.work import VmWork, Workshop

STEPS: dict[str, Callable[[VmWork], Step]] = {
    "keep-records": vm_steps.KeepRecords,
    "fetch-image": vm_steps.FetchImage,
    "create-disks": vm_steps.CreateDisks,
    "write-seed": vm_steps.WriteSeed,
    "start-guest": vm_steps.StartGuest,
    "stop-guest": vm_steps.StopGuest,
    "reboot-guest": vm_steps.RebootGuest,
    "destroy-guest": vm_steps.DestroyGuest,
    "delete-disks": vm_steps.DeleteDisks,
    "drop-records": vm_steps.DropRecords,
    "reserve-target": migrate_steps.ReserveTarget,
    "prepare-target": migrate_steps.PrepareTarget,
    "move-guest": migrate_steps.MoveGuest,
    "hand-over": migrate_steps.HandOver,
}


def load_definitions() -> dict[str, Definition]:
    """Return every workflow of the product.

    Raises:
        FatalError: a definition is broken; the agent does not start.
    """
    folder = resources.files("nodeagent.workflows") / "definitions"
    texts = [f.read_text("utf-8") for f in folder.iterdir() if f.name.endswith(".xml")]
    return parse_definitions(texts, frozenset(STEPS))


class StepMaker:
    """Makes the steps of a task's workflow."""

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop

    def __call__(self, task: Task, definition: Definition) -> Sequence[Step]:
        work = VmWork(self._shop, task)
        return [STEPS[name](work) for name in definition.steps]
