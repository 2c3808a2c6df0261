"""Workflows that people may run: which there are, and opening a task of one.

Only those that say so by `run-on` in their definition; the product's own belong to requests of their own. A workflow is
known where its plug-in is: the asked agent checks the arguments, the VM's host runs it.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from aiohttp import web

from core.attributes import attribute
from core.errors import NotFoundError
from core.model import VM
from core.workflow_definition import Definition
from nodeagent.api.computed import answer_of
from nodeagent.api.requests import body_of, ids_of, json_answer, node_of, services_of
from nodeagent.api.rights import check_named, check_operable
from nodeagent.api.vms import act, answer_opened


class RunWorkflow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/workflows/{workflow}/actions/run`: on what, and the workflow's inputs."""

    vm: Annotated[str, attribute("Name or id of the VM that it is run on.")]
    arguments: Annotated[
        dict[str, str],
        attribute("The workflow's inputs by name, as `GET /v1/workflows` lists them."),
    ] = {}


def add_routes(app: web.Application) -> None:
    """Add the routes of workflows."""
    app.router.add_get("/v1/workflows", list_workflows)
    app.router.add_post("/v1/workflows/{workflow}/actions/run", run_workflow)


async def list_workflows(request: web.Request) -> web.Response:
    """GET /v1/workflows. Those that people may run, as this agent knows them."""
    definitions = services_of(request).plugins.registry.definitions
    items = [shown_workflow(one) for _, one in sorted(definitions.items()) if one.run_on]
    return json_answer({**answer_of(items, request), "index": node_of(request).store.index})


async def run_workflow(request: web.Request) -> web.Response:
    """POST .../actions/run. 202: its task is recorded. 404: no such workflow that people may run, or VM. 409: the VM is busy."""
    body, node, services = (
        await body_of(request, RunWorkflow),
        node_of(request),
        services_of(request),
    )
    name = request.match_info["workflow"]
    definition = services.plugins.registry.definitions.get(name)
    if definition is None or not definition.run_on:
        raise NotFoundError(
            f"there is no workflow {name[:63]!r} here that can be run: see 'kvorum workflow list' and 'kvorum plugin list'"
        )
    arguments = definition.arguments(body.arguments)
    check_named(request, node.store, (VM, body.vm))

    def vm() -> VM:
        found = node.store.find(VM, body.vm)
        check_operable(request, found)
        return found

    opened = await act(
        request,
        vm,
        lambda found, ids: services.vms.run(found, definition, arguments, ids),
        ids_of(request),
    )
    return await answer_opened(request, opened)


def shown_workflow(definition: Definition) -> dict[str, Any]:
    """Return what people are told of a workflow."""
    return {
        "name": definition.name,
        "description": definition.description,
        "run_on": definition.run_on,
        "inputs": [
            {
                "name": one.name,
                "type": str(one.type),
                "required": one.required,
                "default": one.default,
                "length_max": one.length_max,
                "description": one.description,
            }
            for one in definition.inputs
        ],
        "steps": list(definition.steps),
    }
