"""Deletes a record with all that belongs to it, in one transaction, while nothing new can come to depend on it.

Called by the API. Two transactions: the first puts a fence, a record that says "this is being deleted"; every transaction
that makes something depend on it guards that there is no fence (`raftstate.relation_guards`), so a create either is seen
here before the plan is made, or is refused. The second deletes everything and the fence. An agent that dies in between leaves a fence,
which housekeeping removes after a minute; the second transaction of a slow agent is then refused, as the fence is gone.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from core.errors import ConflictError, PlatformError
from core.model import (
    KINDS,
    LINKS,
    DeletePlan,
    Deletion,
    Link,
    OnDelete,
    Relation,
    Resource,
    Touched,
    key_of,
    kind_of,
    plan_delete,
)
from core.model.additions import BUILT_IN
from nodeagent.node import Node
from raftstate.store import Store

log = logging.getLogger(__name__)

WORDS = {"vm": "VM", "nic": "NIC"}


def plan_of(store: Store, resource: Resource) -> DeletePlan:
    """Return what deleting a resource means, by this agent's copy of the state."""

    def references(key: str) -> list[tuple[Resource, Relation]]:
        return [(found, reference.relation) for found, reference in store.references_to(key)]

    return plan_delete(resource, lambda kind: store.all(KINDS[kind]), _links(), references)


def _links() -> Mapping[str, Mapping[str, Link]]:
    """Return the relations of this version's own kinds; those of plug-ins are told by claims, on all hosts alike."""
    return {
        kind: {name: link for name, link in links.items() if link.target in BUILT_IN}
        for kind, links in LINKS.items()
        if kind in BUILT_IN
    }


def refuse_if_used(plan: DeletePlan) -> None:
    """Let a plan pass that nothing stands in the way of.

    Raises:
        ConflictError: something does; the message says what, and what to do.
    """
    if plan.refused:
        raise ConflictError(why_refused(plan))


def why_refused(plan: DeletePlan) -> str:
    """Return what stands in the way, in one line; empty when nothing does."""
    if not plan.refused:
        return ""
    first = plan.refused[0]
    kind = kind_of(first.resource)
    same = [t for t in plan.refused if kind_of(t.resource) == kind]
    owner = next((r.target for r in first.resource.RELATIONS if r.on_delete is OnDelete.ALONG), "")
    moved = kind_of(plan.target) == "host" and kind == "vm"
    advice = (
        "move or delete those first"
        if moved
        else f"delete their {word(owner)}s first"
        if owner
        else "delete or change those first"
    )
    count = f"{len(same)} {word(kind)}{'s' if len(same) > 1 else ''}"
    target = f"{word(kind_of(plan.target))} {plan.target.name!r}"
    return f"{target} is used by {count} (such as {first.resource.name}): {advice}"


def word(kind: str) -> str:
    """Return a kind as people say it."""
    return WORDS.get(kind, kind.replace("-", " "))


def fences_absent(*resources: Resource) -> tuple[Deletion, ...]:
    """Return guards for a transaction that prepares something to depend on these later: none of them is being deleted."""
    return tuple(_fence(resource) for resource in resources)


async def delete_cascading(node: Node, resource: Resource) -> DeletePlan:
    """Delete a resource and what goes along, detach what stays; return what was done.

    Raises:
        ConflictError: something stands in the way, or it was changed or is being deleted by someone else. Nothing was
            changed.
        UnavailableError: no quorum in time: whether it is gone is unknown.
    """
    store = node.store
    expected = plan_of(store, resource)
    refuse_if_used(expected)
    async with fenced(node, expected.gone) as fences:
        plan = plan_of(store, resource)
        refuse_if_used(plan)
        if {key_of(gone) for gone in plan.gone} != {fence.target for fence in fences}:
            raise ConflictError(f"{resource.name!r} was changed by someone else meanwhile: retry")
        await store.apply(puts=plan.changed, deletes=(*plan.gone, *fences))
    return plan


@asynccontextmanager
async def fenced(node: Node, gone: Sequence[Resource]) -> AsyncIterator[tuple[Deletion, ...]]:
    """Keep anything new from depending on these; give the fences, which are to be deleted with them.

    They are taken down when the block fails. Everything committed before is seen inside.

    Raises:
        ConflictError: one was changed since it was read, or is being deleted already.
    """
    store, now_ms = node.store, node.clock.wall_ms()
    planned = [_fence(resource, now_ms) for resource in gone]
    for fence in planned:
        if store.get(Deletion, fence.id) is not None:
            raise ConflictError(f"{fence.target} is being deleted already: look again in a minute")
    await store.apply(puts=planned, guards=gone)
    fences = tuple(store.need(Deletion, fence.id) for fence in planned)
    try:
        yield fences
    except PlatformError:
        await _take_down(store, fences)
        raise


async def _take_down(store: Store, fences: Sequence[Deletion]) -> None:
    """Remove our fences; when that fails they are gone with the rest, or housekeeping removes them."""
    try:
        await store.apply(deletes=fences)
    except PlatformError as error:
        log.info("the fence of a deletion was not removed", extra={"error": error.message})


def _fence(resource: Resource, now_ms: int = 0) -> Deletion:
    id_ = Deletion.id_of(key_of(resource))
    return Deletion(id=id_, name=id_, target=key_of(resource), created_ms=now_ms)


def shown_plan(plan: DeletePlan) -> dict[str, object]:
    """Return a plan as a caller sees it."""
    return {
        "target": _shown(plan.target),
        "allowed": not plan.refused,
        "why_not": why_refused(plan),
        "deleted": [_shown_touched(touched) for touched in plan.along],
        "detached": [_shown_touched(touched) for touched in plan.detached],
        "refused": [_shown_touched(touched) for touched in plan.refused],
    }


def _shown(resource: Resource) -> dict[str, object]:
    return {"kind": kind_of(resource), "id": resource.id, "name": resource.name}


def _shown_touched(touched: Touched) -> dict[str, object]:
    return {
        **_shown(touched.resource),
        "relation": touched.relation.name,
        "to": touched.target.name,
    }
