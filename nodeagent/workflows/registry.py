"""Which step a name in a workflow definition means, and the definitions themselves: the product's and plug-ins'.

The composition root loads them once, with all other plug-ins (`nodeagent.plugins`): the entry points `kvorum.steps` name
step classes, `kvorum.workflows` packages with definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import EntryPoint
from typing import cast

from core.errors import FatalError
from core.model import Plugin, PluginState, Task
from core.workflow import Step
from core.workflow_definition import Definition, Source, parse_definitions
from nodeagent.plugins.loading import Group, installed, load, refused_line
from nodeagent.workflows import migrate_steps, snapshot_steps, vm_steps
from nodeagent.workflows.work import VmWork, Workshop

STEPS_GROUP = "kvorum.steps"
WORKFLOWS_GROUP = "kvorum.workflows"
DEFINITIONS_PACKAGE = "nodeagent.workflows.definitions"

STOP_STEP = "stop-guest"

MakeStep = Callable[[VmWork], Step]

STEPS: Mapping[str, MakeStep] = {
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
    "keep-snapshot": snapshot_steps.KeepSnapshot,
    "add-layer": snapshot_steps.AddLayer,
    "use-layer": snapshot_steps.UseLayer,
    "mark-snapshot": snapshot_steps.MarkSnapshot,
    "merge-layers": snapshot_steps.MergeLayers,
    "forget-snapshot": snapshot_steps.ForgetSnapshot,
    "drop-layers": snapshot_steps.DropLayers,
}


@dataclass(frozen=True, slots=True)
class Registry:
    """All steps and workflows of this agent. `refused` says for each plug-in left out which and why."""

    steps: Mapping[str, MakeStep]
    definitions: Mapping[str, Definition]
    refused: tuple[str, ...] = ()


class Registering:
    """The registry while plug-ins add to it.

    Raises:
        FatalError: a definition of the product itself is broken; the agent does not start.
    """

    def __init__(self) -> None:
        self._steps = dict(STEPS)
        self._sources = _sources_in(DEFINITIONS_PACKAGE)
        self._definitions = parse_definitions(self._sources, frozenset(STEPS))

    def groups(self) -> tuple[Group, ...]:
        """Return how plug-ins add to it. Steps first: a definition may name those of any plug-in."""
        return (
            Group(STEPS_GROUP, "step", _load_step, self._accept_step, tuple(STEPS)),
            Group(WORKFLOWS_GROUP, "workflow", _load_sources, self._accept_workflows, names=None),
        )

    def registry(self, plugins: Iterable[Plugin]) -> Registry:
        """Return what is there now; `plugins` are what became of those that were looked at."""
        refused = tuple(refused_line(p) for p in plugins if p.state is PluginState.REFUSED)
        return Registry(self._steps, self._definitions, refused)

    def _accept_step(self, name: str, loaded: object) -> None:
        self._steps[name] = cast(MakeStep, loaded)

    def _accept_workflows(self, name: str, loaded: object) -> None:
        del name  # the files say how their workflows are called
        sources = [*self._sources, *cast(list[Source], loaded)]
        definitions = parse_definitions(sources, frozenset(self._steps))
        for definition in definitions.values():
            check_runnable(definition)
        self._definitions = definitions
        self._sources = sources


def load_registry(plugins: Iterable[EntryPoint] | None = None) -> Registry:
    """Return the product's steps and workflows with those of plug-ins, by default of all that are installed.

    Raises:
        FatalError: a definition of the product itself is broken.
    """
    registering = Registering()
    groups = registering.groups()
    return registering.registry(load(groups, installed(groups) if plugins is None else plugins))


def check_runnable(definition: Definition) -> None:
    """See that a workflow that people may run needs nothing besides its VM and its arguments.

    Most steps of the product belong to requests that commit more together with the task (where a VM goes, that it is
    deleted), without which they would do harm. Stopping needs the wish, which `VmService.run` commits for a workflow that
    begins with it, as the first step is what takes it back.

    Raises:
        FatalError: it has such steps.
    """
    if not definition.run_on:
        return
    own = [step for step in definition.steps if step in STEPS]
    bad = [step for step in own if step not in (STOP_STEP, "reboot-guest")]
    if bad:
        raise FatalError(
            f"workflow {definition.name!r} can't be run by people: step {bad[0]!r} is part of a request of its own"
        )
    if STOP_STEP in own and definition.steps[0] != STOP_STEP:
        raise FatalError(
            f"workflow {definition.name!r} can't be run by people unless {STOP_STEP!r} is its first step"
        )


class StepMaker:
    """Makes the steps of a task's workflow."""

    def __init__(self, shop: Workshop, steps: Mapping[str, MakeStep] = STEPS) -> None:
        self._shop = shop
        self._steps = steps

    def __call__(self, task: Task, names: Sequence[str]) -> Sequence[Step]:
        """Return the named steps in that order.

        Raises:
            KeyError: a name that this agent has no step for.
            ValueError: a step has another name than it is registered by.
        """
        work = VmWork(self._shop, task)
        steps = [self._steps[name](work) for name in names]
        for name, step in zip(names, steps, strict=True):
            if step.name != name:  # the journal could not find it again
                raise ValueError(f"step {name!r} calls itself {step.name!r}")
        return steps


def _load_step(plugin: EntryPoint) -> object:
    make = plugin.load()
    name = getattr(make, "name", None)
    for method in ("do", "undo"):
        if not callable(getattr(make, method, None)):
            raise FatalError(f"{plugin.value} has no method {method!r}: it is not a step")
    if isinstance(name, str) and name != plugin.name:  # else it is told by an instance only
        raise FatalError(f"{plugin.value} calls itself {name!r}: name and entry point must agree")
    return make


def _load_sources(plugin: EntryPoint) -> object:
    sources = _sources_in(plugin.value)
    if not sources:
        raise FatalError(f"package {plugin.value} holds no file *.xml")
    return sources


def _sources_in(package: str) -> list[Source]:
    files = sorted(resources.files(package).iterdir(), key=lambda file: file.name)
    return [
        Source(f"{package}/{file.name}", file.read_text("utf-8"))
        for file in files
        if file.name.endswith(".xml")
    ]
