"""Which step a name in a workflow definition means, and the definitions themselves: the product's and plug-ins'.

The composition root loads them once. A plug-in is an installed Python package with entry points: `kvorum.steps` names
step classes, `kvorum.workflows` names packages with definitions. One that is broken or takes a name that is in use is
left out, and the agent says so; it never keeps the agent from starting.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import EntryPoint, entry_points

from core.errors import FatalError
from core.model import Severity, Task
from core.workflow import Step
from core.workflow_definition import NAME, Definition, Source, parse_definitions
from nodeagent.node import Node
from nodeagent.services.event_log import EventLog
from nodeagent.workflows import migrate_steps, vm_steps
from nodeagent.workflows.work import VmWork, Workshop

log = logging.getLogger(__name__)

STEPS_GROUP = "kvorum.steps"
WORKFLOWS_GROUP = "kvorum.workflows"
DEFINITIONS_PACKAGE = "nodeagent.workflows.definitions"

REFUSED_LENGTH_MAX = 1000

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
}


@dataclass(frozen=True, slots=True)
class Registry:
    """All steps and workflows of this agent. `refused` says for each plug-in left out which and why."""

    steps: Mapping[str, MakeStep]
    definitions: Mapping[str, Definition]
    refused: tuple[str, ...] = ()


def load_registry(plugins: Iterable[EntryPoint] | None = None) -> Registry:
    """Return the product's steps and workflows with those of plug-ins, by default of all that are installed.

    Raises:
        FatalError: a definition of the product itself is broken; the agent does not start.
    """
    sources = _sources_in(DEFINITIONS_PACKAGE)
    definitions = parse_definitions(sources, frozenset(STEPS))
    found = _installed() if plugins is None else plugins
    loading = _Loading(dict(STEPS), sources, definitions)
    # Steps first: a definition may name those of any plug-in. In order of their names, so that a clash between two
    # plug-ins ends the same way on every host.
    for plugin in sorted(found, key=lambda p: (p.group != STEPS_GROUP, _owner(p), p.name)):
        loading.take(plugin)
    return Registry(loading.steps, loading.definitions, tuple(loading.refused))


async def report_refused(refused: Iterable[str], node: Node, events: EventLog) -> None:
    """Let everybody see which plug-ins this host goes without, and why."""
    for why in refused:
        await events.record("plugin-refused", node.host(), why, severity=Severity.WARNING)


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


class _Loading:
    """What is accepted so far."""

    def __init__(
        self,
        steps: dict[str, MakeStep],
        sources: list[Source],
        definitions: dict[str, Definition],
    ) -> None:
        self.steps = steps
        self.definitions = definitions
        self.refused: list[str] = []
        self._sources = sources
        self._owners = dict.fromkeys(steps, "kvorum")

    def take(self, plugin: EntryPoint) -> None:
        """Add what an entry point names, or note why not."""
        try:
            if plugin.group == STEPS_GROUP:
                self._take_step(plugin)
            else:
                self._take_workflows(plugin)
        # Foreign code runs when it is loaded: whatever it does there, the agent starts without it.
        except (Exception, SystemExit) as error:
            why = str(error) or type(error).__name__
            if not isinstance(error, FatalError):
                why = f"loading {plugin.value} failed with {type(error).__name__}: {error}"
            line = f"plug-in {_owner(plugin)}, {plugin.group} {plugin.name!r}: {why}"
            self.refused.append(line[:REFUSED_LENGTH_MAX])
            log.exception(
                "a plug-in is left out", extra={"plugin": _owner(plugin), "entry": plugin.name}
            )

    def _take_step(self, plugin: EntryPoint) -> None:
        if not NAME.fullmatch(plugin.name):
            raise FatalError(
                "a step's name has 1 to 63 of a-z, 0-9 and '-', beginning with a letter"
            )
        if (owner := self._owners.get(plugin.name)) is not None:
            raise FatalError(f"the step name is taken by {owner} already: choose another")
        make = plugin.load()
        name = getattr(make, "name", None)
        for method in ("do", "undo"):
            if not callable(getattr(make, method, None)):
                raise FatalError(f"{plugin.value} has no method {method!r}: it is not a step")
        if isinstance(name, str) and name != plugin.name:  # else it is told by an instance only
            raise FatalError(
                f"{plugin.value} calls itself {name!r}: name and entry point must agree"
            )
        self.steps[plugin.name] = make
        self._owners[plugin.name] = f"plug-in {_owner(plugin)}"

    def _take_workflows(self, plugin: EntryPoint) -> None:
        sources = [*self._sources, *_sources_in(plugin.value)]
        if len(sources) == len(self._sources):
            raise FatalError(f"package {plugin.value} holds no file *.xml")
        self.definitions = parse_definitions(sources, frozenset(self.steps))
        self._sources = sources


def _installed() -> list[EntryPoint]:
    return [*entry_points(group=STEPS_GROUP), *entry_points(group=WORKFLOWS_GROUP)]


def _sources_in(package: str) -> list[Source]:
    files = sorted(resources.files(package).iterdir(), key=lambda file: file.name)
    return [
        Source(f"{package}/{file.name}", file.read_text("utf-8"))
        for file in files
        if file.name.endswith(".xml")
    ]


def _owner(plugin: EntryPoint) -> str:
    return plugin.dist.name if plugin.dist is not None else plugin.value.partition(":")[0]
