"""`kvorum account`: people and programs that may log in, their passwords, roles and time codes.

Passwords are typed or read from stdin, never taken from the command line, where others could see them.
"""

from __future__ import annotations

from argparse import Namespace

from tools.cli.collection import Kind, add_delete, add_list, add_name, add_show
from tools.cli.context import Context
from tools.cli.many import delete_many
from tools.cli.output import Column, text, texts, write_done
from tools.cli.parser import Parser, Root, UsageError, Verbs
from tools.sdk.bodies import AccountBody, AccountPatch, CodeBody, PasswordBody
from tools.sdk.items import Item


def _flag(title: str, key: str) -> Column:
    return Column(title, lambda item: "yes" if item.raw.get(key) else "no")


COLUMNS = (
    text("NAME", "name"),
    texts("ROLES", "role_ids"),
    _flag("DISABLED", "disabled"),
    _flag("TWO-FACTOR", "totp_confirmed"),
    text("DESCRIPTION", "description"),
)
KIND = Kind(
    noun="account",
    plural="accounts",
    word="account",
    columns=COLUMNS,
    fields=(*COLUMNS, text("ID", "id")),
    empty="no accounts: kvorum account create NAME --role ROLE",
)


async def password_from(ctx: Context, question: str, *, twice: bool = False) -> str:
    """Return a password that was typed unseen, or the first line of stdin.

    Raises:
        UsageError: nothing was given, or what was typed differs.
    """
    if not ctx.interactive:
        given = ctx.stdin.readline().rstrip("\n")
    else:
        given = await ctx.ask_secret(question)
        if twice and given and await ctx.ask_secret("Once more: ") != given:
            raise UsageError("the two were not equal: nothing was changed")
    if not given:
        raise UsageError("no password was given: type it, or write it to stdin")
    return given


async def create(args: Namespace, ctx: Context) -> int:
    """Create an account; its password is asked for unless it shall have none yet."""
    password = "" if args.no_password else await password_from(ctx, "Its password: ", twice=True)
    body = AccountBody(
        name=args.name,
        roles=tuple(args.role),
        password=password,
        description=args.description,
    )
    made = await ctx.client.create("accounts", body)
    write_done(ctx, made, f"{args.name}: created")
    return 0


async def set_password(args: Namespace, ctx: Context) -> int:
    """Set a password; one's own needs the old one."""
    old = await password_from(ctx, "The old password: ") if args.own else ""
    new = await password_from(ctx, "The new password: ", twice=True)
    body = PasswordBody(password=new, old_password=old)
    await ctx.client.act("accounts", args.name, "set-password", body)
    write_done(ctx, Item({"name": args.name, "password_set": True}), f"{args.name}: password set")
    return 0


async def disable(args: Namespace, ctx: Context) -> int:
    """Refuse an account everywhere from now on."""
    return await _set_disabled(args, ctx, disabled=True)


async def enable(args: Namespace, ctx: Context) -> int:
    """Let an account in again."""
    return await _set_disabled(args, ctx, disabled=False)


async def _set_disabled(args: Namespace, ctx: Context, *, disabled: bool) -> int:
    changed = await ctx.client.update("accounts", args.name, AccountPatch(disabled=disabled))
    write_done(ctx, changed, f"{args.name}: {'disabled' if disabled else 'enabled'}")
    return 0


async def set_roles(args: Namespace, ctx: Context) -> int:
    """Replace an account's roles."""
    changed = await ctx.client.update("accounts", args.name, AccountPatch(roles=tuple(args.role)))
    write_done(ctx, changed, f"{args.name}: {', '.join(args.role) or 'no role'}")
    return 0


async def totp_enable(args: Namespace, ctx: Context) -> int:
    """Show the QR code of the account's time codes; `totp confirm` switches them on."""
    shown = (await ctx.client.act("accounts", args.name, "enable-totp")).item
    qr = shown.text("qr_text") if ctx.out.isatty() else ""
    write_done(ctx, shown, f"{qr}{shown.text('uri')}")
    if ctx.output == "table" and not ctx.quiet:
        ctx.say(f"take it into an authenticator app, then: kvorum account totp confirm {args.name}")
    return 0


async def totp_confirm(args: Namespace, ctx: Context) -> int:
    """Switch time codes on with the first code; prints recovery codes, once."""
    code = await password_from(ctx, "The code that the app shows: ")
    body = CodeBody(code=code)
    shown = (await ctx.client.act("accounts", args.name, "confirm-totp", body)).item
    write_done(ctx, shown, "\n".join(shown.texts("recovery_codes")))
    if ctx.output == "table" and not ctx.quiet:
        ctx.say("each of these stands in for one time code; they are shown only now")
    return 0


async def totp_recovery_codes(args: Namespace, ctx: Context) -> int:
    """Print new recovery codes of one's own, for a time code; the old ones have ended."""
    code = await password_from(ctx, "The code that the app shows: ")
    body = CodeBody(code=code)
    shown = (await ctx.client.act("accounts", args.name, "renew-recovery-codes", body)).item
    write_done(ctx, shown, "\n".join(shown.texts("recovery_codes")))
    if ctx.output == "table" and not ctx.quiet:
        ctx.say("the old ones have ended; these are shown only now")
    return 0


async def totp_disable(args: Namespace, ctx: Context) -> int:
    """Switch time codes off; one's own need a code."""
    code = await password_from(ctx, "A code: ") if args.own else ""
    await ctx.client.act("accounts", args.name, "disable-totp", CodeBody(code=code))
    done = Item({"name": args.name, "totp_confirmed": False})
    write_done(ctx, done, f"{args.name}: time codes are off")
    return 0


def _add_own(parser: Parser) -> None:
    parser.add_argument(
        "--own", action="store_true", help="it is the account that has logged in here"
    )


def _add_roles(parser: Parser) -> None:
    parser.add_argument(
        "--role",
        action="append",
        default=[],
        metavar="ROLE",
        help="admin, operator, viewer or one of your own; may be given several times",
    )


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("account")
    made = verbs.add(
        "create",
        create,
        "create an account",
        example="kvorum account create alice --role operator",
        note="The password is asked for, or read from stdin.",
    )
    made.add_argument("name", metavar="NAME", help="its name")
    _add_roles(made)
    made.add_argument("--description", default="", metavar="TEXT", help="who it is")
    made.add_argument("--no-password", action="store_true", help="it can't log in until one is set")
    add_list(verbs, KIND)
    add_show(verbs, KIND)
    add_delete(verbs, KIND, many=delete_many)
    for verb, run, summary in (
        ("disable", disable, "refuse an account everywhere from now on"),
        ("enable", enable, "let an account in again"),
    ):
        add_name(verbs.add(verb, run, summary, example=f"kvorum account {verb} alice"), KIND)
    roles = verbs.add(
        "set-roles",
        set_roles,
        "replace an account's roles",
        example="kvorum account set-roles alice --role viewer",
    )
    add_name(roles, KIND)
    _add_roles(roles)
    password = verbs.add(
        "set-password",
        set_password,
        "set an account's password and end its other sessions",
        example="kvorum account set-password alice\nkvorum account set-password alice --own",
        note="It is asked for, or read from stdin (with --own: first the old one, then the new one).",
    )
    add_name(password, KIND)
    _add_own(password)
    _add_totp(verbs.add_group("totp", "two-factor log-in by time codes"))


def _add_totp(group: Verbs) -> None:
    shown = group.add(
        "enable",
        totp_enable,
        "show the QR code for an authenticator app, until it is confirmed",
        example="kvorum account totp enable alice",
    )
    add_name(shown, KIND)
    confirmed = group.add(
        "confirm",
        totp_confirm,
        "switch time codes on with a first code, and print recovery codes",
        example="kvorum account totp confirm alice",
    )
    add_name(confirmed, KIND)
    renewed = group.add(
        "recovery-codes",
        totp_recovery_codes,
        "print new recovery codes in place of the old ones",
        example="kvorum account totp recovery-codes alice",
        note="Only for the account that has logged in here. A time code is asked for, or read from stdin.",
    )
    add_name(renewed, KIND)
    off = group.add(
        "disable",
        totp_disable,
        "switch time codes off",
        example="kvorum account totp disable alice",
    )
    add_name(off, KIND)
    _add_own(off)


ADD = {"account": _add}
