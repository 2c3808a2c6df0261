"""`kvorum host`: the servers that run VMs, and what to say of those that are gone."""

from __future__ import annotations

from argparse import Namespace

from msgspec import UNSET

from tools.cli.collection import Kind, add_delete, add_list, add_name, add_show
from tools.cli.context import Context
from tools.cli.maintenance import add_maintenance
from tools.cli.many import delete_many
from tools.cli.output import Column, mebibytes, text, write_done
from tools.cli.parser import Parser, Root, UsageError, add_wait
from tools.cli.waiting import finish
from tools.sdk.bodies import ConfirmOffBody, HostPatch
from tools.sdk.items import Item

CONFIRM_OFF_NOTE = """\
The VMs of a host are started elsewhere only after proof that they no longer run there. When no such
proof can be had (no lease, no watchdog), your word is taken for it: if the host still runs, its VMs'
disks will be damaged. Look at the machine, not at a ping."""


def _state(item: Item) -> str:
    state = item.text("state", "-")
    words = [state, *(word for word in ("witness", "maintenance") if item.flag(word))]
    if item.text("down_boot_id"):
        words.append("shut down")
    if fault := item.text("driver_fault"):
        words.append(f"no VM starts: {fault}")
    return ", ".join(words)


KIND = Kind(
    noun="host",
    plural="hosts",
    word="host",
    columns=(
        text("NAME", "name"),
        text("ADDRESS", "address"),
        Column("STATE", _state),
        text("CPUS", "cpus"),
        mebibytes("MEMORY", "memory_mib"),
        text("ACCELERATOR", "accelerator"),
        text("WATCHDOG", "watchdog"),
        text("VERSION", "version"),
    ),
    fields=(
        text("name", "name"),
        text("id", "id"),
        text("address", "address"),
        Column("state", _state),
        text("CPUs", "cpus"),
        mebibytes("memory", "memory_mib"),
        text("architecture", "arch"),
        text("accelerator", "accelerator"),
        text("watchdog", "watchdog"),
        text("version", "version"),
        text("failure domain", "failure_domain"),
        text("shutdown policy", "shutdown_policy"),
        text("cluster", "cluster_name", "cluster_id"),
    ),
)


async def confirm_off(args: Namespace, ctx: Context) -> int:
    """Give a person's word that a host has no power."""
    host = await ctx.client.get("hosts", args.name)
    name = host.text("name", args.name)
    given = args.confirm
    if not given and ctx.interactive:
        ctx.say(CONFIRM_OFF_NOTE)
        given = await ctx.ask(f"Type the host's name to confirm that {name} has no power: ")
    if given != name:
        raise UsageError(f"nothing was changed: confirm with --confirm {name}")
    started = await ctx.client.act("hosts", name, "confirm-off", ConfirmOffBody(confirm=name))
    if await finish(ctx, started, f"confirm that {name} is off", wait=args.wait):
        write_done(ctx, started.item, f"{name}: taken as powered off")
    return 0


async def change(args: Namespace, ctx: Context) -> int:
    """Say what the cluster can't find out about a host."""
    if args.failure_domain is None and args.cluster is None and args.shutdown_policy is None:
        raise UsageError("nothing to change: give --failure-domain, --shutdown-policy or --cluster")
    body = HostPatch(
        failure_domain=UNSET if args.failure_domain is None else args.failure_domain,
        cluster=UNSET if args.cluster is None else args.cluster,
        shutdown_policy=UNSET if args.shutdown_policy is None else args.shutdown_policy,
    )
    host = await ctx.client.update("hosts", args.name, body)
    write_done(ctx, host, f"{host.text('name', args.name)}: changed")
    return 0


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("host")
    add_list(verbs, KIND)
    add_show(verbs, KIND)
    add_delete(verbs, KIND, verb="remove", many=delete_many)
    put = verbs.add(
        "set",
        change,
        "say which hosts fail together, what a shutdown does, or to which cluster a host belongs",
        example="kvorum host set h1 --failure-domain rack1\nkvorum host set h1 --failure-domain ''\n"
        "kvorum host set h4 --cluster gpu",
        note="Voters are spread over failure domains, so that the cluster survives the loss of one.\n"
        "Only a host without VMs can go to another cluster.",
    )
    add_name(put, KIND)
    put.add_argument(
        "--failure-domain", metavar="NAME", help="a rack or a room, by any name; '' for none"
    )
    put.add_argument(
        "--shutdown-policy",
        choices=("cluster", "conditional", "migrate", "failover", "freeze"),
        help="what becomes of its VMs when it is shut down (default: as its cluster says)",
    )
    put.add_argument(
        "--cluster", metavar="NAME", names_of="clusters", help="the cluster that it shall belong to"
    )
    add_maintenance(verbs, KIND)
    confirm = verbs.add(
        "confirm-off",
        confirm_off,
        "say that a dead host has no power, so that its VMs start elsewhere",
        example="kvorum host confirm-off h3\nkvorum host confirm-off h3 --confirm h3",
        note=CONFIRM_OFF_NOTE,
    )
    add_name(confirm, KIND)
    confirm.add_argument("--confirm", default="", metavar="NAME", help="the host's name once more")
    add_wait(confirm)


ADD = {"host": _add}
