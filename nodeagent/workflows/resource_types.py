"""Resource types of plug-ins: found by the entry point `kvorum.resources`, tried, and added to the kinds of this agent.

The composition root calls it once, before the state is opened. A type that is broken or doesn't keep to the rules
(`core.model.additions`) is left out like everything else of plug-ins that can't be used (`nodeagent.plugins.loading`).
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint
from typing import cast

from core.model import Plugin, PluginState, Resource
from core.model.additions import add_type, remove_type
from nodeagent.api.bodies import change_body, create_body
from nodeagent.api.description.document import openapi
from nodeagent.plugins.loading import Group, installed, load, owner_of
from raftstate.state.schema import table_of

GROUP = "kvorum.resources"


def load_resource_types(plugins: Iterable[EntryPoint] | None = None) -> tuple[Plugin, ...]:
    """Add the types of plug-ins, by default of all that are installed; return what became of each."""
    group = Group(GROUP, "resource type", EntryPoint.load, _accept, names=None)
    found = installed([group]) if plugins is None else plugins
    waiting = sorted(found, key=lambda plugin: (owner_of(plugin), plugin.name))
    reports: list[Plugin] = []
    # A type may be related to another one of any plug-in, so those that can't be added yet are tried again.
    while waiting:
        tried = [(plugin, load([group], [plugin])[0]) for plugin in waiting]
        left = [plugin for plugin, report in tried if report.state is PluginState.REFUSED]
        stuck = len(left) == len(waiting)
        reports += [one for _, one in tried if stuck or one.state is not PluginState.REFUSED]
        if stuck:
            break
        waiting = left
    return tuple(reports)


def _accept(name: str, loaded: object) -> None:
    """Add a type after everything that is made of types was made of it once."""
    del name
    type_ = cast(type[Resource], loaded)
    add_type(type_)
    try:
        table_of(type_)
        create_body(type_), change_body(type_)
        openapi("trial")
    except BaseException:
        remove_type(type_)
        raise
