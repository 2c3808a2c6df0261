"""The one way in for plug-ins: finds entry points, loads each, and leaves out with a reason what can't be used.

Each kind of thing that a plug-in can give is a `Group`, which says what it takes. Nothing that a plug-in does while it is
loaded keeps the agent from starting. In order of groups and names, so that a clash ends the same way on every host.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from concurrent.futures import TimeoutError as TooLate
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from core.errors import FatalError
from core.model import Plugin, PluginState
from core.workflow_definition import NAME
from nodeagent.compute.call_threads import CallThreads

log = logging.getLogger(__name__)

LOAD_S_MAX = 10.0
WHY_LENGTH_MAX = 1000
A_NAME = "has 1 to 63 of a-z, 0-9 and '-', beginning with a letter"


@dataclass(frozen=True, slots=True)
class Group:
    """One group of entry points. `load` imports, makes and checks what one names, on a thread of its own.

    `accept` gets what was loaded and makes it part of the product; both raise FatalError with the reason when it can't
    be. `taken` are the names that the product itself has; a plug-in can't replace them.
    """

    name: str
    gives: str
    load: Callable[[EntryPoint], object]
    accept: Callable[[str, object], None]
    taken: Iterable[str] = ()
    names: re.Pattern[str] | None = NAME
    name_rule: str = A_NAME


def installed(groups: Iterable[Group]) -> list[EntryPoint]:
    """Return the entry points of all installed packages in these groups."""
    return [found for group in groups for found in entry_points(group=group.name)]


def load(groups: Iterable[Group], plugins: Iterable[EntryPoint]) -> tuple[Plugin, ...]:
    """Take in what the entry points name, and return for each what became of it."""
    by_name = {group.name: group for group in groups}
    order = list(by_name)
    owners: dict[str, dict[str, str]] = {
        group.name: dict.fromkeys(group.taken, "kvorum") for group in by_name.values()
    }
    found = sorted(
        (p for p in plugins if p.group in by_name),
        key=lambda p: (order.index(p.group), owner_of(p), p.name),
    )
    return tuple(_taken(by_name[plugin.group], owners[plugin.group], plugin) for plugin in found)


def refused_line(plugin: Plugin) -> str:
    """Return one line for people about a plug-in that was left out."""
    return f"plug-in {plugin.package}, {plugin.group} {plugin.name!r}: {plugin.why}"[
        :WHY_LENGTH_MAX
    ]


def owner_of(plugin: EntryPoint) -> str:
    """Return the name of the package that an entry point is from."""
    return plugin.dist.name if plugin.dist is not None else plugin.value.partition(":")[0]


def instance_of(
    plugin: EntryPoint, what: str, methods: Iterable[str], **attributes: type
) -> object:
    """Return an object made by what an entry point names, which is called without arguments.

    Raises:
        FatalError: it lacks a method or an attribute of that type.
    """
    made = plugin.load()()
    for method in methods:
        if not callable(getattr(made, method, None)):
            raise FatalError(f"{plugin.value} has no method {method!r}: it is not {what}")
    for name, type_ in attributes.items():
        if not isinstance(getattr(made, name, None), type_):
            raise FatalError(
                f"{plugin.value} has no attribute {name!r} of type {type_.__name__}: it is not {what}"
            )
    return made


def _taken(group: Group, owners: dict[str, str], plugin: EntryPoint) -> Plugin:
    owner, why = owner_of(plugin), ""
    try:
        if group.names is not None and not group.names.fullmatch(plugin.name):
            raise FatalError(f"a {group.gives}'s name {group.name_rule}")
        if (holder := owners.get(plugin.name)) is not None:
            raise FatalError(f"the {group.gives} name is taken by {holder} already: choose another")
        group.accept(plugin.name, _within_time(group, plugin))
        owners[plugin.name] = f"plug-in {owner}"
    # Foreign code runs when it is loaded: whatever it does there, the agent starts without it.
    except (Exception, SystemExit) as error:
        why = str(error) or type(error).__name__
        if not isinstance(error, FatalError):
            why = f"loading {plugin.value} failed with {type(error).__name__}: {error}"
        log.exception("a plug-in is left out", extra={"plugin": owner, "entry": plugin.name})
    return Plugin(
        package=owner,
        version=(plugin.dist.version if plugin.dist is not None else "") or "",
        group=group.name,
        name=plugin.name,
        state=PluginState.REFUSED if why else PluginState.ACTIVE,
        why=" ".join(why.split())[:WHY_LENGTH_MAX],
    )


def _within_time(group: Group, plugin: EntryPoint) -> object:
    """Load on a thread that is left behind when it takes too long."""
    threads = CallThreads(1, f"load-{plugin.name}"[:40])
    try:
        return threads.submit(group.load, plugin).result(timeout=LOAD_S_MAX)
    except TooLate:
        raise FatalError(
            f"loading {plugin.value} took longer than {LOAD_S_MAX:g} s: it must not wait for anything"
        ) from None
    finally:
        threads.shutdown()
