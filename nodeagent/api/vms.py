"""VMs: create, change, delete, and the verbs start, stop, reboot, migrate.

Every verb answers 202 with the VM and its task, or 200 when there was nothing to do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from msgspec import UNSET

from core.model import VM, DataStorage, Host, Image, PlacementRule, PortGroup, SecurityGroup
from ha.admission import AdmissionError
from ha.placement import PlacementError
from ha.placement_rules import RuleError
from nodeagent.api.deleting import preview_if_asked
from nodeagent.api.requests import (
    Ids,
    body_of,
    ids_of,
    json_answer,
    judged_anew,
    node_of,
    services_of,
    shown_to,
    target_of,
)
from nodeagent.api.rights import check_changeable, check_named, without_names
from nodeagent.api.tasks import waited
from nodeagent.services.vm_requests import ChangeVM, CreateVM, MigrateVM, StopVM
from nodeagent.services.vm_service import Opened

Verb = Callable[[VM, Ids], Awaitable[Opened]]


def add_routes(app: web.Application) -> None:
    """Add the routes of VMs."""
    app.router.add_post("/v1/vms", create_vm)
    app.router.add_patch("/v1/vms/{vm}", change_vm)
    app.router.add_delete("/v1/vms/{vm}", delete_vm)
    app.router.add_post("/v1/vms/{vm}/actions/start", start_vm)
    app.router.add_post("/v1/vms/{vm}/actions/stop", stop_vm)
    app.router.add_post("/v1/vms/{vm}/actions/reboot", reboot_vm)
    app.router.add_post("/v1/vms/{vm}/actions/migrate", migrate_vm)


async def create_vm(request: web.Request) -> web.Response:
    """POST /v1/vms. 202: recorded, being made. 409: name taken, no room, no address, rules that contradict each other. 503: outcome unknown."""
    body = await body_of(request, CreateVM)
    named = ((Image, body.image), (PortGroup, body.port_group), (DataStorage, body.data_storage))
    groups = ((SecurityGroup, ref) for ref in body.security_groups)
    before = ((VM, ref) for ref in body.start_after)
    rules = ((PlacementRule, ref) for ref in body.placement_rules)
    store = node_of(request).store
    check_named(request, store, *named, *groups, *before, *rules, (Host, body.host))
    try:
        opened = await services_of(request).vms.create(
            body, ids_of(request), lambda rule: check_changeable(request, rule)
        )
    except (AdmissionError, PlacementError) as error:
        raise without_names(request, error, *_named_in(error)) from None
    except RuleError as error:
        raise without_names(request, error, "vm", "placement-rule") from None
    return await answer_opened(request, opened)


async def change_vm(request: web.Request) -> web.Response:
    """PATCH /v1/vms/{vm}. 200: the changed VM. 409: made highly available, it would take room kept for lost hosts."""
    body = await body_of(request, ChangeVM)
    before = () if body.start_after is UNSET else body.start_after
    check_named(request, node_of(request).store, *((VM, ref) for ref in before))
    try:
        vm = await services_of(request).vms.change(_vm(request), body, ids_of(request))
    except AdmissionError as error:
        raise without_names(request, error, "host") from None
    return json_answer(shown_to(request, vm))


async def delete_vm(request: web.Request) -> web.Response:
    """DELETE /v1/vms/{vm}. 202: being stopped and removed with its disks and NICs."""
    if (preview := preview_if_asked(request, _vm(request))) is not None:
        return preview
    return await _act(request, services_of(request).vms.delete)


async def start_vm(request: web.Request) -> web.Response:
    """POST .../actions/start. 200: it runs already."""
    return await _act(request, services_of(request).vms.start)


async def stop_vm(request: web.Request) -> web.Response:
    """POST .../actions/stop. 200: it is stopped already."""
    body = await body_of(request, StopVM)
    vms = services_of(request).vms
    return await _act(request, lambda vm, ids: vms.stop(vm, body, ids))


async def reboot_vm(request: web.Request) -> web.Response:
    """POST .../actions/reboot. 409: not running."""
    return await _act(request, services_of(request).vms.reboot)


async def migrate_vm(request: web.Request) -> web.Response:
    """POST .../actions/migrate. 409: not running, on local storage, or no host fits."""
    body = await body_of(request, MigrateVM)
    check_named(request, node_of(request).store, (Host, body.host))
    vms = services_of(request).vms
    return await _act(request, lambda vm, ids: vms.migrate(vm, body, ids))


def _vm(request: web.Request) -> VM:
    return target_of(request, VM, "vm")


async def _act(request: web.Request, verb: Verb) -> web.Response:
    opened = await act(request, lambda: _vm(request), verb, ids_of(request))
    return await answer_opened(request, opened)


async def act(request: web.Request, vm: Callable[[], VM], verb: Verb, ids: Ids) -> Opened:
    """Carry a verb out; when the VM's state moved on meanwhile, judge again by the new state, a few times."""
    try:
        return await judged_anew(lambda again: verb(vm(), again), ids)
    except (AdmissionError, PlacementError) as error:
        raise without_names(request, error, *_named_in(error)) from None


def _named_in(error: AdmissionError | PlacementError) -> tuple[str, ...]:
    """Return the kinds of which a refusal names resources."""
    return error.kinds if isinstance(error, PlacementError) else ("host",)


async def answer_opened(request: web.Request, opened: Opened) -> web.Response:
    """Return the answer to a verb: the VM and its task, waited for as the request prefers."""
    node = node_of(request)
    if opened.task is None:
        return json_answer({"vm": shown_to(request, opened.vm), "task": None})
    task = await waited(request, opened.task)
    vm = node.store.get(VM, opened.vm.id) or opened.vm
    return json_answer(
        {"vm": shown_to(request, vm), "task": shown_to(request, task)},
        status=202,
        headers={"Location": f"/v1/tasks/{task.id}"},
    )
