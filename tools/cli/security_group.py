"""`kvorum security-group`: firewalls of network cards and their rules."""

from __future__ import annotations

import ipaddress
from argparse import ArgumentTypeError, Namespace

from msgspec import UNSET

from tools.cli.collection import Kind, add_delete, add_list, add_name
from tools.cli.context import Context
from tools.cli.many import delete_many
from tools.cli.output import (
    Column,
    printable,
    text,
    write_done,
    write_list,
    write_rows,
    write_value,
)
from tools.cli.parser import Parser, Root, UsageError, Verbs
from tools.cli.units import ports
from tools.sdk.bodies import RuleBody, RulePatch, SecurityGroupBody
from tools.sdk.items import Item

PROTOCOLS_WITH_PORTS = ("tcp", "udp")

KIND = Kind(
    noun="security-group",
    plural="security-groups",
    word="security group",
    columns=(
        text("NAME", "name"),
        Column("RULES", lambda item: str(len(item.items("rules")))),
        text("DATA CENTER", "data_center_name", "data_center_id"),
    ),
)


def _ports(rule: Item) -> str:
    first, last = rule.integer("port_first"), rule.integer("port_last")
    if not first and not last:
        return "all"
    return str(first) if first == last else f"{first}-{last}"


def _other_side(rule: Item) -> str:
    group = rule.text("remote_group_name") or rule.text("remote_group_id")
    return f"group {group}" if group else rule.text("cidr", "anyone")


def _state(rule: Item) -> str:
    state = "on" if rule.flag("enabled", default=True) else "off"
    return f"{state} (default)" if rule.flag("default") else state


RULE_COLUMNS = (
    text("RULE", "id"),
    text("DIRECTION", "direction"),
    Column("FAMILY", lambda rule: f"IPv{rule.integer('family', 4)}"),
    text("PROTOCOL", "protocol"),
    Column("PORTS", _ports),
    Column("OTHER SIDE", _other_side),
    Column("STATE", _state),
)


def cidr(given: str) -> str:
    """Return an IP network in canonical form; an argparse type."""
    try:
        return str(ipaddress.ip_network(given))
    except ValueError as error:
        raise ArgumentTypeError(
            f"{given!r} is not a network like 10.0.0.0/8 or ::/0: {error}"
        ) from None


async def show(args: Namespace, ctx: Context) -> int:
    """Show a group and its rules."""
    group = await ctx.client.get(KIND.plural, args.name)
    if ctx.output != "table":
        write_value(ctx, dict(group.raw))
        return 0
    write_rows(ctx, [("name", printable(group.text("name"))), ("id", group.text("id"))])
    ctx.write("Everything in is denied and everything out allowed, except:")
    write_list(ctx, await _named_rules(ctx, group), RULE_COLUMNS, "no rules")
    return 0


async def _named_rules(ctx: Context, group: Item) -> list[Item]:
    """Return a group's rules with the names of the groups that they refer to."""
    rules = group.items("rules")
    if not any(rule.text("remote_group_id") for rule in rules):
        return list(rules)
    names = {
        found.text("id"): found.text("name")
        for found in (await ctx.client.list_all(KIND.plural)).items
    }
    return [
        Item({"remote_group_name": names.get(rule.text("remote_group_id"), ""), **rule.raw})
        for rule in rules
    ]


async def create(args: Namespace, ctx: Context) -> int:
    """Create a security group."""
    body = SecurityGroupBody(name=args.name, data_center=args.data_center or UNSET)
    made = await ctx.client.create(KIND.plural, body)
    write_done(ctx, made, f"{made.text('name', args.name)}: created")
    return 0


def rule_of(args: Namespace) -> RuleBody:
    """Return the rule that `rule add` was asked for.

    Raises:
        UsageError: the options contradict each other.
    """
    if args.ingress == args.egress:
        raise UsageError("say which way the rule is for: --ingress or --egress")
    if args.port and args.protocol not in PROTOCOLS_WITH_PORTS:
        raise UsageError("--port needs --protocol tcp or --protocol udp")
    if args.cidr and args.from_group:
        raise UsageError("--cidr and --from-group exclude each other: add a rule for each")
    first, last = args.port or (0, 0)
    family = ipaddress.ip_network(args.cidr).version if args.cidr else int(args.family or 4)
    if args.family and int(args.family) != family:
        raise UsageError(f"{args.cidr} is no IPv{args.family} network")
    return RuleBody(
        direction="ingress" if args.ingress else "egress",
        protocol=args.protocol,
        port_first=first,
        port_last=last,
        cidr=args.cidr or "",
        remote_group=args.from_group,
        family=family,
    )


async def rule_add(args: Namespace, ctx: Context) -> int:
    """Add a rule."""
    made = await ctx.client.add_rule(args.name, rule_of(args))
    write_done(ctx, made, f"{args.name}: rule {made.text('id')} added".replace("  ", " "))
    return 0


async def rule_remove(args: Namespace, ctx: Context) -> int:
    """Remove a rule."""
    await ctx.client.remove_rule(args.name, args.rule)
    write_done(
        ctx, Item({"id": args.rule, "removed": True}), f"{args.name}: rule {args.rule} removed"
    )
    return 0


async def rule_enable(args: Namespace, ctx: Context) -> int:
    """Switch a rule on."""
    return await _switch(args, ctx, enabled=True)


async def rule_disable(args: Namespace, ctx: Context) -> int:
    """Switch a rule off."""
    return await _switch(args, ctx, enabled=False)


async def _switch(args: Namespace, ctx: Context, *, enabled: bool) -> int:
    rule = await ctx.client.update_rule(args.name, args.rule, RulePatch(enabled=enabled))
    write_done(ctx, rule, f"{args.name}: rule {args.rule} is {'on' if enabled else 'off'}")
    return 0


def _add_group(parser: Parser) -> None:
    parser.add_argument(
        "name", metavar="GROUP", names_of=KIND.plural, help="name or id of the group"
    )


def _add_rules(verbs: Verbs) -> None:
    add = verbs.add(
        "add",
        rule_add,
        "allow something",
        example="kvorum security-group rule add web --ingress --protocol tcp --port 80-443 --cidr 0.0.0.0/0\n"
        "kvorum security-group rule add db --ingress --protocol tcp --port 5432 --from-group web",
        note="Rules are exceptions to: everything in is denied, everything out is allowed.",
    )
    _add_group(add)
    add.add_argument("--ingress", action="store_true", help="for what comes in to the VM")
    add.add_argument("--egress", action="store_true", help="for what the VM sends")
    add.add_argument(
        "--protocol", choices=("all", "tcp", "udp", "icmp"), default="all", help="default: all"
    )
    add.add_argument("--port", type=ports, metavar="N[-M]", help="port or range (default: all)")
    add.add_argument("--cidr", type=cidr, help="the other side as a network")
    add.add_argument(
        "--from-group",
        default="",
        metavar="GROUP",
        names_of=KIND.plural,
        help="the other side as a security group",
    )
    add.add_argument(
        "--family", choices=("4", "6"), default="", help="IP version (default: 4, or the network's)"
    )
    for name, run, summary in (
        ("remove", rule_remove, "remove a rule"),
        ("enable", rule_enable, "switch a rule on"),
        ("disable", rule_disable, "switch a rule off"),
    ):
        parser = verbs.add(
            name,
            run,
            summary,
            example=f"kvorum security-group rule {name} web RULE",
            note="`kvorum security-group show GROUP` lists the ids of rules.",
        )
        _add_group(parser)
        parser.add_argument("rule", metavar="RULE", help="id of the rule")


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("security-group")
    made = verbs.add(
        "create", create, "create a security group", example="kvorum security-group create web"
    )
    made.add_argument("name", metavar="NAME", help="its name")
    made.add_argument(
        "--data-center",
        default="",
        metavar="NAME",
        names_of="data-centers",
        help="the data center that it belongs to (default: the first)",
    )
    add_list(verbs, KIND)
    shown = verbs.add(
        "show",
        show,
        "show a security group and its rules",
        example="kvorum security-group show default",
    )
    add_name(shown, KIND)
    add_delete(verbs, KIND, many=delete_many)
    _add_rules(verbs.add_group("rule", "add, remove, enable or disable rules"))


ADD = {"security-group": _add}
