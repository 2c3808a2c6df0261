"""`kvorum members`: who votes, how far everybody is, and what an operator says about it. `kvorum member` is the same."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from tools.cli.collection import Kind, add_delete, add_list, add_name, add_query, queries
from tools.cli.context import Context
from tools.cli.output import Column, text, write_done, write_item, write_list
from tools.cli.parser import Parser, Root, RunVerb, add_common
from tools.cli.units import duration_s, shown_duration
from tools.sdk.items import Item
from tools.sdk.model import plain

VOTERS_MAX_CHOICES = (1, 3, 5, 7)

POLICY_NOTE = """\
One or two hosts have one voter, three or four have three, five and more have five (seven with --voters 7);
the cluster goes on while most of its voters live. Voters are spread over failure domains (kvorum host set
NAME --failure-domain RACK), witnesses vote first, and a voter that is silent for long gives its place away."""


def role(item: Item) -> str:
    """Return a member's role in words."""
    words = item.text("role", "-")
    if words == "witness" and item.flag("votes"):
        words += ", votes"
    pinned = {"always": ", pinned", "never": ", demoted"}.get(item.text("vote"), "")
    return words + pinned + (" (leader)" if item.flag("leader") else "")


def _lease(item: Item) -> str:
    age_s = item.number("lease_age_s")
    return "-" if age_s is None else f"{age_s:.1f}s" if age_s < 60 else shown_duration(age_s)


MEMBER = Kind(
    noun="members",
    plural="members",
    word="member",
    columns=(
        text("NAME", "name"),
        text("ADDRESS", "address"),
        text("STATE", "state"),
        Column("ROLE", role),
        text("INDEX", "applied_index"),
        text("LAG", "lag"),
        text("DOMAIN", "failure_domain"),
        text("GOSSIP", "gossip"),
        Column("LEASE", _lease),
        text("WATCHDOG", "watchdog"),
        Column("VMS", lambda item: str(item.integer("vms"))),
        text("VERSION", "version"),
        text("HEALTH", "health"),
    ),
    empty="this host belongs to no cluster yet: kvorum init, or kvorum join TOKEN",
)

POLICY = (
    Column("voters", lambda item: f"{item.text('voters')} of {item.text('voters_wanted')} wished"),
    text("survives the loss of", "losses_survived"),
    text("voters at most", "voters_max"),
    Column(
        "silent voter replaced after",
        lambda item: shown_duration(item.integer("voter_replace_after_s")),
    ),
    text("feature level", "feature_level"),
)


async def members(args: Namespace, ctx: Context) -> int:
    """List the members."""
    page = await ctx.client.list(
        MEMBER.plural, query=queries(args.query), sort=args.sort, limit=args.limit
    )
    write_list(ctx, page.items, MEMBER.columns, MEMBER.empty)
    return 0


def _pin(verb: str, said: str) -> RunVerb:
    async def run(args: Namespace, ctx: Context) -> int:
        done = await ctx.client.act("members", args.name, "auto" if args.auto else verb)
        sentence = "the cluster chooses whether it votes" if args.auto else said
        write_done(ctx, done.item, f"{done.item.text('name', args.name)}: {sentence}")
        return 0

    return run


async def policy(args: Namespace, ctx: Context) -> int:
    """Show or change who may vote."""
    given = {
        name: value
        for name, value in (
            ("voters_max", args.voters),
            ("voter_replace_after_s", args.replace_after),
        )
        if value is not None
    }
    if given:
        found = await ctx.kvorum.members.update_policy(**given)
    else:
        found = await ctx.kvorum.members.get_policy()
    write_item(ctx, plain(found), POLICY)
    return 0


def _add(noun: str) -> Callable[[Root, Parser], None]:
    def add(root: Root, parser: Parser) -> None:
        verbs = root.verbs_of(noun)
        add_list(verbs, MEMBER)
        promote = verbs.add(
            "promote",
            _pin("promote", "votes from now on, as soon as it has caught up"),
            "let a host always vote",
            example="kvorum members promote h4\nkvorum members promote h4 --auto",
        )
        demote = verbs.add(
            "demote",
            _pin("demote", "votes no more, as soon as another host has its place"),
            "let a host never vote",
            example="kvorum members demote h2\nkvorum members demote h2 --auto",
        )
        for pin in (promote, demote):
            add_name(pin, MEMBER)
            pin.add_argument(
                "--auto", action="store_true", help="let the cluster choose again instead"
            )
        add_delete(verbs, MEMBER, verb="remove")
        rules = verbs.add(
            "policy",
            policy,
            "show or change how many hosts vote",
            example="kvorum members policy\nkvorum members policy --voters 7 --replace-after 30m",
            note=POLICY_NOTE,
        )
        rules.add_argument(
            "--voters",
            type=int,
            choices=VOTERS_MAX_CHOICES,
            metavar="N",
            help="at most 1, 3, 5 or 7 (default: 5)",
        )
        rules.add_argument(
            "--replace-after",
            type=duration_s,
            metavar="TIME",
            help="replace a voter that is silent for so long (default: 10m)",
        )
        # Without a verb, list.
        parser.set_defaults(run=members, leaf=parser)
        add_common(parser, suppress=True)
        add_query(parser)

    return add


ADD = {"member": _add("member"), "members": _add("members")}
