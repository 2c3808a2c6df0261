"""`kvorum rule`: placement rules, by which VMs run apart from or together with each other, on or off hosts."""

from __future__ import annotations

from argparse import Namespace

from msgspec import UNSET, UnsetType

from tools.cli.collection import Kind, add_delete, add_list, add_name, add_show
from tools.cli.context import Context
from tools.cli.many import delete_many
from tools.cli.output import Column, text, texts, write_done, write_list, write_value
from tools.cli.parser import Parser, Root, UsageError, Verbs
from tools.sdk.bodies import PlacementRuleBody, PlacementRulePatch
from tools.sdk.items import Item
from tools.sdk.model import plain

BROKEN = 1
POLICIES = ("vm-anti-affinity", "vm-affinity", "host-affinity", "host-anti-affinity")
STRENGTHS = ("mandatory", "preferred")
KIND = Kind(
    noun="rule",
    plural="placement-rules",
    word="placement rule",
    columns=(
        text("NAME", "name"),
        text("POLICY", "policy"),
        text("STRENGTH", "strength"),
        texts("VMS", "vm_names", "vm_ids"),
        texts("HOSTS", "host_names", "host_ids"),
    ),
    fields=(
        text("name", "name"),
        text("id", "id"),
        text("cluster", "cluster_name", "cluster_id"),
        text("policy", "policy"),
        text("strength", "strength"),
        texts("VMs", "vm_names", "vm_ids"),
        texts("hosts", "host_names", "host_ids"),
        text("description", "description"),
    ),
    empty="no placement rules: kvorum rule create NAME --policy vm-anti-affinity --vm VM --vm VM",
)
CREATE_NOTE = """\
vm-anti-affinity keeps VMs on different hosts, vm-affinity keeps them on one; host-affinity keeps them on
the hosts that are named, host-anti-affinity off them. A VM with a mandatory rule waits, and says why,
rather than run where the rule can't hold, also after its host was lost. A preferred rule chooses among
the hosts with room and never keeps a VM from running. Nothing is moved by a rule: see kvorum rule check."""
SET_NOTE = "The lists given by --vm and --host replace those before; --vm '' empties the list."
CHECK_NOTE = """\
Names the VMs that run where a rule doesn't want them, e.g. as they ran there before it was made.
'kvorum vm migrate NAME' looks for a host that keeps to the rules. Exit code 1: a rule doesn't hold."""


def _lines(key: str) -> Column:
    return Column(key.upper(), lambda item: "; ".join(item.texts(key)) or "-")


CHECKED = (
    text("NAME", "name"),
    Column("HOLDS", lambda item: "yes" if item.flag("holds") else "no"),
    _lines("broken"),
    _lines("warnings"),
)


async def create(args: Namespace, ctx: Context) -> int:
    """Create a rule."""
    body = PlacementRuleBody(
        name=args.name,
        cluster=args.cluster or await _only_cluster(ctx),
        policy=args.policy,
        strength=args.strength,
        vms=tuple(args.vm),
        hosts=tuple(args.host),
        description=args.description,
    )
    made = await ctx.client.create(KIND.plural, body)
    write_done(ctx, made, f"{made.text('name', args.name)}: created")
    return await _say_broken(ctx, made)


async def change(args: Namespace, ctx: Context) -> int:
    """Change what is given of a rule."""
    body = PlacementRulePatch(
        name=UNSET if args.new_name is None else args.new_name,
        strength=UNSET if args.strength is None else args.strength,
        vms=_given(args.vm),
        hosts=_given(args.host),
        description=UNSET if args.description is None else args.description,
    )
    if body == PlacementRulePatch():
        raise UsageError(
            "nothing to change: give --name, --strength, --vm, --host or --description"
        )
    changed = await ctx.client.update(KIND.plural, args.name, body)
    write_done(ctx, changed, f"{changed.text('name')}: changed")
    return await _say_broken(ctx, changed)


def _given(names: list[str] | None) -> tuple[str, ...] | UnsetType:
    return UNSET if names is None else tuple(name for name in names if name)


async def _say_broken(ctx: Context, rule: Item) -> int:
    """Tell of what doesn't hold now; the change itself was made."""
    found = plain(await ctx.kvorum.placement_rules.get_check(rule.text("id")))
    for what in (*found.texts("broken"), *found.texts("warnings")):
        ctx.say(f"warning: {what}")
    return 0


async def check(args: Namespace, ctx: Context) -> int:
    """Tell which rules don't hold now."""
    names = args.names
    if not names:
        page = await ctx.client.list_all(KIND.plural)
        names = [item.text("id") for item in page.items]
    found = [plain(await ctx.kvorum.placement_rules.get_check(name)) for name in names]
    if ctx.output == "table":
        write_list(ctx, found, CHECKED, "no placement rules")
    else:
        write_value(ctx, [dict(one.raw) for one in found])
    return 0 if all(one.flag("holds") for one in found) else BROKEN


async def _only_cluster(ctx: Context) -> str:
    page = await ctx.client.list_all("clusters", limit=2)
    if len(page.items) != 1:
        raise UsageError("there are several clusters: say which with --cluster NAME")
    return page.items[0].text("id")


def _add_members(parser: Parser, *, default: list[str] | None) -> None:
    for option, plural in (("--vm", "vms"), ("--host", "hosts")):
        word = "VM" if option == "--vm" else "host"
        parser.add_argument(
            option,
            action="append",
            default=default,
            metavar="NAME",
            names_of=plural,
            help=f"a {word} that it is about; may be given several times",
        )


def _add_set(verbs: Verbs) -> None:
    changed = verbs.add(
        "set",
        change,
        "change a placement rule",
        example="kvorum rule set web --strength preferred\nkvorum rule set web --vm web1 --vm web2 --vm web3",
        note=SET_NOTE,
    )
    add_name(changed, KIND)
    changed.add_argument("--name", dest="new_name", metavar="NEW", help="its new name")
    changed.add_argument(
        "--strength", choices=STRENGTHS, help="whether VMs wait rather than break it"
    )
    _add_members(changed, default=None)
    changed.add_argument("--description", metavar="TEXT", help="a note for people")


def _add(root: Root, parser: Parser) -> None:
    del parser
    verbs = root.verbs_of("rule")
    made = verbs.add(
        "create",
        create,
        "create a placement rule",
        example="kvorum rule create web --policy vm-anti-affinity --vm web1 --vm web2\n"
        "kvorum rule create licensed --policy host-affinity --vm db --host h1 --host h2\n"
        "kvorum rule create near --policy vm-affinity --strength preferred --vm app --vm db",
        note=CREATE_NOTE,
    )
    made.add_argument("name", metavar="NAME", help="its name")
    made.add_argument("--policy", required=True, choices=POLICIES, help="what it asks")
    made.add_argument(
        "--strength",
        choices=STRENGTHS,
        default="mandatory",
        help="whether VMs wait rather than break it (default: mandatory)",
    )
    _add_members(made, default=[])
    made.add_argument(
        "--cluster",
        default="",
        metavar="NAME",
        names_of="clusters",
        help="whose VMs it is about (default: the only one)",
    )
    made.add_argument("--description", default="", metavar="TEXT", help="a note for people")
    add_list(verbs, KIND)
    add_show(verbs, KIND)
    _add_set(verbs)
    add_delete(verbs, KIND, many=delete_many)
    checks = verbs.add(
        "check",
        check,
        "tell which placement rules don't hold now",
        example="kvorum rule check\nkvorum rule check web",
        note=CHECK_NOTE,
    )
    checks.add_argument(
        "names", metavar="NAME", nargs="*", names_of=KIND.plural, help="names or ids (default: all)"
    )


ADD = {"rule": _add}
