"""Attaching what serves many places: a switch to clusters, an image storage to data centers.

`POST /v1/<plural>/{ref}/actions/attach` and `detach`. Two at once both count, as each is done on what is there then; attaching
what is attached, or detaching what isn't, is no error.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from core.attributes import attribute
from core.errors import ConflictError
from core.model import Cluster, DataCenter, DistributedSwitch, ImageStorage, Resource
from nodeagent.api.requests import body_of, ids_of, json_answer, node_of, shown_to, target_of
from nodeagent.api.rights import check_named
from nodeagent.services.reach import attached, refuse_if_needed

TRIES = 5


class AttachCluster(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which cluster a switch is attached to, or detached from."""

    cluster: Annotated[str, attribute("Name or id of the cluster.")]


class AttachDataCenter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which data center an image storage is attached to, or detached from."""

    data_center: Annotated[str, attribute("Name or id of the data center.")]


def add_routes(app: web.Application) -> None:
    """Add the routes."""
    switch, storage = "/v1/distributed-switches/{switch}", "/v1/image-storages/{storage}"
    app.router.add_post(f"{switch}/actions/attach", attach_switch)
    app.router.add_post(f"{switch}/actions/detach", detach_switch)
    app.router.add_post(f"{storage}/actions/attach", attach_storage)
    app.router.add_post(f"{storage}/actions/detach", detach_storage)


async def attach_switch(request: web.Request) -> web.Response:
    """POST .../actions/attach. 200: the switch spans the cluster's hosts too."""
    return await _switch(request, here=True)


async def detach_switch(request: web.Request) -> web.Response:
    """POST .../actions/detach. 200: it doesn't span them any more. 409: VMs of the cluster have NICs on it."""
    return await _switch(request, here=False)


async def attach_storage(request: web.Request) -> web.Response:
    """POST .../actions/attach. 200: VMs of the data center can be made of its images."""
    return await _storage(request, here=True)


async def detach_storage(request: web.Request) -> web.Response:
    """POST .../actions/detach. 200: they can't any more. 409: VMs there were made of its images."""
    return await _storage(request, here=False)


async def _switch(request: web.Request, *, here: bool) -> web.Response:
    body, store = await body_of(request, AttachCluster), node_of(request).store
    check_named(request, store, (Cluster, body.cluster))
    return await _change(
        request, DistributedSwitch, "switch", store.find(Cluster, body.cluster), here=here
    )


async def _storage(request: web.Request, *, here: bool) -> web.Response:
    body, store = await body_of(request, AttachDataCenter), node_of(request).store
    check_named(request, store, (DataCenter, body.data_center))
    return await _change(
        request, ImageStorage, "storage", store.find(DataCenter, body.data_center), here=here
    )


async def _change(
    request: web.Request, type_: type[Resource], part: str, target: Resource, *, here: bool
) -> web.Response:
    store, ids = node_of(request).store, ids_of(request)
    for attempt in range(TRIES):
        before = target_of(request, type_, part)
        after = attached(before, target, here=here)
        if after == before:
            return json_answer(shown_to(request, before))
        refuse_if_needed(store, before, after)
        try:
            await store.apply(puts=(after,), request_id=ids.again(attempt).request_id)
        except ConflictError as error:
            if error.code != "conflict-guard":
                raise
        else:
            return json_answer(shown_to(request, store.need(type_, before.id)))
    raise ConflictError("it is being changed all the time: try again", code="conflict-guard")
