"""`kvorum port-group`: VXLAN networks with their own addresses, DHCP and DNS."""

from __future__ import annotations

import ipaddress
from argparse import ArgumentTypeError, Namespace

from msgspec import UNSET

from tools.cli.collection import Kind, add_delete, add_list, add_show
from tools.cli.context import Context
from tools.cli.many import delete_many
from tools.cli.output import text, texts, write_done
from tools.cli.parser import Parser, Root
from tools.cli.units import positive
from tools.sdk.bodies import PortGroupBody

VNI_MAX = 2**24 - 1

KIND = Kind(
    noun="port-group",
    plural="port-groups",
    word="port group",
    columns=(
        text("NAME", "name"),
        text("VNI", "vni"),
        text("CIDR", "cidr"),
        text("GATEWAY", "gateway"),
        text("DHCP/DNS", "service_ip"),
        text("MTU", "mtu"),
        text("SWITCH", "switch_name", "switch_id"),
    ),
    fields=(
        text("name", "name"),
        text("id", "id"),
        text("VNI", "vni"),
        text("CIDR", "cidr"),
        text("gateway", "gateway"),
        texts("DNS", "dns"),
        text("service address", "service_ip"),
        text("first address", "pool_first"),
        text("last address", "pool_last"),
        text("MTU", "mtu"),
        text("domain", "domain"),
        text("switch", "switch_name", "switch_id"),
    ),
)


def network(given: str) -> str:
    """Return an IPv4 network in canonical form; an argparse type."""
    try:
        return str(ipaddress.IPv4Network(given))
    except ValueError as error:
        raise ArgumentTypeError(
            f"{given!r} is not an IPv4 network like 10.0.0.0/24: {error}"
        ) from None


def address(given: str) -> str:
    """Return an IPv4 address; an argparse type."""
    try:
        return str(ipaddress.IPv4Address(given))
    except ValueError:
        raise ArgumentTypeError(f"{given!r} is not an IPv4 address") from None


def vni(given: str) -> int:
    """Return a VXLAN network identifier; an argparse type."""
    if (number := positive(given)) > VNI_MAX:
        raise ArgumentTypeError(f"{given!r} is not a VNI: use 1 to {VNI_MAX}")
    return number


async def create(args: Namespace, ctx: Context) -> int:
    """Create a port group."""
    body = PortGroupBody(
        name=args.name,
        cidr=args.cidr,
        vni=args.vni or UNSET,
        gateway=args.gateway or UNSET,
        dns=tuple(args.dns) or UNSET,
        mtu=args.mtu or UNSET,
        switch=args.switch or UNSET,
    )
    made = await ctx.client.create(KIND.plural, body)
    name, number = made.text("name", args.name), made.text("vni", "-")
    write_done(ctx, made, f"{name}: created, VNI {number}, {made.text('cidr', args.cidr)}")
    return 0


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("port-group")
    made = verbs.add(
        "create",
        create,
        "create a port group",
        example="kvorum port-group create web --cidr 10.20.0.0/24\n"
        "kvorum port-group create db --cidr 10.30.0.0/24 --vni 300 --gateway 10.30.0.1 --dns 9.9.9.9",
        note="Each host answers DHCP and DNS in it. The VNI and the pool are chosen when not given.",
    )
    made.add_argument("name", metavar="NAME", help="its name")
    made.add_argument("--cidr", required=True, type=network, help="its IPv4 network")
    made.add_argument(
        "--vni", type=vni, default=0, help="VXLAN network identifier (default: a free one)"
    )
    made.add_argument("--gateway", type=address, metavar="IP", help="default route of VMs")
    made.add_argument(
        "--dns",
        type=address,
        action="append",
        default=[],
        metavar="IP",
        help="name server handed out by DHCP; may be given several times",
    )
    made.add_argument("--mtu", type=positive, default=0, help="MTU of VMs (default: 1450)")
    made.add_argument(
        "--switch", default="", metavar="NAME", names_of="distributed-switches", help="its switch"
    )
    add_list(verbs, KIND)
    add_show(verbs, KIND)
    add_delete(verbs, KIND, many=delete_many)


ADD = {"port-group": _add}
