"""`kvorum role`: sets of permissions for accounts and access tokens."""

from __future__ import annotations

from argparse import Namespace

from tools.cli.collection import Kind, add_delete, add_list
from tools.cli.context import Context
from tools.cli.many import delete_many
from tools.cli.output import Column, text, write_done
from tools.cli.parser import Parser, Root, UsageError
from tools.sdk.bodies import PermissionBody, RoleBody
from tools.sdk.items import Item


def _permissions(role: Item) -> str:
    """Return permissions as `--allow` takes them: a tag limits all actions before it."""
    shown: list[str] = []
    for held in role.items("permissions"):
        by_tag: dict[str, list[str]] = {}
        for one in held.texts("actions"):
            action, at, tag = one.partition("@")
            by_tag.setdefault(at + tag, []).append(action)
        kinds = ",".join(held.texts("kinds"))
        shown += [f"{kinds}:{','.join(actions)}{limit}" for limit, actions in by_tag.items()]
    return "; ".join(shown)


KIND = Kind(
    noun="role",
    plural="roles",
    word="role",
    columns=(
        text("NAME", "name"),
        Column("PERMISSIONS", _permissions),
        text("DESCRIPTION", "description"),
    ),
)


def permission(given: str) -> PermissionBody:
    """Return a permission such as `vm,disk:read,operate`, or `vm:read,operate@env=test`: all of it limited to the tag.

    Raises:
        UsageError: it has not this form.
    """
    kinds, colon, rest = given.partition(":")
    actions, at, tag = rest.partition("@")
    if not colon or not kinds or not actions or (at and not tag):
        raise UsageError(f"permission {given!r} is not KIND[,KIND]:ACTION[,ACTION][@TAG]")
    if "," in tag:
        raise UsageError(
            f"permission {given!r}: one tag can follow, which limits all actions before it; write --allow once for each"
        )
    limited = tuple(f"{action}{at}{tag}" for action in actions.split(","))
    return PermissionBody(kinds=tuple(kinds.split(",")), actions=limited)


async def create(args: Namespace, ctx: Context) -> int:
    """Create a role."""
    body = RoleBody(
        name=args.name,
        permissions=tuple(permission(one) for one in args.allow),
        description=args.description,
    )
    write_done(ctx, await ctx.client.create("roles", body), f"{args.name}: created")
    return 0


async def change(args: Namespace, ctx: Context) -> int:
    """Replace a role's permissions."""
    body = RoleBody(permissions=tuple(permission(one) for one in args.allow))
    write_done(ctx, await ctx.client.update("roles", args.name, body), f"{args.name}: changed")
    return 0


def _add_allow(parser: Parser) -> None:
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        required=True,
        metavar="KINDS:ACTIONS[@TAG]",
        help="e.g. vm,disk:read,operate (read, create, change, delete, operate or *), or vm:read,operate@env=test: "
        "only those with the tag; may be given several times",
    )


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("role")
    made = verbs.add(
        "create",
        create,
        "create a role",
        example="kvorum role create starter --allow vm:read,operate --allow task:read",
    )
    made.add_argument("name", metavar="NAME", help="its name")
    _add_allow(made)
    made.add_argument("--description", default="", metavar="TEXT", help="whom it is for")
    changed = verbs.add(
        "change",
        change,
        "replace a role's permissions; counts from the next request of whoever has it",
        example="kvorum role change starter --allow vm:read",
    )
    changed.add_argument("name", metavar="NAME", names_of="roles", help="name or id")
    _add_allow(changed)
    add_list(verbs, KIND)
    add_delete(verbs, KIND, many=delete_many)


ADD = {"role": _add}
