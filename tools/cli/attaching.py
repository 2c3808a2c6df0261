"""`kvorum switch` and `kvorum image-storage`: what serves many places, attached to clusters and data centers."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from tools.cli.collection import Kind, add_delete, add_list, add_name, add_show
from tools.cli.context import Context
from tools.cli.many import delete_many
from tools.cli.output import text, texts, write_done
from tools.cli.parser import Parser, Root, Verbs
from tools.sdk.bodies import AttachClusterBody, AttachDataCenterBody, Body, PlacePatch, SwitchBody

SWITCHES = Kind(
    noun="switch",
    plural="distributed-switches",
    word="distributed switch",
    columns=(text("NAME", "name"), texts("CLUSTERS", "cluster_names", "cluster_ids")),
    fields=(
        text("name", "name"),
        text("id", "id"),
        texts("clusters", "cluster_names", "cluster_ids"),
    ),
)
IMAGE_STORAGES = Kind(
    noun="image-storage",
    plural="image-storages",
    word="image storage",
    columns=(
        text("NAME", "name"),
        text("PATH", "path"),
        texts("DATA CENTERS", "data_center_names", "data_center_ids"),
    ),
    fields=(
        text("name", "name"),
        text("id", "id"),
        text("path", "path"),
        texts("data centers", "data_center_names", "data_center_ids"),
    ),
)


async def create_switch(args: Namespace, ctx: Context) -> int:
    """Create a switch, attached to clusters."""
    made = await ctx.client.create(
        SWITCHES.plural, SwitchBody(name=args.name, clusters=tuple(args.cluster))
    )
    write_done(ctx, made, f"{made.text('name', args.name)}: created")
    return 0


async def rename_switch(args: Namespace, ctx: Context) -> int:
    """Rename a switch."""
    changed = await ctx.client.update(SWITCHES.plural, args.name, PlacePatch(name=args.new_name))
    write_done(ctx, changed, f"{changed.text('name')}: changed")
    return 0


def _add_attach(
    verbs: Verbs, kind: Kind, option: str, of: str, body: Callable[[str], Body], *, note: str
) -> None:
    """Add `attach` and `detach`, from what `--<option>` names."""

    async def act(verb: str, args: Namespace, ctx: Context) -> int:
        started = await ctx.client.act(kind.plural, args.name, verb, body(args.to))
        write_done(ctx, started.item, f"{started.item.text('name', args.name)}: {verb}ed")
        return 0

    async def attach(args: Namespace, ctx: Context) -> int:
        return await act("attach", args, ctx)

    async def detach(args: Namespace, ctx: Context) -> int:
        return await act("detach", args, ctx)

    place = option.replace("-", " ")
    for verb, run, summary in (
        ("attach", attach, f"attach a {kind.word} to a {place}"),
        ("detach", detach, f"detach a {kind.word} from a {place}"),
    ):
        parser = verbs.add(
            verb,
            run,
            summary,
            example=f"kvorum {kind.noun} {verb} default --{option} edge",
            note=note,
        )
        add_name(parser, kind)
        parser.add_argument(
            f"--{option}",
            dest="to",
            required=True,
            metavar="NAME",
            names_of=of,
            help=f"name or id of the {place}",
        )


def _add_switch(root: Root, parser: Parser) -> None:
    del parser
    verbs = root.verbs_of("switch")
    made = verbs.add(
        "create",
        create_switch,
        "create a distributed switch",
        example="kvorum switch create storage-net --cluster prod --cluster edge",
        note="Only VMs of clusters that a switch is attached to can be in its port groups.",
    )
    made.add_argument("name", metavar="NAME", help="its name")
    made.add_argument(
        "--cluster",
        action="append",
        default=[],
        metavar="NAME",
        names_of="clusters",
        help="a cluster whose hosts it spans; may be given several times",
    )
    add_list(verbs, SWITCHES)
    add_show(verbs, SWITCHES)
    renamed = verbs.add(
        "set",
        rename_switch,
        "rename a distributed switch",
        example="kvorum switch set default --name front",
    )
    add_name(renamed, SWITCHES)
    renamed.add_argument(
        "--name", dest="new_name", required=True, metavar="NEW", help="its new name"
    )
    _add_attach(
        verbs,
        SWITCHES,
        "cluster",
        "clusters",
        lambda name: AttachClusterBody(cluster=name),
        note="VMs of the cluster can be in its port groups then. It is detached only when none is.",
    )
    add_delete(verbs, SWITCHES, many=delete_many)


def _add_image_storage(root: Root, parser: Parser) -> None:
    del parser
    verbs = root.verbs_of("image-storage")
    add_list(verbs, IMAGE_STORAGES)
    add_show(verbs, IMAGE_STORAGES)
    _add_attach(
        verbs,
        IMAGE_STORAGES,
        "data-center",
        "data-centers",
        lambda name: AttachDataCenterBody(data_center=name),
        note="VMs of the data center can be made of its images then. It is detached only when none was.",
    )


ADD = {"switch": _add_switch, "image-storage": _add_image_storage}
