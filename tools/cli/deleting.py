"""What a deletion would take along, as a person reads it before saying yes; asked of the cluster, which changes nothing.

Used by `delete` and `remove` on a terminal. What stands in the way is said before anything is asked.
"""

from __future__ import annotations

from core.errors import ConflictError
from tools.cli.context import Context
from tools.cli.output import printable
from tools.cli.units import shown_size
from tools.sdk.items import Item

LINES_MAX = 20


async def preview(ctx: Context, plural: str, name: str) -> list[str]:
    """Return a line for each thing that goes along or stays without what is deleted; none where nothing can be known.

    Raises:
        ConflictError: something stands in the way.
    """
    from tools.sdk.generated.operations import PREVIEWED

    if plural not in PREVIEWED:
        return []
    plan = await ctx.client.plan_delete(plural, name)
    if not plan.flag("allowed"):
        raise ConflictError(plan.text("why_not", f"{name} can't be deleted now"))
    along, stays = plan.items("deleted"), plan.items("detached")
    lines = [await _along(ctx, one) for one in along[:LINES_MAX]]
    lines += [_stays(one) for one in stays[: LINES_MAX - len(lines)]]
    more = len(along) + len(stays) - len(lines)
    return [*map(printable, lines), *([f"{more} more"] if more else [])]


async def _along(ctx: Context, one: Item) -> str:
    kind, name = one.text("kind"), one.text("name")
    if kind == "disk":
        disk = await ctx.client.get("disks", one.text("id"))
        return f"disk {name} ({shown_size(disk.integer('size_bytes'))}) and all that is on it"
    if kind == "nic":
        nic = await ctx.client.get("nics", one.text("id"))
        return f"NIC {name} and its address {nic.text('ip')}"
    return f"{_word(kind)} {name}"


def _stays(one: Item) -> str:
    return f"{_word(one.text('kind'))} {one.text('name')} stays, without it"


def _word(kind: str) -> str:
    return {"vm": "VM", "nic": "NIC"}.get(kind, kind.replace("-", " "))
