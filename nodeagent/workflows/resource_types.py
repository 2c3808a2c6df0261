"""Resource types of plug-ins: found by the entry point `kvorum.resources`, tried, and added to the kinds of this agent.

The composition root calls it once, before the state is opened. A type that is broken or doesn't keep to the rules
(`core.model.additions`) is left out and said so; it never keeps the agent from starting.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

from core.errors import FatalError
from core.model import Resource
from core.model.additions import add_type, remove_type
from nodeagent.api.bodies import change_body, create_body
from nodeagent.api.description.document import openapi
from raftstate.state.schema import table_of

log = logging.getLogger(__name__)

GROUP = "kvorum.resources"
REFUSED_LENGTH_MAX = 1000


def load_resource_types(plugins: Iterable[EntryPoint] | None = None) -> tuple[str, ...]:
    """Add the types of plug-ins, by default of all that are installed; return which were left out and why."""
    refused: list[str] = []
    found = entry_points(group=GROUP) if plugins is None else plugins
    waiting = sorted(found, key=lambda plugin: (_owner(plugin), plugin.name))
    # A type may be related to another one of any plug-in, so those that can't be added yet are tried again.
    while waiting:
        left = [(plugin, why) for plugin in waiting if (why := _taken(plugin))]
        if len(left) == len(waiting):
            for plugin, why in left:
                line = f"plug-in {_owner(plugin)}, {GROUP} {plugin.name!r}: {why}"
                refused.append(line[:REFUSED_LENGTH_MAX])
                log.error("a resource type is left out", extra={"plugin": _owner(plugin)})
            break
        waiting = [plugin for plugin, _ in left]
    return tuple(refused)


def _taken(plugin: EntryPoint) -> str:
    """Add the type of a plug-in; return why it can't be, empty when it is."""
    try:
        _add(plugin.load())
    # Foreign code runs when it is loaded: whatever it does there, the agent starts without it.
    except (Exception, SystemExit) as error:
        if isinstance(error, FatalError):
            return error.message
        log.exception("a resource type can't be loaded", extra={"plugin": _owner(plugin)})
        return f"loading {plugin.value} failed with {type(error).__name__}: {error}"
    return ""


def _add(type_: type[Resource]) -> None:
    """Add a type after everything that is made of types was made of it once."""
    add_type(type_)
    try:
        table_of(type_)
        create_body(type_), change_body(type_)
        openapi("trial")
    except BaseException:
        remove_type(type_)
        raise


def _owner(plugin: EntryPoint) -> str:
    return plugin.dist.name if plugin.dist is not None else plugin.value.partition(":")[0]
