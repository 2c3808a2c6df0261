"""`kvorum vm`: virtual machines from creation to deletion."""

from __future__ import annotations

from argparse import Namespace

from msgspec import UNSET

from tools.cli.collection import Kind, add_delete, add_list, add_name, add_names, related
from tools.cli.context import Context
from tools.cli.many import act_on_many, delete_many
from tools.cli.output import (
    Column,
    mebibytes,
    moment,
    printable,
    text,
    texts,
    write_done,
    write_rows,
    write_value,
)
from tools.cli.parser import Parser, Root, UsageError, Verbs, add_callback, add_wait
from tools.cli.start_order import add_order, awaited, delay_s
from tools.cli.units import duration_s, shown_size
from tools.cli.vm_create import add_create
from tools.cli.waiting import finish
from tools.sdk.bodies import EmptyBody, MigrateBody, StopBody, VMPatch
from tools.sdk.items import Item, JsonObject


def _state(vm: Item) -> str:
    phase = vm.text("phase", "-")
    if reason := vm.text("blocked_reason"):
        return f"{phase}: {reason}"
    return phase


def _host(vm: Item) -> str:
    return vm.text("host_name") or vm.text("owner") or vm.text("host_id", "-")


KIND = Kind(
    noun="vm",
    plural="vms",
    word="VM",
    columns=(
        text("NAME", "name"),
        Column("STATE", _state),
        Column("HOST", _host),
        texts("IPS", "ips"),
        text("CPUS", "cpus"),
        mebibytes("MEMORY", "memory_mib"),
        Column("HA", lambda vm: "yes" if vm.flag("ha") else "no"),
    ),
    fields=(
        text("name", "name"),
        text("id", "id"),
        Column("state", _state),
        text("wanted", "power"),
        Column("host", _host),
        texts("IPs", "ips"),
        text("CPUs", "cpus"),
        mebibytes("memory", "memory_mib"),
        Column("HA", lambda vm: "yes" if vm.flag("ha") else "no"),
        text("priority", "priority"),
        texts("starts after", "start_after_names", "start_after_ids"),
        Column("start delay", lambda vm: f"{vm.integer('start_delay_s')} s"),
        text("description", "description"),
        moment("created", "created_ms"),
    ),
    empty="no VMs: kvorum vm create NAME --image IMAGE",
)


async def show(args: Namespace, ctx: Context) -> int:
    """Show a VM with its disks and network cards."""
    vm = await ctx.client.get("vms", args.name)
    disks = await related(ctx, "disks", "vm_id", vm.text("id"))
    nics = await related(ctx, "nics", "vm_id", vm.text("id"))
    if ctx.output != "table":
        whole: JsonObject = dict(vm.raw)
        whole["disks"] = [dict(disk.raw) for disk in disks]
        whole["nics"] = [dict(nic.raw) for nic in nics]
        write_value(ctx, whole)
        return 0
    fields = [(field.title, printable(field.value(vm))) for field in KIND.fields]
    write_rows(ctx, [*fields, *map(_disk_row, disks), *map(_nic_row, nics)])
    return 0


def _disk_row(disk: Item) -> tuple[str, ...]:
    storage = disk.text("data_storage_name") or disk.text("data_storage_id", "-")
    image = disk.text("image_name") or disk.text("image_id")
    origin = f", from {image}" if image else ""
    return ("disk", printable(f"{disk.text('name')}: {_size(disk)} on {storage}{origin}"))


def _nic_row(nic: Item) -> tuple[str, ...]:
    network = nic.text("port_group_name") or nic.text("port_group_id", "-")
    return (
        "nic",
        printable(f"{nic.text('name')}: {nic.text('ip')} {nic.text('mac')} in {network}"),
    )


def _size(disk: Item) -> str:
    return shown_size(disk.integer("size_bytes"))


async def start(args: Namespace, ctx: Context) -> int:
    """Start VMs."""
    return await _act(args, ctx, "start", EmptyBody())


async def stop(args: Namespace, ctx: Context) -> int:
    """Stop VMs."""
    body = StopBody(force=args.force, timeout_s=args.timeout or UNSET)
    return await _act(args, ctx, "stop", body)


async def reboot(args: Namespace, ctx: Context) -> int:
    """Reboot VMs."""
    return await _act(args, ctx, "reboot", EmptyBody())


async def migrate(args: Namespace, ctx: Context) -> int:
    """Move running VMs to other hosts."""
    return await _act(args, ctx, "migrate", MigrateBody(host=args.host or UNSET))


async def update(args: Namespace, ctx: Context) -> int:
    """Change what can be changed of a VM at any time."""
    if args.no_start_after and args.start_after:
        raise UsageError("give --start-after or --no-start-after, not both")
    body = VMPatch(
        ha=UNSET if args.ha is None else args.ha == "on",
        priority=args.priority or UNSET,
        start_after=() if args.no_start_after else awaited(args),
        start_delay_s=delay_s(args),
        description=UNSET if args.description is None else args.description,
    )
    if body == VMPatch():
        raise UsageError(
            "nothing to change: give --ha, --priority, --start-after, --start-delay or --description"
        )
    vm = await ctx.client.update("vms", args.name, body)
    write_done(ctx, vm, f"{vm.text('name', args.name)}: changed")
    return 0


async def _act(
    args: Namespace, ctx: Context, verb: str, body: EmptyBody | StopBody | MigrateBody
) -> int:
    if len(args.names) > 1:
        return await act_on_many(args, ctx, KIND, verb, body, _tell)
    (name,) = args.names
    started = await ctx.client.act("vms", name, verb, body, callback_url=args.callback_url)
    if await finish(ctx, started, f"{verb} {name}", wait=args.wait):
        vm = await ctx.client.get("vms", name)
        write_done(ctx, vm, _told(vm, already=started.task is None))
    return 0


async def _tell(ctx: Context, item: Item, already: bool) -> tuple[Item, str]:
    vm = await ctx.client.get("vms", item.text("id"))
    return vm, _told(vm, already=already)


def _told(vm: Item, *, already: bool) -> str:
    return f"{vm.text('name')}: {_state(vm)} on {_host(vm)}" + (" already" if already else "")


async def _consequences(ctx: Context, vm: Item) -> list[str]:
    del ctx
    return [f"it is {_state(vm)} on {_host(vm)}"] if vm.text("phase") != "stopped" else []


def _add_update(verbs: Verbs) -> None:
    parser = verbs.add(
        "update",
        update,
        "change a VM's description, whether it is highly available, and when it is started",
        example="kvorum vm update web1 --ha off --description 'old front end'",
    )
    add_name(parser, KIND)
    parser.add_argument(
        "--ha", choices=("on", "off"), help="whether it is started elsewhere when its host dies"
    )
    add_order(parser)
    parser.add_argument(
        "--no-start-after", action="store_true", help="start it after no other VM any more"
    )
    parser.add_argument("--description", metavar="TEXT", help="a note for people")


def _add_actions(verbs: Verbs) -> None:
    started = verbs.add(
        "start", start, "start VMs", example="kvorum vm start web1\nkvorum vm start web1 web2 db1"
    )
    stopped = verbs.add(
        "stop",
        stop,
        "shut VMs down",
        example="kvorum vm stop web1\nkvorum vm stop web1 --force",
        note="Each guest is asked to shut down, as by its power button; --force takes its power away.",
    )
    rebooted = verbs.add("reboot", reboot, "reboot VMs", example="kvorum vm reboot web1 web2")
    moved = verbs.add(
        "migrate",
        migrate,
        "move running VMs to other hosts without stopping them",
        example="kvorum vm migrate web1\nkvorum vm migrate web1 --host h2",
        note="Their disks must be on a shared data storage.",
    )
    for parser in (started, stopped, rebooted, moved):
        add_names(parser, KIND)
        add_wait(parser)
        add_callback(parser)
    stopped.add_argument("--force", action="store_true", help="at once, like pulling the plug")
    stopped.add_argument(
        "--timeout", type=duration_s, default=0, metavar="TIME", help="how long the guest may take"
    )
    moved.add_argument(
        "--host",
        default="",
        metavar="NAME",
        names_of="hosts",
        help="where to (default: the best one)",
    )


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("vm")
    add_create(verbs)
    add_list(verbs, KIND)
    shown = verbs.add("show", show, "show a VM, its disks and NICs", example="kvorum vm show web1")
    add_name(shown, KIND)
    _add_update(verbs)
    _add_actions(verbs)
    add_delete(verbs, KIND, consequences=_consequences, many=delete_many, starts_tasks=True)


ADD = {"vm": _add}
