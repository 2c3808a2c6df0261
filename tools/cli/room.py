"""`kvorum cluster room`: what would become of the highly available VMs if hosts were lost."""

from __future__ import annotations

from argparse import Namespace

from tools.cli.context import Context
from tools.cli.output import Column, write_list, write_value
from tools.cli.parser import UsageError, Verbs
from tools.cli.units import shown_size
from tools.sdk.items import Item
from tools.sdk.model import plain

NOT_BEARABLE = 1

NOTE = """\
For each host (or, with --host-failures 2, each two of them) it is worked out where failover would start
its VMs. What finds no room is missing memory or processors, or the hosts with room are in maintenance.
With 'kvorum cluster set NAME --admission enforce' VMs aren't started that would take that room."""


def _placed(loss: Item) -> str:
    return ", ".join(f"{name} {count}" for name, count in loss.item("placed").raw.items()) or "-"


def _missing(loss: Item) -> str:
    ruled = loss.integer("ruled_out")
    if ruled:
        by_rules = f"{ruled} by placement rules"
        return f"{_short(loss)}, {by_rules}" if loss.integer("left_out") else by_rules
    return _short(loss)


def _short(loss: Item) -> str:
    if not loss.integer("left_out"):
        return "-"
    return f"{loss.integer('left_out')} ({shown_size(loss.integer('missing_mib') << 20)})"


COLUMNS = (
    Column("LOSS OF", lambda loss: ", ".join(loss.texts("hosts"))),
    Column("VMS", lambda loss: str(loss.integer("vms"))),
    Column("MEMORY", lambda loss: shown_size(loss.integer("memory_mib") << 20)),
    Column("WOULD GO TO", _placed),
    Column("WITHOUT ROOM", _missing),
)


async def room(args: Namespace, ctx: Context) -> int:
    """Show what each loss would do; exit code 1 when one could not be borne."""
    found = plain(await ctx.kvorum.clusters.get_room(args.name or await _only_cluster(ctx)))
    if ctx.output == "table":
        count = found.integer("host_failures")
        ctx.say(
            f"cluster {found.text('cluster_name')}: admission {found.text('admission')}, to bear the loss of "
            f"{count} {'host' if count == 1 else 'hosts'}"
        )
        write_list(ctx, found.items("losses"), COLUMNS, "no VM would have to be started elsewhere")
    else:
        write_value(ctx, dict(found.raw))
    if not found.flag("bearable", default=True):
        worst = next(loss for loss in found.items("losses") if loss.integer("left_out"))
        why = worst.text("why") or "a loss could not be borne"
        ctx.say(f"kvorum: {why}")
        return NOT_BEARABLE
    return 0


async def _only_cluster(ctx: Context) -> str:
    page = await ctx.client.list_all("clusters", limit=2)
    if len(page.items) != 1:
        raise UsageError("there are several clusters: say which")
    return page.items[0].text("id")


def add_room(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add(
        "room",
        room,
        "show where VMs would go if hosts were lost, and what would find no room",
        example="kvorum cluster room\nkvorum cluster room gpu",
        note=NOTE,
    )
    parser.add_argument(
        "name",
        nargs="?",
        default="",
        metavar="NAME",
        names_of="clusters",
        help="the cluster (default: the only one)",
    )
