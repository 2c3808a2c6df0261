"""`kvorum data-center` and `kvorum cluster`: the places that hosts and VMs belong to."""

from __future__ import annotations

from argparse import Namespace

from msgspec import UNSET

from tools.cli.collection import Kind, add_delete, add_list, add_name, add_show
from tools.cli.context import Context
from tools.cli.many import delete_many
from tools.cli.output import Column, text, write_done
from tools.cli.parser import Parser, Root, UsageError, Verbs
from tools.cli.room import add_room
from tools.cli.units import duration_s, shown_duration
from tools.sdk.bodies import ClusterBody, ClusterPatch, DataCenterBody, PlacePatch

DATA_CENTERS = Kind(
    noun="data-center",
    plural="data-centers",
    word="data center",
    columns=(text("NAME", "name"), text("DESCRIPTION", "description")),
    fields=(text("name", "name"), text("id", "id"), text("description", "description")),
)
CLUSTERS = Kind(
    noun="cluster",
    plural="clusters",
    word="cluster",
    columns=(
        text("NAME", "name"),
        text("DATA CENTER", "data_center_name", "data_center_id"),
        text("DESCRIPTION", "description"),
    ),
    fields=(
        text("name", "name"),
        text("id", "id"),
        text("data center", "data_center_name", "data_center_id"),
        text("admission", "admission"),
        text("host failures borne", "host_failures"),
        text("shutdown policy", "shutdown_policy"),
        Column("freeze at most", lambda item: shown_duration(item.integer("freeze_s_max", 900))),
        Column(
            "virtual CPUs per thread",
            lambda item: f"{item.integer('cpu_overcommit', 8)} at most",
        ),
        text("description", "description"),
    ),
)


async def create_data_center(args: Namespace, ctx: Context) -> int:
    """Create a data center."""
    body = DataCenterBody(name=args.name, description=args.description)
    made = await ctx.client.create(DATA_CENTERS.plural, body)
    write_done(ctx, made, f"{made.text('name', args.name)}: created")
    return 0


async def create_cluster(args: Namespace, ctx: Context) -> int:
    """Create a cluster."""
    center = args.data_center or await _only_data_center(ctx)
    body = ClusterBody(name=args.name, data_center=center, description=args.description)
    made = await ctx.client.create(CLUSTERS.plural, body)
    write_done(ctx, made, f"{made.text('name', args.name)}: created")
    return 0


async def _only_data_center(ctx: Context) -> str:
    page = await ctx.client.list_all(DATA_CENTERS.plural, limit=2)
    if len(page.items) != 1:
        raise UsageError("there are several data centers: say which with --data-center NAME")
    return page.items[0].text("id")


def _add_change(verbs: Verbs, kind: Kind) -> Parser:
    async def change(args: Namespace, ctx: Context) -> int:
        body = _patch(args)
        if body in (PlacePatch(), ClusterPatch()):
            options = "--name or --description"
            if kind is CLUSTERS:
                options = "--name, --description, --admission, --host-failures, --cpu-overcommit, --shutdown-policy or --freeze-at-most"
            raise UsageError(f"nothing to change: give {options}")
        changed = await ctx.client.update(kind.plural, args.name, body)
        write_done(ctx, changed, f"{changed.text('name')}: changed")
        return 0

    parser = verbs.add(
        "set",
        change,
        f"rename or describe a {kind.word}",
        example=f"kvorum {kind.noun} set default --name berlin --description 'rooms 1 and 2'",
    )
    add_name(parser, kind)
    parser.add_argument("--name", dest="new_name", metavar="NEW", help="its new name")
    parser.add_argument("--description", metavar="TEXT", help="a note for people")
    return parser


def _patch(args: Namespace) -> PlacePatch:
    name = UNSET if args.new_name is None else args.new_name
    description = UNSET if args.description is None else args.description
    if "admission" not in args:
        return PlacePatch(name=name, description=description)
    return ClusterPatch(
        name=name,
        description=description,
        admission=UNSET if args.admission is None else args.admission,
        host_failures=UNSET if args.host_failures is None else args.host_failures,
        cpu_overcommit=UNSET if args.cpu_overcommit is None else args.cpu_overcommit,
        shutdown_policy=UNSET if args.shutdown_policy is None else args.shutdown_policy,
        freeze_s_max=UNSET if args.freeze_at_most is None else args.freeze_at_most,
    )


def _add_data_center(root: Root, parser: Parser) -> None:
    del parser
    verbs = root.verbs_of("data-center")
    made = verbs.add(
        "create",
        create_data_center,
        "create a data center",
        example="kvorum data-center create hamburg",
    )
    _add_new(made)
    _add_rest(verbs, DATA_CENTERS)


def _add_cluster(root: Root, parser: Parser) -> None:
    del parser
    verbs = root.verbs_of("cluster")
    made = verbs.add(
        "create",
        create_cluster,
        "create a cluster",
        example="kvorum cluster create gpu\nkvorum cluster create edge --data-center hamburg",
        note="It gets hosts by join tokens made for it (kvorum token create --cluster NAME), or by\n"
        "moving them (kvorum host set NAME --cluster NAME), and networks by attaching a switch\n"
        "(kvorum switch attach NAME --cluster NAME). A VM stays within its cluster.",
    )
    _add_new(made)
    made.add_argument(
        "--data-center",
        default="",
        metavar="NAME",
        names_of="data-centers",
        help="where it lies (default: the only one)",
    )
    changed = _add_rest(verbs, CLUSTERS)
    changed.add_argument(
        "--admission",
        choices=("off", "warn", "enforce"),
        help="what to do about a VM that would take room kept for lost hosts (default: warn)",
    )
    changed.add_argument(
        "--host-failures",
        type=int,
        choices=(1, 2, 3, 4),
        metavar="N",
        help="the loss of how many hosts at a time is to be borne, 1 to 4 (default: 1)",
    )
    changed.add_argument(
        "--cpu-overcommit",
        type=int,
        metavar="N",
        help="virtual CPUs placed on each processor thread of a host at most, 1 to 64 (default: 8)",
    )
    changed.add_argument(
        "--shutdown-policy",
        choices=("conditional", "migrate", "failover", "freeze"),
        help="what becomes of the VMs of a host that is shut down (default: conditional)",
    )
    changed.add_argument(
        "--freeze-at-most",
        type=duration_s,
        metavar="TIME",
        help="how long VMs wait for a host that was shut down with freeze (default: 15m)",
    )
    add_room(verbs)


def _add_new(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="its name")
    parser.add_argument("--description", default="", metavar="TEXT", help="a note for people")


def _add_rest(verbs: Verbs, kind: Kind) -> Parser:
    add_list(verbs, kind)
    add_show(verbs, kind)
    changed = _add_change(verbs, kind)
    add_delete(verbs, kind, many=delete_many)
    return changed


ADD = {"data-center": _add_data_center, "cluster": _add_cluster}
