"""Rights that are limited by tags, as handlers keep to them: which one of a kind may be touched, seen, named.

`nodeagent.api.access` judges every request before its handler runs and leaves the limits here. Handlers look their
resources up through `nodeagent.api.requests`, which judges once more, right before the write that guards the revision: so a tag
that goes in between counts.
"""

from __future__ import annotations

from typing import TypeVar

from aiohttp import web

from core.errors import ConflictError, ForbiddenError, PlatformError
from core.identity.permissions import CHANGE, OPERATE, READ, limits
from core.model import KINDS, VM, Resource, Tagged, kind_of
from nodeagent.identity.callers import Caller
from raftstate.state.query_sight import Sight
from raftstate.store import Store, not_found

R = TypeVar("R", bound=Resource)

CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)
LIMITS: web.RequestKey[frozenset[str]] = web.RequestKey("limits", frozenset)
"""The tags of which the resource of the path must carry one; absent: no limit."""


def named_in(request: web.Request) -> str:
    """Return the name or id of the resource that the path is about, empty when it is about none."""
    return next((value for key, value in request.match_info.items() if key != "plural"), "")


def judged(request: web.Request, resource: R) -> R:
    """Return the resource of the path if the caller's right reaches it.

    Raises:
        NotFoundError: it doesn't, and the caller may not even see it.
        ForbiddenError: it doesn't.
    """
    wanted = request.get(LIMITS)
    if wanted is None or not wanted.isdisjoint(_tags(resource)):
        return resource
    if not sight_of(request).sees(resource):
        raise not_found(type(resource), named_in(request) or resource.name)
    raise ForbiddenError(
        f"{request[CALLER].name!r} may not do this to {resource.name!r}: its roles allow it only where one of these "
        f"tags is: {', '.join(sorted(wanted))}"
    )


def judge_path(request: web.Request, store: Store, kind: str) -> None:
    """Judge the resource of the path by the limits.

    Raises:
        NotFoundError: there is none, or none that the caller may see.
        ForbiddenError: the caller's right doesn't reach it, or the path is about no single resource.
    """
    type_, ref = KINDS[kind], named_in(request)
    if not ref:
        raise ForbiddenError(
            f"{request[CALLER].name!r} may do this only to what carries certain tags, and this is about all of '{kind}'"
        )
    try:
        judged(request, store.find(type_, ref))
    except ConflictError:  # several of that name
        if not any(sight_of(request).sees(one) for one in store.with_value(type_, "name", ref)):
            raise not_found(type_, ref) from None
        raise


def sight_of(request: web.Request) -> Sight:
    """Return what the caller may see."""
    caller = request[CALLER]
    return Sight(lambda kind: limits(caller.permissions, kind, READ))


def check_named(request: web.Request, store: Store, *named: tuple[type[Resource], str]) -> None:
    """See that the caller may see what a request names to make use of it; an empty name names nothing.

    Raises:
        NotFoundError: there is none, or none that the caller may see.
        ForbiddenError: the caller may see none of the kind.
    """
    sight = sight_of(request)
    for type_, ref in named:
        kind = kind_of(type_)
        if not ref or (wanted := sight.of(kind)) is None:
            continue
        if not wanted:
            raise ForbiddenError(
                f"{request[CALLER].name!r} may not name {ref[:80]!r}: its roles don't allow 'read' on '{kind}'"
            )
        if not sight.sees(store.find(type_, ref)):
            raise not_found(type_, ref)


def check_changeable(request: web.Request, resource: Resource) -> None:
    """See that the caller may change a resource that a request names beside the one that it is about.

    Raises:
        NotFoundError: the caller may not even see it.
        ForbiddenError: its right to change doesn't reach it.
    """
    caller, kind = request[CALLER], kind_of(type(resource))
    if not sight_of(request).sees(resource):
        raise not_found(type(resource), resource.id)
    if not Sight(lambda kind: limits(caller.permissions, kind, CHANGE)).sees(resource):
        raise ForbiddenError(
            f"{caller.name!r} may not put anything into {resource.name!r}: its roles don't allow 'change' on this '{kind}'"
        )


def check_operable(request: web.Request, vm: VM) -> None:
    """See that the caller may operate a VM that a request is about beside its own resource.

    Raises:
        ForbiddenError: its right doesn't reach it.
    """
    caller = request[CALLER]
    if not caller.may("vm", OPERATE, vm.tags):
        named = repr(vm.name) if sight_of(request).sees(vm) else "its VM"
        raise ForbiddenError(
            f"{caller.name!r} may not do this to {named}: its roles don't allow 'operate' on 'vm' there"
        )


def without_names(request: web.Request, error: PlatformError, *kinds: str) -> PlatformError:
    """Return a refusal that names resources of these kinds as the caller may read it."""
    if sight_of(request).whole(kinds or KINDS):
        return error
    return type(error)(
        "what stands in the way is something that you may not see all of: ask somebody who may",
        code=error.code,
    )


def _tags(resource: Resource) -> tuple[str, ...]:
    return resource.tags if isinstance(resource, Tagged) else ()
