"""`kvorum ha`: whether failover acts, and by which times."""

from __future__ import annotations

from argparse import Namespace

from tools.cli.context import Context
from tools.cli.output import Column, text, write_done, write_item
from tools.cli.parser import Parser, Root
from tools.cli.units import duration_s, shown_time
from tools.sdk.items import Item
from tools.sdk.model import plain

PROFILES = ("wide", "default", "moonshot")

DISARM_NOTE = """\
For work on the network or the storage of the hosts: while failover is disarmed, no host kills its guests because its
lease ends, no watchdog resets it, and VMs of a lost host are started nowhere else until someone arms it again. It waits
until what is under way (fencing, recovery, migrations) has ended. A host that can't be told goes on as before: look at
'kvorum ha status' before you begin."""

PROFILE_NOTE = """\
wide: leases of 30 s, for bad networks; default: 12 s; moonshot: 7 s, for networks without pauses. A change is refused
while a host's network was seen not to hold it within the last ten minutes; --force changes it all the same. Hosts follow
within seconds, each by itself, and none is judged by shorter times than it keeps to."""


def _names(attribute: str, nothing: str) -> Column:
    def shown(item: Item) -> str:
        return ", ".join(item.texts(attribute)) or nothing

    return Column(attribute.replace("_", " "), shown)


def _when(title: str, attribute: str) -> Column:
    return Column(
        title,
        lambda item: shown_time(item.integer(attribute)) if item.integer(attribute) else "-",
    )


STATUS = (
    text("state", "state"),
    text("profile", "profile"),
    text("disarmed by", "disarmed_by"),
    text("reason", "reason"),
    _when("asked for", "disarmed_ms"),
    _when("armed again", "rearm_ms"),
    _names("waits_for", "nothing"),
    _names("hosts_behind", "none"),
)
PROFILE = (
    text("profile", "name"),
    text("lease, s", "lease_s"),
    text("watchdog, s", "watchdog_s"),
    text("margin, s", "margin_s"),
    text("certain after, s", "safe_s"),
    _names("hosts_behind", "none"),
)


async def status(args: Namespace, ctx: Context) -> int:
    """Show whether failover acts."""
    write_item(ctx, plain(await ctx.kvorum.ha.get_status()), STATUS)
    return 0


async def disarm(args: Namespace, ctx: Context) -> int:
    """Have failover act no more."""
    found = await ctx.kvorum.ha.disarm(reason=args.reason, rearm_after_s=args.rearm_after)
    write_item(ctx, plain(found), STATUS)
    return 0


async def arm(args: Namespace, ctx: Context) -> int:
    """Have failover act again."""
    found = plain(await ctx.kvorum.ha.arm())
    write_done(ctx, found, "failover acts again; hosts follow within seconds: kvorum ha status")
    return 0


async def profile(args: Namespace, ctx: Context) -> int:
    """Show or change the profile."""
    if args.name:
        found = await ctx.kvorum.ha.update_profile(name=args.name, force=args.force)
    else:
        found = await ctx.kvorum.ha.get_profile()
    write_item(ctx, plain(found), PROFILE)
    return 0


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("ha")
    verbs.add(
        "status",
        status,
        "show whether failover acts, and which hosts are not told yet",
        example="kvorum ha status",
    )
    off = verbs.add(
        "disarm",
        disarm,
        "have failover act no more, for work on network or storage",
        example='kvorum ha disarm --reason "new switches" --rearm-after 2h',
        note=DISARM_NOTE,
    )
    off.add_argument("--reason", required=True, metavar="TEXT", help="why, for whoever wonders")
    off.add_argument(
        "--rearm-after",
        type=duration_s,
        default=0,
        metavar="TIME",
        help="arm it again by itself after 1 minute to 7 days (default: not by itself)",
    )
    verbs.add("arm", arm, "have failover act again", example="kvorum ha arm")
    rules = verbs.add(
        "profile",
        profile,
        "show or change the lease and watchdog times",
        example="kvorum ha profile\nkvorum ha profile wide",
        note=PROFILE_NOTE,
    )
    rules.add_argument(
        "name", nargs="?", choices=PROFILES, metavar="NAME", help="wide, default or moonshot"
    )
    rules.add_argument(
        "--force", action="store_true", help="also if a host's network was seen not to hold it"
    )


ADD = {"ha": _add}
