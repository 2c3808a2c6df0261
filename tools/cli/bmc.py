"""`kvorum bmc`: the management boards by which hosts are switched on and off."""

from __future__ import annotations

from argparse import Namespace

from msgspec import UNSET

from tools.cli.account import password_from
from tools.cli.collection import Kind, add_delete, add_list, add_show
from tools.cli.context import Context
from tools.cli.many import delete_many
from tools.cli.output import Column, text, write_done
from tools.cli.parser import Parser, Root, UsageError
from tools.cli.units import positive
from tools.sdk.bodies import BmcBody, ConfirmOffBody
from tools.sdk.items import Item

SET_NOTE = """\
With a BMC, a host that is lost is switched off for certain, and its VMs run elsewhere within seconds instead of
after the lease and the watchdog have run out. The board is asked at once, and then every minute: one that says "off"
of a host that is on belongs to another machine, and isn't relied on. Every host must reach every board, by UDP or
with --protocol redfish by HTTPS. Then the certificate that the board shows now is recorded and shown here: compare it
with what the board itself says, or demand one with --fingerprint. A board that shows another one later isn't told the
password, and isn't relied on until it is named with its new --fingerprint.
The password is asked for, or read as the first line of stdin; it is kept sealed and never shown."""


REDFISH = "redfish"


def _certificate(made: Item) -> str:
    shown = made.text("fingerprint")
    if not shown:
        return ""
    return f"; system {made.text('system')}, SHA-256 of its certificate {shown}"


def _state(item: Item) -> str:
    why = item.text("why")
    return f"{item.text('state', '-')}: {why}" if why else item.text("state", "-")


COLUMNS = (
    text("HOST", "host_name", "name"),
    text("ADDRESS", "address"),
    text("PORT", "port"),
    text("PROTOCOL", "protocol"),
    text("USER", "user"),
    Column("STATE", _state),
)
KIND = Kind(
    noun="bmc",
    plural="bmcs",
    word="BMC",
    columns=COLUMNS,
    fields=(
        *COLUMNS,
        text("CIPHER SUITE", "cipher_suite"),
        text("FINGERPRINT", "fingerprint"),
        text("SYSTEM", "system"),
        text("ID", "id"),
    ),
    empty="no BMCs: kvorum bmc set HOST --address ADDRESS --user NAME",
)


async def put(args: Namespace, ctx: Context) -> int:
    """Name a host's board; it is asked before it is recorded."""
    redfish = args.protocol == REDFISH
    if not redfish and (args.fingerprint or args.system):
        raise UsageError("--fingerprint and --system are for --protocol redfish")
    body = BmcBody(
        host=args.host,
        address=args.address,
        user=args.user,
        password=await password_from(ctx, "Password of the BMC: "),
        port=args.port or UNSET,
        cipher_suite=args.cipher_suite,
        protocol=REDFISH if redfish else UNSET,
        fingerprint=args.fingerprint or UNSET,
        system=args.system or UNSET,
    )
    made = await ctx.client.create("bmcs", body)
    write_done(
        ctx,
        made,
        f"{args.host}: its BMC at {args.address} answers ({made.text('state')}){_certificate(made)}",
    )
    return 0


async def power(args: Namespace, ctx: Context) -> int:
    """Say whether a host has power."""
    found = await ctx.client.power_of(args.name)
    write_done(
        ctx, found, f"{found.text('host', args.name)}: {'on' if found.flag('on') else 'off'}"
    )
    return 0


async def power_on(args: Namespace, ctx: Context) -> int:
    """Switch a host on."""
    started = await ctx.client.act("bmcs", args.name, "power-on")
    write_done(ctx, started.item, f"{args.name}: told to switch on")
    return 0


async def power_off(args: Namespace, ctx: Context) -> int:
    """Take the power from a host."""
    given = args.confirm
    if not given and ctx.interactive:
        ctx.say(f"Everything that runs on {args.name} loses its power, VMs too.")
        given = await ctx.ask("Type the host's name to take its power: ")
    if given != args.name:
        raise UsageError(f"nothing was changed: confirm with --confirm {args.name}")
    started = await ctx.client.act(
        "bmcs", args.name, "power-off", ConfirmOffBody(confirm=args.name)
    )
    write_done(ctx, started.item, f"{args.name}: told to switch off")
    return 0


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("bmc")
    add_list(verbs, KIND)
    add_show(verbs, KIND)
    made = verbs.add(
        "set",
        put,
        "name the BMC of a host, in place of one before",
        example="kvorum bmc set h1 --address 10.9.0.1 --user kvorum\n"
        "kvorum bmc set h1 --address 10.9.0.1 --user kvorum <password-file\n"
        "kvorum bmc set h1 --protocol redfish --address 10.9.0.1 --user kvorum",
        note=SET_NOTE,
    )
    made.add_argument("host", metavar="HOST", names_of="hosts", help="the host's name or id")
    made.add_argument("--address", required=True, metavar="ADDRESS", help="IP address or name")
    made.add_argument("--user", required=True, metavar="NAME", help="who logs in")
    made.add_argument(
        "--port",
        type=positive,
        metavar="N",
        help="UDP port with ipmi (default: 623), TCP port with redfish (default: 443)",
    )
    made.add_argument(
        "--protocol",
        choices=("ipmi", REDFISH),
        default="ipmi",
        help="what the board speaks (default: ipmi)",
    )
    made.add_argument(
        "--fingerprint",
        default="",
        metavar="HEX",
        help="SHA-256 of the certificate that it must show (redfish)",
    )
    made.add_argument(
        "--system",
        default="",
        metavar="ID",
        help="the host's machine, where a Redfish service has several",
    )
    made.add_argument(
        "--cipher-suite",
        type=int,
        choices=(17, 3),
        default=17,
        help="of RMCP+: 17 is SHA-256, 3 is SHA-1 for old boards (default: 17)",
    )
    for name, run, what in (
        ("power", power, "ask whether a host has power"),
        ("power-on", power_on, "switch a host on"),
        ("power-off", power_off, "take the power from a host, whatever runs on it"),
    ):
        verb = verbs.add(name, run, what, example=f"kvorum bmc {name} h3")
        verb.add_argument("name", metavar="HOST", names_of="hosts", help="the host's name or id")
        if name == "power-off":
            verb.add_argument("--confirm", default="", metavar="HOST", help="the name once more")
    add_delete(verbs, KIND, verb="remove", many=delete_many)


ADD = {"bmc": _add}
