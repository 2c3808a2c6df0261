"""Data storages: create and delete."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from aiohttp import web

from core.attributes import attribute
from core.errors import ConflictError
from core.model import DataStorage, DataStorageKind, check_name
from nodeagent.api.deleting import deleted
from nodeagent.api.requests import body_of, ids_of, json_answer, node_of, services_of, target_of
from nodeagent.api.views import show
from nodeagent.services.places import data_center_of


class CreateDataStorage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`path` must exist on every host and, for `shared`, be the same directory everywhere."""

    OF: ClassVar[type[msgspec.Struct]] = DataStorage

    name: Annotated[str, attribute("Its name: 1 to 63 of a-z, 0-9, `-` and `.`.")]
    kind: DataStorageKind
    path: str
    data_center: Annotated[str, attribute("Name or id of its data center; empty: the first.")] = ""


def add_routes(app: web.Application) -> None:
    """Add the routes of data storages."""
    app.router.add_post("/v1/data-storages", create_storage)
    app.router.add_delete("/v1/data-storages/{storage}", delete_storage)


async def create_storage(request: web.Request) -> web.Response:
    """POST /v1/data-storages. 201. 400: the path can't serve. 409: name taken."""
    node, body, ids = node_of(request), await body_of(request, CreateDataStorage), ids_of(request)
    before = node.store.get(DataStorage, ids.id_for("storage"))
    storage = before or DataStorage(
        id=ids.id_for("storage"),
        name=check_name(body.name, "data storage"),
        data_center_id=data_center_of(node.store, body.data_center).id,
        kind=body.kind,
        path=body.path,
        created_ms=node.clock.wall_ms(),
    )
    if before is None:
        taken = node.store.claim_holder(f"data-storage.name/{storage.name}")
        if taken:
            raise ConflictError(f"data storage name {storage.name!r} is already taken")
        await services_of(request).storages.prepare_new(storage)
        await node.store.apply(puts=(storage,), request_id=ids.request_id)
    return json_answer(
        show(node.store, node.store.need(DataStorage, storage.id)),
        status=201,
        headers={"Location": f"/v1/data-storages/{storage.id}"},
    )


async def delete_storage(request: web.Request) -> web.Response:
    """DELETE /v1/data-storages/{storage}. 204; its files stay. 409: disks are on it."""
    storage = target_of(request, DataStorage, "storage")
    return await deleted(request, storage)
