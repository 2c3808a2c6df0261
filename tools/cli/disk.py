"""`kvorum disk`: the virtual disks of VMs. They come and go with their VM."""

from __future__ import annotations

from tools.cli.collection import Kind, add_list, add_show
from tools.cli.output import size, text
from tools.cli.parser import Parser, Root

KIND = Kind(
    noun="disk",
    plural="disks",
    word="disk",
    columns=(
        text("NAME", "name"),
        text("VM", "vm_name", "vm_id"),
        size("SIZE", "size_bytes"),
        text("DATA STORAGE", "data_storage_name", "data_storage_id"),
        text("IMAGE", "image_name", "image_id"),
        text("HOST", "host_name", "host_id"),
    ),
    fields=(
        text("name", "name"),
        text("id", "id"),
        text("VM", "vm_name", "vm_id"),
        text("index", "index"),
        size("size", "size_bytes"),
        text("data storage", "data_storage_name", "data_storage_id"),
        text("image", "image_name", "image_id"),
        text("host", "host_name", "host_id"),
        text("goes on from", "current_snapshot_name", "current_snapshot_id"),
    ),
)


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("disk")
    add_list(verbs, KIND)
    add_show(verbs, KIND)


ADD = {"disk": _add}
