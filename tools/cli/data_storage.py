"""`kvorum data-storage`: the places where disks live."""

from __future__ import annotations

from argparse import Namespace

from msgspec import UNSET

from tools.cli.collection import Kind, add_delete, add_list, add_show
from tools.cli.context import Context
from tools.cli.many import delete_many
from tools.cli.output import text, write_done
from tools.cli.parser import Parser, Root, UsageError
from tools.sdk.bodies import DataStorageBody

KIND = Kind(
    noun="data-storage",
    plural="data-storages",
    word="data storage",
    columns=(text("NAME", "name"), text("KIND", "kind"), text("PATH", "path")),
    fields=(
        text("name", "name"),
        text("id", "id"),
        text("kind", "kind"),
        text("path", "path"),
        text("driver", "driver"),
        text("data center", "data_center_name", "data_center_id"),
    ),
)


async def create(args: Namespace, ctx: Context) -> int:
    """Create a data storage."""
    if not args.path.startswith("/"):
        raise UsageError(f"path {args.path!r} is not absolute: it must be the same on every host")
    body = DataStorageBody(
        name=args.name,
        kind=args.kind,
        path=args.path,
        driver=args.driver or UNSET,
        data_center=args.data_center or UNSET,
    )
    made = await ctx.client.create(KIND.plural, body)
    write_done(ctx, made, f"{made.text('name', args.name)}: created")
    return 0


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("data-storage")
    made = verbs.add(
        "create",
        create,
        "create a data storage of a directory",
        example="kvorum data-storage create nfs1 --kind shared --path /mnt/nfs1",
        note="local: a directory of each host's own. shared: one directory, mounted at the same path on\n"
        "all hosts (e.g. NFS); VMs on it can migrate and are started elsewhere when their host dies.",
    )
    made.add_argument("name", metavar="NAME", help="its name")
    made.add_argument("--kind", required=True, choices=("local", "shared"), help="local or shared")
    made.add_argument("--path", required=True, help="absolute path, the same on every host")
    made.add_argument(
        "--driver", default="", metavar="NAME", help="a plug-in's storage driver, on every host"
    )
    made.add_argument(
        "--data-center",
        default="",
        metavar="NAME",
        names_of="data-centers",
        help="the data center that it belongs to (default: the first)",
    )
    add_list(verbs, KIND)
    add_show(verbs, KIND)
    add_delete(verbs, KIND, many=delete_many)


ADD = {"data-storage": _add}
