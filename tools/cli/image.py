"""`kvorum image`: disk templates, uploaded from files."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from core.errors import ConflictError, NotFoundError
from tools.cli.collection import Kind, add_delete, add_list, add_show
from tools.cli.context import Context
from tools.cli.many import delete_many
from tools.cli.output import Column, size, text, write_done
from tools.cli.parser import Parser, Root
from tools.cli.progress import Progress
from tools.cli.units import shown_size
from tools.sdk.items import Item

FORMATS = ("qcow2", "raw", "vmdk", "vhd", "vhdx", "iso")


def _copies(item: Item) -> str:
    return ", ".join(item.texts("host_names")) or str(len(item.texts("host_ids")))


KIND = Kind(
    noun="image",
    plural="images",
    word="image",
    columns=(
        text("NAME", "name"),
        text("STATE", "state"),
        size("SIZE", "size_bytes"),
        size("DISK SIZE", "virtual_size_bytes"),
        text("FORMAT", "source_format"),
        Column("COPIES", _copies),
    ),
    fields=(
        text("name", "name"),
        text("id", "id"),
        text("state", "state"),
        size("size", "size_bytes"),
        size("disk size", "virtual_size_bytes"),
        text("sha256", "sha256"),
        text("source format", "source_format"),
        text("source sha256", "source_sha256"),
        Column("copies", _copies),
        text("image storage", "image_storage_name", "image_storage_id"),
    ),
    empty="no images: kvorum image upload NAME --file FILE",
)


async def upload(args: Namespace, ctx: Context) -> int:
    """Upload an image file."""
    await _refuse_taken(args.name, ctx)
    with (
        Progress(ctx, f"reading {args.file}", minor=True) as hashing,
        Progress(ctx, f"uploading {args.name}") as sending,
    ):
        image = await ctx.client.upload_image(
            args.name,
            Path(args.file).expanduser(),
            source_format=args.format,
            on_hash=hashing.show_bytes,
            on_bytes=sending.show_bytes,
        )
    disk_size = shown_size(image.integer("virtual_size_bytes"))
    write_done(ctx, image, f"{args.name}: uploaded; disks of it have at least {disk_size}")
    return 0


async def _refuse_taken(name: str, ctx: Context) -> None:
    """Say that the name is taken before sending gigabytes; the agent checks it again."""
    try:
        await ctx.client.get(KIND.plural, name)
    except NotFoundError:
        return
    raise ConflictError(
        f"an image named {name} exists: choose another name, or delete that one first"
    )


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("image")
    made = verbs.add(
        "upload",
        upload,
        "upload a disk image",
        example="kvorum image upload debian-12 --file debian-12-generic-amd64.qcow2\n"
        "kvorum image upload appliance --file disk.img --format raw",
        note="It is checked, stored as qcow2 under its SHA-256, and copied to the hosts that need it.\n"
        "An interrupted upload leaves nothing behind.",
    )
    made.add_argument("name", metavar="NAME", help="its name")
    made.add_argument("--file", required=True, help="the file to upload")
    made.add_argument(
        "--format",
        default="",
        choices=FORMATS,
        help="what it is (default: recognised from the file)",
    )
    add_list(verbs, KIND)
    add_show(verbs, KIND)
    add_delete(verbs, KIND, many=delete_many)


ADD = {"image": _add}
