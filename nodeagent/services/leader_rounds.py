"""The rounds of a loop that works on the leader only, woken by changes of what it works on.

Used by what fences hosts (`nodeagent.services.fencing`, `nodeagent.services.storage_fencing`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from core.model import Resource
from nodeagent.node import Node


async def leader_rounds(
    node: Node,
    begin: Callable[[asyncio.TaskGroup], None],
    *types: type[Resource],
    every_s: float,
) -> None:
    """Have `begin` start what is due, until cancelled: at each change of these types and every `every_s`, while this node leads."""
    watch = node.store.watch(*types)
    try:
        async with asyncio.TaskGroup() as group:
            while True:
                if node.engine.is_leader():
                    begin(group)
                try:
                    async with asyncio.timeout(every_s):
                        await watch.next()
                except TimeoutError:
                    continue
    finally:
        node.store.unwatch(watch)
