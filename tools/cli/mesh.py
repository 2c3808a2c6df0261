"""`kvorum init`, `join`, `leave` and `status`: making a cluster and seeing whether it is well."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from tools.cli.context import Context
from tools.cli.member import MEMBER
from tools.cli.output import printable, write_done, write_rows, write_value
from tools.cli.parser import Parser, Root, UsageError, add_yes, finish
from tools.sdk.bodies import InitBody, JoinBody, LeaveBody
from tools.sdk.items import Item

QUORUM_LOST = 3
REMOVED = 1

LEAVE_NOTE = """\
Its vote goes to another host, its record is deleted, then everything of the cluster is wiped here: state, log,
identity. Images and disks stay. It is refused while VMs or their disks are on this host.

With --force, nobody is asked: for a host that the cluster has removed already, or whose cluster is gone. A
cluster that can't be reached from here looks like one that is gone: be sure that it is."""


async def init(args: Namespace, ctx: Context) -> int:
    """Make a cluster of this host."""
    _require_local(ctx, "init")
    body = InitBody(cluster_name=args.name, host_name=args.host_name, address=args.address)
    made = await ctx.client.init(body)
    if ctx.output != "table":
        write_done(ctx, made, "")
        return 0
    rows = [
        ("host", f"{made.text('host_name')} ({made.text('address')})"),
        ("API", made.text("api")),
        ("admin token", made.text("admin_token_file")),
    ]
    name = made.text("cluster_name") or args.name
    ctx.write(printable(f"Cluster {name} is up." if name else "The cluster is up."))
    write_rows(ctx, [(f"  {title}", printable(value)) for title, value in rows])
    ctx.say("Next: kvorum token create, and on each other host: kvorum join TOKEN")
    return 0


async def join(args: Namespace, ctx: Context) -> int:
    """Make this host a member of the cluster that made the token."""
    _require_local(ctx, "join")
    token = await _token(args.token, ctx)
    if not ctx.quiet:
        ctx.say("joining; this may take half a minute")
    body = JoinBody(
        token=token, host_name=args.host_name, address=args.address, witness=args.witness
    )
    joined = await ctx.client.join(body)
    members = joined.integer("members")
    write_done(
        ctx,
        joined,
        f"{joined.text('host_name')} is a member of {joined.text('cluster_name', 'the cluster')}, "
        f"which has {members} host{'' if members == 1 else 's'} now{_safety(joined)}",
    )
    return 0


def _safety(joined: Item) -> str:
    """Return what the cluster survives, as a part of a sentence."""
    voters, wanted = joined.integer("voters"), joined.integer("voters_wanted")
    if voters == 0:
        return ""
    if voters != wanted:
        return f"; {voters} of the {wanted} that shall vote do so already: kvorum members shows it"
    survived = joined.integer("losses_survived")
    if survived == 0:
        return "; one votes, and with three hosts three will"
    return f"; {voters} vote, so that it survives the loss of {'any one' if survived == 1 else survived}"


async def leave(args: Namespace, ctx: Context) -> int:
    """Take this host out of its cluster and wipe what it kept of it."""
    _require_local(ctx, "leave")
    local = await ctx.client.local_status()
    name = local.text("host_name")
    given = args.confirm
    if args.force and not given and ctx.interactive:
        ctx.say(LEAVE_NOTE)
        given = await ctx.ask(f"Type this host's name to wipe {name or 'it'}: ")
    if args.force and (not given or (name and given != name)):
        raise UsageError(f"nothing was changed: confirm with --confirm {name or 'HOST-NAME'}")
    if not args.force:
        await ctx.confirm(f"This will take {name} out of its cluster.", yes=args.yes)
        if not ctx.quiet:
            ctx.say("leaving; this may take half a minute")
    left = await ctx.client.leave(LeaveBody(force=args.force, confirm=given))
    write_done(
        ctx,
        left,
        f"{left.text('host_name', name)} has left {left.text('cluster_name', 'the cluster')}",
    )
    return 0


async def status(args: Namespace, ctx: Context) -> int:
    """Show the cluster in short; 3 when it has no quorum."""
    if ctx.client.endpoint.local:
        local = await ctx.client.local_status()
        if local.text("state") == "unconfigured":
            write_done(ctx, local, MEMBER.empty)
            return 0
        if local.text("state") == "removed":
            write_done(ctx, local, local.text("detail"))
            return REMOVED
    found = await ctx.client.status()
    quorum = found.flag("quorum", default=True)
    if ctx.output != "table":
        write_value(ctx, dict(found.raw))
        return 0 if quorum else QUORUM_LOST
    write_rows(ctx, _summary(found, quorum=quorum))
    members = found.items("members")
    if members:
        ctx.write("")
        titles = tuple(column.title for column in MEMBER.columns)
        rows = [
            tuple(printable(column.value(item)) for column in MEMBER.columns) for item in members
        ]
        write_rows(ctx, [titles, *rows])
    plain = [member for member in members if member.text("plain_http")]
    if plain:
        ctx.write("")
        for member in plain:
            ctx.write(f"WARNING  {printable(_without_tls(member))}")
    alarms = [_alarm(alarm) for alarm in found.items("alarms")] + list(found.texts("alarms"))
    if alarms:
        ctx.write("")
        for alarm in alarms:
            ctx.write(f"ALARM  {printable(alarm)}")
    return 0 if quorum else QUORUM_LOST


def _summary(found: Item, *, quorum: bool) -> list[tuple[str, ...]]:
    counts = found.item("vms")
    vms = ", ".join(
        f"{counts.integer(phase)} {phase}" for phase in counts.raw if counts.integer(phase)
    )
    return [
        ("cluster", printable(found.text("cluster_name", "-"))),
        ("quorum", "yes" if quorum else "LOST: changes wait until most voters are back"),
        ("leader", printable(found.text("leader_name", "none"))),
        ("index", found.text("index", "-")),
        ("VMs", printable(vms) or "none"),
    ]


def _without_tls(member: Item) -> str:
    return (
        f"{member.text('name')} serves the API without TLS on {member.text('plain_http')}: passwords and tokens "
        "can be read on the way (plain_http in its agent.toml)"
    )


def _alarm(alarm: Item) -> str:
    return f"{alarm.text('subject_name')}: {alarm.text('message')}".removeprefix(": ")


def _require_local(ctx: Context, verb: str) -> None:
    if not ctx.client.endpoint.local:
        raise UsageError(
            f"kvorum {verb} acts on the host it runs on: run it there without KVORUM_ADDRESS"
        )


async def _token(given: str, ctx: Context) -> str:
    """Return the token of the argument, of stdin (`-` or a pipe), or asked for without echo."""
    if given not in {"", "-"}:
        token = given
    elif given == "" and ctx.interactive:
        token = await ctx.ask_secret("Join token: ")
    else:
        token = ctx.stdin.readline()
    token = token.strip()
    if not token:
        raise UsageError("no join token: make one on a member with: kvorum token create")
    if token.startswith("kvt_"):
        raise UsageError("this is an access token: joining needs one of kvorum token create (kvj_)")
    if not token.startswith("kvj_") or not token.isascii() or not token.isprintable():
        raise UsageError(
            "this is no join token (kvj_...): copy the whole line of kvorum token create"
        )
    return token


def _add_identity(parser: Parser) -> None:
    parser.add_argument(
        "--host-name", default="", metavar="NAME", help="name of this host (default: its hostname)"
    )
    parser.add_argument(
        "--address",
        default="",
        metavar="IP",
        help="IP address by which the other hosts reach this one (default: that of the default route)",
    )


def _add_init(root: Root, parser: Parser) -> None:
    parser.add_argument("--name", default="", metavar="CLUSTER", help="name of the cluster")
    _add_identity(parser)
    finish(
        parser,
        init,
        example="kvorum init\nkvorum init --name prod --address 10.0.0.1",
        note="A data center, a cluster, a local data storage, an image storage, a switch, a port group and\n"
        "a security group named 'default' are made with it, so that a VM can be created at once.",
    )


def _add_join(root: Root, parser: Parser) -> None:
    parser.add_argument(
        "token",
        nargs="?",
        default="",
        metavar="TOKEN",
        help="a token of `kvorum token create`; - reads it from stdin, none asks for it",
    )
    _add_identity(parser)
    parser.add_argument(
        "--witness",
        action="store_true",
        help="vote and hold the state, but run no VMs; needs no libvirt",
    )
    finish(
        parser,
        join,
        example="kvorum join kvj_...\nssh h1 kvorum token create | kvorum join -",
        note="Everything is checked before anything is changed. The host follows the log at once; whether it\n"
        "votes is the cluster's choice (kvorum members policy).",
    )


def _add_leave(root: Root, parser: Parser) -> None:
    parser.add_argument("--force", action="store_true", help="wipe this host without asking others")
    parser.add_argument(
        "--confirm", default="", metavar="NAME", help="with --force, this host's name once more"
    )
    add_yes(parser)
    finish(
        parser,
        leave,
        example="kvorum leave\nkvorum leave --force --confirm h3",
        note=LEAVE_NOTE,
    )


def _add_status(root: Root, parser: Parser) -> None:
    finish(
        parser,
        status,
        example="kvorum status\nkvorum status -o json",
        note="The exit code is 3 when the cluster has no quorum.",
    )


ADD: dict[str, Callable[[Root, Parser], None]] = {
    "init": _add_init,
    "join": _add_join,
    "status": _add_status,
    "leave": _add_leave,
}
