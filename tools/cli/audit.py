"""`kvorum audit list`: who did what, and how it ended."""

from __future__ import annotations

from tools.cli.collection import Kind, add_list
from tools.cli.output import Column, moment, text
from tools.cli.parser import Parser, Root
from tools.sdk.items import Item


def _result(audit: Item) -> str:
    result, count = audit.integer("result"), audit.integer("count")
    shown = str(result) if result else "unknown"
    return f"{shown} ({count} times)" if count > 1 else shown


KIND = Kind(
    noun="audit",
    plural="audits",
    word="audit",
    columns=(
        moment("TIME", "created_ms"),
        text("OPERATOR", "operator"),
        text("ADDRESS", "address"),
        text("ACTION", "action"),
        Column("ON", lambda a: a.text("subject_name") or a.text("subject", "-")),
        Column("RESULT", _result),
    ),
    tagged=False,
)


def _add(root: Root, parser: Parser) -> None:
    add_list(root.verbs_of("audit"), KIND)


ADD = {"audit": _add}
