"""`kvorum nic`: the network cards of VMs. They come and go with their VM."""

from __future__ import annotations

from tools.cli.collection import Kind, add_list, add_show
from tools.cli.output import text, texts
from tools.cli.parser import Parser, Root

KIND = Kind(
    noun="nic",
    plural="nics",
    word="NIC",
    columns=(
        text("NAME", "name"),
        text("VM", "vm_name", "vm_id"),
        text("PORT GROUP", "port_group_name", "port_group_id"),
        text("IP", "ip"),
        text("MAC", "mac"),
        texts("SECURITY GROUPS", "security_group_names", "security_group_ids"),
    ),
)


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("nic")
    add_list(verbs, KIND)
    add_show(verbs, KIND)


ADD = {"nic": _add}
