"""`kvorum plugin`: what installed packages add to each host's agent, and whether it works."""

from __future__ import annotations

from tools.cli.collection import Kind, add_list
from tools.cli.output import text
from tools.cli.parser import Parser, Root

KIND = Kind(
    noun="plugin",
    plural="plugins",
    word="plug-in",
    columns=(
        text("HOST", "host_name"),
        text("PACKAGE", "package"),
        text("VERSION", "version"),
        text("GROUP", "group"),
        text("NAME", "name"),
        text("STATE", "state"),
        text("WHY", "why"),
    ),
    empty="no plug-ins are installed",
    tagged=False,
)


def _add(root: Root, parser: Parser) -> None:
    del parser
    add_list(root.verbs_of("plugin"), KIND)


ADD = {"plugin": _add}
